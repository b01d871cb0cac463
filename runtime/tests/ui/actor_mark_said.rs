//! Marks that say what they cannot.

use greenroom::prelude::*;

#[contract(messages(Place, Get))]
pub struct Order;

#[message(Order, ask, reply = u32)]
pub struct Place {
    pub sku: String,
}

#[message(Order, read, reply = u32)]
pub struct Get;

#[derive(Default)]
pub struct OrderActor {
    lines: u32,
}

#[actor(Order)]
impl OrderActor {
    #[ask(stale)]
    fn place(&mut self, _: Place) -> u32 {
        self.lines
    }

    #[read(fresh)]
    fn get(&self, _: Get) -> u32 {
        self.lines
    }
}

fn main() {}
