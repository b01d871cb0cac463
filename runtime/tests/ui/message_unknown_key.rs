//! A key that does not exist.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, ask, error = String)]
pub struct Place;

fn main() {}
