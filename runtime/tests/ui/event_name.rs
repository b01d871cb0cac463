//! An event whose name cannot stand in a subject.

use greenroom::prelude::*;

#[contract(messages(Get), event = OrderEvent)]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

#[event(Order)]
pub enum OrderEvent {
    #[serde(rename = "order.placed")]
    Placed,
}

fn main() {}
