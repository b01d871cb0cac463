//! A message that does not say how it is sent.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, reply = u32)]
pub struct Place;

fn main() {}
