//! A method that takes events and returns what nobody waits for.

use greenroom::prelude::*;
use greenroom::subscribe::Received;

#[contract(messages(Open), event = DoorEvent)]
pub struct Door;

#[message(Door, tell)]
pub struct Open;

#[event(Door)]
pub enum DoorEvent {
    Opened,
}

#[contract(messages(Count))]
pub struct Counter;

#[message(Counter, read, reply = u32)]
pub struct Count;

#[derive(Default)]
pub struct CounterActor {
    opened: u32,
}

#[actor(Counter)]
impl CounterActor {
    #[on]
    fn door_moved(&mut self, _: Received<DoorEvent>) -> u32 {
        self.opened += 1;
        self.opened
    }

    #[read]
    fn count(&self, _: Count) -> u32 {
        self.opened
    }
}

fn main() {}
