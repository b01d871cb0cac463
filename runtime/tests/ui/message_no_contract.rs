//! A message without a contract.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(ask, reply = u32)]
pub struct Place;

fn main() {}
