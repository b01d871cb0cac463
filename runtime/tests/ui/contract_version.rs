//! A version that is not SemVer.

use greenroom::prelude::*;

#[contract(version = "1.0", messages(Get))]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

fn main() {}
