//! More than one writer of a journal: what a dead owner still had on its way, and what was delayed.

use std::sync::Arc;
use std::time::Duration;

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::transport::{Headers, MemoryBroker, Outbound, Record, Stream, StreamConfig, Transport, WriteError};
use serde_json::{Value, json};

use super::gate::Gate;
use super::ground::{Ground, QUIET, SOON, bounded, on_both, settled, soon};
use crate::harness::{eventually, holds, nats};

#[contract(name = "pot", messages(Put, Held, Keep), event = In)]
struct Pot;

/// Puts an amount in, past a gate if one is named.
#[message(Pot, ask, reply = u64)]
struct Put {
    amount: u64,
    #[serde(default)]
    gate: String,
}

/// Looks, past a gate if one is named.
#[message(Pot, read, reply = u64)]
struct Held {
    #[serde(default)]
    gate: String,
}

/// A turn that changes nothing.
#[message(Pot, ask, reply = u64)]
struct Keep;

#[event(Pot)]
#[derive(PartialEq)]
enum In {
    In { amount: u64 },
}

#[data]
#[derive(Default)]
struct Money {
    held: u64,
}

impl State for Money {
    type Event = In;

    fn apply(&mut self, event: &In) {
        let In::In { amount } = event;
        self.held += amount;
    }
}

struct PotActor {
    money: Durable<Money>,
}

#[actor(Pot, state = money, durable)]
impl PotActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { money: ctx.durable().await? })
    }

    #[ask]
    async fn put(&mut self, msg: Put) -> u64 {
        pass(&msg.gate).await;
        self.money.emit(In::In { amount: msg.amount });
        self.money.held
    }

    #[read]
    async fn held(&self, msg: Held) -> u64 {
        let held = self.money.held;
        pass(&msg.gate).await;
        held
    }

    #[ask]
    fn keep(&mut self, _: Keep) -> u64 {
        self.money.held
    }
}

async fn pass(gate: &str) {
    if let Some(gate) = Gate::named(gate) {
        gate.pass().await;
    }
}

on_both!(
    e1_zombie_append_then_read,
    e1_zombie_append_before_the_heir_reads_is_seen,
    e1_a_key_without_a_journal_is_read_anew_for_every_call,
    e1_own_write_is_known_by_its_append_id_alone,
    e1_an_activation_just_after_a_leader_change_appends_first,
);

fn put(amount: u64) -> Put {
    Put { amount, gate: String::new() }
}

fn look() -> Held {
    Held { gate: String::new() }
}

async fn pot(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<PotActor>().start().await.expect("a node starts");
    settled("pot", &[&node], &[]).await;
    node
}

/// The journals, as somebody sees them who has no node.
struct Journals {
    ground: Ground,
    stream: Box<dyn Stream>,
    _connection: Arc<dyn Transport>,
}

impl Journals {
    async fn of(ground: Ground) -> Self {
        let connection = ground.connect("reader").await;
        let subjects = ground.subjects();
        let config = StreamConfig::new([subjects.journals("pot")]);
        let stream = connection.stream(&subjects.journal_stream("pot"), config).await.expect("the stream");
        Self { ground, stream, _connection: connection }
    }

    async fn last(&self, key: &str) -> Record {
        self.last_if_any(key).await.expect("a record")
    }

    async fn last_if_any(&self, key: &str) -> Option<Record> {
        self.stream.last(&self.subject(key)).await.expect("an answer")
    }

    fn subject(&self, key: &str) -> greenroom::subject::Subject {
        self.ground.subjects().journal("pot", &Key::new(key).expect("a key"))
    }

    /// Stores what another writer makes of `like`, which it takes for the last record: an amount that came in.
    async fn append(&self, key: &str, writer: &str, like: &Record, over: u64) -> Result<u64, WriteError> {
        let last = json_of(like);
        let first = if over == 0 { json!(1) } else { json!(last["first"].as_u64().map(|first| first + 1)) };
        let record = json!({
            "form": 1, "id": writer, "epoch": last["epoch"], "first": first, "base": over,
            "events": [{ "name": "in", "version": 1, "body": { "in": { "amount": 5 } } }],
        });
        let mut headers = Headers::new();
        headers.push("Greenroom-Append", writer);
        headers.push("Greenroom-Epoch", last["epoch"].to_string());
        headers.push("Greenroom-Events", "in");
        self.stream.append(&self.subject(key), Some(over), headers, record.to_string().into()).await
    }
}

fn json_of(record: &Record) -> Value {
    serde_json::from_slice(&record.body).expect("a record is JSON")
}

/// What a dead owner still had in a queue arrives when the next one has read the journal and answered.
async fn e1_zombie_append_then_read(ground: Ground) {
    let one = pot(&ground, "one").await;
    assert_eq!(one.actor::<Pot>("p").ask(put(10)).await.expect("an answer"), 10);
    let dead = format!("{}-9999", one.id());
    // Cut off, as if its process had died.
    drop(one);
    let two = pot(&ground, "two").await;
    let journals = Journals::of(ground).await;
    let known = journals.last("p").await;
    let heir = two.actor::<Pot>("p").within(SOON);
    assert_eq!(heir.ask(look()).await.expect("an answer"), 10);

    let zombie = journals.append("p", &dead, &known, known.sequence).await;
    assert!(matches!(zombie, Err(WriteError::Conflict)), "stored behind the back of the new owner: {zombie:?}");
    assert_eq!(heir.ask(look()).await.expect("an answer"), 10);
    assert_eq!(heir.ask(put(1)).await.expect("an answer"), 11);
    let signed = json_of(&journals.last("p").await)["epoch"].as_u64();
    assert!(signed > json_of(&known)["epoch"].as_u64(), "under an epoch of its own: {signed:?}");
}

/// The other order: it arrives before, so everything that the next owner says knows of it.
async fn e1_zombie_append_before_the_heir_reads_is_seen(ground: Ground) {
    let one = pot(&ground, "one").await;
    assert_eq!(one.actor::<Pot>("p").ask(put(10)).await.expect("an answer"), 10);
    let dead = format!("{}-9999", one.id());
    drop(one);
    let journals = Journals::of(ground).await;
    let known = journals.last("p").await;
    let stored = journals.append("p", &dead, &known, known.sequence).await;
    assert!(stored.is_ok(), "nobody else has written: {stored:?}");
    let two = pot(&journals.ground, "two").await;
    assert_eq!(two.actor::<Pot>("p").within(SOON).ask(look()).await.expect("an answer"), 15);
}

/// Of a key that was never written nothing is kept, not even for reads that run together: what the owner before had on
/// its way may be stored at any moment.
async fn e1_a_key_without_a_journal_is_read_anew_for_every_call(ground: Ground) {
    let one = pot(&ground, "one").await;
    one.actor::<Pot>("known").ask(put(1)).await.expect("an answer");
    let dead = format!("{}-9999", one.id());
    drop(one);
    let two = pot(&ground, "two").await;
    let journals = Journals::of(ground).await;
    let known = journals.last("known").await;
    let gate = Gate::closed();
    let ask = |gate: String| {
        let actor = two.actor::<Pot>("new").within(SOON);
        tokio::spawn(async move { actor.ask(Held { gate }).await })
    };
    let first = ask(gate.name());
    gate.arrived(1).await;
    journals.append("new", &dead, &known, 0).await.expect("nobody else has written");
    let second = ask(String::new());
    // It has come by then, while the first still looks.
    tokio::time::sleep(QUIET).await;
    gate.open(1);
    assert_eq!(soon("the first", first).await.expect("no panic").expect("an answer"), 0, "before it was stored");
    assert_eq!(soon("the second", second).await.expect("no panic").expect("an answer"), 5, "asked after it was stored");
}

/// A record of the same node under the same epoch stands where the next one was to be: it is not the next one.
async fn e1_own_write_is_known_by_its_append_id_alone(ground: Ground) {
    let one = pot(&ground, "one").await;
    one.actor::<Pot>("p").ask(put(10)).await.expect("an answer");
    let id = format!("{}-9999", one.id());
    let journals = Journals::of(ground).await;
    let known = journals.last("p").await;
    journals.append("p", &id, &known, known.sequence).await.expect("stored");
    // The turn is refused its append, and its caller sends the command again.
    assert_eq!(one.actor::<Pot>("p").within(SOON).ask(put(1)).await.expect("an answer"), 16);
    assert_eq!(one.actor::<Pot>("p").within(SOON).ask(look()).await.expect("an answer"), 16);
}

/// Keys with journals, all given by their owner in order to a node that has none of them in memory.
async fn moved(ground: Ground, keys: &[String]) -> (Node, Journals) {
    let one = pot(&ground, "one").await;
    for key in keys {
        assert_eq!(one.actor::<Pot>(key).ask(put(10)).await.expect("an answer"), 10);
    }
    let two = ground.node("two").host::<PotActor>().start().await.expect("a node starts");
    settled("pot", &[&one, &two], &[]).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    (two, Journals::of(ground).await)
}

/// Whether an activation has signed the journal with a record of its own, which holds the state and no event.
async fn signed(node: &Node, journals: &Journals, key: &str) -> bool {
    let before = journals.last(key).await.sequence;
    assert_eq!(node.actor::<Pot>(key).within(SOON).ask(look()).await.expect("an answer"), 10, "{key}");
    let last = journals.last(key).await;
    let sign = json_of(&last);
    assert!(last.sequence == before || (sign["events"].is_null() && sign["snapshot"].is_object()), "{sign}");
    last.sequence > before
}

/// A leader that was deposed may answer reads for a while yet, but it accepts nothing.
async fn e1_an_activation_just_after_a_leader_change_appends_first(ground: Ground) {
    let keys: Vec<String> = (0..20).map(|number| format!("p-{number}")).collect();
    let (two, journals) = moved(ground, &keys).await;
    assert!(!signed(&two, &journals, &keys[0]).await, "given in order, by a leader that stays");
    let elected = format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{}-evt-pot", journals.ground.app());
    let elected = greenroom::subject::Subject::parse(&elected).expect("a subject");
    let outside = journals.ground.connect("broker").await;
    outside.publish(Outbound::new(elected, "{}")).expect("sent");
    let mut fresh = keys[1..].iter();
    eventually(SOON, "activations append before they answer", async || {
        let key = fresh.next().expect("the node heard of it long ago");
        holds(signed(&two, &journals, key).await, || key.clone())
    })
    .await;
}

/// The same where the change shows by nothing but calls that fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_an_activation_just_after_the_leader_was_away_appends_first() {
    bounded(async {
        let broker = MemoryBroker::new();
        let keys = ["p".to_owned(), "q".to_owned()];
        let (two, journals) = moved(Ground::on(broker.clone()), &keys).await;
        assert!(!signed(&two, &journals, "p").await, "given in order, by a leader that stays");
        broker.faults(&journals.ground.subjects().journal_stream("pot")).no_leader(Duration::from_secs(1));
        let away = two.actor::<Pot>("q").within(Duration::from_millis(300)).ask(look()).await;
        assert!(away.is_err(), "{away:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(signed(&two, &journals, "q").await, "another leader may have answered");
    })
    .await;
}

/// A replica may be behind what was acknowledged. So journals let nobody be answered by one: asked past their leader,
/// they do not answer at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_no_replica_answers_for_the_leader() {
    bounded(async {
        let ground = Ground::nats_alone().await;
        let one = pot(&ground, "one").await;
        assert_eq!(one.actor::<Pot>("p").ask(put(10)).await.expect("an answer"), 10);
        let server = ground.server().expect("a server of its own");
        let subjects = ground.subjects();
        let stream = subjects.journal_stream("pot");
        let last = json!({ "last_by_subj": subjects.journal("pot", &Key::new("p").expect("a key")).as_str() });
        let ask = async |api: &str| nats(server, &["req", &format!("$JS.API.{api}.{stream}"), &last.to_string()]).await;
        let led = ask("STREAM.MSG.GET").await.reply();
        assert!(led["message"]["seq"].is_u64(), "its leader knows the record: {led}");
        let direct = ask("DIRECT.GET").await;
        assert!(direct.no_responders(), "whichever server is the first answers for all: {direct:?}");
    })
    .await;
}

/// Appends are on their way for longer than their caller waits. Nobody can tell one that is late from one that was
/// lost: so the caller is told that it is not known, nothing else of the actor runs, and it is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_delayed_append_not_lost() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = pot(&ground, "one").await;
        let faults = broker.faults(&ground.subjects().journal_stream("pot"));
        let journals = Journals::of(ground).await;
        let actor = node.actor::<Pot>("p");
        assert_eq!(actor.ask(put(1)).await.expect("an answer"), 1);
        let before = journals.last("p").await.sequence;

        faults.delay(Duration::from_secs(4));
        let told = node.actor::<Pot>("p").within(Duration::from_millis(500)).ask(put(10)).await;
        let error = told.expect_err("it is not stored").failure().map(|error| (error.kind(), error.is_retryable()));
        assert_eq!(error, Some((ErrorKind::Unknown, false)));
        assert_eq!(journals.last("p").await.sequence, before, "and it is not stored yet");
        let gate = Gate::closed();
        let next = {
            let (actor, gate) = (node.actor::<Pot>("p").within(SOON), gate.name());
            tokio::spawn(async move { actor.ask(Put { amount: 100, gate }).await })
        };
        assert_eq!(gate.arrivals_after_quiet().await, 0, "no other turn before the fate of this one is known");
        eventually(SOON, "it arrives", async || {
            let last = journals.last("p").await.sequence;
            holds(last > before, || last.to_string())
        })
        .await;
        faults.clear();
        gate.open(1);
        assert_eq!(soon("the next turn", next).await.expect("no panic").expect("an answer"), 111, "once");
        // What was sent meanwhile, again and again, arrives too, and is refused.
        tokio::time::sleep(Duration::from_millis(4_500)).await;
        assert_eq!(actor.ask(look()).await.expect("an answer"), 111);
        let last = journals.last("p").await;
        let records = journals.stream.read(&journals.subject("p"), 1, last.sequence).await.expect("all of them");
        let kept: Vec<u64> = records
            .iter()
            .flat_map(|record| json_of(record)["events"].as_array().cloned().unwrap_or_default())
            .filter_map(|event| event["body"]["in"]["amount"].as_u64())
            .collect();
        assert_eq!(kept, [1, 10, 100], "each turn once, in order");
        assert_eq!(actor.ask(Keep).await.expect("an answer"), 111);
    })
    .await;
}
