//! Hosts: every actor of one type on this node, found by key.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::budget::Budget;
use super::gate::{Gate, Shut};
use super::job::Job;
use super::pinned::Pinned;
use super::registry::Registry;
use super::slot::{Inner, Phase, Slot};
use super::turn::{Ended, Env, JournalPlace, drop_quietly};
use crate::actor::Actor;
use crate::call::{Call, TurnId};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::{Surroundings, depth};
use crate::reference::Target;
use crate::state::JournalBox;
use crate::watch::{Ending, Reason};

/// Bounds of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSettings {
    /// Messages that may wait for one actor.
    pub(crate) mailbox: usize,
    /// Actors of this type in memory.
    pub(crate) activations: usize,
    /// Bytes that durable actors of this type may take, if that is bounded.
    pub(crate) memory: Option<usize>,
}

/// All keyed actors of one type on a node.
pub(crate) struct Host<A: Actor> {
    pub(crate) name: &'static str,
    pub(crate) gate: Arc<Gate>,
    pub(crate) around: Arc<Surroundings>,
    pub(super) settings: HostSettings,
    pub(super) slots: Registry<A>,
    /// The keys that are always on.
    pub(super) pinned: Pinned,
    pub(super) budget: Option<Budget>,
    /// Notified when the last turn of an actor ends whose partition was given away.
    pub(crate) left: Notify,
}

/// A slot whose actor the caller may run, or why not.
pub(crate) enum Entered<A> {
    /// Nobody runs it: the caller has it now, and must give it back with [`Host::leave`].
    Taken(A),
    /// It is not in memory: the caller has the slot and must run the drain.
    Empty,
    /// A turn runs.
    Busy,
}

impl<A: Actor> Host<A> {
    pub(crate) fn new(name: &'static str, gate: Arc<Gate>, around: Arc<Surroundings>, settings: HostSettings) -> Self {
        let slots = Registry::new(around.settings.partitions, &around.hasher());
        let budget = settings.memory.filter(|_| A::DURABLE).map(Budget::new);
        Self { name, gate, slots, pinned: Pinned::default(), budget, around, settings, left: Notify::new() }
    }

    /// These keys stay in memory.
    pub(crate) fn pin(&self, keys: std::collections::HashSet<Key>) {
        self.pinned.set(keys);
    }

    /// How many actors are in memory.
    pub(crate) fn resident(&self) -> usize {
        self.slots.len()
    }

    /// Whether a turn of its actors may have to wait for the broker.
    pub(crate) fn is_durable(&self) -> bool {
        A::DURABLE
    }

    /// Runs `with` on the actor's slot, locked, if the call may enter.
    pub(crate) fn enter<T>(
        &self,
        to: &Target,
        with: impl FnOnce(&Arc<Slot<A>>, &mut Inner<A>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.enter_if(to, false, with)
    }

    /// The same; `stale`: also while the lease is not proved, if the actor is in memory.
    fn enter_if<T>(
        &self,
        to: &Target,
        stale: bool,
        with: impl FnOnce(&Arc<Slot<A>>, &mut Inner<A>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let slot = self.slot(to)?;
            let mut inner = slot.lock();
            if matches!(inner.phase, Phase::Gone) {
                continue;
            }
            match self.gate.check(to.partition, &to.key) {
                Err(Shut::Fenced) if stale && !matches!(inner.phase, Phase::Empty) => {}
                Err(shut) => return Err(self.shut(shut)),
                Ok(()) => {}
            }
            if let Some(faults) = inner.faults() {
                faults.admit(self.name, to.key.as_str())?;
            }
            return with(&slot, &mut inner);
        }
    }

    /// Takes an idle actor for a turn on the caller's own stack.
    pub(crate) fn take(inner: &mut Inner<A>) -> Entered<A> {
        // `enter` lets nobody into a slot that is gone.
        match std::mem::replace(&mut inner.phase, Phase::Busy) {
            Phase::Idle(actor) => Entered::Taken(actor),
            Phase::Empty => Entered::Empty,
            Phase::Busy | Phase::Gone => Entered::Busy,
        }
    }

    /// Queues a job and sees that somebody runs it: the caller, by polling once, if `inline`. The
    /// job is made only if the call may enter.
    pub(crate) fn admit(
        self: &Arc<Self>,
        to: &Target,
        call: &Call,
        (inline, stale): (bool, bool),
        make: impl FnOnce() -> Option<Box<dyn Job<A>>>,
    ) -> Result<(), Error> {
        let drain = self.enter_if(to, stale, |slot, inner| {
            call.chain.admit(self.name, slot.key().as_str())?;
            // A job that nobody has taken up yet, although its actor is free, is not waiting.
            if inner.waiting() >= self.settings.mailbox {
                return Err(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "{} messages wait for {}/{}, which is the limit",
                        self.settings.mailbox,
                        self.name,
                        slot.key()
                    ),
                ));
            }
            let Some(job) = make() else { return Ok(None) };
            let actor = match Self::take(inner) {
                Entered::Taken(actor) => Some(actor),
                Entered::Empty => None,
                Entered::Busy => {
                    inner.push(job);
                    return Ok(None);
                }
            };
            // Taken up on this very stack, before anything else can be: it need not be queued.
            if inline && inner.queued() == 0 {
                return Ok(Some((slot.clone(), actor, Some(job))));
            }
            inner.push(job);
            inner.expect_start();
            Ok(Some((slot.clone(), actor, None)))
        })?;
        if let Some((slot, actor, first)) = drain {
            self.drive(slot, actor, first);
        }
        Ok(())
    }

    /// Gives an actor back after a turn on the caller's stack; what queued meanwhile is spawned.
    pub(crate) fn leave(self: &Arc<Self>, slot: &Arc<Slot<A>>, actor: Option<A>, ended: Ended) {
        let actor = match ended {
            Ended::Fine => actor,
            Ended::Lost => {
                drop_quietly(actor);
                self.ended(slot, &Ending::For(Reason::Undone));
                None
            }
            Ended::Panicked(cause) => {
                drop_quietly(actor);
                slot.lock().set_faults(Some(cause.clone()));
                self.ended_by_panic(slot, cause);
                None
            }
        };
        let inner = slot.lock();
        if inner.queued() == 0 {
            return self.rest(slot, inner, actor);
        }
        drop(inner);
        self.drive(slot.clone(), actor, None);
    }

    /// Drops every idle actor of a partition whose gate was closed; returns the keys of the others. What is dropped
    /// is dropped on the node's runtime: this may be the thread that renews the lease.
    pub(crate) fn evict(&self, partition: u16) -> Vec<Key> {
        let (mut busy, mut idle) = (Vec::new(), Vec::new());
        self.slots.retain(partition, |slot| {
            let mut inner = slot.lock();
            if matches!(inner.phase, Phase::Busy) {
                busy.push(slot.key().clone());
                return true;
            }
            if let Phase::Idle(actor) = std::mem::replace(&mut inner.phase, Phase::Gone) {
                idle.push(actor);
                drop(inner);
                // Before the slot leaves the map: nothing can begin under this key until then.
                self.ended(slot, &Ending::GivenAway);
            }
            false
        });
        if !idle.is_empty() {
            self.around.runtime.spawn(async move { idle.into_iter().for_each(drop_quietly) });
        }
        busy
    }

    /// Actors that are quarantined, with the cause of each.
    pub(crate) fn quarantined(&self) -> Vec<(String, String)> {
        let mut quarantined = Vec::new();
        self.slots.each_of_all(|slot| {
            let inner = slot.lock();
            if let Some(faults) = inner.faults().filter(|faults| faults.is_quarantined()) {
                quarantined.push((slot.key().to_string(), faults.cause().to_owned()));
            }
        });
        quarantined
    }

    /// Ends an actor's quarantine. Returns whether it was in one.
    pub(crate) fn release(&self, key: &Key) -> bool {
        let Some(slot) = self.slots.get(self.around.partition_of(key), key) else {
            return false;
        };
        let mut inner = slot.lock();
        let was = inner.faults().is_some_and(super::faults::Faults::is_quarantined);
        inner.set_faults(None);
        drop(inner);
        if was {
            self.around.standing.notify_one();
        }
        was
    }

    /// Whether a call waits in an actor's queue.
    pub(crate) fn is_queued(&self, key: &Key, call: TurnId) -> bool {
        let slot = self.slots.get(self.around.partition_of(key), key);
        slot.is_some_and(|slot| slot.lock().has_queued(call))
    }

    /// Takes a call out of the queue in which it waits, and fails it.
    pub(crate) fn break_off(&self, key: &Key, call: TurnId, why: Error) {
        let slot = self.slots.get(self.around.partition_of(key), key);
        if let Some(job) = slot.and_then(|slot| slot.lock().take_queued(call)) {
            job.fail(why);
        }
    }

    fn slot(&self, to: &Target) -> Result<Arc<Slot<A>>, Error> {
        if let Some(slot) = self.slots.get(to.partition, &to.key) {
            return Ok(slot);
        }
        // Asked before a slot is made: a flood of keys that live elsewhere leaves nothing behind.
        self.gate.check(to.partition, &to.key).map_err(|shut| self.shut(shut))?;
        if self.slots.len() >= self.settings.activations && !self.make_room(to.partition) {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "{} actors of type {} are in memory, which is the limit of this node",
                    self.settings.activations, self.name
                ),
            ));
        }
        self.slots.get_or_make(to.partition, &to.key).ok_or_else(|| self.shut(Shut::NotOwned))
    }

    pub(super) fn shut(&self, shut: Shut) -> Error {
        match shut {
            Shut::NotOwned => {
                Error::new(ErrorKind::Moved, format!("this node does not own that partition of {}", self.name))
            }
            Shut::Fenced => Error::new(
                ErrorKind::Unavailable,
                format!("the node that owns this partition of {} cannot prove its lease just now", self.name),
            ),
        }
    }

    /// Runs what is queued; `first` before that, polled once by the caller.
    pub(super) fn drive(self: &Arc<Self>, slot: Arc<Slot<A>>, actor: Option<A>, first: Option<Box<dyn Job<A>>>) {
        let level = if first.is_some() { depth::enter() } else { None };
        let (actor, first) = match (actor, first) {
            (Some(actor), Some(job)) if level.is_some() && job.is_ready() && !job.is_read() => {
                let _runtime = self.around.runtime.enter();
                return self.around.settlers.begin(self.clone().alone(slot, actor, job));
            }
            other => other,
        };
        let mut drain: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(self.clone().drain(slot, actor, first, Vec::new()));
        if level.is_some() {
            let _runtime = self.around.runtime.enter();
            // Polled exactly once here. The waker is none: what is pending is spawned, and its task
            // polls it again with a waker of its own.
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if drain.as_mut().poll(&mut context).is_ready() {
                return;
            }
        }
        self.around.runtime.spawn(drain);
    }

    /// The keys of a partition whose turns still run.
    pub(crate) fn busy(&self, partition: u16) -> Vec<Key> {
        let mut busy = Vec::new();
        self.slots.each(partition, |slot| {
            if matches!(slot.lock().phase, Phase::Busy) {
                busy.push(slot.key().clone());
            }
        });
        busy
    }

    pub(crate) fn env<'a>(&'a self, slot: &'a Arc<Slot<A>>) -> Env<'a> {
        Env { actor: self.name, key: slot.key(), around: &self.around, journal: &**slot }
    }
}

impl<A: Send> JournalPlace for Slot<A> {
    fn keep(&self, make: &mut dyn FnMut() -> JournalBox) -> JournalBox {
        self.lock().journal().get_or_insert_with(make).clone()
    }
}
