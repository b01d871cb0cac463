//! A contract that lists no messages.

use greenroom::prelude::*;

#[contract(name = "order")]
pub struct Order;

fn main() {}
