//! What a durable consumer remembers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use crate::subject::Filter;
use crate::transport::stream::{SIZE, Word};
use crate::transport::{ConsumerConfig, Record};

/// A durable consumer.
pub(super) struct Durable {
    config: ConsumerConfig,
    /// The lowest sequence that was never given out.
    next: u64,
    /// What is given out and not acknowledged: until when; `None` if it waits to be given out again.
    pending: BTreeMap<u64, Option<Instant>>,
    /// What is given out again before anything new.
    again: VecDeque<u64>,
    /// How often each was given out. Kept past the last time, so that it stays the last.
    times: HashMap<u64, u64>,
}

impl Durable {
    pub(super) fn new(next: u64) -> Self {
        let config = ConsumerConfig::new([]);
        Self { config, next, pending: BTreeMap::new(), again: VecDeque::new(), times: HashMap::new() }
    }

    pub(super) fn set(&mut self, config: ConsumerConfig) {
        self.config = config;
    }

    /// Whether both want some subject.
    pub(super) fn overlaps(&self, other: &ConsumerConfig) -> bool {
        let (ours, theirs) = (&self.config.filters, &other.filters);
        ours.is_empty() || theirs.is_empty() || ours.iter().any(|one| theirs.iter().any(|two| one.overlaps(two)))
    }

    /// The next record, and how often it was given out.
    pub(super) fn deliver(
        &mut self,
        next: impl Fn(&[Filter], u64) -> Option<Record>,
        record: impl Fn(u64) -> Option<Record>,
    ) -> Option<(Record, u64)> {
        while let Some(sequence) = self.again.pop_front() {
            let times = self.times.entry(sequence).or_default();
            let spent = self.config.max_deliver.is_some_and(|most| *times >= most);
            match record(sequence).filter(|_| !spent) {
                Some(record) => {
                    *times += 1;
                    let times = *times;
                    return Some(self.give(record, times));
                }
                // Given out for the last time already, or gone.
                None => {
                    self.pending.remove(&sequence);
                }
            }
        }
        if self.pending.len() >= self.config.max_ack_pending {
            return None;
        }
        let record = next(&self.config.filters, self.next)?;
        self.next = record.sequence + 1;
        self.times.insert(record.sequence, 1);
        Some(self.give(record, 1))
    }

    fn give(&mut self, mut record: Record, times: u64) -> (Record, u64) {
        self.pending.insert(record.sequence, Some(Instant::now() + self.config.ack_wait));
        if self.config.headers_only {
            without_payload(&mut record);
        }
        (record, times)
    }

    pub(super) fn hear(&mut self, sequence: u64, word: &Word) {
        let now = Instant::now();
        match word {
            Word::Ack | Word::Term(_) => {
                self.pending.remove(&sequence);
                self.times.remove(&sequence);
                self.again.retain(|known| *known != sequence);
            }
            Word::Nak(delay) => {
                if self.pending.get(&sequence).is_some_and(Option::is_some) {
                    self.pending.insert(sequence, Some(now + *delay));
                    self.pass_time(now);
                }
            }
            Word::InProgress => {
                if let Some(until) = self.pending.get_mut(&sequence).filter(|until| until.is_some()) {
                    *until = Some(now + self.config.ack_wait);
                }
            }
        }
    }

    /// Takes back what was not acknowledged in time; tells whether there was any.
    pub(super) fn pass_time(&mut self, now: Instant) -> bool {
        let before = self.again.len();
        for (sequence, until) in &mut self.pending {
            if until.is_some_and(|until| until <= now) {
                *until = None;
                self.again.push_back(*sequence);
            }
        }
        self.again.len() > before
    }

    /// When the time of the next one is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.values().flatten().min().copied()
    }
}

/// Leaves the payload out of a record.
pub(super) fn without_payload(record: &mut Record) {
    record.headers.set(SIZE, record.body.len().to_string());
    record.body = Bytes::new();
}
