//! Hosts: every actor of one type on this node, found by key.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::MutexGuard;
use tokio::sync::Notify;

use super::gate::{Gate, Shut};
use super::job::Job;
use super::registry::Registry;
use super::slot::{Inner, Phase, Popped, Slot};
use super::turn::{Ended, Env, JournalPlace, drop_quietly, guarded, turn_of};
use crate::actor::Actor;
use crate::call::Call;
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::{Surroundings, depth};
use crate::reference::Target;
use crate::state::JournalBox;

/// Bounds of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSettings {
    /// Messages that may wait for one actor.
    pub(crate) mailbox: usize,
    /// Actors of this type in memory.
    pub(crate) activations: usize,
}

/// Turns that a drain runs before it lets other tasks have the thread.
const BURST: usize = 64;

/// All keyed actors of one type on a node.
pub(crate) struct Host<A: Actor> {
    pub(crate) name: &'static str,
    pub(crate) gate: Arc<Gate>,
    pub(crate) around: Arc<Surroundings>,
    settings: HostSettings,
    pub(super) slots: Registry<A>,
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
        Self {
            name,
            gate,
            slots: Registry::new(around.settings.partitions, &around.hasher()),
            around,
            settings,
            left: Notify::new(),
        }
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
        loop {
            let slot = self.slot(to)?;
            let mut inner = slot.lock();
            if matches!(inner.phase, Phase::Gone) {
                continue;
            }
            if let Err(shut) = self.gate.check(to.partition, &to.key) {
                return Err(self.shut(shut));
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
        inline: bool,
        make: impl FnOnce() -> Option<Box<dyn Job<A>>>,
    ) -> Result<(), Error> {
        let drain = self.enter(to, |slot, inner| {
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
            inner.push(job);
            Ok(match Self::take(inner) {
                Entered::Taken(actor) => Some((slot.clone(), Some(actor))),
                Entered::Empty => Some((slot.clone(), None)),
                Entered::Busy => None,
            }
            .inspect(|_| inner.expect_start()))
        })?;
        if let Some((slot, actor)) = drain {
            self.drive(slot, actor, inline);
        }
        Ok(())
    }

    /// Gives an actor back after a turn on the caller's stack; what queued meanwhile is spawned.
    pub(crate) fn leave(self: &Arc<Self>, slot: &Arc<Slot<A>>, actor: Option<A>, ended: Ended) {
        let actor = match ended {
            Ended::Fine => actor,
            Ended::Lost => {
                drop_quietly(actor);
                None
            }
            Ended::Panicked(cause) => {
                drop_quietly(actor);
                slot.lock().set_faults(Some(cause));
                None
            }
        };
        let inner = slot.lock();
        if inner.queued() == 0 {
            return self.rest(slot, inner, actor);
        }
        drop(inner);
        self.drive(slot.clone(), actor, false);
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
        was
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

    fn shut(&self, shut: Shut) -> Error {
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

    fn drive(self: &Arc<Self>, slot: Arc<Slot<A>>, actor: Option<A>, inline: bool) {
        let mut drain: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(self.clone().drain(slot, actor, if inline { 1 } else { BURST }));
        if inline && let Some(_deeper) = depth::enter() {
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

    /// Runs what is queued, in order, until nothing is.
    async fn drain(self: Arc<Self>, slot: Arc<Slot<A>>, mut actor: Option<A>, burst: usize) {
        let mut left = burst;
        loop {
            let job = {
                let mut inner = slot.lock();
                match inner.pop_if(left > 0) {
                    Popped::Job(job) => Some(job),
                    Popped::Later => None,
                    Popped::Nothing => return self.rest(&slot, inner, actor),
                }
            };
            let Some(job) = job else {
                left = BURST;
                tokio::task::yield_now().await;
                continue;
            };
            left -= 1;
            if job.is_hopeless() {
                job.give_up(self.name, slot.key().as_str());
                continue;
            }
            if actor.is_none() {
                actor = match self.activate(&slot, job.call()).await {
                    Ok(actor) => Some(actor),
                    Err(error) => {
                        job.fail(error);
                        continue;
                    }
                };
            }
            // Only now: the activation may have taken all the time that the call had.
            if job.is_stale() {
                job.give_up(self.name, slot.key().as_str());
                continue;
            }
            // Only the lease: what waited when the partition was given away is still this node's to run.
            if !self.gate.is_proved() {
                job.fail(self.shut(Shut::Fenced));
                continue;
            }
            let Some(live) = actor.as_mut() else { continue };
            let env = self.env(&slot);
            // What reads of a key that was never written see must have been read after each of them came.
            let together = !(self.is_durable() && live_is_new(live));
            let ended = if job.is_read() && together {
                self.look(&slot, live, job).await
            } else {
                guarded(job.run(live, env)).await
            };
            match ended {
                // Of a key that never existed nothing is kept.
                Ended::Fine if self.is_durable() && live_is_new(live) => drop_quietly(actor.take()),
                Ended::Fine => {}
                Ended::Lost => drop_quietly(actor.take()),
                Ended::Panicked(cause) => {
                    drop_quietly(actor.take());
                    self.faulted(&slot, cause);
                }
            }
        }
    }

    /// Runs a read, and beside it those that stand next in the queue or arrive meanwhile; a turn
    /// that waits ends the gathering, so that it does not starve.
    async fn look(&self, slot: &Arc<Slot<A>>, actor: &A, first: Box<dyn Job<A>>) -> Ended {
        let mut running = FuturesUnordered::new();
        running.push(guarded(first.look(actor, self.env(slot))));
        let mut ended = Ended::Fine;
        std::future::poll_fn(|context| {
            loop {
                match running.poll_next_unpin(context) {
                    Poll::Ready(Some(Ended::Fine)) => {}
                    Poll::Ready(Some(panicked)) => ended = panicked,
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {
                        let room = running.len() < self.settings.mailbox;
                        let next = slot.lock().pop_read(context.waker(), room);
                        match next {
                            Some(job) if job.is_stale() => job.give_up(self.name, slot.key().as_str()),
                            Some(job) if !self.gate.is_proved() => job.fail(self.shut(Shut::Fenced)),
                            Some(job) => running.push(guarded(job.look(actor, self.env(slot)))),
                            None => return Poll::Pending,
                        }
                    }
                }
            }
        })
        .await;
        ended
    }

    /// Brings an actor into memory, in the time of the call that asks for it, and as a part of its chain.
    async fn activate(&self, slot: &Arc<Slot<A>>, call: &Call) -> Result<A, Error> {
        let call = Call { turn: None, ..call.clone() };
        let env = self.env(slot);
        let mut ctx = Context::new(env.clone(), &call);
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
    fn faulted(&self, slot: &Arc<Slot<A>>, cause: String) {
        let (queue, error) = {
            let mut inner = slot.lock();
            inner.set_faults(Some(cause));
            let refusal = inner.faults().map(|faults| faults.admit(self.name, slot.key().as_str()));
            match refusal {
                Some(Err(error)) => (inner.take_queue(), error),
                _ => return,
            }
        };
        for job in queue {
            let same = Error::new(error.kind(), error.message());
            job.fail(match error.details() {
                Some(details) => same.with_details(details.clone()),
                None => same,
            });
        }
    }

    /// Ends a drain: the actor rests, or goes if its partition has been given away.
    fn rest(&self, slot: &Arc<Slot<A>>, mut inner: MutexGuard<'_, Inner<A>>, actor: Option<A>) {
        let given_away = self.gate.epoch(slot.partition()) == 0;
        if self.is_durable() {
            slot.touch(self.around.proof.seconds());
        }
        let mut leaves = None;
        inner.phase = match actor {
            actor if given_away => {
                leaves = actor;
                Phase::Gone
            }
            Some(actor) => Phase::Idle(actor),
            None if inner.is_bare() => Phase::Gone,
            None => Phase::Empty,
        };
        let gone = matches!(inner.phase, Phase::Gone);
        // Lock order: the registry before a slot, never the other way round.
        drop(inner);
        drop_quietly(leaves);
        if gone {
            self.slots.remove(slot);
        }
        if given_away {
            self.left.notify_waiters();
        }
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

/// Whether nothing was ever written to the actor's journal.
fn live_is_new<A: Actor>(actor: &mut A) -> bool {
    actor.cell().and_then(|cell| cell.ledger()).is_some_and(|ledger| ledger.is_new())
}

impl<A: Send> JournalPlace for Slot<A> {
    fn keep(&self, make: &mut dyn FnMut() -> JournalBox) -> JournalBox {
        self.lock().journal().get_or_insert_with(make).clone()
    }
}
