//! The actor that is called: a register, and a list that only grows.
//!
//! Of the list a cell keeps the length and a digest of what was appended in which order, so that it stays small however
//! long it is called: two lists of one length and one digest are the same list.

use greenroom::prelude::*;
use greenroom_history::extend;

/// A register and a list.
#[contract(name = "cell", messages(Append, Set, Cas, Get), event = CellEvent)]
pub(crate) struct Cell;

/// Adds a value to the list.
#[message(Cell, ask, reply = Appended)]
pub(crate) struct Append {
    pub(crate) value: u64,
}

/// Overwrites the register.
#[message(Cell, ask, reply = Written)]
pub(crate) struct Set {
    pub(crate) value: u64,
}

/// Overwrites the register if it holds what is expected.
#[message(Cell, ask, reply = Written, refusal = Differs)]
pub(crate) struct Cas {
    pub(crate) expected: u64,
    pub(crate) value: u64,
}

/// Shows both.
#[message(Cell, read, reply = View)]
pub(crate) struct Get;

/// The list's length with the new value, and the node whose turn it was.
#[data]
pub(crate) struct Appended {
    pub(crate) length: u64,
    pub(crate) node: String,
}

/// The node whose turn it was.
#[data]
pub(crate) struct Written {
    pub(crate) node: String,
}

/// What a cell holds, and the node that shows it.
#[data]
pub(crate) struct View {
    pub(crate) register: u64,
    pub(crate) length: u64,
    pub(crate) digest: u64,
    pub(crate) node: String,
}

#[refusal]
#[derive(thiserror::Error)]
#[error("the register holds {found}")]
pub(crate) struct Differs {
    pub(crate) found: u64,
    pub(crate) node: String,
}

#[event(Cell)]
pub(crate) enum CellEvent {
    Appended(u64),
    Written(u64),
}

#[data]
#[derive(Default)]
pub(crate) struct Held {
    register: u64,
    length: u64,
    digest: u64,
}

impl State for Held {
    type Event = CellEvent;

    fn apply(&mut self, event: &CellEvent) {
        match event {
            CellEvent::Appended(value) => {
                self.length += 1;
                self.digest = extend(self.digest, *value);
            }
            CellEvent::Written(value) => self.register = *value,
        }
    }
}

pub(crate) struct CellActor {
    held: Durable<Held>,
}

fn here(ctx: &Context<'_, CellActor>) -> String {
    ctx.node().map(|node| node.id().to_owned()).unwrap_or_default()
}

#[actor(Cell, state = held, durable)]
impl CellActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { held: ctx.durable().await? })
    }

    #[ask]
    fn append(&mut self, msg: Append, ctx: &mut Context<'_, Self>) -> Appended {
        self.held.emit(CellEvent::Appended(msg.value));
        Appended { length: self.held.length, node: here(ctx) }
    }

    #[ask]
    fn set(&mut self, msg: Set, ctx: &mut Context<'_, Self>) -> Written {
        self.held.emit(CellEvent::Written(msg.value));
        Written { node: here(ctx) }
    }

    #[ask]
    fn cas(&mut self, msg: Cas, ctx: &mut Context<'_, Self>) -> Result<Written, Differs> {
        if self.held.register != msg.expected {
            return Err(Differs { found: self.held.register, node: here(ctx) });
        }
        self.held.emit(CellEvent::Written(msg.value));
        Ok(Written { node: here(ctx) })
    }

    #[read]
    fn get(&self, _: Get, ctx: &Context<'_, Self>) -> View {
        View { register: self.held.register, length: self.held.length, digest: self.held.digest, node: here(ctx) }
    }
}
