//! What a subscriber holds: messages in, and the one way out of a queue group that loses none.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::Inbound;
use super::memory::MemorySource;
use super::nats::NatsSource;
use crate::subject::{FLUSH_VERB, Subject};

/// Messages of one filter, in the order in which the broker delivered them.
///
/// It survives reconnects: what was published while there was no connection is lost, nothing
/// else. Dropping it unsubscribes at once, and what is in flight then is lost too; a member of a
/// queue group [`leave`](Subscription::leave)s instead.
pub struct Subscription {
    source: Source,
}

enum Source {
    Memory(MemorySource),
    Nats(Box<NatsSource>),
}

impl Subscription {
    /// The next message. `None` once the transport is closed, or once nothing can be in flight
    /// any more after [`leave`](Subscription::leave).
    ///
    /// Messages that flush a leaving subscription (last token `=flush`) are never given. Safe to
    /// cancel, as a losing branch of `select!` is: no message is lost.
    pub async fn next(&mut self) -> Option<Inbound> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Leaves, so that every message that was or is being given to this subscription is still
    /// received: go on calling [`next`](Subscription::next) until it gives `None`.
    ///
    /// `flush` is a subject that the filter matches and whose last token is `=flush`. Messages
    /// without meaning are published there, by `next`, until broker and client have counted to
    /// the same number; other members of the group swallow their share. If that takes more than
    /// five seconds the subscription ends all the same, with a warning in the log.
    ///
    /// Waits for at most one round trip to the broker (two seconds). Must not be cancelled: a
    /// subscription whose `leave` was cancelled may or may not be leaving.
    pub async fn leave(&mut self, flush: Subject) {
        match &mut self.source {
            Source::Memory(source) => source.leave(),
            Source::Nats(source) => source.leave(flush).await,
        }
    }

    /// How many messages were thrown away because `capacity` of them were waiting already. A
    /// lower bound: under a flood the client library does not report each one.
    pub fn dropped(&self) -> u64 {
        match &self.source {
            Source::Memory(source) => source.dropped(),
            Source::Nats(source) => source.dropped(),
        }
    }

    pub(super) fn memory(source: MemorySource) -> Self {
        Self { source: Source::Memory(source) }
    }

    pub(super) fn nats(source: NatsSource) -> Self {
        Self { source: Source::Nats(Box::new(source)) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        loop {
            let message = match &mut self.source {
                Source::Memory(source) => ready!(source.poll_next(cx)),
                Source::Nats(source) => ready!(source.poll_next(cx)),
            };
            match message {
                Some(message) if is_flush(&message.subject) => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

/// Whether a message on this subject only flushes a subscription that is leaving.
pub(super) fn is_flush(subject: &str) -> bool {
    subject.rsplit('.').next() == Some(FLUSH_VERB)
}
