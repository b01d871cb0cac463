//! Durable consumers: records that are given out one by one until somebody acknowledges them.

use std::time::Duration;

use super::{Record, Start};
use crate::error::Error;
use crate::subject::Filter;
use crate::transport::memory::{MemoryConsumer, MemoryReceipt};
use crate::transport::nats::{NatsConsumer, NatsReceipt};

/// What a durable consumer is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    pub(in crate::transport) filters: Vec<Filter>,
    pub(in crate::transport) ack_wait: Duration,
    pub(in crate::transport) max_deliver: Option<u64>,
    pub(in crate::transport) max_ack_pending: usize,
    pub(in crate::transport) headers_only: bool,
    pub(in crate::transport) start: Start,
    pub(in crate::transport) fetch: usize,
}

impl ConsumerConfig {
    /// Gives out what one of these filters matches (none: every record), from the stream's first
    /// record on. Filters of one consumer may not overlap.
    pub fn new(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self {
            filters: filters.into_iter().collect(),
            ack_wait: Duration::from_secs(30),
            max_deliver: None,
            max_ack_pending: 256,
            headers_only: false,
            start: Start::At(1),
            fetch: 16,
        }
    }

    /// How long a record may go unacknowledged before it is given out again: 30 seconds by
    /// default, a millisecond at least. Counts from when the broker sends it, so it includes what
    /// a record waits here behind others of its [`fetch`](Self::fetch).
    #[must_use]
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait.max(Duration::from_millis(1));
        self
    }

    /// How often a record is given out at most; then it is left where it is. By default there is
    /// no limit.
    #[must_use]
    pub fn max_deliver(mut self, times: u64) -> Self {
        self.max_deliver = Some(times.max(1));
        self
    }

    /// How many records may be given out and not acknowledged at a time, over all who hold the
    /// consumer: 256 by default.
    #[must_use]
    pub fn max_ack_pending(mut self, records: usize) -> Self {
        self.max_ack_pending = records.max(1);
        self
    }

    /// Leaves payloads out; the header `Nats-Msg-Size` says how many bytes there are.
    #[must_use]
    pub fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// Where a new consumer begins: with the stream's first record by default, which is the only
    /// choice for a work queue.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How many records are asked for at once: 16 by default. They wait here until they are
    /// taken, and their time runs.
    #[must_use]
    pub fn fetch(mut self, records: usize) -> Self {
        self.fetch = records.clamp(1, 1_024);
        self
    }
}

/// A hold on a durable consumer. Dropping it gives back what waits here; the consumer stays.
pub struct Consumer {
    source: Source,
}

enum Source {
    Memory(Box<MemoryConsumer>),
    Nats(Box<NatsConsumer>),
}

impl Consumer {
    /// The next record, waiting for one if need be; `None` after the transport was closed. Safe
    /// to cancel: what was on its way is given by the next call.
    pub async fn next(&mut self) -> Option<Delivery> {
        match &mut self.source {
            Source::Memory(source) => source.next().await,
            Source::Nats(source) => source.next().await,
        }
    }

    /// The next record if there is one for us now; the broker is asked.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer within two seconds.
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, Error> {
        match &mut self.source {
            Source::Memory(source) => source.try_next(),
            Source::Nats(source) => source.try_next().await,
        }
    }

    pub(in crate::transport) fn memory(source: MemoryConsumer) -> Self {
        Self { source: Source::Memory(Box::new(source)) }
    }

    pub(in crate::transport) fn nats(source: NatsConsumer) -> Self {
        Self { source: Source::Nats(Box::new(source)) }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// A record that was given out. Dropping it does nothing: it is given out again when its time is
/// over.
///
/// What is said about it is confirmed by the broker. It may be said on another connection than the
/// one it came on, and again after an error.
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// How often it was given out, this time included.
    pub delivered: u64,
    receipt: Receipt,
}

enum Receipt {
    Memory(MemoryReceipt),
    Nats(NatsReceipt),
}

/// What can be said about a record that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Word {
    Ack,
    Nak(Duration),
    Term(String),
    InProgress,
}

impl Delivery {
    /// It is done with: it is not given out again, and a work queue forgets it.
    ///
    /// # Errors
    /// `Unavailable` if the broker did not confirm within two seconds: it may or may not be done
    /// with.
    pub async fn ack(&self) -> Result<(), Error> {
        self.say(Word::Ack).await
    }

    /// It could not be handled: it is given out again, no sooner than after this time.
    ///
    /// # Errors
    /// `Unavailable` if the broker did not confirm within two seconds.
    pub async fn nak(&self, delay: Duration) -> Result<(), Error> {
        self.say(Word::Nak(delay)).await
    }

    /// It can never be handled: it is not given out again. The broker announces the reason.
    ///
    /// # Errors
    /// `Unavailable` if the broker did not confirm within two seconds.
    pub async fn term(&self, reason: &str) -> Result<(), Error> {
        self.say(Word::Term(reason.to_owned())).await
    }

    /// It takes longer: its time begins anew.
    ///
    /// # Errors
    /// `Unavailable` if the broker did not confirm within two seconds.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.say(Word::InProgress).await
    }

    async fn say(&self, word: Word) -> Result<(), Error> {
        match &self.receipt {
            Receipt::Memory(receipt) => receipt.say(word),
            Receipt::Nats(receipt) => receipt.say(word).await,
        }
    }

    pub(in crate::transport) fn memory(record: Record, delivered: u64, receipt: MemoryReceipt) -> Self {
        Self { record, delivered, receipt: Receipt::Memory(receipt) }
    }

    pub(in crate::transport) fn nats(record: Record, delivered: u64, receipt: NatsReceipt) -> Self {
        Self { record, delivered, receipt: Receipt::Nats(receipt) }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("record", &self.record)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}
