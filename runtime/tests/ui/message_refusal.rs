//! A refusal that is none.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, ask, refusal = String)]
pub struct Place;

fn main() {}
