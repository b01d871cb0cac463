//! The memory broker's side of a stream, and those who follow it.

mod consumer;
mod durable;
mod faults;
mod log;
mod schedule;
mod transform;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub(in crate::transport) use self::consumer::{MemoryConsumer, MemoryReceipt};
use self::durable::without_payload;
pub use self::faults::StreamFaults;
use self::faults::{Fate, Faults};
use self::log::Log;
use super::client::Client;
use crate::changes::{Changes, SeenChanges};
use crate::error::{Error, ErrorKind};
use crate::pauses::reached;
use crate::subject::{Filter, Subject};
use crate::transport::stream::{self, Run};
use crate::transport::{
    Consumer, ConsumerConfig, Follow, Headers, Outbound, Record, Start, Status, Stream, StreamConfig, WriteError, check,
};

/// How many records may wait for the one who follows.
const FOLLOW_CAPACITY: usize = 256;

/// All streams of a broker.
#[derive(Default)]
pub(super) struct Streams {
    streams: Mutex<HashMap<String, Kept>>,
}

/// A stream's name may have faults before it has a stream.
#[derive(Default)]
struct Kept {
    log: Option<Log>,
    faults: Faults,
    changes: Changes,
}

impl Streams {
    /// Makes a stream if there is none of this name.
    fn open(&self, name: &str, config: &StreamConfig) -> Result<(), Error> {
        let mut streams = self.streams.lock();
        let kept = streams.entry(name.to_owned()).or_default();
        if let Some(log) = &kept.log {
            if log.config() != config {
                tracing::warn!(stream = name, "the stream exists with other settings and is used as it is");
            }
            return Ok(());
        }
        let takes_ours =
            |log: &Log| log.config().subjects.iter().any(|one| config.subjects.iter().any(|other| one.overlaps(other)));
        if let Some((other, _)) = streams.iter().find(|(_, kept)| kept.log.as_ref().is_some_and(takes_ours)) {
            return Err(unavailable(format!("the stream {name} cannot be opened: {other} has some of its subjects")));
        }
        let log = Log::new(config.clone())?;
        streams.entry(name.to_owned()).or_default().log = Some(log);
        Ok(())
    }

    /// Does something with a stream that was opened; whoever waits for a change is told of one.
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Log, &mut Faults) -> T) -> Result<T, Error> {
        let mut streams = self.streams.lock();
        let kept = streams.entry(name.to_owned()).or_default();
        let Some(log) = &mut kept.log else { return Err(unavailable(format!("there is no stream {name}"))) };
        let before = log.changes();
        log.pass_time();
        let outcome = act(log, &mut kept.faults);
        if log.changes() != before {
            kept.changes.note();
        }
        Ok(outcome)
    }

    /// The same, for what only the stream's leader can do.
    fn with_leader<T>(&self, name: &str, act: impl FnOnce(&mut Log, &mut Faults) -> T) -> Result<T, Error> {
        self.with(name, |log, faults| {
            if faults.is_leaderless() {
                return Err(unavailable(format!("the stream {name} has no leader just now")));
            }
            Ok(act(log, faults))
        })?
    }

    /// Changes whenever the stream does.
    fn changes(&self, name: &str) -> SeenChanges {
        self.streams.lock().entry(name.to_owned()).or_default().changes.seen()
    }

    fn set_faults(&self, name: &str, set: impl FnOnce(&mut Faults)) {
        set(&mut self.streams.lock().entry(name.to_owned()).or_default().faults);
    }
}

/// A stream of the memory broker.
pub(super) struct MemoryStream {
    client: Arc<Client>,
    name: String,
    config: StreamConfig,
}

impl MemoryStream {
    pub(super) fn open(client: Arc<Client>, name: &str, config: StreamConfig) -> Result<Self, Error> {
        check::stream(name, &config)?;
        client.check()?;
        client.broker.streams.open(name, &config)?;
        Ok(Self { client, name: name.to_owned(), config })
    }

    fn put(&self, message: Outbound, expect: Option<u64>) -> Result<u64, WriteError> {
        self.client.check().map_err(WriteError::NotSent)?;
        let broker = &self.client.broker;
        check::append(&self.name, &self.config, &message, broker.max_payload()).map_err(WriteError::NotSent)?;
        let stored = broker.streams.with_leader(&self.name, |log, faults| match faults.fate() {
            Fate::Answered => log.append(message, expect),
            Fate::Unanswered => {
                // Whatever came of it, the writer does not learn it.
                log.append(message, expect).ok();
                Err(self.unanswered())
            }
            Fate::Late(when) => {
                log.append_at(when, message, expect);
                Err(self.unanswered())
            }
        });
        stored.map_err(WriteError::NotSent)?
    }

    fn unanswered(&self) -> WriteError {
        WriteError::Unknown(Error::new(ErrorKind::Unknown, format!("no answer from the stream {}", self.name)))
    }

    /// Reads at the leader.
    fn look<T>(&self, look: impl FnOnce(&Log) -> T) -> Result<T, Error> {
        self.client.check()?;
        self.client.broker.streams.with_leader(&self.name, |log, _| look(log))
    }

    fn run(&self, subject: &Subject, from: u64, to: u64) -> Result<Vec<Record>, Error> {
        if from > to {
            return Ok(Vec::new());
        }
        let filter = [subject.to_filter()];
        self.look(|log| {
            let (mut run, mut next) = (Run::new(to), from);
            while let Some(record) = log.next(&filter, next) {
                next = record.sequence + 1;
                if let Some(records) = run.take(record) {
                    return Ok(records);
                }
            }
            Err(unavailable(format!("the stream {} does not come as far as {to}", self.name)))
        })?
    }

    fn start_to_follow(&self, filters: Vec<Filter>, start: Start, headers_only: bool) -> Result<Follow, Error> {
        check::followed(&self.name, &self.config)?;
        let next = self.look(|log| log.begin(start))?;
        let runtime = Handle::try_current()
            .map_err(|_| Error::new(ErrorKind::Config, "following a stream needs a tokio runtime"))?;
        let (sender, records) = mpsc::channel(FOLLOW_CAPACITY);
        let wanted = Wanted { filters, headers_only };
        runtime.spawn(follow(self.client.clone(), self.name.clone(), wanted, next, sender));
        Ok(Follow::new(records))
    }
}

impl Stream for MemoryStream {
    fn append(
        &self,
        subject: &Subject,
        expect: Option<u64>,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let message = stream::outbound(subject, expect, headers, body);
        // Not before it is polled: an append that was dropped unpolled must not have happened.
        async move { self.put(message, expect) }.boxed()
    }

    fn last(&self, subject: &Subject) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        let record = self.look(|log| log.last_of(subject.as_str()));
        std::future::ready(record).boxed()
    }

    fn next(&self, filter: &Filter, from: u64) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        let record = self.look(|log| log.next(std::slice::from_ref(filter), from));
        std::future::ready(record).boxed()
    }

    fn read(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>> {
        std::future::ready(self.run(subject, from, to)).boxed()
    }

    fn follow(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        std::future::ready(self.start_to_follow(filters, start, false)).boxed()
    }

    fn follow_headers(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        std::future::ready(self.start_to_follow(filters, start, true)).boxed()
    }

    fn end(&self) -> BoxFuture<'_, Result<u64, Error>> {
        std::future::ready(self.look(|log| log.begin(Start::New) - 1)).boxed()
    }

    fn remove(&self, sequence: u64) -> BoxFuture<'_, Result<bool, Error>> {
        async move {
            self.client.check()?;
            self.client.broker.streams.with_leader(&self.name, |log, _| log.delete(sequence))?
        }
        .boxed()
    }

    fn consumer(&self, name: &str, config: ConsumerConfig) -> BoxFuture<'_, Result<Consumer, Error>> {
        let consumer = check::consumer(name, &self.config, &config)
            .and_then(|()| MemoryConsumer::open(self.client.clone(), &self.name, name, config))
            .map(Consumer::memory);
        std::future::ready(consumer).boxed()
    }

    fn consumers(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        std::future::ready(self.look(Log::consumers)).boxed()
    }

    fn remove_consumer(&self, name: &str) -> BoxFuture<'_, Result<(), Error>> {
        let name = name.to_owned();
        async move {
            self.client.check()?;
            self.client.broker.streams.with_leader(&self.name, |log, _| log.remove_consumer(&name))
        }
        .boxed()
    }
}

/// What one who follows is given.
struct Wanted {
    filters: Vec<Filter>,
    headers_only: bool,
}

/// Gives every record, as long as somebody follows.
async fn follow(client: Arc<Client>, name: String, wanted: Wanted, mut next: u64, records: mpsc::Sender<Record>) {
    let mut status = client.status.subscribe();
    let streams = &client.broker.streams;
    let mut changes = streams.changes(&name);
    loop {
        let connected = tokio::select! {
            biased;
            () = records.closed() => return,
            status = status.wait_for(|status| *status != Status::Disconnected) => status.is_ok_and(|status| status.is_connected()),
        };
        if !connected {
            return;
        }
        changes.mark_unchanged();
        let Ok((record, due)) = streams.with(&name, |log, _| (log.next(&wanted.filters, next), log.next_due())) else {
            return;
        };
        if let Some(mut record) = record {
            if wanted.headers_only {
                without_payload(&mut record);
            }
            let Ok(room) = records.reserve().await else { return };
            next = record.sequence + 1;
            room.send(record);
            continue;
        }
        tokio::select! {
            biased;
            () = records.closed() => return,
            () = changes.changed() => {}
            changed = status.changed() => if changed.is_err() { return },
            () = reached(due) => {}
        }
    }
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}
