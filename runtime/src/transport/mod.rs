//! The seam to the broker: everything the runtime needs from NATS, and nothing more.
//!
//! Two implementations: [`NatsTransport`] and [`MemoryTransport`]. One behavioural suite runs on
//! both. Nothing here knows of actors.

mod check;
mod headers;
mod memory;
mod nats;
mod replay;
mod stream;
mod subscription;
#[cfg(any(test, feature = "testkit"))]
pub mod suite;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::headers::Headers;
pub use self::memory::{MemoryBroker, MemoryTransport, StreamFaults};
pub use self::nats::{Connect, Credentials, DEFAULT_URL, NatsTransport, SERVER_FLOOR, ServerFacts};
pub use self::stream::{
    Consumer, ConsumerConfig, Delivery, Follow, READ_BYTES, READ_RECORDS, Record, Retention, Start, Stream,
    StreamConfig,
};
pub use self::subscription::Subscription;
use crate::error::Error;
use crate::subject::{Filter, Subject};

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where to.
    pub subject: Subject,
    /// Where an answer should go.
    pub reply: Option<Subject>,
    /// Its headers; most messages between nodes have none.
    pub headers: Headers,
    /// Its payload.
    pub body: Bytes,
}

impl Outbound {
    /// A message with neither reply subject nor headers.
    pub fn new(subject: Subject, body: impl Into<Bytes>) -> Self {
        Self { subject, reply: None, headers: Headers::new(), body: body.into() }
    }

    /// Sets where an answer should go.
    #[must_use]
    pub fn reply_to(mut self, reply: Subject) -> Self {
        self.reply = Some(reply);
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The subject it was delivered on, after any mapping.
    pub subject: String,
    /// Where its sender wants the answer, unchecked.
    pub reply: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub body: Bytes,
    /// Whether this is the broker's own answer "nobody listens there" (503), not anybody's message.
    pub no_responders: bool,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Connected to this server, as this client of it.
    Connected {
        /// The server's id.
        server: String,
        /// The server's number for this connection; another one after each reconnect.
        client: u64,
    },
    /// Not connected; the transport keeps trying.
    Disconnected,
    /// Closed for good.
    Closed,
}

impl Status {
    /// Whether messages can be sent now.
    pub fn is_connected(&self) -> bool {
        matches!(self, Status::Connected { .. })
    }
}

/// Where messages wait until the connection gets to them, and may join each other meanwhile.
pub trait Outlet: Send + Sync {
    /// Takes all that there is to be sent now, in order.
    fn take(&self) -> Vec<Outbound>;
}

/// Publish, subscribe, and records with compare-and-set: in buckets, and in streams.
///
/// Delivery is at most once. Messages of one publisher on one subject arrive in their order.
pub trait Transport: Send + Sync + 'static {
    /// Hands a message to the broker. Never waits: what cannot be sent now is refused.
    ///
    /// If it has a reply subject and nobody listens on its subject, the broker answers there with
    /// a message that has [`Inbound::no_responders`] set.
    ///
    /// # Errors
    /// `Unavailable` while disconnected, `Overloaded` when the queue to the connection is full,
    /// `PayloadTooLarge` above the broker's limit, `Stopped` after [`close`](Transport::close).
    /// In every case nothing was sent.
    fn publish(&self, message: Outbound) -> Result<(), Error>;

    /// Has what waits in an outlet sent as soon as the connection gets to it, behind what other outlets hold that were
    /// named before. Never waits. The outlet is asked once.
    ///
    /// # Errors
    /// `Unavailable` while disconnected, `Stopped` after [`close`](Transport::close): the outlet will not be asked. It
    /// will not either if the connection is lost before.
    fn collect(&self, outlet: Arc<dyn Outlet>) -> Result<(), Error>;

    /// Subscribes, in a queue group if one is named. At most `capacity` messages wait to be
    /// received, and further ones are dropped; with NATS the bound is the connection's
    /// ([`Connect::backlog`]), and `capacity` may not exceed it. Survives reconnects. The interest
    /// has reached the broker when this returns.
    ///
    /// # Errors
    /// `Unavailable` while disconnected or if the broker refuses.
    fn subscribe(
        &self,
        filter: &Filter,
        queue: Option<&str>,
        capacity: usize,
    ) -> BoxFuture<'_, Result<Subscription, Error>>;

    /// Waits until everything published before has reached the broker.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be known within two seconds.
    fn flush(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// How the connection stands, and every change of it.
    fn status(&self) -> watch::Receiver<Status>;

    /// The broker's limit for a payload, in bytes.
    fn max_payload(&self) -> usize;

    /// Opens a bucket, creating it if need be (file storage, one revision a key, time to live per
    /// record, no direct reads).
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer or has no JetStream; the message says which.
    fn bucket(&self, name: &str) -> BoxFuture<'_, Result<Box<dyn Bucket>, Error>>;

    /// Opens a stream, creating it if need be. One that is there is used as it is, with a warning
    /// in the log if it is not what the settings say.
    ///
    /// # Errors
    /// `Config` for a name that is none (`[A-Za-z0-9_-]+`), `Unavailable` if the broker does not
    /// answer, has no JetStream or refuses; the message says which.
    fn stream(&self, name: &str, config: StreamConfig) -> BoxFuture<'_, Result<Box<dyn Stream>, Error>>;

    /// Sends what is queued, also in outlets, closes the connection and ends every subscription.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A record of a [`Bucket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its revision: grows with every write to the bucket, never used twice.
    pub revision: u64,
    /// Its value, or why there is none.
    pub value: Result<Bytes, Gone>,
}

/// Why a record is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Somebody deleted it.
    Deleted,
    /// Its time to live ran out.
    Expired,
}

/// Why a write to a bucket or a stream did not go through.
#[derive(Debug)]
pub enum WriteError {
    /// The record has another revision than was expected, or another record is the last of its
    /// subject. Nothing was written.
    Conflict,
    /// Nothing was sent.
    NotSent(Error),
    /// It was sent and no answer came: it may have been written, or may yet be.
    Unknown(Error),
}

/// Records under keys `[A-Za-z0-9_=.-]+`, written by compare-and-set alone.
pub trait Bucket: Send + Sync + 'static {
    /// Reads a record at the leader: the newest that is known to be written. `None` if the key has
    /// neither value nor marker.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer in time.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>>;

    /// Writes a record if its revision is still `expect` (0: if there is none; `None`: whatever it is), for at most
    /// `ttl` (whole seconds, one at least). Returns the new revision.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn write(
        &self,
        key: &str,
        value: Bytes,
        expect: Option<u64>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<u64, WriteError>>;

    /// Deletes a record if its revision is still `expect`. Returns the revision of the marker,
    /// which is what a later write must expect (the marker itself goes after ten minutes; then 0).
    ///
    /// # Errors
    /// See [`WriteError`].
    fn delete(&self, key: &str, expect: u64) -> BoxFuture<'_, Result<u64, WriteError>>;

    /// When the bucket was made, as the broker says it. `None` if it is not there: somebody may have deleted it, or
    /// the broker may have lost its store. Another time than before: it was, and somebody has made it again.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer in time.
    fn made(&self) -> BoxFuture<'_, Result<Option<String>, Error>>;

    /// Every record whose key matches one of `filters` (none of them: every record) as it is now, then every change of
    /// such, in the order of the writes; a value that was written over before it could be given may be left out.
    /// Survives reconnects: after one, entries may come again, with the same revisions, and a record that is not there
    /// any more comes as [`Gone::Expired`] even if its marker has gone too (then with a revision just above its last).
    /// Where a replica is behind, that may be made up: the same record can come again afterwards.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer in time.
    fn watch(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Watch, Error>>;
}

/// What a [`Bucket::watch`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record was there or has changed.
    Entry(Entry),
    /// All records that were there at the start have been given. Comes once, even when there are
    /// none.
    Current,
    /// The bucket is not there any more: nothing follows.
    Gone,
}

/// A running watch; dropping it ends it.
pub struct Watch {
    changes: tokio::sync::mpsc::Receiver<Change>,
}

impl Watch {
    pub(crate) fn new(changes: tokio::sync::mpsc::Receiver<Change>) -> Self {
        Self { changes }
    }

    /// The next change if one has arrived already.
    pub fn try_next(&mut self) -> Option<Change> {
        self.changes.try_recv().ok()
    }

    /// The next change; `None` after the transport was closed.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
