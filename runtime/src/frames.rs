//! Frames on their way out: what waits for each other node, until the connection gets to it.
//!
//! A call or an answer for another node is written down right where it is made, behind those that wait for the same
//! node. The connection's own thread takes whatever there is: one envelope if it has nothing else to do, many if calls
//! come faster than it sends them. Nothing ever waits to be in company, and what goes to one node keeps its order. An
//! envelope with a large body has a frame to itself: to put it beside others would only copy it.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind};
use crate::node::Surroundings;
use crate::subject::{Subject, Subjects};
use crate::transport::{Outbound, Outlet, Transport};
use crate::wire::{AnswerHead, Envelope, Filling, Kind, QuestionHead};

/// A frame of so many envelopes, or bytes, takes no more.
const ENVELOPES_MAX: usize = 64;
const BYTES_MAX: usize = 64 * 1024;
/// What has so many bytes goes alone.
const LARGE: usize = 8 * 1024;
/// So many bytes may wait for one node.
const WAITING_MAX: usize = 32 << 20;

/// So many nodes that asked are remembered.
const ASKERS_MAX: usize = 4_096;

/// What waits for other nodes.
pub(crate) struct Frames {
    me: Arc<Sender>,
    questions: DashMap<Box<str>, Arc<Outgoing>, ahash::RandomState>,
    answers: DashMap<Box<str>, Arc<Outgoing>, ahash::RandomState>,
}

/// What has something to send, and the connection does not know yet.
#[derive(Default)]
struct Unsent {
    ways: Mutex<Vec<Arc<Outgoing>>>,
    there: Notify,
}

/// Who sends.
struct Sender {
    subjects: Subjects,
    id: String,
    unsent: Unsent,
}

/// Frames to one node, of one kind.
pub(crate) struct Outgoing {
    from: Arc<Sender>,
    kind: Kind,
    to: Subject,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Draft>,
    bytes: usize,
    /// The connection that knows of them, by its number at the broker.
    told: Option<u64>,
    /// What the last one took: the next may well take as much.
    last: usize,
}

struct Draft {
    number: u64,
    filling: Filling,
    alone: bool,
}

impl Frames {
    pub(crate) fn new(subjects: Subjects, id: String) -> Self {
        Self {
            me: Arc::new(Sender { subjects, id, unsent: Unsent::default() }),
            questions: DashMap::default(),
            answers: DashMap::default(),
        }
    }

    /// The way of calls to a node.
    pub(crate) fn questions_to(&self, node: &str) -> Arc<Outgoing> {
        if let Some(outgoing) = self.questions.get(node) {
            return outgoing.clone();
        }
        let make = || Outgoing::new(&self.me, Kind::Questions, self.me.subjects.node(node, "in"));
        self.questions.entry(node.into()).or_insert_with(make).clone()
    }

    /// The way of answers to a node.
    pub(crate) fn answers_to(&self, node: &str) -> Arc<Outgoing> {
        if let Some(outgoing) = self.answers.get(node) {
            return outgoing.clone();
        }
        // Nobody says when a client has gone. What is on its way keeps what it needs, the others are made anew.
        if self.answers.len() >= ASKERS_MAX {
            self.answers.clear();
        }
        let make = || Outgoing::new(&self.me, Kind::Answers, self.me.subjects.node_reply(node, 0));
        self.answers.entry(node.into()).or_insert_with(make).clone()
    }

    /// Has sent what is put down: after those have had the thread that can go on now, since what they put down goes with
    /// it.
    pub(crate) async fn run(&self, transport: &dyn Transport) {
        loop {
            self.me.unsent.there.notified().await;
            tokio::task::yield_now().await;
            self.send(transport);
        }
    }

    /// Has sent now what is put down.
    pub(crate) fn send(&self, transport: &dyn Transport) {
        let ways = std::mem::take(&mut *self.me.unsent.ways.lock());
        for way in ways {
            if let Err(error) = transport.collect(way.clone()) {
                tracing::debug!(to = way.to.as_str(), %error, "what waited was not sent");
                way.waiting.lock().clear();
            }
        }
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget(&self, node: &str) {
        self.questions.remove(node);
        self.answers.remove(node);
    }
}

impl Outgoing {
    fn new(from: &Arc<Sender>, kind: Kind, to: Subject) -> Arc<Self> {
        Arc::new(Self { from: from.clone(), kind, to, waiting: Mutex::default() })
    }

    /// Sends a call to the node that owns its actor. Its entry among the pending ones is there already.
    ///
    /// # Errors
    /// Nothing was sent: `Unavailable` while disconnected, `PayloadTooLarge` above the broker's limit, `Overloaded` if
    /// too much waits for that node.
    pub(crate) fn ask(
        self: &Arc<Self>,
        around: &Surroundings,
        head: &QuestionHead<'_>,
        body: &[u8],
    ) -> Result<(), Error> {
        let number = head.number;
        self.put(around, &Envelope::question(head, body)?, |frame| around.pending.went_in(number, frame))
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn answer(self: &Arc<Self>, around: &Surroundings, head: &AnswerHead, body: &[u8]) -> Result<(), Error> {
        self.put(around, &Envelope::answer(head, body)?, |_| {})
    }

    /// Puts an envelope behind the others; `note` is told the number of its frame before that can be sent.
    fn put(
        self: &Arc<Self>,
        around: &Surroundings,
        envelope: &Envelope<'_>,
        note: impl FnOnce(u64),
    ) -> Result<(), Error> {
        let most = around.transport.max_payload();
        if envelope.bytes() + 2 > most {
            let why = format!("the payload has {} bytes with its head; the broker's limit is {most}", envelope.bytes());
            return Err(Error::new(ErrorKind::PayloadTooLarge, why));
        }
        let Some(client) = around.client() else {
            return Err(Error::new(ErrorKind::Unavailable, "not connected to the broker"));
        };
        let mut waiting = self.waiting.lock();
        if waiting.told.is_some_and(|told| told != client) {
            // They went with their connection: whoever waits for an answer is told so.
            waiting.clear();
        }
        if waiting.bytes + envelope.bytes() > WAITING_MAX {
            let why = format!("{WAITING_MAX} bytes wait to be sent to {}, which is the limit", self.to.as_str());
            return Err(Error::new(ErrorKind::Overloaded, why));
        }
        let last = waiting.last;
        let frame = waiting.room_for(envelope, most, || Draft {
            number: around.pending.next(),
            filling: Filling::new(self.kind, envelope.bytes().max(last)),
            alone: envelope.bytes() >= LARGE,
        });
        note(frame.number);
        frame.filling.put(envelope);
        waiting.bytes += envelope.bytes();
        if waiting.told.replace(client).is_some() {
            return Ok(());
        }
        drop(waiting);
        self.from.unsent.ways.lock().push(self.clone());
        self.from.unsent.there.notify_one();
        Ok(())
    }
}

impl Waiting {
    fn room_for(&mut self, envelope: &Envelope<'_>, most: usize, make: impl FnOnce() -> Draft) -> &mut Draft {
        let bytes = envelope.bytes();
        let fits = self.frames.back().is_some_and(|last| {
            let full = last.filling.envelopes() >= ENVELOPES_MAX || last.filling.bytes() + bytes > BYTES_MAX.min(most);
            !last.alone && bytes < LARGE && !full
        });
        if !fits {
            self.frames.push_back(make());
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn clear(&mut self) {
        (self.bytes, self.told) = (0, None);
        self.frames.clear();
    }
}

impl Outlet for Outgoing {
    fn take(&self) -> Vec<Outbound> {
        let frames = {
            let mut waiting = self.waiting.lock();
            let frames = std::mem::take(&mut waiting.frames);
            waiting.last = frames.back().map_or(0, |last| last.filling.bytes().min(BYTES_MAX));
            waiting.clear();
            frames
        };
        let message = |frame: Draft| {
            let message = Outbound::new(self.to.clone(), frame.filling.finish());
            match self.kind {
                // If nobody listens there, the broker says so under the frame's number.
                Kind::Questions => message.reply_to(self.from.subjects.node_reply(&self.from.id, frame.number)),
                Kind::Answers => message,
            }
        };
        frames.into_iter().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use crate::wire::AnswerKind;

    fn envelope(body: &[u8]) -> Envelope<'_> {
        Envelope::answer(&AnswerHead::new(1, AnswerKind::Reply, Codec::Json, 1), body).expect("written")
    }

    /// How many envelopes each frame takes, of bodies with so many bytes.
    fn frames_of(bodies: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut waiting = Waiting::default();
        for bytes in bodies {
            let body = vec![b'x'; bytes];
            let envelope = envelope(&body);
            let make =
                || Draft { number: 1, filling: Filling::new(Kind::Answers, 0), alone: envelope.bytes() >= LARGE };
            waiting.room_for(&envelope, 1 << 20, make).filling.put(&envelope);
        }
        waiting.frames.iter().map(|frame| frame.filling.envelopes()).collect()
    }

    #[test]
    fn f1_what_waits_goes_together_within_bounds_and_in_order() {
        assert_eq!(frames_of([100; 3]), [3]);
        assert_eq!(frames_of([100; 150]), [64, 64, 22], "by number");
        assert_eq!(frames_of([7_000; 20]), [9, 9, 2], "by bytes");
        assert_eq!(
            frames_of([100, 100_000, 100, 100]),
            [1, 1, 2],
            "what is large goes alone, and nothing overtakes it"
        );
        assert_eq!(frames_of([10_000, 10_000]), [1, 1]);
    }
}
