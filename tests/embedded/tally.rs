//! An actor that adds numbers and keeps them, and its journal as others see it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Headers, Record, Stream, StreamConfig, Transport};
use serde_json::{Value, json};

use super::gate::Gate;
use super::ground::{Ground, settled};

/// Numbers that add up.
#[contract(name = "tally", messages(Add, AddLater, Sum, SumStale, SumStrict), event = Added)]
pub(super) struct Tally;

/// Adds a number at once, and ends so; the reply is the sum then.
#[message(Tally, ask, reply = u64, refusal = No)]
pub(super) struct Add {
    pub number: u64,
    #[serde(default)]
    pub end: End,
    /// Makes the record large. A gate of this name is passed before anything happens, and the thread blocked meanwhile.
    #[serde(default)]
    pub note: String,
}

/// The same by a handler that may wait.
#[message(Tally, ask, reply = u64, refusal = No)]
pub(super) struct AddLater {
    pub number: u64,
    /// Passed before anything happens.
    #[serde(default)]
    pub gate: String,
}

#[message(Tally, read, reply = u64)]
pub(super) struct Sum;

/// What the node has.
#[message(Tally, read, reply = u64)]
pub(super) struct SumStale;

/// What nobody else has changed.
#[message(Tally, read, reply = u64)]
pub(super) struct SumStrict;

/// How a turn ends.
#[data]
#[derive(Default, PartialEq, Copy)]
pub(super) enum End {
    #[default]
    Accept,
    /// Without an event.
    Refuse,
    /// After one.
    Undo,
    /// After one too.
    Fall,
}

/// What the sum was without this turn.
#[refusal]
#[derive(PartialEq)]
pub(super) struct No {
    pub seen: u64,
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not added to {}", self.seen)
    }
}

#[event(Tally)]
#[derive(PartialEq)]
pub(super) enum Added {
    Number { number: u64, note: String },
}

#[data]
#[derive(Default)]
struct Numbers {
    sum: u64,
}

impl State for Numbers {
    type Event = Added;

    fn apply(&mut self, event: &Added) {
        let Added::Number { number, .. } = event;
        self.sum += number;
    }
}

pub(super) struct TallyActor {
    numbers: Durable<Numbers>,
}

#[actor(Tally, state = numbers, durable)]
impl TallyActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        if let Some(gate) = Gate::named(ctx.key().as_str()) {
            gate.pass().await;
        }
        Ok(Self { numbers: ctx.durable().await? })
    }

    #[ask]
    fn add(&mut self, msg: Add) -> Result<u64, No> {
        if let Some(gate) = Gate::named(&msg.note) {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(gate.pass()));
        }
        let seen = self.numbers.sum;
        if msg.end == End::Refuse {
            return Err(No { seen });
        }
        self.numbers.emit(Added::Number { number: msg.number, note: msg.note });
        match msg.end {
            End::Undo => Err(No { seen }),
            End::Fall => panic!("the tally falls at {seen}"),
            End::Accept | End::Refuse => Ok(self.numbers.sum),
        }
    }

    #[ask]
    async fn add_later(&mut self, msg: AddLater) -> Result<u64, No> {
        match Gate::named(&msg.gate) {
            Some(gate) => gate.pass().await,
            None => tokio::task::yield_now().await,
        }
        self.numbers.emit(Added::Number { number: msg.number, note: String::new() });
        Ok(self.numbers.sum)
    }

    #[read]
    fn sum(&self, _: Sum) -> u64 {
        self.numbers.sum
    }

    #[read(stale)]
    fn sum_stale(&self, _: SumStale) -> u64 {
        self.numbers.sum
    }

    #[read(strict)]
    fn sum_strict(&self, _: SumStrict) -> u64 {
        self.numbers.sum
    }
}

pub(super) fn add(number: u64) -> Add {
    ending(number, End::Accept)
}

pub(super) fn later(number: u64) -> AddLater {
    AddLater { number, gate: String::new() }
}

pub(super) fn ending(number: u64, end: End) -> Add {
    Add { number, end, note: String::new() }
}

pub(super) async fn tally(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&node], &[]).await;
    node
}

/// The journals, as whoever has the broker's address sees them.
pub(super) struct Journals {
    pub(super) stream: Box<dyn Stream>,
    pub(super) subject: Subject,
    _connection: Arc<dyn Transport>,
}

impl Journals {
    pub(super) async fn of(ground: &Ground, key: &str) -> Self {
        let connection = ground.connect("reader").await;
        let subjects = ground.subjects();
        let config = StreamConfig::new([subjects.journals("tally")]);
        let stream = connection.stream(&subjects.journal_stream("tally"), config).await.expect("the stream");
        let subject = subjects.journal("tally", &Key::new(key).expect("a key"));
        Self { stream, subject, _connection: connection }
    }

    pub(super) async fn last(&self) -> Option<Record> {
        self.stream.last(&self.subject).await.expect("an answer")
    }

    /// All records as JSON, oldest first.
    pub(super) async fn records(&self) -> Vec<Value> {
        let Some(last) = self.last().await else { return Vec::new() };
        let (mut records, mut next) = (Vec::new(), 1);
        while next <= last.sequence {
            let part = self.stream.read(&self.subject, next, last.sequence).await.expect("records");
            next = part.last().expect("at least one").sequence + 1;
            records.extend(part.iter().map(|record| json_of(&record.body)));
        }
        records
    }
}

pub(super) fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

pub(super) fn list<'a>(record: &'a Value, of: &str) -> &'a [Value] {
    record[of].as_array().map_or(&[], Vec::as_slice)
}

/// The numbers of a journal in order; its events are numbered without gaps, its epochs never fall, and no command is
/// there twice.
pub(super) fn numbers(records: &[Value]) -> Vec<u64> {
    let (mut next, mut epoch) = (1, 0);
    let mut numbers = Vec::new();
    let mut commands = BTreeMap::<String, usize>::new();
    for record in records {
        assert_eq!(record["first"], json!(next), "{record:#}");
        assert!(record["epoch"].as_u64() >= Some(epoch), "an older owner wrote after a newer one: {record:#}");
        epoch = record["epoch"].as_u64().expect("a number");
        for event in list(record, "events") {
            numbers.push(event["body"]["number"]["number"].as_u64().expect("a number"));
            next += 1;
        }
        for command in list(record, "commands") {
            *commands.entry(command["id"].to_string()).or_default() += 1;
        }
    }
    assert!(commands.values().all(|times| *times == 1), "{commands:?}");
    numbers
}

/// What the sum was after each number, which are all different.
pub(super) fn sums_of(numbers: &[u64]) -> BTreeMap<u64, u64> {
    let mut sum = 0;
    let sums = numbers.iter().map(|number| {
        sum += number;
        (*number, sum)
    });
    sums.collect()
}

/// Writes a record as another owner would: over the newest, if nobody is faster.
pub(super) async fn rival(journals: &Journals, number: u64) {
    let Some(last) = journals.last().await else { return };
    let mut record = json_of(&last.body);
    let number = number | 1 << 40;
    let bytes = last.body.len() as u64;
    let has_snapshot = record.get("snapshot").is_some();
    record["first"] = json!(record["first"].as_u64().expect("a number") + list(&record, "events").len() as u64);
    record["base"] = if has_snapshot { json!(last.sequence) } else { record["base"].clone() };
    record["since"] = if has_snapshot { json!(0) } else { json!(record["since"].as_u64().unwrap_or(0) + bytes) };
    record["id"] = json!(format!("rival-{number}"));
    let body = json!({ "number": { "number": number, "note": "" } });
    record["events"] = json!([{ "name": "number", "version": 1, "body": body }]);
    let fields = record.as_object_mut().expect("an object");
    fields.remove("snapshot");
    fields.remove("commands");
    let stored =
        journals.stream.append(&journals.subject, Some(last.sequence), Headers::new(), record.to_string().into());
    // Its own answer may be lost.
    stored.await.ok();
}
