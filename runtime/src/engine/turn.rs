//! Turns: the panic boundary, and what becomes of the state cell when a handler returns.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::job::Outcome;
use crate::actor::Actor;
use crate::contract::Message;
use crate::error::{AskError, Error, ErrorKind};
use crate::key::Key;
use crate::node::Surroundings;
use crate::state::JournalBox;

/// Where a turn runs: its actor's name and key, and the node around it.
#[derive(Clone)]
pub(crate) struct Env<'a> {
    pub(crate) actor: &'static str,
    pub(crate) key: &'a Key,
    pub(crate) around: &'a Arc<Surroundings>,
    /// Where the actor's volatile journal is kept over its activations.
    pub(crate) journal: &'a dyn JournalPlace,
}

/// Keeps an actor's volatile journal.
pub(crate) trait JournalPlace: Send + Sync {
    /// Gives the journal that is kept, or keeps and gives the one that is made.
    fn keep(&self, make: &mut dyn FnMut() -> JournalBox) -> JournalBox;
}

impl JournalPlace for Mutex<Option<JournalBox>> {
    fn keep(&self, make: &mut dyn FnMut() -> JournalBox) -> JournalBox {
        self.lock().get_or_insert_with(make).clone()
    }
}

/// How a turn ended, for its actor.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The actor can go on.
    Fine,
    /// The activation must be dropped, through no fault of its own.
    Lost,
    /// The activation must be dropped; the panic's message.
    Panicked(String),
}

impl Env<'_> {
    pub(crate) fn panicked(&self, cause: &str) -> Error {
        tracing::error!(actor = self.actor, key = %self.key, cause, "a turn panicked; its activation is dropped");
        Error::new(
            ErrorKind::Panicked,
            format!("{}/{} panicked in this turn, which left no trace: {cause}", self.actor, self.key),
        )
    }
}

/// Runs a handler's future behind the panic boundary.
pub(crate) async fn turn_of<T>(handler: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(handler).catch_unwind().await.map_err(|panic| cause_of(panic.as_ref()))
}

/// What is said of a handler that is not what it says.
pub(crate) const WAITED: &str = "the handler says READY, and waited";

/// Runs a turn with what belongs to it: that its events and its reply can be written is up to their author too.
pub(crate) async fn guarded(turn: impl Future<Output = Ended>) -> Ended {
    turn_of(turn).await.unwrap_or_else(Ended::Panicked)
}

/// Drops what an author wrote, who may have written a `Drop` that panics.
pub(crate) fn drop_quietly<T>(dropped: T) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(dropped))) {
        tracing::error!(cause = cause_of(panic.as_ref()), "an actor panicked as it was dropped");
    }
}

/// Polls a handler that never waits, behind the panic boundary. `None` if it waited after all.
pub(crate) fn run_once<T>(handler: impl Future<Output = T>) -> Option<Result<T, String>> {
    let mut turn = pin!(turn_of(handler));
    match turn.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Commits what the turn emitted, or takes it back, and makes the outcome of it.
pub(crate) fn settle<A: Actor, M: Message>(
    actor: &mut A,
    env: &Env<'_>,
    result: Result<Result<M::Reply, M::Refusal>, String>,
) -> (Ended, Outcome<M>) {
    match result {
        Ok(Ok(reply)) => match commit(actor, env) {
            Ok(()) => (Ended::Fine, Ok(reply)),
            Err(error) => (Ended::Lost, Err(AskError::Failed(error))),
        },
        Ok(Err(refusal)) => match actor.cell().map_or(Ok(()), |cell| cell.roll_back()) {
            Ok(()) => (Ended::Fine, Err(AskError::Refused(refusal))),
            Err(error) => (Ended::Panicked(error.to_string()), Err(AskError::Failed(error))),
        },
        // The activation is dropped, and with it whatever the turn emitted.
        panicked => conclude::<M>(env, panicked),
    }
}

/// Makes the outcome of a result that leaves nothing to commit or to take back: a read's, or what is kept already.
pub(crate) fn conclude<M: Message>(
    env: &Env<'_>,
    result: Result<Result<M::Reply, M::Refusal>, String>,
) -> (Ended, Outcome<M>) {
    match result {
        Ok(result) => (Ended::Fine, result.map_err(AskError::Refused)),
        Err(cause) => {
            let error = env.panicked(&cause);
            (Ended::Panicked(cause), Err(AskError::Failed(error)))
        }
    }
}

fn commit<A: Actor>(actor: &mut A, env: &Env<'_>) -> Result<(), Error> {
    let Some(cell) = actor.cell().filter(|cell| cell.is_dirty()) else {
        return Ok(());
    };
    let committed = cell.commit()?;
    env.around.echo(env.key, committed);
    Ok(())
}

pub(crate) fn cause_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
