//! Drains: what runs the queue of one actor, from the moment it is not idle until it is again.

use std::sync::Arc;
use std::task::Poll;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::MutexGuard;

use super::gate::Shut;
use super::group::{Begin, Over, behind, is_new};
use super::host::Host;
use super::job::Job;
use super::slot::{Inner, Phase, Popped, Slot};
use super::turn::{Ended, drop_quietly, guarded};
use crate::actor::Actor;
use crate::state::Committed;
use crate::watch::{Ending, Reason};

/// Turns that a drain runs, or a settler settles, before it lets other tasks have the thread.
pub(super) const BURST: usize = 64;

impl<A: Actor> Host<A> {
    /// Runs what is queued, in order, until nothing is; `first` before that, and nothing else on its caller's stack.
    pub(super) async fn drain(
        self: Arc<Self>,
        slot: Arc<Slot<A>>,
        mut actor: Option<A>,
        mut first: Option<Box<dyn Job<A>>>,
        // What is kept, and still to be told to whoever watches.
        mut told: Vec<Committed>,
    ) {
        let mut left = if first.is_some() { 1 } else { BURST };
        let mut reminded = false;
        let mut waited = false;
        loop {
            let popped = match first.take() {
                Some(first) => Popped::Job(first),
                None => {
                    let mut inner = slot.lock();
                    match inner.pop_if(left > 0) {
                        Popped::Nothing if told.is_empty() => return self.rest(&slot, inner, actor),
                        popped => popped,
                    }
                }
            };
            let job = match popped {
                Popped::Job(job) => job,
                Popped::Later => {
                    left = BURST;
                    tokio::task::yield_now().await;
                    continue;
                }
                // Who was answered just now goes first: what they ask next leaves before this is told. Among many calls
                // that makes no difference but costs a look at the sockets.
                Popped::Nothing if !std::mem::replace(&mut waited, true) && self.may_linger() => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Popped::Nothing => {
                    self.around.echo(slot.key(), std::mem::take(&mut told));
                    continue;
                }
            };
            left -= 1;
            if job.is_hopeless() {
                job.give_up(self.name, slot.key().as_str());
                continue;
            }
            // One that is content with what was in memory, and is not any more.
            if actor.is_none() && !self.gate.is_proved() {
                job.fail(self.shut(Shut::Fenced));
                continue;
            }
            if actor.is_none() {
                // Boxed, as all that is rare: every turn of an idle actor makes a drain, and pays for its size.
                actor = match Box::pin(self.activate(&slot, job.call())).await {
                    Ok(actor) => {
                        self.began(&slot);
                        Some(actor)
                    }
                    Err(error) => {
                        slot.lock().detach();
                        job.fail(error);
                        continue;
                    }
                };
                // Once in a drain: a turn that fails must not hold up the others.
                if let Some(overdue) = actor.as_mut().filter(|_| !reminded).and_then(|actor| self.overdue(&slot, actor))
                {
                    reminded = true;
                    let mut inner = slot.lock();
                    inner.push_first(job);
                    overdue.into_iter().rev().for_each(|job| inner.push_first(job));
                    continue;
                }
            }
            // Only now: the activation may have taken all the time that the call had.
            let Some(job) = self.may_start(job, slot.key().as_str()) else { continue };
            let Some(live) = actor.as_mut() else { continue };
            // What reads of a key that was never written see must have been read after each of them came.
            let together = !(self.is_durable() && is_new(live));
            let ended = if job.is_ready() && !job.is_read() {
                let begin = Begin { turns_left: left, told: std::mem::take(&mut told), alone: false };
                let over = self.group(&slot, live, job, begin).await;
                (left, told, waited) = (over.turns_left, over.told, false);
                over.ended
            } else {
                self.around.echo(slot.key(), std::mem::take(&mut told));
                if job.is_read() && together {
                    self.look(&slot, live, job).await
                } else {
                    guarded(job.run(live, self.env(&slot))).await
                }
            };
            self.after(&slot, &mut actor, ended);
        }
    }

    /// Runs a turn that never waits, of an actor that was idle, and nothing else: what has queued when it is kept is
    /// left to a drain.
    pub(super) async fn alone(self: Arc<Self>, slot: Arc<Slot<A>>, actor: A, job: Box<dyn Job<A>>) {
        let mut actor = Some(actor);
        if let (Some(job), Some(live)) = (self.may_start(job, slot.key().as_str()), actor.as_mut()) {
            let begin = Begin { turns_left: 0, told: Vec::new(), alone: true };
            let Over { ended, told, .. } = self.group(&slot, live, job, begin).await;
            if matches!(ended, Ended::Lost) {
                // Had they run behind it, they would be lost as well. Those who ask again in order must not overtake it.
                // One at a time: an answer may be given on the spot, and ask again.
                loop {
                    let Some(next) = slot.lock().pop_ready() else { break };
                    next.fail(behind(&self.env(&slot)));
                }
            }
            self.after(&slot, &mut actor, ended);
            if !told.is_empty() && self.may_linger() {
                self.around.runtime.spawn(self.clone().drain(slot, actor, None, told));
                return;
            }
            self.around.echo(slot.key(), told);
        }
        self.leave(&slot, actor, Ended::Fine);
    }

    /// Keeps an actor whose turn has ended, or lets it go.
    fn after(self: &Arc<Self>, slot: &Arc<Slot<A>>, actor: &mut Option<A>, ended: Ended) {
        let Some(live) = actor.as_mut() else { return };
        match ended {
            // Of a key that never existed nothing is kept.
            Ended::Fine if self.is_durable() && is_new(live) => {
                drop_quietly(actor.take());
                self.ended(slot, &Ending::For(Reason::Passivated));
            }
            Ended::Fine => self.let_go(self.weigh(slot, live)),
            Ended::Lost => {
                drop_quietly(actor.take());
                self.ended(slot, &Ending::For(Reason::Undone));
            }
            Ended::Panicked(cause) => {
                drop_quietly(actor.take());
                self.faulted(slot, cause.clone());
                self.ended_by_panic(slot, cause);
            }
        }
    }

    /// Whether an actor may stay busy for a moment after its turn: not while others may need its room.
    fn may_linger(&self) -> bool {
        self.around.is_quiet() && self.budget.is_none() && self.slots.len() < self.settings.activations
    }

    /// Gives a job back whose turn may start now, and ends any other.
    pub(super) fn may_start(&self, job: Box<dyn Job<A>>, key: &str) -> Option<Box<dyn Job<A>>> {
        if job.is_stale() {
            job.give_up(self.name, key);
            return None;
        }
        // Only the lease: what waited when the partition was given away is still this node's to run.
        if !job.takes_stale() && !self.gate.is_proved() {
            job.fail(self.shut(Shut::Fenced));
            return None;
        }
        Some(job)
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
                            Some(job) => {
                                if let Some(job) = self.may_start(job, slot.key().as_str()) {
                                    running.push(guarded(job.look(actor, self.env(slot))));
                                }
                            }
                            None => return Poll::Pending,
                        }
                    }
                }
            }
        })
        .await;
        ended
    }

    /// Ends a drain: the actor rests, or goes if its partition has been given away.
    pub(super) fn rest(&self, slot: &Arc<Slot<A>>, mut inner: MutexGuard<'_, Inner<A>>, actor: Option<A>) {
        let given_away = self.gate.epoch(slot.partition()) == 0;
        if self.is_durable() {
            slot.touch(self.around.proof.seconds());
        }
        inner.tidy();
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
        if leaves.is_some() {
            self.ended(slot, &Ending::GivenAway);
        }
        drop_quietly(leaves);
        if gone {
            self.slots.remove(slot);
        }
        if given_away {
            self.left.notify_waiters();
        }
    }
}
