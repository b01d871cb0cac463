//! Pools: the instances of one service on this node, each a worker of the supervision tree.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actor::Actor;
use crate::call::{Call, TurnId};
use crate::context::Context;
use crate::engine::{Ended, Env, Job, turn_of};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::Surroundings;
use crate::state::JournalBox;
use crate::supervision::{ChildSpec, Handler, Queue};

/// The instances of a service, the one queue from which idle ones take, and its bound.
pub(crate) struct Pool<A: Actor> {
    name: &'static str,
    pub(crate) around: Arc<Surroundings>,
    queue: Arc<Queue<Ticket<A>>>,
    mailbox: usize,
    room: Arc<Semaphore>,
}

impl<A: Actor> Pool<A> {
    /// A pool of `size` instances, and the children that run them.
    pub(crate) fn new(
        name: &'static str,
        key: &Key,
        around: &Arc<Surroundings>,
        size: usize,
        mailbox: usize,
    ) -> (Self, Vec<ChildSpec>) {
        let queue = Queue::new();
        let mut children = Vec::with_capacity(size);
        for number in 0..size {
            let (around, key) = (around.clone(), key.clone());
            let child = ChildSpec::worker(format!("{name}-{number}"), &queue, move || {
                let instance = Instance::<A> {
                    name,
                    key: key.clone(),
                    around: around.clone(),
                    journal: Mutex::new(None),
                    actor: None,
                };
                instance.started().boxed()
            });
            children.push(child);
        }
        let room = mailbox.saturating_mul(size);
        let pool = Self { name, around: around.clone(), queue, mailbox: room, room: Arc::new(Semaphore::new(room)) };
        (pool, children)
    }

    /// Queues a job for the next instance that is idle.
    pub(crate) fn admit(&self, call: &Call, make: impl FnOnce() -> Option<Box<dyn Job<A>>>) -> Result<(), Error> {
        call.chain.admit(self.name, "")?;
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "{} messages wait for the service {} on this node, which is the limit",
                    self.mailbox, self.name
                ),
            ));
        };
        if !self.queue.is_up() {
            return Err(self.down());
        }
        let Some(job) = make() else { return Ok(()) };
        if let Err(mut ticket) = self.queue.send(Ticket { job: Some(job), _room: room })
            && let Some(job) = ticket.job.take()
        {
            job.fail(self.down());
        }
        Ok(())
    }

    /// Fails what waits, and takes nothing more: no instance will come back.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Waits until nothing waits for an instance, and none works.
    pub(crate) async fn idle(&self) {
        let all = u32::try_from(self.mailbox).unwrap_or(u32::MAX);
        // Never closed, so this gives all places back at once when it has them.
        drop(self.room.acquire_many(all).await);
    }

    /// Whether a call waits for an instance.
    pub(crate) fn is_queued(&self, call: TurnId) -> bool {
        self.queue.any(|ticket| ticket.is(call))
    }

    /// Takes a call out of the queue in which it waits, and fails it.
    pub(crate) fn break_off(&self, call: TurnId, why: Error) {
        if let Some(job) = self.queue.take(|ticket| ticket.is(call)).and_then(|mut ticket| ticket.job.take()) {
            job.fail(why);
        }
    }

    fn down(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("no instance of the service {} runs on this node just now", self.name),
        )
    }
}

/// A job on its way to an instance. Whoever waits for it is told if the instance goes away first.
pub(crate) struct Ticket<A> {
    job: Option<Box<dyn Job<A>>>,
    _room: OwnedSemaphorePermit,
}

impl<A> Ticket<A> {
    fn is(&self, call: TurnId) -> bool {
        self.job.as_ref().is_some_and(|job| job.call().turn == Some(call) && !job.is_hopeless())
    }
}

impl<A> Drop for Ticket<A> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            job.fail(Error::new(
                ErrorKind::Unavailable,
                "the instance went away before the call got to it; nothing was run",
            ));
        }
    }
}

struct Instance<A: Actor> {
    name: &'static str,
    key: Key,
    around: Arc<Surroundings>,
    journal: Mutex<Option<JournalBox>>,
    /// Never set: a service has no key to keep a journal by.
    actor: Option<A>,
}

impl<A: Actor> Instance<A> {
    async fn started(mut self) -> Result<Box<dyn Handler<Ticket<A>>>, Error> {
        self.actor = Some(self.activate().await?);
        Ok(Box::new(self))
    }

    async fn activate(&self) -> Result<A, Error> {
        let call = Call::root(self.around.settings.budget);
        let env = self.env();
        let mut ctx = Context::new(env.clone(), &call).without_turn();
        let activated = turn_of(async { A::activate(&mut ctx).await }).await;
        let mut actor = activated.unwrap_or_else(|cause| Err(env.panicked(&cause)))?;
        if ctx.made_cell() && actor.cell().is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} opens a state cell but does not name it: implement `Actor::cell`", self.name),
            ));
        }
        Ok(actor)
    }

    fn env(&self) -> Env<'_> {
        Env { actor: self.name, key: &self.key, around: &self.around, journal: &self.journal }
    }

    async fn work(&mut self, mut ticket: Ticket<A>) {
        let (Some(job), Some(mut actor)) = (ticket.job.take(), self.actor.take()) else { return };
        if job.is_stale() {
            job.give_up(self.name, "");
            self.actor = Some(actor);
        } else if let Ended::Fine = job.run(&mut actor, self.env()).await {
            // A panic costs the instance its state, not its queue: it is activated again.
            self.actor = Some(actor);
        }
        // The ticket's place is given back here, after the turn.
        drop(ticket);
    }
}

impl<A: Actor> Handler<Ticket<A>> for Instance<A> {
    fn ready(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        async {
            if self.actor.is_none() {
                self.actor = Some(self.activate().await?);
            }
            Ok(())
        }
        .boxed()
    }

    fn handle(&mut self, ticket: Ticket<A>) -> BoxFuture<'_, ControlFlow<Error>> {
        async {
            self.work(ticket).await;
            ControlFlow::Continue(())
        }
        .boxed()
    }
}
