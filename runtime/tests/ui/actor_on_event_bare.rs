//! An event that is taken without saying to whom it happened.

use greenroom::prelude::*;

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
    fn door_moved(&mut self, _: DoorEvent) {
        self.opened += 1;
    }

    #[read]
    fn count(&self, _: Count) -> u32 {
        self.opened
    }
}

fn main() {}
