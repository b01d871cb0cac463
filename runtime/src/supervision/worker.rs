//! The other kind of child: a worker, which takes jobs from a queue that outlives its restarts, and
//! that it may share with others.
//!
//! The bound on the jobs that wait is the sender's: the queue has none of its own.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::child::{ChildSpec, panicked};
use crate::error::{Error, ErrorKind};

/// What a worker does with its jobs: one at a time.
pub(crate) trait Handler<J>: Send + 'static {
    /// Called before each job is taken: an instance that is not ready takes none. An error says that
    /// it is broken, as `Break` does.
    ///
    /// Cancelled at an await if the worker is told to stop.
    fn ready(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        std::future::ready(Ok(())).boxed()
    }

    /// Does one job. `Break` says that this instance is broken: it is dropped, and the group starts
    /// another by its rule. The job tells its sender what became of it, at the latest when dropped.
    ///
    /// Cancelled at an await only if the worker is told to stop and takes longer than its grace.
    fn handle(&mut self, job: J) -> BoxFuture<'_, ControlFlow<Error>>;

    /// Called after a panic of [`handle`](Handler::handle), which has dropped that job and nothing
    /// else: `Continue` goes on with the jobs that wait, `Break` has the instance replaced.
    fn panicked(&mut self, cause: Error) -> ControlFlow<Error> {
        tracing::error!(%cause, "a job panicked");
        ControlFlow::Continue(())
    }
}

/// The jobs that wait for some workers, in the order in which they came: whoever is idle takes the
/// next. It outlives the restarts of its workers.
pub(crate) struct Queue<J> {
    line: Mutex<Line<J>>,
    /// As many permits as jobs wait, or more.
    ready: Semaphore,
}

struct Line<J> {
    jobs: VecDeque<J>,
    /// Workers that take jobs.
    up: usize,
    closed: bool,
}

impl<J: Send + 'static> Queue<J> {
    pub(crate) fn new() -> Arc<Self> {
        let line = Line { jobs: VecDeque::new(), up: 0, closed: false };
        Arc::new(Self { line: Mutex::new(line), ready: Semaphore::new(0) })
    }

    /// Puts a job behind those that wait. Gives it back if no worker runs: none has been started,
    /// all are being restarted, or they were stopped.
    ///
    /// A job that was taken is dropped unhandled if its instance is killed, or when the queue is
    /// [closed](Queue::close); its own `Drop` tells the sender.
    pub(crate) fn send(&self, job: J) -> Result<(), J> {
        let mut line = self.line.lock();
        if line.closed || line.up == 0 {
            return Err(job);
        }
        line.jobs.push_back(job);
        drop(line);
        self.ready.add_permits(1);
        Ok(())
    }

    /// Whether a worker runs that takes jobs.
    pub(crate) fn is_up(&self) -> bool {
        let line = self.line.lock();
        !line.closed && line.up > 0
    }

    /// Whether such a job waits.
    pub(crate) fn any(&self, is: impl Fn(&J) -> bool) -> bool {
        self.line.lock().jobs.iter().any(is)
    }

    /// Takes the first such job out of those that wait.
    pub(crate) fn take(&self, is: impl Fn(&J) -> bool) -> Option<J> {
        let mut line = self.line.lock();
        let place = line.jobs.iter().position(is)?;
        // One permit too many stays: whoever has it finds no job, and waits for the next.
        line.jobs.remove(place)
    }

    /// Drops the jobs that wait, and takes none any more: for workers that are gone for good.
    pub(crate) fn close(&self) {
        let mut line = self.line.lock();
        line.closed = true;
        let jobs = std::mem::take(&mut line.jobs);
        drop(line);
        drop(jobs);
    }

    /// The next job. Nothing is lost if this is dropped.
    async fn next(&self) -> J {
        loop {
            match self.ready.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => std::future::pending().await,
            }
            let job = self.line.lock().jobs.pop_front();
            if let Some(job) = job {
                return job;
            }
        }
    }
}

/// A worker's place at its queue.
struct Place<J> {
    queue: Arc<Queue<J>>,
    up: AtomicBool,
}

impl<J> Place<J> {
    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up {
            let mut line = self.queue.line.lock();
            line.up = if up { line.up + 1 } else { line.up - 1 };
        }
    }
}

impl ChildSpec {
    /// A worker that takes its jobs from a queue. Each start makes a new instance; making one that
    /// fails or panics counts as a failure of the worker.
    ///
    /// Told to stop, it finishes the job in hand, within its grace; those that wait stay.
    pub(crate) fn worker<J, F>(name: impl Into<String>, queue: &Arc<Queue<J>>, make: F) -> Self
    where
        J: Send + 'static,
        F: Fn() -> BoxFuture<'static, Result<Box<dyn Handler<J>>, Error>> + Send + Sync + 'static,
    {
        let place = Arc::new(Place { queue: Arc::clone(queue), up: AtomicBool::new(false) });
        let make: Arc<Make<J>> = Arc::new(make);
        let current = Arc::clone(&place);
        let start = move |supervisor, stop| {
            let instance = Instance { make: Arc::clone(&make), stop, place: Arc::clone(&current), handler: None };
            async move {
                let actor = WorkerActor(PhantomData);
                let (actor, _) = Actor::spawn_linked(None, actor, instance, supervisor).await?;
                Ok(actor.get_cell())
            }
            .boxed()
        };
        Self::from_start(name.into(), start, move || place.set_up(false))
    }
}

type Make<J> = dyn Fn() -> BoxFuture<'static, Result<Box<dyn Handler<J>>, Error>> + Send + Sync;

/// One life of a worker.
struct Instance<J> {
    make: Arc<Make<J>>,
    stop: CancellationToken,
    place: Arc<Place<J>>,
    handler: Option<Box<dyn Handler<J>>>,
}

impl<J: Send + 'static> Instance<J> {
    async fn make(&mut self) -> Result<(), Error> {
        let make = AssertUnwindSafe(async { (self.make)().await }).catch_unwind();
        let made = self
            .stop
            .run_until_cancelled(make)
            .await
            .unwrap_or_else(|| Ok(Err(Error::new(ErrorKind::Stopped, "stopped while it was started"))));
        self.handler = Some(made.unwrap_or_else(|panic| Err(panicked("its start", &*panic)))?);
        Ok(())
    }

    /// Takes jobs until it is told to stop, or breaks.
    async fn work(&mut self) -> Result<(), Error> {
        loop {
            let Some(handler) = &mut self.handler else {
                return Err(Error::new(ErrorKind::Internal, "a worker without handler"));
            };
            let ready = AssertUnwindSafe(async { handler.ready().await }).catch_unwind();
            match self.stop.run_until_cancelled(ready).await {
                Some(ready) => ready.unwrap_or_else(|panic| Err(panicked("ready()", &*panic)))?,
                None => return Ok(()),
            }
            let Some(job) = self.stop.run_until_cancelled(self.place.queue.next()).await else { return Ok(()) };
            let work = AssertUnwindSafe(async { handler.handle(job).await }).catch_unwind();
            let flow = work.await.unwrap_or_else(|panic| {
                let cause = panicked("a job", &*panic);
                catch_unwind(AssertUnwindSafe(|| handler.panicked(cause)))
                    .unwrap_or_else(|panic| ControlFlow::Break(panicked("panicked()", &*panic)))
            });
            if let ControlFlow::Break(error) = flow {
                return Err(error);
            }
        }
    }

    /// Ends this life, so that a panic of the handler's `Drop` stays here.
    fn end(&mut self) {
        self.place.set_up(false);
        let handler = self.handler.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handler))) {
            tracing::error!(cause = %panicked("its drop", &*panic), "a worker's end panicked");
        }
    }
}

/// The actor around a worker: its only message is the one to begin, which it sends itself.
struct WorkerActor<J>(PhantomData<fn(J)>);

impl<J: Send + 'static> Actor for WorkerActor<J> {
    type Msg = ();
    type State = Instance<J>;
    type Arguments = Instance<J>;

    async fn pre_start(&self, _myself: ActorRef<()>, instance: Instance<J>) -> Result<Instance<J>, ActorProcessingErr> {
        Ok(instance)
    }

    async fn post_start(&self, myself: ActorRef<()>, instance: &mut Instance<J>) -> Result<(), ActorProcessingErr> {
        instance.make().await?;
        instance.place.set_up(true);
        Ok(myself.send_message(())?)
    }

    async fn handle(
        &self,
        _myself: ActorRef<()>,
        (): (),
        instance: &mut Instance<J>,
    ) -> Result<(), ActorProcessingErr> {
        let worked = instance.work().await;
        if worked.is_err() {
            instance.end();
        }
        Ok(worked?)
    }

    async fn post_stop(&self, _myself: ActorRef<()>, instance: &mut Instance<J>) -> Result<(), ActorProcessingErr> {
        instance.end();
        Ok(())
    }
}
