//! An actor that holds its state in a cell, and whose turns end as they are told.

use std::fmt;

use greenroom::prelude::*;

use super::gate::Gate;

/// Money in, and nothing else.
#[contract(name = "ledger", messages(Enter, EnterPlainly, Balance), event = Entry)]
pub(super) struct Ledger;

/// Enters these amounts, a committed step after each, and then ends so.
#[message(Ledger, ask, reply = u64, refusal = NotEntered)]
pub(super) struct Enter {
    pub steps: Vec<u64>,
    pub rest: u64,
    pub then: Then,
}

/// The same without steps, by a handler that never waits.
#[message(Ledger, ask, reply = u64, refusal = NotEntered)]
pub(super) struct EnterPlainly {
    pub amount: u64,
    pub then: Then,
}

#[message(Ledger, read, reply = u64)]
pub(super) struct Balance;

/// How a turn ends.
#[data]
#[derive(PartialEq)]
pub(super) enum Then {
    Accept,
    Refuse,
    Fall,
    WaitAt { gate: String },
}

#[refusal]
#[derive(PartialEq)]
pub(super) struct NotEntered;

impl fmt::Display for NotEntered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not entered")
    }
}

#[event(Ledger)]
#[derive(PartialEq)]
pub(super) enum Entry {
    Entered { amount: u64 },
    Counted,
}

#[data]
#[derive(Default)]
pub(super) struct Sum {
    balance: u64,
    entries: u64,
}

impl State for Sum {
    type Event = Entry;

    fn apply(&mut self, event: &Entry) {
        match event {
            Entry::Entered { amount } => self.balance += amount,
            Entry::Counted => self.entries += 1,
        }
    }
}

pub(super) struct LedgerActor {
    sum: Durable<Sum>,
}

#[actor(Ledger, state = sum)]
impl LedgerActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { sum: ctx.volatile()? })
    }

    #[ask]
    async fn enter(&mut self, msg: Enter, ctx: &mut Context<'_, Self>) -> Result<u64, NotEntered> {
        for amount in msg.steps {
            self.enter_one(amount);
            ctx.commit(&mut self.sum).await.map_err(|_| NotEntered)?;
        }
        if msg.rest > 0 {
            self.enter_one(msg.rest);
        }
        if let Then::WaitAt { gate } = &msg.then
            && let Some(gate) = Gate::named(gate)
        {
            gate.pass().await;
        }
        self.end(&msg.then)
    }

    #[ask]
    fn enter_plainly(&mut self, msg: EnterPlainly) -> Result<u64, NotEntered> {
        self.enter_one(msg.amount);
        self.end(&msg.then)
    }

    #[read]
    fn balance(&self, _: Balance) -> u64 {
        self.sum.balance
    }

    fn enter_one(&mut self, amount: u64) {
        self.sum.emit(Entry::Entered { amount });
        self.sum.emit(Entry::Counted);
    }

    fn end(&self, then: &Then) -> Result<u64, NotEntered> {
        match then {
            Then::Accept | Then::WaitAt { .. } => Ok(self.sum.balance),
            Then::Refuse => Err(NotEntered),
            Then::Fall => panic!("the ledger falls with {} in it", self.sum.balance),
        }
    }
}
