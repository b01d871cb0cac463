//! A tell that returns something.

use greenroom::prelude::*;

#[contract(messages(Note))]
pub struct Order;

#[message(Order, tell)]
pub struct Note {
    pub text: String,
}

#[derive(Default)]
pub struct OrderActor;

#[actor(Order)]
impl OrderActor {
    #[tell]
    fn note(&mut self, msg: Note) -> String {
        msg.text
    }
}

fn main() {}
