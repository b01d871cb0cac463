//! Events that are no enum.

use greenroom::prelude::*;

#[contract(messages(Get), event = Placed)]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

#[event(Order)]
pub struct Placed {
    pub lines: u32,
}

fn main() {}
