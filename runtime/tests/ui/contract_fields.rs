//! An address with data in it.

use greenroom::prelude::*;

#[contract(messages(Get))]
pub struct Order {
    pub id: u64,
}

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
