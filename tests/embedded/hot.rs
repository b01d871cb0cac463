//! Hot keys: turns that run while an append is under way, and what of them leaves the actor when.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Headers, MemoryBroker, Record, Stream, StreamConfig, Transport};
use serde_json::{Value, json};

use super::gate::Gate;
use super::ground::{Ground, bounded, on_both, settled, soon};
use super::outsiders::Outsider;
use crate::harness::{eventually, holds};

/// Numbers that add up.
#[contract(name = "tally", messages(Add, AddLater, Sum, SumStale, SumStrict), event = Added)]
pub(super) struct Tally;

/// Adds a number at once, and ends so; the reply is the sum then.
#[message(Tally, ask, reply = u64, refusal = No)]
pub(super) struct Add {
    pub number: u64,
    #[serde(default)]
    pub end: End,
    /// Makes the record large.
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
        Ok(Self { numbers: ctx.durable().await? })
    }

    #[ask]
    fn add(&mut self, msg: Add) -> Result<u64, No> {
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

on_both!(
    f3_turns_that_come_together_share_an_append,
    e1_a_no_and_a_fall_amid_a_group_leave_no_trace,
    e1_groups_are_bounded_in_turns_and_bytes,
    e1_a_hot_key_changes_hands_without_loss,
    e1_window_of_four_replays_first,
);

pub(super) fn add(number: u64) -> Add {
    ending(number, End::Accept)
}

fn later(number: u64) -> AddLater {
    AddLater { number, gate: String::new() }
}

/// Asks all of these while another turn runs, so that all of them wait; what each came to.
async fn together(actor: &Ref<Tally>, turns: impl IntoIterator<Item = Add>) -> Vec<Result<u64, AskError<No>>> {
    let gate = Gate::closed();
    let held = actor.ask(AddLater { number: 0, gate: gate.name() });
    let opened = async {
        gate.arrived(1).await;
        let (outcomes, ()) = futures_util::join!(join_all(turns.into_iter().map(|turn| actor.ask(turn))), async {
            gate.open(1);
        });
        outcomes
    };
    let (held, outcomes) = futures_util::join!(held, opened);
    held.expect("an answer");
    outcomes
}

fn ending(number: u64, end: End) -> Add {
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
    _connection: std::sync::Arc<dyn Transport>,
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

fn json_of(body: &[u8]) -> Value {
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

async fn f3_turns_that_come_together_share_an_append(ground: Ground) {
    let node = tally(&ground, "one").await;
    let actor = node.actor::<Tally>("hot").within(Duration::from_secs(20));
    actor.ask(add(1)).await.expect("an answer");
    let sums = together(&actor, (0..200).map(|_| add(1))).await;
    for (number, sum) in sums.into_iter().enumerate() {
        assert_eq!(sum.expect("an answer"), number as u64 + 2, "in the order in which they were asked");
    }
    // One that may wait, and a look, keep their places.
    let (before, later, look, after) =
        futures_util::join!(actor.ask(add(1)), actor.ask(later(1)), actor.ask(Sum), actor.ask(add(1)));
    let sums = [before, later, after].map(|sum| sum.expect("an answer"));
    assert_eq!((sums, look.expect("an answer")), ([202, 203, 204], 203));
    let records = Journals::of(&ground, "hot").await.records().await;
    let kept = numbers(&records);
    assert_eq!((kept.len(), kept.iter().sum::<u64>()), (205, 204));
    assert!(records.len() < 20, "{} appends for 205 turns", records.len());
}

async fn e1_a_no_and_a_fall_amid_a_group_leave_no_trace(ground: Ground) {
    let node = tally(&ground, "one").await;
    for end in [End::Refuse, End::Undo, End::Fall] {
        let key = format!("hot-{end:?}");
        let actor = node.actor::<Tally>(&key).within(Duration::from_secs(20));
        actor.ask(add(1)).await.expect("an answer");
        let turns = [1, 1, 50, 1, 1].map(|number| if number > 1 { ending(number, end) } else { add(number) });
        let sums = together(&actor, turns).await;
        let told: Vec<String> = sums
            .iter()
            .map(|sum| match sum {
                Ok(sum) => sum.to_string(),
                Err(AskError::Refused(no)) => no.to_string(),
                Err(AskError::Failed(error)) => format!("{}: {}", error.kind(), error.message()),
            })
            .collect();
        let no = match end {
            End::Fall => {
                format!("panicked: tally/{key} panicked in this turn, which left no trace: the tally falls at 3")
            }
            _ => "not added to 3".to_owned(),
        };
        assert_eq!(told, ["2", "3", &no, "4", "5"], "{end:?}");
        let records = Journals::of(&ground, &key).await.records().await;
        assert_eq!(numbers(&records), [1, 0, 1, 1, 1, 1], "{end:?}");
        assert_eq!(actor.ask(Sum).await.expect("an answer"), 5);
    }
}

async fn e1_groups_are_bounded_in_turns_and_bytes(ground: Ground) {
    let node = ground.node("one").payload_max(128 * 1024).host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&node], &[]).await;
    let many = node.actor::<Tally>("many").within(Duration::from_secs(30));
    for sum in together(&many, (0..700).map(|_| add(1))).await {
        sum.expect("an answer");
    }
    let records = Journals::of(&ground, "many").await.records().await;
    assert_eq!(numbers(&records).len(), 701);
    let most = records.iter().map(|record| list(record, "commands").len()).max();
    assert!((33..=256).contains(&most.unwrap_or(0)), "{most:?}");

    // Large ones, and one amid them that no record can hold: it alone is refused, those behind it are asked again.
    let large = node.actor::<Tally>("large").within(Duration::from_secs(30));
    let noted = |bytes: usize| Add { number: 1, end: End::Accept, note: "n".repeat(bytes) };
    let sizes = (0..40).map(|number| if number == 20 { 131_000 } else { 9_000 + number * 100 });
    let sums = together(&large, sizes.map(noted)).await;
    for (number, sum) in sums.into_iter().enumerate() {
        match (number, sum) {
            (20, sum) => {
                let error = sum.expect_err("it fits into no record");
                assert_eq!(error.failure().map(Error::kind), Some(ErrorKind::PayloadTooLarge), "{error:?}");
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => panic!("{number}: {error:?}"),
        }
    }
    let journals = Journals::of(&ground, "large").await;
    let records = journals.records().await;
    assert_eq!(numbers(&records).len(), 40);
    for record in &records {
        let bytes = record["events"].to_string().len();
        assert!(bytes <= 64 * 1024, "a record with {bytes} bytes of events");
    }
    assert!(records.len() < 20, "{} appends for 40 turns", records.len());
}

async fn e1_a_hot_key_changes_hands_without_loss(ground: Ground) {
    let one = tally(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a client starts");
    settled("tally", &[&one], &[&client]).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..24_u64)
        .map(|caller| {
            let through_one = caller % 4 == 1;
            let (node, stop) = (if through_one { one.clone() } else { client.clone() }, stop.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let number = 1 + caller + 24 * told.len() as u64;
                    let actor = node.actor::<Tally>("hot").within(Duration::from_secs(20));
                    match actor.ask(add(number)).await {
                        Ok(sum) => told.push((number, sum)),
                        // The node that it asked through has left.
                        Err(AskError::Failed(error))
                            if through_one && matches!(error.kind(), ErrorKind::Stopped | ErrorKind::Unknown) =>
                        {
                            break;
                        }
                        Err(error) => panic!("{number}: {error:?}"),
                    }
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let two = ground.node("two").host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&one, &two], &[&client]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut told = BTreeMap::new();
    for caller in join_all(callers).await {
        told.extend(caller.expect("a caller does not panic"));
    }
    let records = Journals::of(&ground, "hot").await.records().await;
    let kept = numbers(&records);
    assert!(records.len() < kept.len(), "some of them shared an append");
    let sums: BTreeMap<u64, u64> = sums_of(&kept);
    for (number, sum) in &told {
        assert_eq!(sums.get(number), Some(sum), "{number} was answered");
    }
    // One that was on its way through a node which stopped may be there without an answer.
    assert!(kept.len() - told.len() <= 24, "{} kept, {} answered", kept.len(), told.len());
}

/// What the sum was after each number, which are all different.
fn sums_of(numbers: &[u64]) -> BTreeMap<u64, u64> {
    let mut sum = 0;
    let sums = numbers.iter().map(|number| {
        sum += number;
        (*number, sum)
    });
    sums.collect()
}

fn command(id: &str, attempt: u32, born: u64) -> Headers {
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", id);
    headers.push("Greenroom-Attempt", attempt.to_string());
    headers.push("Greenroom-Born", born.to_string());
    headers
}

/// Rule 11: what may have been forgotten is never run again, wherever the actor lives by then.
async fn e1_window_of_four_replays_first(ground: Ground) {
    let node = |name: &str| {
        let node = ground.node(name).remembers(4).passivate_after(Duration::from_secs(1));
        node.host::<TallyActor>()
    };
    let one = node("one").start().await.expect("a node starts");
    settled("tally", &[&one], &[]).await;
    let mut outsider = Outsider::on(&ground).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis() as u64;
    let body = |number: u64| json!({ "number": number, "note": "n".repeat(1_500) }).to_string();
    for number in 1..=5 {
        let id = format!("c-{number}");
        let answer = outsider.ask_with("tally.w.add", &body(number), command(&id, 1, now - 1_000 + number)).await;
        assert_eq!(json_of(&answer.body), json!(number * (number + 1) / 2), "{answer:?}");
    }
    let journals = Journals::of(&ground, "w").await;
    let replays = async |outsider: &mut Outsider, when: &str| {
        let answer = outsider.ask_with("tally.w.add", &body(1), command("c-1", 2, now - 999)).await;
        let error = json_of(&answer.body);
        assert_eq!((&error["kind"], &error["details"]["born_after"]), (&json!("expired"), &json!(now - 999)), "{when}");
        // The second is remembered still.
        let answer = outsider.ask_with("tally.w.add", &body(2), command("c-2", 2, now - 998)).await;
        assert_eq!(json_of(&answer.body), json!(3), "{when}");
        assert_eq!(numbers(&journals.records().await), [1, 2, 3, 4, 5], "{when}");
    };
    let has_snapshot = async || {
        let records = journals.records().await;
        records.iter().skip(4).any(|record| record.get("snapshot").is_some())
    };
    assert!(!has_snapshot().await, "the fifth command is in no snapshot yet");
    replays(&mut outsider, "at once").await;
    let gone = async || {
        eventually(Duration::from_secs(15), "nothing is in memory", async || {
            let resident = one.info().resident;
            holds(resident["tally"] == 0, || format!("{resident:?}"))
        })
        .await;
    };
    gone().await;
    replays(&mut outsider, "after passivation, from the records").await;
    // More commands without a birth, until there is a snapshot: they push none of the others out.
    let mut sum = 15;
    while !has_snapshot().await {
        sum += 1;
        let plain = json!({ "number": 1, "note": "n".repeat(1_500) }).to_string();
        let answer = outsider.ask_with("tally.w.add", &plain, Headers::new()).await;
        assert_eq!(json_of(&answer.body), json!(sum), "{answer:?}");
    }
    gone().await;
    let more = usize::try_from(sum - 15).expect("few");
    let expired = async |outsider: &mut Outsider, when: &str| {
        let answer = outsider.ask_with("tally.w.add", &body(1), command("c-1", 2, now - 999)).await;
        assert_eq!(json_of(&answer.body)["kind"], json!("expired"), "{when}");
        assert_eq!(numbers(&journals.records().await).len(), 5 + more, "{when}");
    };
    expired(&mut outsider, "from the snapshot").await;
    let two = node("two").start().await.expect("a node starts");
    settled("tally", &[&one, &two], &[]).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    expired(&mut outsider, "after a handover").await;
    drop(two);
    let three = node("three").start().await.expect("a node starts");
    settled("tally", &[&three], &[]).await;
    expired(&mut outsider, "after a take-over").await;
}

/// What was asked, and what came of it.
enum Told {
    Sum(u64),
    Not(u64),
    Fell(String),
    Looked(u64),
    Failed(Error),
}

/// Rule 8: nothing that saw what was refused gets out. Against the journal, which is the truth: seeded orders of turns
/// of all kinds, appends whose answers are lost or that come late, and a rival that writes in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_refused_append_no_leak() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = tally(&ground, "one").await;
        let mut seen = Seen::default();
        for seed in 1..=60 {
            Box::pin(one_order(&broker, &ground, &node, seed, &mut seen)).await;
        }
        println!("{seen:?}");
        // It is no proof that all went well if nothing went wrong.
        assert!(seen.shared > 50 && seen.rivals > 50 && seen.lost > 50 && seen.seen > 100, "{seen:?}");
    })
    .await;
}

#[derive(Debug, Default)]
struct Seen {
    /// Appends of several turns.
    shared: usize,
    /// Records of the rival, each of which refuses what the node has on its way.
    rivals: usize,
    /// Answers lost, and appends delayed.
    lost: usize,
    /// Refusals, panics and looks that told a sum.
    seen: usize,
}

struct Chance(u64);

impl Chance {
    fn of(&mut self, many: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % many
    }
}

async fn one_order(broker: &MemoryBroker, ground: &Ground, node: &Node, seed: u64, seen: &mut Seen) {
    let key = format!("k-{seed}");
    let journals = Journals::of(ground, &key).await;
    let faults = broker.faults(&ground.subjects().journal_stream("tally"));
    let mut echoes = node.subscribe::<Added>().key(&key).live().await.expect("a subscription");
    let mut chance = Chance(seed);
    let mut asked = Vec::new();
    let mut fallen = false;
    for step in 0..60_u64 {
        let number = 1 << (step % 6) | (step + 1) << 8;
        let actor = node.actor::<Tally>(&key).within(Duration::from_secs(20));
        let end = match chance.of(12) {
            0..=5 => Some(End::Accept),
            6 | 7 => Some(End::Refuse),
            8 => Some(End::Undo),
            9 if !fallen => {
                fallen = true;
                Some(End::Fall)
            }
            _ => None,
        };
        let look = end.is_none() && chance.of(2) == 0;
        asked.push((
            number,
            tokio::spawn(async move {
                let outcome = match end {
                    Some(end) => actor.ask(ending(number, end)).await,
                    None if look => return actor.ask(Sum).await.map_or_else(failed, Told::Looked),
                    None => actor.ask(later(number)).await,
                };
                match outcome {
                    Ok(sum) => Told::Sum(sum),
                    Err(AskError::Refused(no)) => Told::Not(no.seen),
                    Err(AskError::Failed(error)) if error.kind() == ErrorKind::Panicked => {
                        Told::Fell(error.message().to_owned())
                    }
                    Err(AskError::Failed(error)) => Told::Failed(error),
                }
            }),
        ));
        match chance.of(14) {
            0 | 1 => {
                faults.lose_next_answer();
                seen.lost += 1;
            }
            2 => {
                faults.delay_next(Duration::from_millis(chance.of(40)));
                seen.lost += 1;
            }
            3 | 4 => {
                // An append of the node waits to be sent again: now a rival is faster.
                faults.delay_next(Duration::from_millis(15));
                seen.lost += 1;
                tokio::time::sleep(Duration::from_millis(chance.of(6))).await;
                rival(&journals, seed * 1_000 + step).await;
            }
            5..=9 => tokio::time::sleep(Duration::from_micros(chance.of(3_000))).await,
            _ => {}
        }
    }
    let mut told = Vec::new();
    for (number, outcome) in asked {
        told.push((number, soon("an answer", outcome).await.expect("a caller does not panic")));
    }
    faults.clear();
    // Whatever is late has arrived.
    node.actor::<Tally>(&key).ask(later(0)).await.expect("an answer");
    let records = journals.records().await;
    seen.shared += records.iter().filter(|record| list(record, "commands").len() > 1).count();
    seen.rivals +=
        records.iter().filter(|record| record["id"].as_str().is_some_and(|id| id.starts_with("rival"))).count();
    check(seed, &records, &told, seen);
    let kept = numbers(&records);
    while let Ok(Some(echo)) = tokio::time::timeout(Duration::from_millis(20), echoes.next()).await {
        let Added::Number { number, .. } = echo.event;
        let place = usize::try_from(echo.sequence - 1).expect("small");
        assert_eq!(kept.get(place), Some(&number), "seed {seed}: an echo of what was not kept");
    }
}

fn failed<R>(error: AskError<R>) -> Told {
    match error {
        AskError::Failed(error) => Told::Failed(error),
        AskError::Refused(_) => unreachable!("a look refuses nothing"),
    }
}

/// Everything that anybody was told is in the journal.
fn check(seed: u64, records: &[Value], told: &[(u64, Told)], seen: &mut Seen) {
    let kept = numbers(records);
    let sums = sums_of(&kept);
    let was = |sum: u64| sum == 0 || sums.values().any(|known| *known == sum);
    for (number, told) in told {
        let stored = kept.iter().filter(|known| *known == number).count();
        match told {
            Told::Sum(sum) => assert_eq!((stored, sums.get(number)), (1, Some(sum)), "seed {seed}, {number}"),
            Told::Not(sum) | Told::Looked(sum) => {
                assert_eq!(stored, 0, "seed {seed}, {number} was refused and is kept");
                assert!(was(*sum), "seed {seed}, {number}: the sum was never {sum}: {sums:?}");
                seen.seen += 1;
            }
            Told::Fell(why) => {
                let sum = why.rsplit(' ').next().and_then(|sum| sum.parse().ok()).expect("a sum");
                assert!(stored == 0 && was(sum), "seed {seed}, {number}: the sum was never {sum}: {sums:?}");
                seen.seen += 1;
            }
            Told::Failed(error) if error.kind() == ErrorKind::Unknown => assert!(stored <= 1),
            Told::Failed(error) => assert_eq!(stored, 0, "seed {seed}, {number} is kept, and was told: {error}"),
        }
    }
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

/// While an append is under way for long, as many turns run behind it as the next one may hold, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_what_runs_behind_a_slow_append_is_bounded() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = tally(&ground, "one").await;
        let actor = node.actor::<Tally>("slow").within(Duration::from_secs(20));
        actor.ask(add(1)).await.expect("an answer");
        // It is sent again until it is there.
        broker.faults(&ground.subjects().journal_stream("tally")).delay_next(Duration::from_millis(700));
        for (number, sum) in join_all((0..900).map(|_| actor.ask(add(1)))).await.into_iter().enumerate() {
            assert_eq!(sum.expect("an answer"), number as u64 + 2);
        }
        let records = Journals::of(&ground, "slow").await.records().await;
        assert_eq!(numbers(&records).len(), 901);
        let most = records.iter().map(|record| list(record, "commands").len()).max();
        assert!((128..=256).contains(&most.unwrap_or(0)), "{most:?}: as many as a record may hold, since all waited");
    })
    .await;
}
