//! A name that means something to the runtime.

use greenroom::prelude::*;

#[contract(name = "node", messages(Get))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
