//! A word that is given a value.

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

#[actor(Order, durable = true)]
impl OrderActor {
    #[ask]
    fn place(&mut self, _: Place) -> u32 {
        self.lines += 1;
        self.lines
    }

    #[read]
    fn get(&self, _: Get) -> u32 {
        self.lines
    }
}

fn main() {}
