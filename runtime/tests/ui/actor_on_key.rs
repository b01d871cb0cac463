//! A key that is found by something else than a function of the event.

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
    #[on(key = by_hand)]
    fn door_moved(&mut self, _: Received<DoorEvent>) {
        self.opened += 1;
    }

    #[read]
    fn count(&self, _: Count) -> u32 {
        self.opened
    }
}

fn by_hand(event: &DoorEvent) -> String {
    let DoorEvent::Opened = event;
    "left".to_owned()
}

fn main() {}
