//! A stream on JetStream. Written by plain publishes that wait for their answer, and read at the
//! leader, or through consumers.

mod consumer;
mod follow;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

pub(in crate::transport) use self::consumer::{NatsConsumer, NatsReceipt};
use self::follow::StreamReader;
use super::ROUND_TRIP;
use super::calls::unavailable;
use super::follow::{self as reading, Ordered, Place};
use super::jetstream::ApiError;
use super::shared::Shared;
use super::{jetstream, link};
use crate::error::{Error, ErrorKind};
use crate::subject::{Filter, Subject};
use crate::transport::stream::{self, EXPECTED, Run};
use crate::transport::{
    Consumer, ConsumerConfig, Follow, Headers, Record, Retention, Start, Stream, StreamConfig, WriteError, check,
};

/// How many records may wait for the one who follows, besides those that the connection keeps.
const FOLLOW_CAPACITY: usize = 256;
/// So many records of a run are asked for one by one: for a few, that costs less than a consumer.
const ONE_BY_ONE: usize = 8;
/// What a stream that was there already should have in common with one of ours.
const FIELDS: &[&str] = &[
    "subjects",
    "retention",
    "storage",
    "num_replicas",
    "discard",
    "allow_direct",
    "deny_delete",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "subject_transform",
];

/// A stream on JetStream.
pub(super) struct NatsStream {
    shared: Arc<Shared>,
    name: String,
    config: StreamConfig,
}

impl NatsStream {
    /// Binds the stream, creating it if there is none.
    pub(super) async fn open(shared: Arc<Shared>, name: &str, config: StreamConfig) -> Result<Self, Error> {
        check::stream(name, &config)?;
        let wanted = stream_config(name, &config, shared.settings.replicas);
        jetstream::open(&shared, &format!("the stream {name}"), &wanted, FIELDS).await?;
        Ok(Self { shared, name: name.to_owned(), config })
    }

    async fn get(&self, request: Value) -> Result<Option<Record>, Error> {
        let what = format!("a record of the stream {}", self.name);
        Ok(jetstream::message(&self.shared, &self.name, &request, &what).await?.map(read_record))
    }

    async fn next_of(&self, filter: &str, from: u64) -> Result<Option<Record>, Error> {
        self.get(json!({ "seq": from.max(1), "next_by_subj": filter })).await
    }

    /// Of so many, the first are asked for one by one.
    async fn run(&self, subject: &Subject, (from, to): (u64, u64), few: usize) -> Result<Vec<Record>, Error> {
        if from > to {
            return Ok(Vec::new());
        }
        let (mut run, mut next) = (Run::new(to), from);
        // A work queue has no consumers but those that acknowledge.
        while run.len() < few || self.config.retention == Retention::WorkQueue {
            let record = self.next_of(subject.as_str(), next).await?.ok_or_else(|| self.too_short(to))?;
            next = record.sequence + 1;
            if let Some(records) = run.take(record) {
                return Ok(records);
            }
        }
        let rest = self.rest(run, subject, next);
        tokio::time::timeout(ROUND_TRIP, rest).await.unwrap_or_else(|_| Err(self.too_short(to)))
    }

    /// The rest of a run, through a consumer.
    async fn rest(&self, mut run: Run, subject: &Subject, mut next: u64) -> Result<Vec<Record>, Error> {
        let live = self.shared.live()?;
        let lost = |why: String| {
            unavailable(format!("records of {subject} in the stream {} cannot be read: {why}", self.name))
        };
        let wanted = reading_from(next, &[subject.to_filter()]);
        let (mut consumer, _) = Ordered::create(&live, &self.shared, &self.name, wanted).await.map_err(lost)?;
        let records = loop {
            match consumer.next(&live).await.map_err(lost)? {
                // A replica that lags behind begins before it was told to.
                Some((place, _)) if place.stream < next => {}
                Some((place, message)) => {
                    next = place.stream + 1;
                    if let Some(records) = run.take(delivered_record(&place, message)) {
                        break records;
                    }
                }
                None => {}
            }
        };
        // It would go by itself after a while; nobody need wait for that.
        let api = format!("{}.CONSUMER.DELETE.{}.{}", self.shared.settings.api_prefix, self.name, consumer.name);
        let link = live.link.clone();
        live.runtime.spawn(async move { link.api(&api, &json!({})).await.is_ok() });
        Ok(records)
    }

    fn too_short(&self, to: u64) -> Error {
        unavailable(format!("the stream {} does not come as far as {to}", self.name))
    }
}

impl Stream for NatsStream {
    fn append(
        &self,
        subject: &Subject,
        expect: Option<u64>,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let message = stream::outbound(subject, expect, headers, body);
        async move {
            check::append(&self.name, &self.config, &message, self.shared.max_payload())
                .map_err(WriteError::NotSent)?;
            let headers = link::to_wire(&message.headers).map_err(WriteError::NotSent)?;
            let subject = message.subject.as_str();
            jetstream::write(&self.shared, subject, headers, message.body, subject).await
        }
        .boxed()
    }

    fn last(&self, subject: &Subject) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        self.get(json!({ "last_by_subj": subject.as_str() })).boxed()
    }

    fn next(&self, filter: &Filter, from: u64) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        let filter = filter.clone();
        async move { self.next_of(filter.as_str(), from).await }.boxed()
    }

    fn read(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>> {
        let subject = subject.clone();
        async move { self.run(&subject, (from, to), ONE_BY_ONE).await }.boxed()
    }

    fn read_many(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>> {
        let subject = subject.clone();
        async move { self.run(&subject, (from, to), 0).await }.boxed()
    }

    fn follow(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        self.start_to_follow(filters, start, false).boxed()
    }

    fn follow_headers(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        self.start_to_follow(filters, start, true).boxed()
    }

    fn end(&self) -> BoxFuture<'_, Result<u64, Error>> {
        self.last_sequence().boxed()
    }

    fn remove(&self, sequence: u64) -> BoxFuture<'_, Result<bool, Error>> {
        self.delete(sequence).boxed()
    }

    fn consumer(&self, name: &str, config: ConsumerConfig) -> BoxFuture<'_, Result<Consumer, Error>> {
        let name = name.to_owned();
        async move {
            check::consumer(&name, &self.config, &config)?;
            let source = NatsConsumer::open(self.shared.clone(), &self.name, &name, &config).await?;
            Ok(Consumer::nats(source))
        }
        .boxed()
    }

    fn consumers(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        self.names_of_consumers().boxed()
    }

    fn remove_consumer(&self, name: &str) -> BoxFuture<'_, Result<(), Error>> {
        let name = name.to_owned();
        async move {
            check::named("consumer", &name)?;
            let what = format!("the consumer {name} of the stream {} cannot be removed", self.name);
            let deleted = self.api(&format!("CONSUMER.DELETE.{}.{name}", self.name), &json!({})).await?;
            match deleted {
                Ok(_) => Ok(()),
                Err(ApiError::Js(error)) if error.number == jetstream::CONSUMER_NOT_FOUND => Ok(()),
                Err(error) => Err(error.into_error(&what)),
            }
        }
        .boxed()
    }
}

impl NatsStream {
    async fn start_to_follow(&self, filters: Vec<Filter>, start: Start, headers_only: bool) -> Result<Follow, Error> {
        check::followed(&self.name, &self.config)?;
        let next = match start {
            Start::At(sequence) => sequence.max(1),
            // As the leader knows it: the consumer may lie on a replica that lags behind.
            Start::New => self.last_sequence().await? + 1,
        };
        let reader = StreamReader::new(&self.name, filters, next, headers_only);
        Ok(Follow::new(reading::start(&self.shared, reader, FOLLOW_CAPACITY).await?))
    }

    async fn delete(&self, sequence: u64) -> Result<bool, Error> {
        let what = format!("the record {sequence} of the stream {} cannot be removed", self.name);
        let request = json!({ "seq": sequence, "no_erase": true });
        match self.api(&format!("STREAM.MSG.DELETE.{}", self.name), &request).await? {
            Ok(_) => Ok(true),
            // One that has gone already is no failure, and the broker has more than one name for that.
            Err(ApiError::Js(error)) => match self.get(json!({ "seq": sequence })).await? {
                None => Ok(false),
                Some(_) => Err(ApiError::Js(error).into_error(&what)),
            },
            Err(error) => Err(error.into_error(&what)),
        }
    }

    async fn names_of_consumers(&self) -> Result<Vec<String>, Error> {
        let what = format!("the consumers of the stream {} cannot be listed", self.name);
        let mut names = Vec::new();
        loop {
            let request = json!({ "offset": names.len() });
            let page = self.api(&format!("CONSUMER.NAMES.{}", self.name), &request).await?;
            let page = page.map_err(|error| error.into_error(&what))?;
            let found = page["consumers"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let before = names.len();
            names.extend(found.map(str::to_owned));
            if names.len() == before || names.len() as u64 >= page["total"].as_u64().unwrap_or_default() {
                return Ok(names);
            }
        }
    }

    async fn api(&self, request: &str, body: &Value) -> Result<Result<Value, ApiError>, Error> {
        let live = self.shared.live()?;
        Ok(live.link.api(&format!("{}.{request}", self.shared.settings.api_prefix), body).await)
    }

    async fn last_sequence(&self) -> Result<u64, Error> {
        let live = self.shared.live()?;
        let what = format!("the stream {} cannot be followed", self.name);
        let info = format!("{}.STREAM.INFO.{}", self.shared.settings.api_prefix, self.name);
        let answer = live.link.api(&info, &json!({})).await.map_err(|error| error.into_error(&what))?;
        answer["state"]["last_seq"]
            .as_u64()
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{what}: the broker does not say how far it is")))
    }
}

/// A message that the leader read, as a record.
fn read_record(message: StreamMessage) -> Record {
    Record {
        sequence: message.sequence,
        subject: message.subject.into_string(),
        headers: headers(Some(message.headers)),
        body: message.payload,
        time: message.time.into(),
    }
}

/// A message that a consumer delivered, as a record.
fn delivered_record(place: &Place, message: Message) -> Record {
    Record {
        sequence: place.stream,
        subject: message.subject.into_string(),
        headers: headers(message.headers),
        body: message.payload,
        time: SystemTime::UNIX_EPOCH + Duration::from_nanos(place.time),
    }
}

/// The headers of a record, but for what its writer expected.
fn headers(map: Option<HeaderMap>) -> Headers {
    let mut headers = link::from_wire(map.as_ref());
    headers.remove(EXPECTED);
    headers
}

/// The part of a consumer's settings that has it begin with a sequence.
fn reading_from(sequence: u64, filters: &[Filter]) -> Value {
    let mut wanted = json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": sequence });
    set_filters(&mut wanted, filters);
    wanted
}

/// The part of a consumer's settings that says what it wants; for every record, nothing.
fn set_filters(config: &mut Value, filters: &[Filter]) {
    match filters {
        [] => {}
        [filter] => config["filter_subject"] = json!(filter.as_str()),
        filters => {
            config["filter_subjects"] = filters.iter().map(Filter::as_str).collect();
        }
    }
}

fn stream_config(name: &str, config: &StreamConfig, replicas: usize) -> Value {
    let mut wanted = json!({
        "name": name,
        "subjects": config.subjects.iter().map(Filter::as_str).collect::<Vec<_>>(),
        "retention": match config.retention {
            Retention::Keep => "limits",
            Retention::WorkQueue => "workqueue",
        },
        "storage": "file",
        "num_replicas": replicas,
        // There are no bounds at which either would matter; the broker wants it so.
        "discard": if config.schedules { "old" } else { "new" },
        "allow_direct": false,
        "deny_delete": !config.deletable,
        "allow_rollup_hdrs": config.schedules,
        "allow_msg_ttl": config.ttl,
        "allow_msg_schedules": config.schedules,
    });
    if let Some((source, destination)) = &config.transform {
        wanted["subject_transform"] = json!({ "src": source, "dest": destination });
    }
    wanted
}
