//! A type that is no message.

use greenroom::prelude::*;

#[contract(messages(Get))]
pub struct Order;

#[data]
pub struct Get;

fn main() {}
