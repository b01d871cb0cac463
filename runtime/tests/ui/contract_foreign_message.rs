//! A message of another contract.

use greenroom::prelude::*;

#[contract(messages(Get))]
pub struct Order;

#[contract(messages(Get))]
pub struct Invoice;

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
