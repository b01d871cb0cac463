//! A handler of something that is no message.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, ask)]
pub struct Place;

#[derive(Default)]
pub struct OrderActor;

#[actor(Order)]
impl OrderActor {
    #[ask]
    fn place(&mut self, _: Place) {}

    #[ask]
    fn cancel(&mut self, _: String) {}
}

fn main() {}
