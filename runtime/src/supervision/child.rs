//! What a group is told of a child: its name, how to start it, how long it may take to stop; and
//! the simpler kind of child, a task.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};

/// How long a child may take to stop, unless it says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// One child of a group: how to start it, as often as it takes.
pub(crate) struct ChildSpec {
    name: String,
    grace: Duration,
    start: Box<Start>,
    close: Box<dyn Fn() + Send + Sync>,
}

/// Starts the child's actor under a supervisor; the token tells it to stop.
type Start = dyn Fn(ActorCell, CancellationToken) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync;

impl ChildSpec {
    /// A child that runs a future: `Ok` means finished, and it is not started again; an error or a
    /// panic means failed. It counts as started once `make` has given the future.
    ///
    /// Told to stop, its future is dropped where it waits. Bounded by nothing else: it may run as
    /// long as the node.
    pub(crate) fn task<F, Fut>(name: impl Into<String>, make: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        Self::from_run(name.into(), move |stop| {
            let task = make();
            async move { stop.run_until_cancelled_owned(task).await.map_or(Ok(false), finished) }.boxed()
        })
    }

    /// As [`task`](ChildSpec::task), for a future that wants to end in its own way: it gets a token,
    /// and has its [grace](ChildSpec::with_grace) from the moment it is cancelled. Returning `Ok`
    /// after that means stopped, not finished.
    #[cfg(test)]
    pub(crate) fn stoppable<F, Fut>(name: impl Into<String>, make: F) -> Self
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        Self::from_run(name.into(), move |stop| {
            let task = make(stop.clone());
            async move { task.await.map(|()| !stop.is_cancelled()) }.boxed()
        })
    }

    /// How long the child may take to stop before what it does is dropped. 5 s unless set.
    #[must_use]
    pub(crate) fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A child that is some other actor. `close` is called when it is told to stop, and when it has
    /// ended in whatever way: its address takes nothing more.
    pub(super) fn from_start(
        name: String,
        start: impl Fn(ActorCell, CancellationToken) -> BoxFuture<'static, Result<ActorCell, SpawnErr>>
        + Send
        + Sync
        + 'static,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { name, grace: GRACE, start: Box::new(start), close: Box::new(close) }
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    pub(super) async fn start(&self, supervisor: ActorCell, stop: CancellationToken) -> Result<ActorCell, SpawnErr> {
        (self.start)(supervisor, stop).await
    }

    pub(super) fn close(&self) {
        (self.close)();
    }

    fn from_run(
        name: String,
        run: impl Fn(CancellationToken) -> BoxFuture<'static, Result<bool, Error>> + Send + Sync + 'static,
    ) -> Self {
        let run: Arc<Run> = Arc::new(run);
        let start = move |supervisor, stop| {
            let arguments = (Arc::clone(&run), stop);
            async move {
                let (actor, _) = Actor::spawn_linked(None, TaskActor, arguments, supervisor).await?;
                Ok(actor.get_cell())
            }
            .boxed()
        };
        Self::from_start(name, start, || ())
    }
}

/// What a task leaves behind when its actor ends in good order.
pub(super) struct TaskState {
    run: Arc<Run>,
    stop: CancellationToken,
    /// The task, from its start until it is run.
    task: Option<BoxFuture<'static, Result<bool, Error>>>,
    /// Whether it did what it had to do, as opposed to having been stopped.
    pub(super) finished: bool,
}

/// What a caught panic says, as an error.
pub(super) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(a panic without a text)");
    Error::new(ErrorKind::Panicked, format!("{what} panicked: {text}"))
}

/// Runs a task; the result says whether it has finished, or was stopped.
type Run = dyn Fn(CancellationToken) -> BoxFuture<'static, Result<bool, Error>> + Send + Sync;

/// The actor around a task: its only message is the one to begin, which it sends itself.
struct TaskActor;

impl Actor for TaskActor {
    type Msg = ();
    type State = TaskState;
    type Arguments = (Arc<Run>, CancellationToken);

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        (run, stop): Self::Arguments,
    ) -> Result<TaskState, ActorProcessingErr> {
        Ok(TaskState { run, stop, task: None, finished: false })
    }

    async fn post_start(&self, myself: ActorRef<()>, state: &mut TaskState) -> Result<(), ActorProcessingErr> {
        let make = AssertUnwindSafe(|| (state.run)(state.stop.clone()));
        state.task = Some(catch_unwind(make).map_err(|panic| panicked("its start", &*panic))?);
        Ok(myself.send_message(())?)
    }

    async fn handle(&self, myself: ActorRef<()>, (): (), state: &mut TaskState) -> Result<(), ActorProcessingErr> {
        if let Some(task) = state.task.take() {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            state.finished = result.unwrap_or_else(|panic| Err(panicked("the task", &*panic)))?;
        }
        myself.stop(None);
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<()>, state: &mut TaskState) -> Result<(), ActorProcessingErr> {
        // A task that never ran is dropped here, not by the supervisor, which gets the state.
        state.task = None;
        Ok(())
    }
}

fn finished(result: Result<(), Error>) -> Result<bool, Error> {
    result.map(|()| true)
}
