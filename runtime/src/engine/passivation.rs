//! Passivation: durable actors leave memory when nobody has asked for them for a while, or when others need the room or
//! the memory.
//!
//! Only those that keep a journal: what is volatile would be lost.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budget, FIXED_BYTES};
use super::host::Host;
use super::slot::{Phase, Slot};
use super::turn::{Ended, drop_quietly, turn_of};
use crate::actor::Actor;
use crate::journal::{self, Outbox, Write};
use crate::key::Key;
use crate::watch::{Ending, Reason};

/// Of so many idle actors of a partition the one that was used least recently makes room for another.
const LOOKED_AT: usize = 64;

impl<A: Actor> Host<A> {
    /// Lets the actors of a partition go that have not been used for so long. Returns how many.
    pub(crate) fn passivate(self: &Arc<Self>, partition: u16, idle: Duration) -> usize {
        let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
        let Some(before) = self.around.proof.seconds().checked_sub(idle).filter(|_| self.is_durable()) else {
            return 0;
        };
        let mut leaving = Vec::new();
        self.slots.each(partition, |slot| {
            if slot.used() <= before {
                leaving.extend(self.take_idle(slot, Phase::Busy).map(|actor| (slot.clone(), actor)));
            }
        });
        let left = leaving.len();
        // No lock is held: what follows is an author's code.
        leaving.into_iter().for_each(|(slot, actor)| self.part_from(slot, actor));
        left
    }

    /// Lets these go, if nothing keeps them: others need their memory.
    pub(super) fn let_go(self: &Arc<Self>, keys: Vec<Key>) {
        for key in keys {
            let Some(slot) = self.slots.get(self.around.partition_of(&key), &key) else { continue };
            // One that is busy is weighed again when its turn ends.
            if let Some(actor) = self.take_idle(&slot, Phase::Busy) {
                self.part_from(slot, actor);
            }
        }
    }

    /// Counts an actor that was used just now; returns who has to leave for it.
    pub(super) fn weigh(&self, slot: &Slot<A>, actor: &mut A) -> Vec<Key> {
        let Some(budget) = &self.budget else { return Vec::new() };
        if self.pinned.holds(slot.key()) || !slot.lock().has_leisure() {
            // It may not leave: its memory is not to be had.
            budget.forget(slot.key());
            return Vec::new();
        }
        let size = actor.cell().and_then(|cell| cell.ledger()).map_or(0, |ledger| ledger.bytes());
        budget.note(slot.key(), size + FIXED_BYTES + slot.key().as_str().len())
    }

    /// The bytes that its actors take, by estimate, if they have a budget.
    pub(crate) fn held(&self) -> Option<usize> {
        self.budget.as_ref().map(Budget::held)
    }

    /// Ends an activation that was taken out of its slot. A snapshot is left behind first where that pays; whoever calls
    /// meanwhile keeps the actor in memory.
    fn part_from(self: &Arc<Self>, slot: Arc<Slot<A>>, mut actor: A) {
        let pays = actor.cell().and_then(|cell| cell.ledger()).is_some_and(|ledger| ledger.snapshot_pays());
        if !pays || !self.gate.is_proved() {
            return self.depart(&slot, actor);
        }
        let host = self.clone();
        self.around.runtime.spawn(async move {
            let kept = match actor.cell() {
                Some(cell) => {
                    turn_of(journal::commit(&host.around, cell, None, Write::Activated, Outbox::default())).await
                }
                None => Ok(Ok(Vec::new())),
            };
            match kept {
                Ok(Ok(_)) => host.depart(&slot, actor),
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!(actor = host.name, key = %slot.key(), "no snapshot was left behind");
                    host.leave(&slot, Some(actor), Ended::Lost);
                }
            }
        });
    }

    fn depart(self: &Arc<Self>, slot: &Arc<Slot<A>>, actor: A) {
        let mut inner = slot.lock();
        if inner.queued() > 0 {
            drop(inner);
            return self.drive(slot.clone(), Some(actor), None);
        }
        inner.phase = Phase::Gone;
        drop(inner);
        let given_away = self.gate.epoch(slot.partition()) == 0;
        // Before the slot leaves the map: nothing can begin under this key until then.
        self.ended(slot, &if given_away { Ending::GivenAway } else { Ending::For(Reason::Passivated) });
        self.slots.remove(slot);
        drop_quietly(actor);
        if given_away {
            self.left.notify_waiters();
        }
    }

    /// Drops an idle actor of a partition, so that another fits into memory. False if none is idle there.
    pub(super) fn make_room(&self, partition: u16) -> bool {
        if !self.is_durable() {
            return false;
        }
        let mut oldest: Option<Arc<Slot<A>>> = None;
        let mut looked = 0;
        self.slots.each(partition, |slot| {
            if looked < LOOKED_AT && self.may_leave(slot) {
                looked += 1;
                if oldest.as_ref().is_none_or(|oldest| slot.used() < oldest.used()) {
                    oldest = Some(slot.clone());
                }
            }
        });
        let Some(slot) = oldest else { return false };
        let actor = self.take_idle(&slot, Phase::Gone);
        if actor.is_none() {
            return false;
        }
        self.ended(&slot, &Ending::For(Reason::Passivated));
        self.slots.remove(&slot);
        drop_quietly(actor);
        true
    }

    /// Takes an actor out of its slot, if nothing keeps it.
    fn take_idle(&self, slot: &Slot<A>, then: Phase<A>) -> Option<A> {
        if self.pinned.holds(slot.key()) {
            return None;
        }
        let mut inner = slot.lock();
        if !inner.is_idle() || !inner.may_leave() {
            return None;
        }
        match std::mem::replace(&mut inner.phase, then) {
            Phase::Idle(actor) => Some(actor),
            _ => None,
        }
    }

    fn may_leave(&self, slot: &Slot<A>) -> bool {
        let inner = slot.lock();
        inner.is_idle() && inner.may_leave() && !self.pinned.holds(slot.key())
    }
}
