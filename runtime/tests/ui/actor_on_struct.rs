//! The attribute on the type.

use greenroom::prelude::*;

#[contract(messages(Place, Get))]
pub struct Order;

#[message(Order, ask, reply = u32)]
pub struct Place {
    pub sku: String,
}

#[message(Order, read, reply = u32)]
pub struct Get;

#[actor(Order)]
#[derive(Default)]
pub struct OrderActor {
    lines: u32,
}

fn main() {}
