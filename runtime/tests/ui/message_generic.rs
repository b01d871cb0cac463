//! A message with more than one form.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, ask)]
pub struct Place<T> {
    pub lines: Vec<T>,
}

fn main() {}
