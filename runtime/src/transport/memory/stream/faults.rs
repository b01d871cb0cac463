//! What can go wrong with an append, on demand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::broker::Broker;

/// Has appends to one stream of a memory broker go wrong, as they do on a real one. The effects
/// of several add up; each append meets the first that applies.
#[derive(Clone)]
pub struct StreamFaults {
    broker: Arc<Broker>,
    stream: String,
}

impl StreamFaults {
    pub(in crate::transport::memory) fn new(broker: Arc<Broker>, stream: &str) -> Self {
        Self { broker, stream: stream.to_owned() }
    }

    /// The answer to the next append is lost: it is stored, if it may be, and its writer is told
    /// `Unknown` at once.
    pub fn lose_next_answer(&self) {
        self.set(|faults| faults.lose_next = true);
    }

    /// The answers to every `n`th append from now on are lost; 0: none any more.
    pub fn lose_answers(&self, n: u64) {
        self.set(|faults| (faults.lose_every, faults.appends) = (n, 0));
    }

    /// The next append is on its way for so long, by tokio's clock: its writer is told `Unknown`
    /// at once, and it is stored then, if it still may be.
    pub fn delay_next(&self, time: Duration) {
        self.set(|faults| faults.delay_next = Some(time));
    }

    /// The stream has no leader for so long, by tokio's clock: appends are `NotSent`, reads and
    /// words about deliveries are `Unavailable`.
    pub fn no_leader(&self, time: Duration) {
        self.set(|faults| faults.no_leader = Some(Instant::now() + time));
    }

    /// All is well again; what is on its way stays on its way.
    pub fn clear(&self) {
        self.set(|faults| *faults = Faults::default());
    }

    fn set(&self, set: impl FnOnce(&mut Faults)) {
        self.broker.streams.set_faults(&self.stream, set);
    }
}

impl std::fmt::Debug for StreamFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamFaults").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// What is to go wrong with a stream.
#[derive(Debug, Default)]
pub(super) struct Faults {
    lose_next: bool,
    lose_every: u64,
    /// How many appends there were since `lose_every` was set.
    appends: u64,
    delay_next: Option<Duration>,
    no_leader: Option<Instant>,
}

/// What becomes of an append.
pub(super) enum Fate {
    Answered,
    Unanswered,
    Late(Instant),
}

impl Faults {
    /// Decides about the next append.
    pub(super) fn fate(&mut self) -> Fate {
        self.appends += 1;
        if let Some(time) = self.delay_next.take() {
            return Fate::Late(Instant::now() + time);
        }
        let nth = self.lose_every > 0 && self.appends.is_multiple_of(self.lose_every);
        if std::mem::take(&mut self.lose_next) || nth { Fate::Unanswered } else { Fate::Answered }
    }

    pub(super) fn is_leaderless(&self) -> bool {
        self.no_leader.is_some_and(|until| Instant::now() < until)
    }

    /// When the stream has a leader again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.no_leader.filter(|until| Instant::now() < *until)
    }
}
