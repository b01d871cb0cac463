//! A key that does not exist.

use greenroom::prelude::*;

#[contract(nam = "order", messages(Get))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
