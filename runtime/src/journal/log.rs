//! The stream of one actor type's journals, and the one way to append to it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::{Record, StoredEvent};
use crate::error::{Error, ErrorKind};
use crate::node::Surroundings;
use crate::subject::Subject;
use crate::tell::Mark;
use crate::transport::{Headers, Stream, StreamConfig, Subscription, WriteError};

/// The append's own id, beside the one in the body: for whoever reads headers only.
pub(crate) const APPEND: &str = "Greenroom-Append";
/// The claim's epoch, likewise.
pub(crate) const EPOCH: &str = "Greenroom-Epoch";
/// The names of the record's events, separated by commas.
pub(crate) const EVENTS: &str = "Greenroom-Events";
/// How many things the record has to send, if it has any.
pub(crate) const OUTBOX: &str = "Greenroom-Outbox";

/// The first pause before an append whose fate is not known is sent again; it doubles.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How often a refused append looks for the record that stands in its place. A leader that has just been deposed may
/// not know of it.
const LOOKS_MAX: u32 = 20;

/// So many records are read in one go, and fewer perhaps one by one.
const MANY: u64 = 6;

/// For so long after the stream's leader has changed, one that was deposed may still answer reads, from before.
const UNSETTLED_FOR: Duration = Duration::from_secs(10);
/// News about leaders that may wait. One is as good as many.
const ELECTIONS_CAPACITY: usize = 16;

/// The journals of one actor type.
pub(crate) struct Log {
    actor: String,
    stream: Box<dyn Stream>,
    /// This node's id, and a number: an append's id.
    node: String,
    appends: AtomicU64,
    /// When there was a sign last that the leader has changed, or may have.
    unsettled: Mutex<Option<Instant>>,
}

/// A record as it is sent: the same bytes however often.
pub(crate) struct Sealed {
    /// The append's own id.
    id: String,
    epoch: u64,
    /// The names of its events.
    events: Cow<'static, str>,
    sends: usize,
    body: Bytes,
}

impl Sealed {
    /// A record and its bytes; gives its events back.
    pub(crate) fn of(record: Record, body: Vec<u8>) -> (Self, Vec<StoredEvent>) {
        let names = match &record.events[..] {
            [only] => only.name.clone(),
            events => events.iter().map(|event| event.name.as_ref()).collect::<Vec<_>>().join(",").into(),
        };
        let (sends, Record { id, epoch, events, .. }) = (record.sends(), record);
        (Self { id, epoch, events: names, sends, body: body.into() }, events)
    }

    fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        headers.push(APPEND, self.id.clone());
        headers.push(EPOCH, self.epoch.to_string());
        if !self.events.is_empty() {
            headers.push(EVENTS, self.events.clone());
        }
        if self.sends > 0 {
            headers.push(OUTBOX, self.sends.to_string());
        }
        headers
    }

    /// The size of its body.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Why an append did not go through. In each case nothing of it is stored, now or later, unless it says so.
#[derive(Debug)]
pub(crate) enum NotAppended {
    /// It never left this node, or was refused for a reason of its own.
    NotStored(Error),
    /// Another record stands where this one was to be: somebody else writes this journal.
    Superseded,
    /// This node stops, or cannot prove any more that it is the owner; it may be stored.
    Unknown(Error),
}

impl Log {
    /// Binds the stream `{app}-evt-{actor}`, made if there is none.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer or has no JetStream.
    pub(crate) async fn open(around: &Surroundings, actor: &str) -> Result<Arc<Self>, Error> {
        let config = StreamConfig::new([around.subjects.journals(actor)]);
        let stream = around.transport.stream(&around.subjects.journal_stream(actor), config).await?;
        let (node, unsettled) = (around.id.clone(), Mutex::default());
        let actor_name = actor.to_owned();
        let log = Arc::new(Self { actor: actor_name, stream, node, appends: AtomicU64::new(0), unsettled });
        let elections = around.subjects.elections(actor);
        match around.transport.subscribe(&elections, None, ELECTIONS_CAPACITY).await {
            Ok(elections) => drop(around.runtime.spawn(hear_of_leaders(Arc::downgrade(&log), elections))),
            Err(error) => {
                tracing::debug!(actor, %error, "changes of the journals' leader will be seen by failures only")
            }
        }
        Ok(log)
    }

    /// Notes a sign that the stream's leader has changed, or may have.
    fn unsettle(&self) {
        *self.unsettled.lock() = Some(Instant::now());
    }

    /// Whether the leader may have changed just now: then what is read at it may be older than what was acknowledged,
    /// and only an append that is accepted shows that it is not.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled.lock().is_some_and(|at| at.elapsed() < UNSETTLED_FOR)
    }

    /// Sees that whoever sends what stands in records knows of these journals, before one of them has something to
    /// send.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be known.
    pub(crate) async fn announce(&self, around: &Surroundings) -> Result<(), Error> {
        let from = async { Ok(Some(self.stream.end().await? + 1)) };
        around.marks.set(around, Mark::Sends, &self.actor, from).await
    }

    /// An id that no other append has.
    pub(crate) fn append_id(&self) -> String {
        format!("{}-{}", self.node, self.appends.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The last record of a journal and its sequence, as the leader knows it.
    pub(crate) async fn last(&self, subject: &Subject) -> Result<Option<(u64, usize, Record)>, Error> {
        match self.stream.last(subject).await.inspect_err(|_| self.unsettle())? {
            None => Ok(None),
            Some(found) => Ok(Some((found.sequence, found.body.len(), Record::read(&found.body)?))),
        }
    }

    /// The records of a journal from `from` to `to`, which is one of them, in parts; about so many.
    pub(crate) async fn read(&self, subject: &Subject, from: u64, to: u64, about: u64) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut next = from;
        loop {
            let part = match about {
                MANY.. => self.stream.read_many(subject, next, to).await?,
                _ => self.stream.read(subject, next, to).await?,
            };
            let Some(last) = part.last().map(|record| record.sequence) else {
                let why = format!("{subject} ends before its record {to}");
                return Err(Error::new(ErrorKind::Unavailable, why));
            };
            for found in &part {
                records.push(Record::read(&found.body)?);
            }
            if last >= to {
                return Ok(records);
            }
            next = last + 1;
        }
    }

    /// Appends a record over the one at `expect`, and does not end before its fate is known: an answer that was lost
    /// is no answer, and the same bytes are sent again until they are acknowledged, or refused and found, or refused
    /// and not found. So nothing that saw it may leave the actor meanwhile. Gives its sequence.
    pub(crate) async fn append(
        &self,
        around: &Arc<Surroundings>,
        subject: &Subject,
        expect: u64,
        record: &Sealed,
    ) -> Result<u64, NotAppended> {
        let mut sent = false;
        let mut pause = AGAIN_FIRST;
        loop {
            let stored = self.stream.append(subject, Some(expect), record.headers(), record.body.clone()).await;
            if matches!(stored, Err(WriteError::NotSent(_) | WriteError::Unknown(_))) {
                self.unsettle();
            }
            match stored {
                Ok(sequence) => return Ok(sequence),
                Err(WriteError::Conflict) => match Box::pin(self.standing(around, subject, expect, record)).await {
                    Some(sequence) => return Ok(sequence),
                    None if around.check_running().is_ok() => return Err(NotAppended::Superseded),
                    None => {}
                },
                Err(WriteError::NotSent(error)) if !sent => return Err(NotAppended::NotStored(error)),
                Err(WriteError::NotSent(_)) => {}
                Err(WriteError::Unknown(error)) => {
                    tracing::debug!(%subject, %error, "an append has no answer; it is sent again");
                    sent = true;
                }
            }
            if let Err(error) = around.check_running() {
                return Err(NotAppended::Unknown(error));
            }
            Box::pin(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// The sequence of the record itself, if it is the one that stands behind `expect`; `None` if another does, or if
    /// that cannot be found out before the node stops.
    async fn standing(
        &self,
        around: &Arc<Surroundings>,
        subject: &Subject,
        expect: u64,
        record: &Sealed,
    ) -> Option<u64> {
        let mut pause = AGAIN_FIRST;
        let mut looks = 0;
        while around.check_running().is_ok() {
            match self.stream.next(&subject.to_filter(), expect + 1).await {
                Ok(Some(found)) => {
                    let own = found.headers.get(APPEND) == Some(record.id.as_str());
                    return own.then_some(found.sequence);
                }
                // Refused, and nothing stands there: whoever answered does not know the newest yet.
                Ok(None) => looks += 1,
                Err(error) => {
                    tracing::debug!(%subject, %error, "what stands in a journal cannot be read; trying again")
                }
            }
            if looks >= LOOKS_MAX {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
        None
    }
}

/// Listens to what the broker says of the stream's leaders, until the connection is closed or nobody appends any more.
async fn hear_of_leaders(log: Weak<Log>, mut elections: Subscription) {
    while elections.next().await.is_some() {
        let Some(log) = log.upgrade() else { return };
        log.unsettle();
    }
}
