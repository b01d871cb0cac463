//! Two messages with one verb.

use greenroom::prelude::*;

#[contract(messages(Get, Look))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

#[message(Order, read, verb = "get", reply = u32)]
pub struct Look;

fn main() {}
