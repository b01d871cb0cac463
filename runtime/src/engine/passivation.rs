//! Passivation: durable actors leave memory when nobody has asked for them for a while, or when others need the room.
//!
//! Only those that keep a journal: what is volatile would be lost.

use std::time::Duration;

use super::host::Host;
use super::slot::{Phase, Slot};
use super::turn::drop_quietly;
use crate::actor::Actor;
use crate::watch::{Ending, Reason};

/// Of so many idle actors of a partition the one that was used least recently makes room for another.
const LOOKED_AT: usize = 64;

impl<A: Actor> Host<A> {
    /// Drops the actors of a partition that have not been used for so long. Returns how many.
    pub(crate) fn passivate(&self, partition: u16, idle: Duration) -> usize {
        let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
        let Some(before) = self.around.proof.seconds().checked_sub(idle).filter(|_| self.is_durable()) else {
            return 0;
        };
        let mut leaving = Vec::new();
        self.slots.retain(partition, |slot| {
            let actor = (slot.used() <= before).then(|| self.take_idle(slot)).flatten();
            let stays = actor.is_none();
            if let Some(actor) = actor {
                // Before the slot leaves the map: nothing can begin under this key until then.
                self.ended(slot, &Ending::For(Reason::Passivated));
                leaving.push(actor);
            }
            stays
        });
        let left = leaving.len();
        // No lock is held: a drop is an author's code.
        leaving.into_iter().for_each(drop_quietly);
        left
    }

    /// Drops an idle actor of a partition, so that another fits into memory. False if none is idle there.
    pub(super) fn make_room(&self, partition: u16) -> bool {
        if !self.is_durable() {
            return false;
        }
        let mut oldest: Option<std::sync::Arc<Slot<A>>> = None;
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
        let actor = self.take_idle(&slot);
        if actor.is_none() {
            return false;
        }
        self.ended(&slot, &Ending::For(Reason::Passivated));
        self.slots.remove(&slot);
        drop_quietly(actor);
        true
    }

    /// Takes an actor out of its slot for good, if nothing keeps it.
    fn take_idle(&self, slot: &Slot<A>) -> Option<A> {
        if self.pinned.holds(slot.key()) {
            return None;
        }
        let mut inner = slot.lock();
        if !inner.is_idle() || !inner.may_leave() {
            return None;
        }
        match std::mem::replace(&mut inner.phase, Phase::Gone) {
            Phase::Idle(actor) => Some(actor),
            _ => None,
        }
    }

    fn may_leave(&self, slot: &Slot<A>) -> bool {
        let inner = slot.lock();
        inner.is_idle() && inner.may_leave() && !self.pinned.holds(slot.key())
    }
}
