//! One message listed twice.

use greenroom::prelude::*;

#[contract(messages(Get, Get))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
