//! Types that are called as what the attributes write, in a module that imports nothing.

#![deny(warnings)]

#[greenroom::prelude::contract(messages(Message, Read), event = Event)]
pub struct C;

#[greenroom::prelude::message(C, ask, reply = Option, refusal = Error)]
pub struct Message;

#[greenroom::prelude::message(C, read)]
pub enum Read {
    Some,
    Ok { some: std::option::Option<String> },
}

#[greenroom::prelude::data]
pub struct Option {
    pub some: Vec<String>,
}

#[greenroom::prelude::refusal]
pub struct Error;

impl std::fmt::Display for Error {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Result::Ok(())
    }
}

#[greenroom::prelude::event(C)]
pub enum Event {
    Ok,
    Err(String),
}

#[derive(Default)]
pub struct Actor;

#[greenroom::prelude::actor(C)]
impl Actor {
    #[ask]
    fn message(&mut self, _: Message) -> std::result::Result<Option, Error> {
        Result::Err(Error)
    }

    #[read]
    async fn read(&self, msg: self::Read) {
        drop(msg);
    }
}

fn main() {}
