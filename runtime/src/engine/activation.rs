//! Activations: how they begin, and that every end of one is known.

use std::sync::Arc;

use super::faults::Faults;
use super::host::Host;
use super::slot::Slot;
use super::turn::turn_of;
use crate::actor::Actor;
use crate::call::Call;
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::watch::{Ending, Reason};

impl<A: Actor> Host<A> {
    /// Brings an actor into memory, in the time of the call that asks for it, and as a part of its chain.
    pub(super) async fn activate(&self, slot: &Arc<Slot<A>>, call: &Call) -> Result<A, Error> {
        let call = Call { turn: None, ..call.clone() };
        let env = self.env(slot);
        let mut ctx = Context::new(env.clone(), &call).without_turn();
        match turn_of(async { A::activate(&mut ctx).await }).await {
            Ok(Ok(mut actor)) => {
                if ctx.made_cell() && actor.cell().is_none() {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "{} opens a state cell but does not name it; write `#[actor(.., state = field)]` or implement `Actor::cell`",
                            self.name
                        ),
                    ));
                }
                check_journal(self.name, &mut actor)?;
                Ok(actor)
            }
            Ok(Err(error)) => Err(error),
            Err(cause) => {
                let error = env.panicked(&cause);
                self.faulted(slot, cause);
                Err(error)
            }
        }
    }

    /// Notes a panic. Whoever queued behind it is told if the actor is now to be left alone.
    pub(super) fn faulted(&self, slot: &Arc<Slot<A>>, cause: String) {
        let (queue, error) = {
            let mut inner = slot.lock();
            inner.set_faults(Some(cause));
            let refusal = inner.faults().map(|faults| faults.admit(self.name, slot.key().as_str()));
            match refusal {
                Some(Err(error)) => (inner.take_queue(), error),
                _ => return,
            }
        };
        queue.into_iter().for_each(|job| job.fail(error.again()));
    }

    /// An activation has succeeded.
    pub(super) fn began(&self, slot: &Slot<A>) {
        if slot.set_live(true) {
            self.around.watched.began(self.name, slot.key(), self.gate.epoch_of_turns(slot.partition()));
        }
    }

    /// An activation is over: what was attached to it ends, and whoever watches hears of it.
    pub(super) fn ended(&self, slot: &Slot<A>, why: &Ending) {
        slot.lock().detach();
        if slot.set_live(false) {
            if let Some(budget) = &self.budget {
                budget.forget(slot.key());
            }
            self.around.watched.ended(self.name, slot.key(), why);
            if self.pinned.holds(slot.key()) {
                self.around.standing.notify_one();
            }
        }
    }

    pub(super) fn ended_by_panic(&self, slot: &Slot<A>, cause: String) {
        let quarantined = slot.lock().faults().is_some_and(Faults::is_quarantined);
        let reason = if quarantined { Reason::Quarantined { cause } } else { Reason::Panicked { cause } };
        self.ended(slot, &Ending::For(reason));
    }
}

/// Callers were told whether the actor remembers its commands, and rely on it.
fn check_journal<A: Actor>(name: &str, actor: &mut A) -> Result<(), Error> {
    let keeps = actor.cell().is_some_and(|cell| cell.ledger().is_some());
    let why = match (A::DURABLE, keeps) {
        (true, false) => {
            "says that it is durable and keeps no journal in a stream: open its cell by `ctx.durable()`, or leave \
             `durable` out of its `#[actor(..)]` (`const DURABLE`)"
        }
        (false, true) => {
            "keeps its journal in a stream and does not say so to its callers: write \
             `#[actor(.., state = field, durable)]`, or `const DURABLE: bool = true`"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, format!("{name} {why}")))
}
