//! Calls on their way: who waits for which answer. Bounded by the node's asks in flight; every
//! entry goes with its caller, whatever happens.

use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::node::Surroundings;
use crate::subject::Subject;
use crate::transport::{Inbound, Outbound};
use crate::wire::{Answer, Frame};

/// What came of a message that was sent.
pub(crate) enum Got {
    Answer(Inbound),
    /// Nobody listens there: it was not delivered.
    NoOne,
    /// The other node, or the connection, went away; the text completes "it was asked, and …".
    Lost(&'static str),
    TimedOut,
}

/// The calls of this node that wait for an answer from the wire.
#[derive(Default)]
pub(crate) struct Pending {
    last: AtomicU64,
    waiting: DashMap<u64, Waiter, ahash::RandomState>,
}

struct Waiter {
    node: Option<String>,
    /// The connection that it was sent by, by its number at the broker.
    client: Option<u64>,
    got: oneshot::Sender<Got>,
}

/// Removes its entry when the caller goes.
struct Entry<'a> {
    pending: &'a Pending,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.pending.waiting.remove(&self.number);
    }
}

impl Pending {
    /// Takes an answer that arrived on `….r.{number}`.
    pub(crate) fn answered(&self, number: u64, answer: Inbound) {
        if let Some((_, waiter)) = self.waiting.remove(&number) {
            let got = if answer.no_responders { Got::NoOne } else { Got::Answer(answer) };
            // A caller that has just given up does not mind.
            drop(waiter.got.send(got));
        }
    }

    /// The calls that wait for this node now.
    pub(crate) fn of_node(&self, node: &str) -> Vec<u64> {
        let waiting = self.waiting.iter().filter(|entry| entry.value().node.as_deref() == Some(node));
        in_order(waiting.map(|entry| *entry.key()).collect())
    }

    /// Fails those of these calls that still wait: their node is gone.
    pub(crate) fn node_lost(&self, numbers: Vec<u64>) {
        self.fail(numbers, "that node went away");
    }

    /// Fails the calls that were sent by another connection than this one, or all: their answers
    /// went with theirs.
    pub(crate) fn connection_lost(&self, but: Option<u64>) {
        let older = self.waiting.iter().filter(|entry| but.is_none() || entry.value().client != but);
        let numbers = in_order(older.map(|entry| *entry.key()).collect());
        self.fail(numbers, "the connection to the broker broke");
    }

    fn fail(&self, numbers: Vec<u64>, why: &'static str) {
        for number in numbers {
            if let Some((_, waiter)) = self.waiting.remove(&number) {
                drop(waiter.got.send(Got::Lost(why)));
            }
        }
    }
}

impl Surroundings {
    /// Sends a message and waits for its answer until the deadline. `node` is whom it is for, if
    /// that is known: when that node is lost, so is the call.
    ///
    /// # Errors
    /// If the message could not be sent: nothing has left this node.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        node: Option<&str>,
        deadline: Instant,
        message: impl FnOnce(Subject) -> Result<Outbound, Error>,
    ) -> Result<Got, Error> {
        let number = self.pending.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (got, wait) = oneshot::channel();
        let client = self.client();
        self.pending.waiting.insert(number, Waiter { node: node.map(str::to_owned), client, got });
        let _entry = Entry { pending: &self.pending, number };
        self.transport.publish(message(self.subjects.node_reply(&self.id, number))?)?;
        match self.until(deadline, wait).await {
            Some(Ok(got)) => Ok(got),
            Some(Err(_)) => Ok(Got::Lost("this node stopped")),
            None => Ok(Got::TimedOut),
        }
    }
}

/// Who has waited longest is told first.
fn in_order(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

/// The one answer in a frame of one envelope.
pub(crate) fn answer_of(message: &Inbound) -> Result<Answer, Error> {
    match Frame::read(&message.body)? {
        Frame::Answers(mut answers) if answers.len() == 1 => Ok(answers.remove(0)),
        _ => Err(Error::new(ErrorKind::BadReply, "the answer is not a frame of one envelope")),
    }
}
