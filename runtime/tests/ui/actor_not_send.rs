//! A handler that cannot move between threads.

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
    #[ask]
    async fn place(&mut self, _: Place) -> u32 {
        let shared = std::rc::Rc::new(1);
        std::future::ready(()).await;
        *shared
    }

    #[read]
    fn get(&self, _: Get) -> u32 {
        self.lines
    }
}

fn main() {}
