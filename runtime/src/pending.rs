//! Calls on their way: who waits for which answer. Bounded by the node's asks in flight; every
//! entry goes with its caller, whatever happens.

use dashmap::DashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Error;
use crate::key::Key;
use crate::node::Surroundings;
use crate::outbound::Way;
use crate::subject::Subject;
use crate::transport::{Inbound, Outbound};
use crate::wire::{Answer, Answers};

/// What came of a message that was sent.
pub(crate) enum Got<T> {
    Answer(T),
    /// Nobody listens there: it was not delivered.
    NoOne,
    /// The other node, or the connection, went away; the text completes "it was asked, and …".
    Lost(&'static str),
    TimedOut,
}

/// An answer as it came.
pub(crate) enum Arrived {
    /// To an envelope.
    Envelope(Answer),
    /// To a message that went alone.
    Message(Inbound),
}

impl Got<Arrived> {
    /// What came of an envelope.
    pub(crate) fn of_envelope(self) -> Got<Answer> {
        self.map(|arrived| match arrived {
            Arrived::Envelope(answer) => Some(answer),
            Arrived::Message(_) => None,
        })
    }

    /// What came of a message that went alone.
    pub(crate) fn of_message(self) -> Got<Inbound> {
        self.map(|arrived| match arrived {
            Arrived::Message(message) => Some(message),
            Arrived::Envelope(_) => None,
        })
    }

    fn map<T>(self, expected: impl FnOnce(Arrived) -> Option<T>) -> Got<T> {
        match self {
            Got::Answer(arrived) => {
                expected(arrived).map_or(Got::Lost("what came back was no answer to it"), Got::Answer)
            }
            Got::NoOne => Got::NoOne,
            Got::Lost(why) => Got::Lost(why),
            Got::TimedOut => Got::TimedOut,
        }
    }
}

/// The calls of this node that wait for an answer from the wire.
#[derive(Default)]
pub(crate) struct Pending {
    last: AtomicU64,
    waiting: DashMap<u64, Waiter, BuildHasherDefault<Spread>>,
}

/// Numbers that follow each other, far apart from each other. They are our own, so nobody can choose them badly.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // 2 to the 64th by the golden ratio: Knuth, The Art of Computer Programming, volume 3, section 6.4.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

struct Waiter {
    node: Option<Arc<str>>,
    /// The connection that it was sent by, by its number at the broker.
    client: Option<u64>,
    /// The frame that it went in; 0 if in none.
    frame: u64,
    /// Of a call to a keyed actor: how it went.
    went: Option<Went>,
    /// `None` once it is answered. The entry stays until its caller has taken that in.
    got: Option<oneshot::Sender<Got<Arrived>>>,
}

/// How a call to a keyed actor went to its owner.
#[derive(Clone)]
pub(crate) struct Went {
    pub(crate) way: Arc<Way>,
    pub(crate) key: Key,
    /// Its place among the calls to that key.
    pub(crate) place: u64,
    /// The epoch of the owner's claim.
    pub(crate) epoch: u64,
    pub(crate) until: Instant,
    /// Whether it may be made again, whatever becomes of it: its actor knows it again, or it changes nothing.
    pub(crate) repeatable: bool,
}

/// A message on its way. Its entry goes with it.
pub(crate) struct Flight<'a> {
    pending: &'a Pending,
    number: u64,
    got: oneshot::Receiver<Got<Arrived>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.pending.forget(self.number);
    }
}

impl Pending {
    /// A number that is above all those before.
    pub(crate) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes an entry away whose answer nobody waits for any more.
    pub(crate) fn forget(&self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Takes what arrived on `….r.{number}`: answers in a frame, the answer to a message that went alone, or that nobody
    /// got what went under this number.
    pub(crate) fn answered(&self, number: u64, answer: Inbound) {
        if answer.no_responders {
            let alone = self.waiting.contains_key(&number);
            let went = |waiter: &Waiter| waiter.frame == number;
            let numbers = match alone {
                true => vec![number],
                false => in_order(self.waiting.iter().filter(|e| went(e.value())).map(|e| *e.key()).collect()),
            };
            numbers.into_iter().for_each(|number| self.tell(number, Got::NoOne));
        } else if number != 0 {
            self.tell(number, Got::Answer(Arrived::Message(answer)));
        } else {
            for answer in Answers::of(&answer.body, 0) {
                match answer {
                    Ok(answer) => self.tell(answer.head.number, Got::Answer(Arrived::Envelope(answer))),
                    Err(error) => tracing::warn!(%error, "a frame of answers cannot be read to its end"),
                }
            }
        }
    }

    /// Notes the frame that a call goes in.
    pub(crate) fn went_in(&self, number: u64, frame: u64) {
        if let Some(mut waiter) = self.waiting.get_mut(&number) {
            waiter.frame = frame;
        }
    }

    /// Gives each call that is on that way, with its place, its epoch and its deadline.
    pub(crate) fn on_way(&self, way: &Arc<Way>, mut each: impl FnMut(&Key, u64, u64, Instant)) {
        for entry in &self.waiting {
            if let Some(went) = entry.value().went.as_ref().filter(|went| Arc::ptr_eq(&went.way, way)) {
                each(&went.key, went.place, went.epoch, went.until);
            }
        }
    }

    /// The calls that wait for this node now.
    pub(crate) fn of_node(&self, node: &str) -> Vec<u64> {
        let waits = |waiter: &Waiter| waiter.node.as_deref() == Some(node) && waiter.got.is_some();
        let waiting = self.waiting.iter().filter(|entry| waits(entry.value()));
        in_order(waiting.map(|entry| *entry.key()).collect())
    }

    /// Those of them that may be made again whatever became of them.
    pub(crate) fn repeatable_of(&self, node: &str) -> Vec<u64> {
        let mut numbers = self.of_node(node);
        let repeatable = |waiter: &Waiter| waiter.went.as_ref().is_some_and(|went| went.repeatable);
        numbers.retain(|number| self.waiting.get(number).is_some_and(|waiter| repeatable(&waiter)));
        numbers
    }

    /// Fails the calls on that way that were sent under claims before this epoch: those were taken from their holders.
    pub(crate) fn claim_taken(&self, way: &Arc<Way>, epoch: u64) {
        let lost = |went: &Went| Arc::ptr_eq(&went.way, way) && went.epoch < epoch;
        let waiting = self.waiting.iter().filter(|entry| entry.value().went.as_ref().is_some_and(lost));
        let numbers = in_order(waiting.map(|entry| *entry.key()).collect());
        self.fail(numbers, "its partition was taken over by another node");
    }

    /// Fails the calls that were sent by another connection than this one, or all: their answers
    /// went with theirs.
    pub(crate) fn connection_lost(&self, but: Option<u64>) {
        let older = self.waiting.iter().filter(|entry| but.is_none() || entry.value().client != but);
        let numbers = in_order(older.map(|entry| *entry.key()).collect());
        self.fail(numbers, "the connection to the broker broke");
    }

    /// Fails those of these calls that still wait. `why` completes "it was asked, and …".
    pub(crate) fn fail(&self, numbers: Vec<u64>, why: &'static str) {
        for number in numbers {
            self.tell(number, Got::Lost(why));
        }
    }

    fn tell(&self, number: u64, got: Got<Arrived>) {
        // A way is locked before the entries are, so this one is let go of first.
        let (waits, went) = match self.waiting.get_mut(&number) {
            Some(mut waiter) => (waiter.got.take(), waiter.went.clone().filter(|went| went.way.is_lined())),
            None => return,
        };
        if let Some(went) = went {
            went.way.answered(&went.key, went.place);
        }
        if let Some(waits) = waits {
            // A caller that has just given up does not mind.
            drop(waits.send(got));
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
    ) -> Result<Got<Inbound>, Error> {
        let mut flight = self.flight(node.map(Arc::from), None);
        self.transport.publish(message(flight.reply(self))?)?;
        Ok(flight.wait(self, deadline).await.of_message())
    }

    /// Notes that a message is about to be sent.
    pub(crate) fn flight(&self, node: Option<Arc<str>>, went: Option<Went>) -> Flight<'_> {
        let (number, got) = self.wait_for(node, went);
        Flight { pending: &self.pending, number, got }
    }

    /// The same, for who sees to it that the entry goes, by [`forget`](Pending::forget).
    pub(crate) fn wait_for(
        &self,
        node: Option<Arc<str>>,
        went: Option<Went>,
    ) -> (u64, oneshot::Receiver<Got<Arrived>>) {
        let number = self.pending.next();
        let (got, wait) = oneshot::channel();
        let waiter = Waiter { node, client: self.client(), frame: 0, went, got: Some(got) };
        self.pending.waiting.insert(number, waiter);
        (number, wait)
    }
}

impl Flight<'_> {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Where its answer should go.
    pub(crate) fn reply(&self, around: &Surroundings) -> Subject {
        around.subjects.node_reply(&around.id, self.number)
    }

    /// Waits for what comes of it, until the deadline.
    pub(crate) async fn wait(&mut self, around: &Surroundings, deadline: Instant) -> Got<Arrived> {
        match around.until(deadline, &mut self.got).await {
            Some(Ok(got)) => got,
            Some(Err(_)) => Got::Lost("this node stopped"),
            None => Got::TimedOut,
        }
    }
}

/// Who has waited longest is told first.
fn in_order(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}
