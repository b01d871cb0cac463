//! A service that takes events: it has no key.

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

#[contract(service, messages(Count))]
pub struct Counter;

#[message(Counter, ask, reply = u32)]
pub struct Count;

#[derive(Default)]
pub struct CounterService;

#[service(Counter)]
impl CounterService {
    #[on]
    fn door_moved(&mut self, _: Received<DoorEvent>) {}

    #[ask]
    fn count(&mut self, _: Count) -> u32 {
        0
    }
}

fn main() {}
