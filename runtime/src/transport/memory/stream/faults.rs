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

    /// Every append from now on is on its way for so long, by tokio's clock, as the next one by
    /// [`delay_next`](Self::delay_next); none any more after [`clear`](Self::clear).
    pub fn delay(&self, time: Duration) {
        self.set(|faults| faults.delay = Some(time));
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
    delay: Option<Duration>,
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
        if let Some(time) = self.delay_next.take().or(self.delay) {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::ErrorKind;
    use crate::subject::Subject;
    use crate::transport::{
        Headers, MemoryBroker, MemoryTransport, Start, Stream, StreamConfig, Transport, WriteError,
    };

    struct Bench {
        _transport: MemoryTransport,
        stream: Box<dyn Stream>,
        faults: StreamFaults,
        subject: Subject,
    }

    async fn bench() -> Bench {
        let broker = MemoryBroker::new();
        let faults = broker.faults("log");
        let transport = broker.transport("writer");
        let subject = Subject::parse("log.a").expect("a subject");
        let stream = transport.stream("log", StreamConfig::new([subject.to_filter()])).await.expect("a stream");
        Bench { _transport: transport, stream, faults, subject }
    }

    impl Bench {
        async fn append(&self, expect: u64) -> Result<u64, WriteError> {
            self.stream.append(&self.subject, Some(expect), Headers::new(), Bytes::new()).await
        }

        async fn last(&self) -> u64 {
            self.stream.last(&self.subject).await.expect("an answer").map_or(0, |record| record.sequence)
        }
    }

    #[tokio::test]
    async fn an_append_whose_answer_is_lost_is_stored() {
        let bench = bench().await;
        bench.faults.lose_next_answer();
        assert!(matches!(bench.append(0).await, Err(WriteError::Unknown(_))));
        assert_eq!(bench.last().await, 1);
        assert!(matches!(bench.append(0).await, Err(WriteError::Conflict)), "sent again, it finds itself");
        assert_eq!(bench.append(1).await.expect("appended"), 2);
        bench.faults.lose_answers(3);
        for expect in 2..8 {
            let outcome = bench.append(expect).await;
            assert_eq!(matches!(outcome, Err(WriteError::Unknown(_))), expect % 3 == 1, "{expect}: {outcome:?}");
        }
        assert_eq!(bench.last().await, 8);
    }

    #[tokio::test]
    async fn an_append_may_arrive_after_it_was_given_up() {
        let bench = bench().await;
        let mut follow = bench.stream.follow(Vec::new(), Start::New).await.expect("a follower");
        bench.faults.delay_next(Duration::from_millis(100));
        assert!(matches!(bench.append(0).await, Err(WriteError::Unknown(_))));
        assert_eq!(bench.last().await, 0);
        let late = tokio::time::timeout(Duration::from_secs(5), follow.next()).await.expect("soon");
        assert_eq!(late.expect("a record").sequence, 1);
        // If another one is faster, it is refused when it arrives.
        bench.faults.delay_next(Duration::from_millis(100));
        assert!(matches!(bench.append(1).await, Err(WriteError::Unknown(_))));
        assert_eq!(bench.append(1).await.expect("appended"), 2);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bench.last().await, 2);
        // All of them are, until all is well again.
        bench.faults.delay(Duration::from_millis(100));
        for _ in 0..3 {
            assert!(matches!(bench.append(2).await, Err(WriteError::Unknown(_))));
        }
        bench.faults.clear();
        assert_eq!(bench.last().await, 2);
        assert_eq!(late_of(&mut follow, 3).await, 3, "the first of them; the others are refused");
        assert_eq!(bench.append(3).await.expect("appended"), 4);
    }

    async fn late_of(follow: &mut crate::transport::Follow, sequence: u64) -> u64 {
        loop {
            let record = tokio::time::timeout(Duration::from_secs(5), follow.next()).await.expect("soon");
            let found = record.expect("a record").sequence;
            if found >= sequence {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn without_a_leader_nothing_is_stored() {
        let bench = bench().await;
        bench.faults.no_leader(Duration::from_millis(200));
        let refused = bench.append(0).await;
        let said = matches!(&refused, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::Unavailable);
        assert!(said, "{refused:?}");
        let refused = bench.stream.last(&bench.subject).await;
        assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(bench.append(0).await.expect("appended"), 1);
        bench.faults.no_leader(Duration::from_secs(60));
        bench.faults.clear();
        assert_eq!(bench.last().await, 1);
    }
}
