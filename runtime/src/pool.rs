//! Pools: the instances of one service on this node, each a worker of the supervision tree.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actor::Actor;
use crate::call::Call;
use crate::context::Context;
use crate::engine::{Ended, Env, Job, turn_of};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::Surroundings;
use crate::state::JournalBox;
use crate::supervision::{ChildSpec, Handler, WorkerRef};

/// The instances of a service, and the bound of what waits for them.
pub(crate) struct Pool<A: Actor> {
    name: &'static str,
    pub(crate) around: Arc<Surroundings>,
    workers: Vec<WorkerRef<Ticket<A>>>,
    next: AtomicUsize,
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
        let mut workers = Vec::with_capacity(size);
        let mut children = Vec::with_capacity(size);
        for number in 0..size {
            let (around, key) = (around.clone(), key.clone());
            let (child, worker) = ChildSpec::worker(format!("{name}-{number}"), move || {
                let instance = Instance::<A> {
                    name,
                    key: key.clone(),
                    around: around.clone(),
                    journal: Mutex::new(None),
                    actor: None,
                };
                instance.started().boxed()
            });
            workers.push(worker);
            children.push(child);
        }
        let room = mailbox.saturating_mul(size);
        let pool = Self {
            name,
            around: around.clone(),
            workers,
            next: AtomicUsize::new(0),
            mailbox: room,
            room: Arc::new(Semaphore::new(room)),
        };
        (pool, children)
    }

    /// Queues a job at the next instance that is up.
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
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        if !self.workers.iter().any(WorkerRef::is_up) {
            return Err(self.down());
        }
        let Some(job) = make() else { return Ok(()) };
        let mut ticket = Ticket { job: Some(job), _room: room };
        for step in 0..self.workers.len() {
            let worker = &self.workers[start.wrapping_add(step) % self.workers.len()];
            match worker.send(ticket) {
                Ok(()) => return Ok(()),
                Err(back) => ticket = back,
            }
        }
        if let Some(job) = ticket.job.take() {
            job.fail(self.down());
        }
        Ok(())
    }

    /// Waits until nothing waits for an instance, and none works.
    pub(crate) async fn idle(&self) {
        let all = u32::try_from(self.mailbox).unwrap_or(u32::MAX);
        // Never closed, so this gives all places back at once when it has them.
        drop(self.room.acquire_many(all).await);
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
        let mut ctx = Context::new(env.clone(), &call);
        turn_of(async { A::activate(&mut ctx).await }).await.unwrap_or_else(|cause| Err(env.panicked(&cause)))
    }

    fn env(&self) -> Env<'_> {
        Env { actor: self.name, key: &self.key, around: &self.around, journal: &self.journal }
    }

    async fn work(&mut self, mut ticket: Ticket<A>) -> ControlFlow<Error> {
        let Some(job) = ticket.job.take() else { return ControlFlow::Continue(()) };
        if job.is_hopeless() {
            job.give_up(self.name, "");
            return ControlFlow::Continue(());
        }
        let mut actor = match self.actor.take() {
            Some(actor) => actor,
            None => match self.activate().await {
                Ok(actor) => actor,
                Err(error) => {
                    job.fail(Error::new(error.kind(), error.to_string()));
                    return ControlFlow::Break(error);
                }
            },
        };
        if job.is_stale() {
            job.give_up(self.name, "");
            self.actor = Some(actor);
            return ControlFlow::Continue(());
        }
        // A panic costs the instance its state, not its queue: the next job activates it again.
        if let Ended::Fine = job.run(&mut actor, self.env()).await {
            self.actor = Some(actor);
        }
        // The ticket's place is given back here, after the turn.
        drop(ticket);
        ControlFlow::Continue(())
    }
}

impl<A: Actor> Handler<Ticket<A>> for Instance<A> {
    fn handle(&mut self, ticket: Ticket<A>) -> BoxFuture<'_, ControlFlow<Error>> {
        self.work(ticket).boxed()
    }
}
