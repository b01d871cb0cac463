//! Streams: records under subjects, kept in one order, written by compare-and-set if need be.
//!
//! What a stream is, whatever the transport. Which streams there are, and what their records mean,
//! is not known here.

mod consumer;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub(super) use self::consumer::Word;
pub use self::consumer::{Consumer, ConsumerConfig, Delivery};
use super::{Headers, Outbound, WriteError};
use crate::error::Error;
use crate::subject::{Filter, Subject};

/// The header by which a broker is told which record must be the last of the subject.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// The header by which a record that is sent again is known: within two minutes the broker stores it once.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The header that says how many bytes a payload has that was left out.
pub(super) const SIZE: &str = "Nats-Msg-Size";
/// The header that says for how long a record is kept.
pub(super) const TTL: &str = "Nats-TTL";
/// How many records one [`Stream::read`] gives at most.
pub const READ_RECORDS: usize = 1_024;
/// How many bytes of payload one [`Stream::read`] gathers before it stops.
pub const READ_BYTES: usize = 8 << 20;

/// A record of a [`Stream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the stream: grows with every record, whatever its subject, never used twice.
    pub sequence: u64,
    /// Its subject as it is stored, after the stream's own transform.
    pub subject: String,
    /// Its headers, but for the expectation that it was written with.
    pub headers: Headers,
    /// Its payload.
    pub body: Bytes,
    /// When the broker took it, by the broker's clock.
    pub time: SystemTime,
}

/// For how long a stream keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// For ever, or until their own time to live is over.
    Keep,
    /// Until a consumer acknowledges them. No two consumers may want the same subject.
    WorkQueue,
}

/// What a stream is to be like.
///
/// File storage, as many replicas as the connection's settings say, and no reads but the
/// leader's. Nothing is ever thrown away to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    pub(super) subjects: Vec<Filter>,
    pub(super) retention: Retention,
    pub(super) schedules: bool,
    pub(super) ttl: bool,
    pub(super) deletable: bool,
    pub(super) transform: Option<(String, String)>,
}

impl StreamConfig {
    /// A stream that keeps what is published on these subjects. No other stream of the broker may
    /// have any of them.
    pub fn new(subjects: impl IntoIterator<Item = Filter>) -> Self {
        Self {
            subjects: subjects.into_iter().collect(),
            retention: Retention::Keep,
            schedules: false,
            ttl: false,
            deletable: false,
            transform: None,
        }
    }

    /// For how long records are kept: [`Retention::Keep`] unless set.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Lets a record be published later, or again and again: headers `Nats-Schedule` and
    /// `Nats-Schedule-Target`. Allows times to live and roll-ups as well. The memory broker knows
    /// `@at` and `@every` with seconds, no cron.
    #[must_use]
    pub fn schedules(mut self) -> Self {
        self.schedules = true;
        self.ttl = true;
        self
    }

    /// Lets a record have a time to live: header `Nats-TTL`, whole seconds, such as `30s`.
    #[must_use]
    pub fn ttl(mut self) -> Self {
        self.ttl = true;
        self
    }

    /// Lets operators delete single records, which is refused otherwise.
    #[must_use]
    pub fn deletable(mut self) -> Self {
        self.deletable = true;
        self
    }

    /// Stores what is published on subjects that `source` matches under `destination` instead,
    /// where `{{wildcard(1)}}` is the first wildcard's token and `{{partition(64,1)}}` the
    /// partition of 64 that it falls into. The stored subject is the one that reads, filters and
    /// expectations are about.
    #[must_use]
    pub fn transform(mut self, source: impl Into<String>, destination: impl Into<String>) -> Self {
        self.transform = Some((source.into(), destination.into()));
        self
    }

    /// Whether a message on this subject is one for the stream.
    pub(super) fn takes(&self, subject: &Subject) -> bool {
        self.subjects.iter().any(|filter| filter.matches(subject.as_str()))
    }
}

/// Where a reading of a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With this sequence, or the first after it; 0 and 1 are the stream's first record.
    At(u64),
    /// With the first record that is written from now on.
    New,
}

/// Records in one order, under subjects.
pub trait Stream: Send + Sync + 'static {
    /// Writes a record, if the last one of its subject is still `expect` (0: if there is none;
    /// `None`: in any case). Gives its sequence once the broker has stored it. Nothing is sent
    /// late: what is not on its way at once is refused. One with the header `Nats-Msg-Id` of another
    /// that was stored within the last two minutes is not stored again; its sequence is the other's.
    ///
    /// # Errors
    /// See [`WriteError`]: `Conflict` if another record is the last of the subject, `NotSent` if
    /// the broker cannot be reached, has no leader for the stream just now, or refuses the record,
    /// `Unknown` if the answer did not come within two seconds or the connection was lost.
    fn append(
        &self,
        subject: &Subject,
        expect: Option<u64>,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'_, Result<u64, WriteError>>;

    /// The last record of a subject, as the stream's leader knows it.
    ///
    /// # Errors
    /// `Unavailable` if the leader does not answer within two seconds.
    fn last(&self, subject: &Subject) -> BoxFuture<'_, Result<Option<Record>, Error>>;

    /// The first record that the filter matches whose sequence is `from` or higher, as the
    /// stream's leader knows it.
    ///
    /// # Errors
    /// `Unavailable` if the leader does not answer within two seconds.
    fn next(&self, filter: &Filter, from: u64) -> BoxFuture<'_, Result<Option<Record>, Error>>;

    /// The records of a subject with sequences from `from` to `to`, where `to` is known to be one
    /// of them. Any replica may answer: that it has come as far as `to` proves that nothing before
    /// is missing.
    ///
    /// Gives [`READ_RECORDS`] at most, and stops after [`READ_BYTES`]; if the last one is not
    /// `to`, read on from behind it.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not come as far as `to` within two seconds.
    fn read(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>>;

    /// The same for whoever knows that there are many: they come in one go, where a few are asked for one by one.
    ///
    /// # Errors
    /// See [`read`](Stream::read).
    fn read_many(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>> {
        self.read(subject, from, to)
    }

    /// Every record that one of the filters matches (no filter: every record), in order, without
    /// gaps, as it is stored. Survives reconnects and changes of leader. A few hundred wait for the
    /// one who reads; the rest waits at the broker.
    ///
    /// # Errors
    /// `Config` for a work queue, whose records go only to consumers; `Unavailable` if the broker
    /// does not answer within two seconds.
    fn follow(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>>;

    /// The same without payloads, for whoever finds in the headers what concerns it; the header `Nats-Msg-Size` says
    /// how many bytes there are.
    ///
    /// # Errors
    /// See [`follow`](Stream::follow).
    fn follow_headers(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>>;

    /// The highest sequence that was ever given here, as the stream's leader knows it; 0 if none was.
    ///
    /// # Errors
    /// `Unavailable` if the leader does not answer within two seconds.
    fn end(&self) -> BoxFuture<'_, Result<u64, Error>>;

    /// Removes one record for good. `false` if it is not there any more.
    ///
    /// # Errors
    /// `Unavailable` if the stream is not [`deletable`](StreamConfig::deletable), or if the broker does not answer
    /// within two seconds: then it may be removed or not.
    fn remove(&self, sequence: u64) -> BoxFuture<'_, Result<bool, Error>>;

    /// A durable consumer, made if there is none of this name: it remembers what was acknowledged,
    /// and several who hold it share its records. Of one that is there, the settings become those
    /// given here, but for where it began.
    ///
    /// # Errors
    /// `Config` for a name that is none, `Unavailable` if the broker does not answer within two
    /// seconds or refuses.
    fn consumer(&self, name: &str, config: ConsumerConfig) -> BoxFuture<'_, Result<Consumer, Error>>;

    /// The names of the durable consumers that there are, in no order.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer within two seconds.
    fn consumers(&self) -> BoxFuture<'_, Result<Vec<String>, Error>>;

    /// Removes a durable consumer, with all it remembers. Of a work queue, what it had given out and nobody
    /// acknowledged stays, in its order, and goes to the next consumer that wants it. One that is not there is removed
    /// already. Whoever holds it asks in vain from then on, or makes it anew.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer within two seconds.
    fn remove_consumer(&self, name: &str) -> BoxFuture<'_, Result<(), Error>>;
}

/// A running [`Stream::follow`]; dropping it ends it.
pub struct Follow {
    records: mpsc::Receiver<Record>,
}

impl Follow {
    pub(super) fn new(records: mpsc::Receiver<Record>) -> Self {
        Self { records }
    }

    /// The next record if one has arrived already.
    pub fn try_next(&mut self) -> Option<Record> {
        self.records.try_recv().ok()
    }

    /// The next record; `None` after the transport was closed. Safe to cancel.
    pub async fn next(&mut self) -> Option<Record> {
        self.records.recv().await
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

/// An append as a message.
pub(super) fn outbound(subject: &Subject, expect: Option<u64>, mut headers: Headers, body: Bytes) -> Outbound {
    if let Some(expect) = expect {
        headers.set(EXPECTED, expect.to_string());
    }
    Outbound::new(subject.clone(), body).with_headers(headers)
}

/// Gathers what [`Stream::read`] gives, and knows when that is enough.
#[derive(Debug)]
pub(super) struct Run {
    to: u64,
    bytes: usize,
    records: Vec<Record>,
}

impl Run {
    pub(super) fn new(to: u64) -> Self {
        Self { to, bytes: 0, records: Vec::new() }
    }

    /// Takes the next record of the subject; gives the run when it is complete.
    pub(super) fn take(&mut self, record: Record) -> Option<Vec<Record>> {
        let sequence = record.sequence;
        if sequence <= self.to {
            self.bytes += record.body.len();
            self.records.push(record);
        }
        let enough = sequence >= self.to || self.records.len() >= READ_RECORDS || self.bytes >= READ_BYTES;
        enough.then(|| std::mem::take(&mut self.records))
    }

    /// How many it has.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}
