//! The actor of the simulation: a list that only grows, so that what a caller saw of it shows what must be true.

use std::time::Duration;

use super::clock;
use crate::prelude::*;

/// A list.
#[contract(messages(Push, PushSlowly, PushTwice, PushAndRefuse, Pass, PushLater, Echo, Look), event = Change)]
pub(super) struct List;

/// Adds a value and says where it stands. Its handler never waits.
#[message(List, ask, reply = usize)]
pub(super) struct Push {
    pub(super) value: u64,
}

/// The same, by a handler that waits.
#[message(List, ask, reply = usize)]
pub(super) struct PushSlowly {
    pub(super) value: u64,
    pub(super) millis: u64,
}

/// Adds two values in two steps, the second after a commit.
#[message(List, ask, reply = usize, refusal = No)]
pub(super) struct PushTwice {
    pub(super) value: u64,
}

/// Adds a value and says no: nothing is added.
#[message(List, ask, reply = usize, refusal = No)]
pub(super) struct PushAndRefuse {
    pub(super) value: u64,
}

/// Adds a value, and tells a list, another one or the same, to add its echo.
#[message(List, ask, reply = usize)]
pub(super) struct Pass {
    pub(super) value: u64,
    pub(super) to: String,
}

/// Adds a value, and has itself reminded to add its echo; says no if it is reminded of too much already.
#[message(List, ask, reply = usize, refusal = No)]
pub(super) struct PushLater {
    pub(super) value: u64,
    pub(super) millis: u64,
}

/// Adds the echo of a value, not before this time of the simulation.
#[message(List, tell)]
pub(super) struct Echo {
    pub(super) value: u64,
    pub(super) due: u64,
}

/// The whole list.
#[message(List, read, reply = Vec<u64>)]
pub(super) struct Look;

/// Always.
#[refusal]
pub(super) struct No;

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no")
    }
}

#[event(List)]
pub(super) enum Change {
    Pushed { value: u64 },
}

#[data]
#[derive(Default)]
pub(super) struct Values {
    values: Vec<u64>,
}

impl State for Values {
    type Event = Change;

    fn apply(&mut self, event: &Change) {
        let Change::Pushed { value } = event;
        self.values.push(*value);
    }
}

/// Bit that tells the second value of a [`PushTwice`] from its first.
pub(super) const SECOND: u64 = 1 << 40;

/// Bit that tells the echo of a value from the value.
pub(super) const ECHO: u64 = 1 << 41;

pub(super) struct ListActor {
    list: Durable<Values>,
}

#[actor(List, state = list, durable)]
impl ListActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { list: ctx.durable().await? })
    }

    #[ask]
    fn push(&mut self, msg: Push) -> usize {
        self.list.emit(Change::Pushed { value: msg.value });
        self.list.values.len() - 1
    }

    #[ask]
    async fn push_slowly(&mut self, msg: PushSlowly) -> usize {
        tokio::time::sleep(Duration::from_millis(msg.millis)).await;
        self.list.emit(Change::Pushed { value: msg.value });
        self.list.values.len() - 1
    }

    #[ask(resumes)]
    async fn push_twice(&mut self, msg: PushTwice, ctx: &mut Context<'_, Self>) -> Result<usize, No> {
        if ctx.resumed() == 0 {
            self.list.emit(Change::Pushed { value: msg.value });
            ctx.commit(&mut self.list).await.map_err(|_| No)?;
        }
        self.list.emit(Change::Pushed { value: msg.value | SECOND });
        Ok(self.list.values.len() - 1)
    }

    #[ask]
    fn push_and_refuse(&mut self, msg: PushAndRefuse) -> Result<usize, No> {
        self.list.emit(Change::Pushed { value: msg.value });
        Err(No)
    }

    #[ask]
    fn pass(&mut self, msg: Pass, ctx: &mut Context<'_, Self>) -> usize {
        ctx.tell_durably(&msg.to, Echo { value: msg.value, due: 0 }).expect("it goes with the turn");
        self.list.emit(Change::Pushed { value: msg.value });
        self.list.values.len() - 1
    }

    #[ask]
    fn push_later(&mut self, msg: PushLater, ctx: &mut Context<'_, Self>) -> Result<usize, No> {
        if ctx.reminders().expect("it is a turn").len() == crate::reminder::REMINDERS_MAX {
            return Err(No);
        }
        let (after, due) = (Schedule::after(Duration::from_millis(msg.millis)), clock::elapsed_ms() + msg.millis);
        ctx.remind(msg.value.to_string(), after, Echo { value: msg.value, due }).expect("it goes with the turn");
        self.list.emit(Change::Pushed { value: msg.value });
        Ok(self.list.values.len() - 1)
    }

    #[tell]
    fn echo(&mut self, msg: Echo) {
        assert!(msg.due <= clock::elapsed_ms(), "the echo of {} is due at {} ms", msg.value, msg.due);
        self.list.emit(Change::Pushed { value: msg.value | ECHO });
    }

    #[read]
    fn look(&self, _: Look) -> Vec<u64> {
        self.list.values.clone()
    }
}
