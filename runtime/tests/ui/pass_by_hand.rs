//! An actor written by hand answers a contract written by attributes, and the other way round.

#![deny(warnings)]

use greenroom::contract::{Contract, Keyed, Message, Never, NoEvent, mode};
use greenroom::prelude::*;
use greenroom::{Handle, Verbs};

#[contract(messages(Add))]
pub struct Counter;

#[message(Counter, ask, reply = u64)]
pub struct Add {
    pub by: u64,
}

#[derive(Default)]
pub struct CounterActor {
    total: u64,
}

impl Actor for CounterActor {
    type Contract = Counter;
    const VERSION: &'static str = "1.0.0";

    async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self::default())
    }

    fn verbs(verbs: &mut Verbs<Self>) {
        verbs.ask::<Add>();
    }
}

impl Handle<Add> for CounterActor {
    async fn handle(&mut self, msg: Add, _: &mut Context<'_, Self>) -> Result<u64, Never> {
        self.total += msg.by;
        Ok(self.total)
    }
}

pub struct Door;

impl Contract for Door {
    const NAME: &'static str = "door";
    const VERSION: &'static str = "1.0.0";
    type Kind = Keyed;
    type Messages = (Move, Activate);
    type Event = NoEvent;
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Move;

impl Message for Move {
    const VERB: &'static str = "move";
    type Contract = Door;
    type Mode = mode::Ask;
    type Reply = bool;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Activate;

impl Message for Activate {
    const VERB: &'static str = "activate";
    type Contract = Door;
    type Mode = mode::Tell;
    type Reply = ();
    type Refusal = Never;
}

#[derive(Default)]
pub struct DoorActor {
    open: bool,
}

#[actor(Door)]
impl DoorActor {
    // A verb that is a keyword, and one that is a method of the trait.
    #[ask]
    fn r#move(&mut self, _: Move) -> bool {
        self.open = !self.open;
        self.open
    }

    #[tell]
    fn activate(&mut self, _: Activate) {
        self.open = true;
    }

    #[cfg(any())]
    #[ask]
    fn gone(&mut self, _: Gone) {}
}

fn main() {}
