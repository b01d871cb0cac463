//! The other kind of child: a worker, which takes jobs at an address that outlives its restarts.
//!
//! The bound on the jobs that wait is the sender's: the worker's queue has none of its own.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use tokio_util::sync::CancellationToken;

use super::child::{ChildSpec, panicked};
use crate::error::{Error, ErrorKind};

/// What a worker does with its jobs: one at a time, in the order of each sender.
pub(crate) trait Handler<J>: Send + 'static {
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

/// The address of a worker, valid over its restarts.
pub(crate) struct WorkerRef<J>(Arc<Line<J>>);

impl<J: Send + 'static> WorkerRef<J> {
    /// Puts a job into the worker's queue. Gives it back if there is no running instance: the worker
    /// has not been started, is being restarted, or was stopped.
    ///
    /// A job that was taken is dropped unhandled if its instance breaks or is stopped before its
    /// turn; its own `Drop` tells the sender.
    pub(crate) fn send(&self, job: J) -> Result<(), J> {
        match &*self.0.read() {
            None => Err(job),
            Some(actor) => match actor.send_message(job) {
                Err(MessagingErr::SendErr(job)) => Err(job),
                // The other errors are of jobs that are no longer there to be given back.
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    /// Whether an instance runs that takes jobs.
    pub(crate) fn is_up(&self) -> bool {
        self.0.read().is_some()
    }
}

impl<J> Clone for WorkerRef<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl ChildSpec {
    /// A worker and its address. Each start makes a new instance; making one that fails or panics
    /// counts as a failure of the worker.
    ///
    /// Told to stop, it finishes the job in hand, within its grace, and drops those that wait.
    pub(crate) fn worker<J, F>(name: impl Into<String>, make: F) -> (Self, WorkerRef<J>)
    where
        J: Send + 'static,
        F: Fn() -> BoxFuture<'static, Result<Box<dyn Handler<J>>, Error>> + Send + Sync + 'static,
    {
        let line: Arc<Line<J>> = Arc::default();
        let make: Arc<Make<J>> = Arc::new(make);
        let current = Arc::clone(&line);
        let start = move |supervisor, stop| {
            let instance = Instance { make: Arc::clone(&make), stop, line: Arc::clone(&current), handler: None };
            async move {
                let actor = WorkerActor(PhantomData);
                let (actor, _) = Actor::spawn_linked(None, actor, instance, supervisor).await?;
                Ok(actor.get_cell())
            }
            .boxed()
        };
        let closed = Arc::clone(&line);
        let close = move || *closed.write() = None;
        (Self::from_start(name.into(), start, close), WorkerRef(line))
    }
}

/// The running instance, if there is one.
type Line<J> = RwLock<Option<ActorRef<J>>>;

type Make<J> = dyn Fn() -> BoxFuture<'static, Result<Box<dyn Handler<J>>, Error>> + Send + Sync;

/// One life of a worker.
struct Instance<J> {
    make: Arc<Make<J>>,
    stop: CancellationToken,
    line: Arc<Line<J>>,
    handler: Option<Box<dyn Handler<J>>>,
}

impl<J: 'static> Instance<J> {
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

    async fn work(&mut self, job: J) -> ControlFlow<Error> {
        let Some(handler) = &mut self.handler else {
            return ControlFlow::Break(Error::new(ErrorKind::Internal, "a worker without handler"));
        };
        let work = AssertUnwindSafe(async { handler.handle(job).await });
        match work.catch_unwind().await {
            Ok(flow) => flow,
            Err(panic) => {
                let cause = panicked("a job", &*panic);
                catch_unwind(AssertUnwindSafe(|| handler.panicked(cause)))
                    .unwrap_or_else(|panic| ControlFlow::Break(panicked("panicked()", &*panic)))
            }
        }
    }

    /// Ends this life, so that a panic of the handler's `Drop` stays here.
    fn end(&mut self) {
        *self.line.write() = None;
        let handler = self.handler.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handler))) {
            tracing::error!(cause = %panicked("its drop", &*panic), "a worker's end panicked");
        }
    }
}

struct WorkerActor<J>(PhantomData<fn(J)>);

impl<J: Send + 'static> Actor for WorkerActor<J> {
    type Msg = J;
    type State = Instance<J>;
    type Arguments = Instance<J>;

    async fn pre_start(&self, _myself: ActorRef<J>, instance: Instance<J>) -> Result<Instance<J>, ActorProcessingErr> {
        Ok(instance)
    }

    async fn post_start(&self, myself: ActorRef<J>, instance: &mut Instance<J>) -> Result<(), ActorProcessingErr> {
        instance.make().await?;
        *instance.line.write() = Some(myself);
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<J>, job: J, instance: &mut Instance<J>) -> Result<(), ActorProcessingErr> {
        match instance.work(job).await {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => {
                instance.end();
                Err(error.into())
            }
        }
    }

    async fn post_stop(&self, _myself: ActorRef<J>, instance: &mut Instance<J>) -> Result<(), ActorProcessingErr> {
        instance.end();
        Ok(())
    }
}
