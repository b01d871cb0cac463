//! Actors that keep journals: what was acknowledged is kept, and takes effect once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::transport::{Headers, MemoryBroker, Stream, StreamConfig, Transport};
use serde_json::{Value, json};

use super::ground::{Ground, bounded, on_both, settled, soon};
use super::outsiders::Outsider;
use crate::harness::{eventually, holds};

/// Money that outlives its node.
#[contract(name = "vault", messages(Put, PutTwice, Held, Pay), event = Moved)]
struct Vault;

/// Puts an amount in, and then ends so. The reply is what is held then.
#[message(Vault, ask, reply = u64, refusal = NotPut)]
struct Put {
    amount: u64,
    #[serde(default)]
    then: Then,
}

/// The same in two steps, with an end between them.
#[message(Vault, ask, reply = u64, refusal = NotPut)]
struct PutTwice {
    amount: u64,
    between: Then,
}

#[message(Vault, read, reply = u64)]
struct Held;

/// Puts one into another vault, by a call that belongs to this turn, and notes it here.
#[message(Vault, ask, reply = u64, refusal = NotPut)]
struct Pay {
    into: String,
    then: Then,
}

#[data]
#[derive(Default, PartialEq)]
enum Then {
    #[default]
    Accept,
    Refuse,
    Fall,
}

#[refusal]
#[derive(PartialEq)]
struct NotPut;

impl fmt::Display for NotPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not put")
    }
}

#[event(Vault)]
#[derive(PartialEq)]
enum Moved {
    In { amount: u64 },
    Out { amount: u64 },
}

#[data]
#[derive(Default)]
struct Money {
    held: u64,
    /// Makes the state large, so that snapshots are not in every record.
    notes: Vec<String>,
}

impl State for Money {
    type Event = Moved;

    fn apply(&mut self, event: &Moved) {
        match event {
            Moved::In { amount } => self.held += amount,
            Moved::Out { amount } => self.held -= amount,
        }
        self.notes.push(format!("after {} events it held {}", self.notes.len() + 1, self.held));
    }
}

struct VaultActor {
    money: Durable<Money>,
}

#[actor(Vault, state = money, durable)]
impl VaultActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { money: ctx.durable().await? })
    }

    #[ask]
    fn put(&mut self, msg: Put) -> Result<u64, NotPut> {
        self.money.emit(Moved::In { amount: msg.amount });
        self.end(&msg.then)
    }

    #[ask]
    async fn put_twice(&mut self, msg: PutTwice, ctx: &mut Context<'_, Self>) -> Result<u64, NotPut> {
        self.money.emit(Moved::In { amount: msg.amount });
        ctx.commit(&mut self.money).await.map_err(|_| NotPut)?;
        self.end(&msg.between)?;
        self.money.emit(Moved::In { amount: msg.amount });
        self.end(&Then::Accept)
    }

    #[read]
    fn held(&self, _: Held) -> u64 {
        self.money.held
    }

    #[ask]
    async fn pay(&mut self, msg: Pay, ctx: &mut Context<'_, Self>) -> Result<u64, NotPut> {
        self.money.emit(Moved::Out { amount: 1 });
        let other = ctx.actor::<Vault>(&msg.into);
        other.ask(Put { amount: 1, then: Then::Accept }).await.map_err(|_| NotPut)?;
        self.end(&msg.then)
    }

    fn end(&self, then: &Then) -> Result<u64, NotPut> {
        match then {
            Then::Accept => Ok(self.money.held),
            Then::Refuse => Err(NotPut),
            Then::Fall => panic!("the vault falls with {} in it", self.money.held),
        }
    }
}

on_both!(
    r5_what_was_acknowledged_outlives_its_node,
    r5_a_planned_move_takes_the_state_along,
    r5_a_refused_or_panicking_turn_leaves_no_trace_beyond_its_commits,
    e1_a_command_that_comes_again_takes_effect_once,
    e1_a_turn_that_was_cut_between_its_commits_is_not_run_again,
    r5_what_never_was_leaves_nothing_behind,
    r5_many_events_and_their_snapshots_give_one_state,
    e1_the_journal_tells_its_story_in_json,
    e1_a_journal_is_read_from_where_its_reader_stopped,
    f3_idle_actors_leave_memory_and_come_back,
    f3_at_the_bound_an_idle_actor_makes_room,
);

fn put(amount: u64) -> Put {
    Put { amount, then: Then::Accept }
}

async fn vault(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<VaultActor>().start().await.expect("a node starts");
    settled("vault", &[&node], &[]).await;
    node
}

/// The stream of the journals, and the connection it is read by.
async fn journals(ground: &Ground) -> (Box<dyn Stream>, Arc<dyn Transport>) {
    let outside = ground.connect("reader").await;
    let subjects = ground.subjects();
    let config = StreamConfig::new([subjects.journals("vault")]);
    (outside.stream(&subjects.journal_stream("vault"), config).await.expect("the stream"), outside)
}

async fn r5_what_was_acknowledged_outlives_its_node(ground: Ground) {
    let one = vault(&ground, "one").await;
    for round in 1..=5 {
        assert_eq!(one.actor::<Vault>("v").ask(put(10)).await.expect("an answer"), round * 10);
    }
    assert_eq!(one.actor::<Vault>("v").ask(Held).await.expect("an answer"), 50);
    // Cut off, as if its process had died.
    drop(one);
    let two = ground.node("two").host::<VaultActor>().start().await.expect("a node starts");
    settled("vault", &[&two], &[]).await;
    assert_eq!(two.actor::<Vault>("v").ask(Held).await.expect("an answer"), 50);
    assert_eq!(two.actor::<Vault>("v").ask(put(1)).await.expect("an answer"), 51);
}

async fn r5_a_planned_move_takes_the_state_along(ground: Ground) {
    let one = vault(&ground, "one").await;
    let keys: Vec<String> = (0..24).map(|n| format!("v-{n}")).collect();
    for key in &keys {
        one.actor::<Vault>(key).ask(put(7)).await.expect("an answer");
    }
    let two = ground.node("two").host::<VaultActor>().start().await.expect("a node starts");
    settled("vault", &[&one, &two], &[]).await;
    for key in &keys {
        assert_eq!(two.actor::<Vault>(key).ask(put(1)).await.expect("an answer"), 8, "{key}");
    }
    soon("it leaves in order", one.drain()).await.expect("drained");
    for key in &keys {
        assert_eq!(two.actor::<Vault>(key).ask(Held).await.expect("an answer"), 8, "{key}");
    }
}

async fn r5_a_refused_or_panicking_turn_leaves_no_trace_beyond_its_commits(ground: Ground) {
    let one = vault(&ground, "one").await;
    let actor = one.actor::<Vault>("v");
    actor.ask(put(10)).await.expect("an answer");
    let refused = actor.ask(Put { amount: 5, then: Then::Refuse }).await;
    assert_eq!(refused.expect_err("no").refusal(), Some(&NotPut));
    assert_eq!(actor.ask(Held).await.expect("an answer"), 10);
    let fell = actor.ask(Put { amount: 5, then: Then::Fall }).await.expect_err("it falls");
    assert_eq!(fell.failure().map(Error::kind), Some(ErrorKind::Panicked));
    assert_eq!(actor.ask(Held).await.expect("an answer"), 10);
    let cut = actor.ask(PutTwice { amount: 3, between: Then::Refuse }).await;
    assert_eq!(cut.expect_err("no").refusal(), Some(&NotPut));
    assert_eq!(actor.ask(Held).await.expect("an answer"), 13, "the first step was kept");
    assert_eq!(actor.ask(put(1)).await.expect("an answer"), 14);
}

fn with_id(id: &str) -> Headers {
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", id);
    headers
}

async fn e1_a_command_that_comes_again_takes_effect_once(ground: Ground) {
    let one = vault(&ground, "one").await;
    let mut outsider = Outsider::on(&ground).await;
    let first = outsider.ask_with("vault.v.put", r#"{"amount":10}"#, with_id("c-1")).await;
    assert_eq!(&first.body[..], b"10");
    outsider.ask_with("vault.v.put", r#"{"amount":5}"#, with_id("c-2")).await;
    let again = outsider.ask_with("vault.v.put", r#"{"amount":10}"#, with_id("c-1")).await;
    assert_eq!(&again.body[..], b"10", "the same reply");
    let other = outsider.ask_with("vault.v.put", r#"{"amount":11}"#, with_id("c-1")).await;
    assert_eq!(other.headers.get("Nats-Service-Error-Code"), Some("422"), "{other:?}");
    assert!(String::from_utf8_lossy(&other.body).contains("id_reused"), "{other:?}");
    assert_eq!(one.actor::<Vault>("v").ask(Held).await.expect("an answer"), 15);

    // The next owner knows it too.
    drop(one);
    let two = ground.node("two").host::<VaultActor>().start().await.expect("a node starts");
    settled("vault", &[&two], &[]).await;
    let again = outsider.ask_with("vault.v.put", r#"{"amount":10}"#, with_id("c-1")).await;
    assert_eq!(&again.body[..], b"10", "{again:?}");
    assert_eq!(two.actor::<Vault>("v").ask(Held).await.expect("an answer"), 15);
    outsider.nothing_more().await;
}

async fn e1_a_turn_that_was_cut_between_its_commits_is_not_run_again(ground: Ground) {
    let one = vault(&ground, "one").await;
    let mut outsider = Outsider::on(&ground).await;
    let body = json!({ "amount": 4, "between": "fall" }).to_string();
    let fell = outsider.ask_with("vault.v.put_twice", &body, with_id("c-1")).await;
    assert!(String::from_utf8_lossy(&fell.body).contains("panicked"), "{fell:?}");
    let again = outsider.ask_with("vault.v.put_twice", &body, with_id("c-1")).await;
    assert!(String::from_utf8_lossy(&again.body).contains("interrupted"), "{again:?}");
    assert_eq!(one.actor::<Vault>("v").ask(Held).await.expect("an answer"), 4, "one step, once");
    // One that was refused after a step is over: it is told so again.
    let body = json!({ "amount": 4, "between": "refuse" }).to_string();
    for _ in 0..2 {
        let refused = outsider.ask_with("vault.v.put_twice", &body, with_id("c-2")).await;
        assert!(String::from_utf8_lossy(&refused.body).contains("refused"), "{refused:?}");
    }
    assert_eq!(one.actor::<Vault>("v").ask(Held).await.expect("an answer"), 8, "one step more, once");
}

async fn r5_what_never_was_leaves_nothing_behind(ground: Ground) {
    let one = vault(&ground, "one").await;
    for number in 0..50 {
        let actor = one.actor::<Vault>(format!("nobody-{number}"));
        assert_eq!(actor.ask(Held).await.expect("an answer"), 0);
        let refused = actor.ask(Put { amount: 5, then: Then::Refuse }).await;
        assert_eq!(refused.expect_err("no").refusal(), Some(&NotPut));
    }
    eventually(Duration::from_secs(20), "nothing is in memory", async || {
        let resident = one.info().resident;
        holds(resident["vault"] == 0, || format!("{resident:?}"))
    })
    .await;
    let (stream, _connection) = journals(&ground).await;
    let any = stream.next(&ground.subjects().journals("vault"), 1).await.expect("an answer");
    assert!(any.is_none(), "{any:?}");
}

async fn r5_many_events_and_their_snapshots_give_one_state(ground: Ground) {
    let one = vault(&ground, "one").await;
    for round in 1..=150_u64 {
        assert_eq!(one.actor::<Vault>("v").ask(put(2)).await.expect("an answer"), round * 2);
    }
    let (stream, _connection) = journals(&ground).await;
    let subject = ground.subjects().journal("vault", &Key::new("v").expect("a key"));
    let last = stream.last(&subject).await.expect("an answer").expect("a record");
    let records = stream.read(&subject, 1, last.sequence).await.expect("all of them");
    let snapshots = records.iter().filter(|record| json_of(&record.body).get("snapshot").is_some()).count();
    assert_eq!(records.len(), 150);
    assert!((2..60).contains(&snapshots), "{snapshots} snapshots in 150 records");
    drop(one);
    let two = ground.node("two").host::<VaultActor>().start().await.expect("a node starts");
    settled("vault", &[&two], &[]).await;
    assert_eq!(two.actor::<Vault>("v").ask(put(1)).await.expect("an answer"), 301);
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("a record is JSON")
}

async fn e1_the_journal_tells_its_story_in_json(ground: Ground) {
    let one = vault(&ground, "one").await;
    one.actor::<Vault>("v").ask(put(10)).await.expect("an answer");
    let (stream, _connection) = journals(&ground).await;
    let subject = ground.subjects().journal("vault", &Key::new("v").expect("a key"));
    let record = stream.last(&subject).await.expect("an answer").expect("a record");
    let json = json_of(&record.body);
    assert_eq!(json["events"], json!([{ "name": "in", "version": 1, "body": { "in": { "amount": 10 } } }]));
    assert_eq!((&json["form"], &json["first"], &json["snapshot"]["state"]["held"]), (&json!(1), &json!(1), &json!(10)));
    assert_eq!(record.headers.get("Greenroom-Append"), json["id"].as_str());
    assert_eq!(record.headers.get("Greenroom-Epoch").map(str::to_owned), Some(json["epoch"].to_string()));
    assert_eq!(record.headers.get("Greenroom-Events"), Some("in"));
}

async fn e1_a_journal_is_read_from_where_its_reader_stopped(ground: Ground) {
    let one = vault(&ground, "one").await;
    for number in 1..=6 {
        one.actor::<Vault>(format!("v-{}", number % 2)).ask(put(number)).await.expect("an answer");
    }
    let reader = ground.node("reader").start().await.expect("a client starts");
    let mut events = reader.subscribe::<Moved>().journal("books").await.expect("a reading");
    let mut read = Vec::new();
    for _ in 0..4 {
        let received = soon("an event", events.next()).await.expect("the node runs");
        read.push((received.key.to_string(), received.sequence, received.event));
    }
    let expected = |key: &str, sequence, amount| (key.to_owned(), sequence, Moved::In { amount });
    assert_eq!(read, [expected("v-1", 1, 1), expected("v-0", 1, 2), expected("v-1", 2, 3), expected("v-0", 2, 4)]);
    // The fourth was given and not dealt with: nobody asked for the next.
    drop(events);
    one.actor::<Vault>("v-0").ask(put(7)).await.expect("an answer");
    let again = ground.node("again").start().await.expect("a client starts");
    let mut events = again.subscribe::<Moved>().journal("books").await.expect("a reading");
    let mut read = Vec::new();
    for _ in 0..4 {
        let received = soon("an event", events.next()).await.expect("the node runs");
        read.push((received.key.to_string(), received.sequence, received.event));
    }
    let expected = [expected("v-0", 2, 4), expected("v-1", 3, 5), expected("v-0", 3, 6), expected("v-0", 4, 7)];
    assert_eq!(read, expected);
}

async fn f3_idle_actors_leave_memory_and_come_back(ground: Ground) {
    let node = ground.node("one").passivate_after(Duration::from_secs(1)).host::<VaultActor>();
    let node = node.start().await.expect("a node starts");
    settled("vault", &[&node], &[]).await;
    for number in 0..20 {
        node.actor::<Vault>(format!("v-{number}")).ask(put(number)).await.expect("an answer");
    }
    assert!(node.info().resident["vault"] > 0);
    eventually(Duration::from_secs(15), "nothing is in memory", async || {
        let resident = node.info().resident;
        holds(resident["vault"] == 0, || format!("{resident:?}"))
    })
    .await;
    for number in 0..20 {
        let held = node.actor::<Vault>(format!("v-{number}")).ask(Held).await;
        assert_eq!(held.expect("an answer"), number);
    }
}

async fn f3_at_the_bound_an_idle_actor_makes_room(ground: Ground) {
    // One partition: room is made in the partition that needs it.
    let node = ground.node("one").partitions(1).activations(8).host::<VaultActor>();
    let node = node.start().await.expect("a node starts");
    settled("vault", &[&node], &[]).await;
    for round in 1..=2 {
        for number in 0..40 {
            let actor = node.actor::<Vault>(format!("v-{number}"));
            assert_eq!(actor.ask(put(5)).await.expect("an answer"), 5 * round, "v-{number}");
            assert!(node.info().resident["vault"] <= 8);
        }
    }
}

/// Answers that are lost, appends that come late: a turn takes effect once, and its caller hears the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_lost_answer_is_neither_a_double_nor_a_false_error() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = vault(&ground, "one").await;
        node.actor::<Vault>("v").ask(put(1)).await.expect("an answer");
        let faults = broker.faults(&ground.subjects().journal_stream("vault"));
        let mut held = 1;
        for round in 0..5 {
            faults.lose_next_answer();
            held += 10;
            let actor = node.actor::<Vault>("v").within(Duration::from_secs(20));
            assert_eq!(actor.ask(put(10)).await.expect("it was kept"), held, "round {round}");
            faults.delay_next(Duration::from_millis(300));
            held += 10;
            assert_eq!(actor.ask(put(10)).await.expect("it was kept"), held, "round {round}");
        }
        let (stream, _connection) = journals(&ground).await;
        let subject = ground.subjects().journal("vault", &Key::new("v").expect("a key"));
        let last = stream.last(&subject).await.expect("an answer").expect("a record");
        let records = stream.read(&subject, 1, last.sequence).await.expect("all of them");
        assert_eq!(records.len(), 11, "each turn once");

        faults.no_leader(Duration::from_millis(200));
        assert_eq!(node.actor::<Vault>("v").ask(put(1)).await.expect("its caller tries again"), held + 1);
        faults.no_leader(Duration::from_secs(60));
        let away =
            node.actor::<Vault>("v").within(Duration::from_secs(1)).ask(put(1)).await.expect_err("nobody stores");
        let failure = away.failure().expect("no refusal");
        assert!(failure.is_retryable(), "{failure}");
    })
    .await;
}
