//! A message that its contract does not list.

use greenroom::prelude::*;

#[contract(messages(Get))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

#[message(Order, ask)]
pub struct Place;

fn main() {}
