//! The attribute on an impl of a trait.

use greenroom::prelude::*;

#[contract(messages(Get))]
pub struct Order;

#[message(Order, read)]
pub struct Get;

pub struct OrderActor;

pub trait Look {
    fn get(&self, msg: Get);
}

#[actor(Order)]
impl Look for OrderActor {
    #[read]
    fn get(&self, _: Get) {}
}

fn main() {}
