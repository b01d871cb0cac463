//! The records of one stream, and what time does to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

use super::durable::Durable;
use super::schedule::{NEXT, PURGE, SCHEDULE, SCHEDULER, Schedule};
use super::transform::Transform;
use super::unavailable;
use crate::call::wall_ms;
use crate::error::Error;
use crate::subject::Filter;
use crate::transport::stream::{EXPECTED, MESSAGE_ID, TTL, Word};
use crate::transport::{ConsumerConfig, Headers, Outbound, Record, Retention, Start, StreamConfig, WriteError};

/// For how long a record that is sent again is known by its id: a server's own default.
const KNOWN_FOR: Duration = Duration::from_secs(120);

/// A stream.
pub(super) struct Log {
    config: StreamConfig,
    transform: Option<Transform>,
    last: u64,
    records: BTreeMap<u64, Stored>,
    /// Sequences by subject.
    subjects: HashMap<String, BTreeSet<u64>>,
    durables: BTreeMap<String, Durable>,
    /// Records by their ids, and since when each is known.
    known: HashMap<String, u64>,
    known_since: VecDeque<(Instant, String)>,
    /// What is to happen when, in the order of its becoming known.
    due: BTreeMap<(Instant, u64), Due>,
    /// Counts what has become due, so that no two have one place.
    number: u64,
    /// Counts what those who wait may wait for.
    changes: u64,
    /// Tokio's clock and the calendar's at one moment, so that paused tests see time pass.
    began: (Instant, SystemTime),
}

struct Stored {
    subject: String,
    headers: Headers,
    body: Bytes,
    time: SystemTime,
}

/// What time does.
enum Due {
    /// The record goes.
    Expire(u64),
    /// An append arrives.
    Append(Box<Outbound>, Option<u64>),
    /// The schedule's record is published.
    Fire(u64, Box<Schedule>),
}

impl Log {
    pub(super) fn new(config: StreamConfig) -> Result<Self, Error> {
        let transform =
            config.transform.as_ref().map(|(source, destination)| Transform::new(source, destination)).transpose()?;
        Ok(Self {
            config,
            transform,
            last: 0,
            records: BTreeMap::new(),
            subjects: HashMap::new(),
            durables: BTreeMap::new(),
            known: HashMap::new(),
            known_since: VecDeque::new(),
            due: BTreeMap::new(),
            number: 0,
            changes: 0,
            began: (Instant::now(), UNIX_EPOCH + Duration::from_millis(wall_ms())),
        })
    }

    pub(super) fn config(&self) -> &StreamConfig {
        &self.config
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Stores a record if the last of its subject is the one that was expected.
    pub(super) fn append(&mut self, message: Outbound, expect: Option<u64>) -> Result<u64, WriteError> {
        let subject = message.subject.as_str();
        let subject = self
            .transform
            .as_ref()
            .and_then(|transform| transform.apply(subject))
            .unwrap_or_else(|| subject.to_owned());
        let ttl = self.ttl(&message.headers).map_err(WriteError::NotSent)?;
        let schedule = self.schedule(&subject, &message.headers).map_err(WriteError::NotSent)?;
        let last = self.subjects.get(&subject).and_then(|sequences| sequences.last()).copied().unwrap_or_default();
        if expect.is_some_and(|expect| expect != last) {
            return Err(WriteError::Conflict);
        }
        let id = message.headers.get(MESSAGE_ID).map(str::to_owned);
        if let Some(sequence) = id.as_ref().and_then(|id| self.known.get(id)) {
            return Ok(*sequence);
        }
        if schedule.is_some() {
            self.purge(&subject);
        }
        if self.config.schedules && message.headers.get(NEXT) == Some(PURGE) {
            self.purge(message.headers.get(SCHEDULER).unwrap_or_default());
        }
        let mut headers = message.headers;
        headers.remove(EXPECTED);
        let sequence = self.store(subject, headers, message.body);
        if let Some(id) = id {
            self.known.insert(id.clone(), sequence);
            self.known_since.push_back((Instant::now(), id));
        }
        if let Some(ttl) = ttl {
            self.plan(Instant::now() + ttl, Due::Expire(sequence));
        }
        if let Some(schedule) = schedule {
            self.plan(Instant::now() + schedule.first, Due::Fire(sequence, Box::new(schedule)));
        }
        Ok(sequence)
    }

    /// Stores a record later, if it is the one that is expected then.
    pub(super) fn append_at(&mut self, when: Instant, message: Outbound, expect: Option<u64>) {
        self.plan(when, Due::Append(Box::new(message), expect));
    }

    /// The last record of a subject.
    pub(super) fn last_of(&self, subject: &str) -> Option<Record> {
        self.record(*self.subjects.get(subject)?.last()?)
    }

    /// The first record from a sequence on that one of the filters matches; none matches all.
    pub(super) fn next(&self, filters: &[Filter], from: u64) -> Option<Record> {
        let matches =
            |stored: &Stored| filters.is_empty() || filters.iter().any(|filter| filter.matches(&stored.subject));
        let (sequence, _) = self.records.range(from..).find(|(_, stored)| matches(stored))?;
        self.record(*sequence)
    }

    /// The first sequence that one who starts like this has not missed.
    pub(super) fn begin(&self, start: Start) -> u64 {
        match start {
            Start::At(sequence) => sequence.max(1),
            Start::New => self.last + 1,
        }
    }

    /// When something is due, for those who follow.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(when, _)| *when)
    }

    /// Lets happen what is due.
    pub(super) fn pass_time(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let when = entry.key().0;
            match entry.remove() {
                Due::Fire(sequence, schedule) => self.fire(when, sequence, *schedule),
                Due::Expire(sequence) => self.remove(sequence),
                Due::Append(message, expect) => {
                    // Nobody waits for its answer any more.
                    self.append(*message, expect).ok();
                }
            }
        }
        while let Some((_, id)) = self.known_since.pop_front_if(|(since, _)| *since + KNOWN_FOR <= now) {
            self.known.remove(&id);
        }
        for durable in self.durables.values_mut() {
            self.changes += u64::from(durable.pass_time(now));
        }
    }

    /// Makes a durable consumer, or gives the one of this name other settings.
    pub(super) fn consumer(&mut self, name: &str, config: ConsumerConfig) -> Result<(), Error> {
        let clash = self.durables.iter().find(|(other, durable)| *other != name && durable.overlaps(&config));
        if let (Retention::WorkQueue, Some((other, _))) = (self.config.retention, clash) {
            return Err(unavailable(format!(
                "the consumer {name} cannot be opened: {other} wants some of its records"
            )));
        }
        let next = self.begin(config.start);
        self.durables.entry(name.to_owned()).or_insert_with(|| Durable::new(next)).set(config);
        Ok(())
    }

    /// The names of its durable consumers.
    pub(super) fn consumers(&self) -> Vec<String> {
        self.durables.keys().cloned().collect()
    }

    /// Forgets a durable consumer.
    pub(super) fn remove_consumer(&mut self, name: &str) {
        self.changes += u64::from(self.durables.remove(name).is_some());
    }

    /// Removes one record, as an operator does.
    pub(super) fn delete(&mut self, sequence: u64) -> Result<bool, Error> {
        if !self.config.deletable {
            return Err(unavailable("the stream lets nobody delete its records"));
        }
        let there = self.records.contains_key(&sequence);
        self.remove(sequence);
        Ok(there)
    }

    /// The next record for a consumer, and how often it was given out.
    pub(super) fn deliver(&mut self, consumer: &str) -> Option<(Record, u64)> {
        let mut durable = self.durables.remove(consumer)?;
        let given = durable.deliver(|filters, from| self.next(filters, from), |sequence| self.record(sequence));
        self.durables.insert(consumer.to_owned(), durable);
        given
    }

    /// When something may be due for a consumer that waits.
    pub(super) fn next_due_of(&self, consumer: &str) -> Option<Instant> {
        let durable = self.durables.get(consumer).and_then(Durable::next_due);
        durable.into_iter().chain(self.next_due()).min()
    }

    /// Hears what became of a record that was given out.
    pub(super) fn hear(&mut self, consumer: &str, sequence: u64, word: &Word) {
        let Some(durable) = self.durables.get_mut(consumer) else { return };
        durable.hear(sequence, word);
        self.changes += 1;
        if matches!(word, Word::Ack | Word::Term(_)) && self.config.retention == Retention::WorkQueue {
            self.remove(sequence);
        }
    }

    fn record(&self, sequence: u64) -> Option<Record> {
        let stored = self.records.get(&sequence)?;
        Some(Record {
            sequence,
            subject: stored.subject.clone(),
            headers: stored.headers.clone(),
            body: stored.body.clone(),
            time: stored.time,
        })
    }

    fn store(&mut self, subject: String, headers: Headers, body: Bytes) -> u64 {
        self.last += 1;
        self.changes += 1;
        self.subjects.entry(subject.clone()).or_default().insert(self.last);
        self.records.insert(self.last, Stored { subject, headers, body, time: self.now() });
        self.last
    }

    /// Publishes what a schedule holds, unless it was replaced or cancelled.
    fn fire(&mut self, when: Instant, sequence: u64, schedule: Schedule) {
        let Some(stored) = self.records.get(&sequence) else { return };
        let headers = schedule.fired(&stored.subject, &stored.headers, self.now());
        let body = stored.body.clone();
        match schedule.every {
            Some(every) => self.plan(when + every, Due::Fire(sequence, Box::new(schedule.clone()))),
            None => self.remove(sequence),
        }
        self.store(schedule.target.as_str().to_owned(), headers, body);
    }

    fn now(&self) -> SystemTime {
        self.began.1 + self.began.0.elapsed()
    }

    /// Removes all records of a subject.
    fn purge(&mut self, subject: &str) {
        for sequence in self.subjects.get(subject).cloned().unwrap_or_default() {
            self.remove(sequence);
        }
    }

    fn remove(&mut self, sequence: u64) {
        let Some(stored) = self.records.remove(&sequence) else { return };
        if let Some(sequences) = self.subjects.get_mut(&stored.subject) {
            sequences.remove(&sequence);
            if sequences.is_empty() {
                self.subjects.remove(&stored.subject);
            }
        }
    }

    fn plan(&mut self, when: Instant, what: Due) {
        self.number += 1;
        self.changes += 1;
        self.due.insert((when, self.number), what);
    }

    /// When a record is to be published, if it is to be later.
    fn schedule(&self, subject: &str, headers: &Headers) -> Result<Option<Schedule>, Error> {
        if headers.get(SCHEDULE).is_some() && !self.config.schedules {
            return Err(unavailable("the stream takes no schedules"));
        }
        let schedule = Schedule::of(subject, headers, self.now())?;
        if schedule.as_ref().is_some_and(|schedule| !self.config.takes(&schedule.target)) {
            return Err(unavailable("what a schedule publishes must be a record of its own stream"));
        }
        Ok(schedule)
    }

    /// How long a record is kept.
    fn ttl(&self, headers: &Headers) -> Result<Option<Duration>, Error> {
        let Some(text) = headers.get(TTL) else { return Ok(None) };
        if !self.config.ttl {
            return Err(unavailable("the stream takes no records with a time to live"));
        }
        if text == "never" {
            return Ok(None);
        }
        let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>().ok().filter(|seconds| *seconds > 0);
        seconds
            .map(|seconds| Some(Duration::from_secs(seconds)))
            .ok_or_else(|| unavailable(format!("{text:?} is no time to live: write whole seconds, such as 30s")))
    }
}
