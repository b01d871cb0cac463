//! Calls that are sent again: what is asked of a durable actor takes effect once, whatever becomes of its node, and
//! its caller hears of it within its time.

use std::fmt;
use std::time::{Duration, Instant};

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::transport::{Headers, StreamConfig};
use serde_json::{Value, json};

use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, SOON, on_both, settled, soon};
use super::outsiders::Outsider;
use super::probe::{Probe, ProbeActor, Wait};

/// Money that outlives its node.
#[contract(name = "till", messages(Put, Take, Pay, Held), event = Moved)]
struct Till;

/// Puts an amount in, past a gate if one is named.
#[message(Till, ask, reply = u64, refusal = Short)]
struct Put {
    amount: u64,
    #[serde(default)]
    gate: String,
}

/// Takes an amount out, if it is there.
#[message(Till, ask, reply = u64, refusal = Short)]
struct Take {
    amount: u64,
    #[serde(default)]
    gate: String,
}

/// Takes one out and puts it into another till, by a call that belongs to this turn. Notes it here after that.
#[message(Till, ask, reply = u64, refusal = Short)]
struct Pay {
    into: String,
    gate: String,
}

#[message(Till, read, reply = u64)]
struct Held;

#[refusal]
#[derive(PartialEq)]
struct Short {
    why: String,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[event(Till)]
#[derive(PartialEq)]
enum Moved {
    In { amount: u64 },
    Out { amount: u64 },
}

#[data]
#[derive(Default)]
struct Money {
    held: u64,
}

impl State for Money {
    type Event = Moved;

    fn apply(&mut self, event: &Moved) {
        match event {
            Moved::In { amount } => self.held += amount,
            Moved::Out { amount } => self.held -= amount,
        }
    }
}

struct TillActor {
    money: Durable<Money>,
}

/// Instead of a gate: the turn takes so long that some always run.
const SLOW: &str = "slow";

async fn pass(gate: &str) {
    if gate == SLOW {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Some(gate) = Gate::named(gate) {
        gate.pass().await;
    }
}

#[actor(Till, state = money, durable)]
impl TillActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { money: ctx.durable().await? })
    }

    #[ask]
    async fn put(&mut self, msg: Put) -> Result<u64, Short> {
        self.money.emit(Moved::In { amount: msg.amount });
        pass(&msg.gate).await;
        Ok(self.money.held)
    }

    #[ask]
    async fn take(&mut self, msg: Take) -> Result<u64, Short> {
        pass(&msg.gate).await;
        if self.money.held < msg.amount {
            return Err(Short { why: format!("it holds {}", self.money.held) });
        }
        self.money.emit(Moved::Out { amount: msg.amount });
        Ok(self.money.held)
    }

    #[ask]
    async fn pay(&mut self, msg: Pay, ctx: &mut Context<'_, Self>) -> Result<u64, Short> {
        if self.money.held == 0 {
            return Err(Short { why: "it holds 0".to_owned() });
        }
        self.money.emit(Moved::Out { amount: 1 });
        let paid = ctx.actor::<Till>(&msg.into).ask(put(1)).await;
        let paid = paid.map_err(|error| Short { why: error.to_string() })?;
        pass(&msg.gate).await;
        Ok(paid)
    }

    #[read]
    fn held(&self, _: Held) -> u64 {
        self.money.held
    }
}

on_both!(
    e1_a_node_that_dies_in_a_turn_costs_its_caller_time_alone,
    e1_crash_between_ask_and_append,
    e1_a_node_that_dies_under_load_loses_and_doubles_nothing,
    e1_a_no_to_a_call_that_was_sent_again_is_final,
    e1_what_expired_unrun_is_asked_anew,
    e1_a_callers_own_id_is_one_command,
    e1_nobody_to_ask_again_is_unknown_at_the_deadline,
    c2_what_may_have_run_on_a_volatile_actor_is_never_sent_again,
    r6_an_actor_that_is_not_what_it_says_is_not_served,
);

mod alone {
    use super::*;

    on_both!(alone: e1_a_connection_that_is_lost_and_back_costs_time_alone);

    async fn e1_a_connection_that_is_lost_and_back_costs_time_alone(ground: Ground) {
        super::e1_a_connection_that_is_lost_and_back_costs_time_alone(ground).await;
    }
}

fn put(amount: u64) -> Put {
    Put { amount, gate: String::new() }
}

async fn till(ground: &Ground, name: &str) -> Node {
    ground.node(name).remembers(128).host::<TillActor>().start().await.expect("a node starts")
}

async fn one_and_client(ground: &Ground) -> (Node, Node) {
    let one = till(ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("till", &[&one], &[&client]).await;
    (one, client)
}

async fn held(node: &Node, key: &str) -> u64 {
    node.actor::<Till>(key).within(SOON).ask(Held).await.expect("an answer")
}

/// The kind of the failure, which it must be.
fn kind<T: fmt::Debug, R: fmt::Debug>(outcome: Result<T, AskError<R>>) -> ErrorKind {
    match outcome {
        Err(AskError::Failed(error)) => error.kind(),
        other => panic!("no failure: {other:?}"),
    }
}

async fn e1_a_node_that_dies_in_a_turn_costs_its_caller_time_alone(ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    client.actor::<Till>("t").ask(put(5)).await.expect("an answer");
    let gate = Gate::closed();
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        tokio::spawn(async move { client.actor::<Till>("t").within(SOON * 2).ask(Put { amount: 10, gate }).await })
    };
    gate.arrived(1).await;
    // Cut off, as if its process had died; what ran there goes on as a ghost.
    drop(one);
    let two = till(&ground, "two").await;
    gate.arrived(2).await;
    gate.open(2);
    assert_eq!(soon("the call goes on", ask).await.expect("no panic").expect("an answer"), 15);
    gate.passed(2).await;
    assert_eq!(held(&two, "t").await, 15, "once");
}

/// The caller has asked another actor, and dies before it has noted that.
async fn e1_crash_between_ask_and_append(ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    client.actor::<Till>("t").ask(put(10)).await.expect("an answer");
    let gate = Gate::closed();
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        let pay = Pay { into: "other".to_owned(), gate };
        tokio::spawn(async move { client.actor::<Till>("t").within(SOON * 2).ask(pay).await })
    };
    // It has paid, and has not noted it.
    gate.arrived(1).await;
    assert_eq!((held(&client, "other").await, last_command(&ground, "t").await["verb"].as_str()), (1, Some("put")));
    drop(one);
    let two = till(&ground, "two").await;
    gate.arrived(2).await;
    gate.open(2);
    assert_eq!(soon("the call goes on", ask).await.expect("no panic").expect("an answer"), 1);
    assert_eq!((held(&two, "t").await, held(&two, "other").await), (9, 1), "money adds up: it was paid once");
}

async fn e1_a_node_that_dies_under_load_loses_and_doubles_nothing(ground: Ground) {
    let (one, two) = tokio::join!(till(&ground, "one"), till(&ground, "two"));
    let client = ground.node("client").start().await.expect("a node starts");
    settled("till", &[&one, &two], &[&client]).await;
    let until = Instant::now() + Duration::from_secs(5);
    let callers: Vec<_> = [&client, &client, &client, &two, &two].into_iter().enumerate().collect();
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|(caller, node)| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut asked = 0_u64;
                while Instant::now() < until {
                    let key = format!("t-{}", asked % 16);
                    let one = Put { amount: 1, gate: SLOW.to_owned() };
                    let outcome = node.actor::<Till>(&key).within(SOON).ask(one).await;
                    outcome.unwrap_or_else(|error| panic!("call {asked} of {caller} from {}: {error:?}", node.id()));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(one);
    let mut asked = 0;
    for task in tasks {
        asked += task.await.expect("every call is answered");
    }
    let mut there = 0;
    for number in 0..16 {
        there += held(&two, &format!("t-{number}")).await;
    }
    assert_eq!(there, asked, "each call once");
}

async fn e1_a_connection_that_is_lost_and_back_costs_time_alone(mut ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    let gate = Gate::closed();
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        tokio::spawn(async move { client.actor::<Till>("t").within(SOON * 2).ask(Put { amount: 10, gate }).await })
    };
    gate.arrived(1).await;
    ground.stop().await;
    for node in [&one, &client] {
        let mut status = node.status();
        let lost = soon("the loss is noticed", status.wait_for(|status| !status.is_connected())).await;
        drop(lost.expect("the node runs"));
    }
    // What nothing was sent of is told at once.
    let began = Instant::now();
    assert_eq!(kind(client.actor::<Till>("t").within(SOON).ask(put(1)).await), ErrorKind::Unavailable);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    ground.start().await;
    // The same turn, or the one that is run again if the node was taken for dead.
    gate.open(2);
    assert_eq!(soon("the call goes on", ask).await.expect("no panic").expect("an answer"), 10);
    assert_eq!(held(&client, "t").await, 10, "once");
}

fn headers(id: &str, attempt: u32, born: Option<u64>) -> Headers {
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", id);
    headers.push("Greenroom-Attempt", attempt.to_string());
    if let Some(born) = born {
        headers.push("Greenroom-Born", born.to_string());
    }
    headers
}

/// What the newest record of a journal says of its command.
async fn last_command(ground: &Ground, key: &str) -> Value {
    let outside = ground.connect("reader").await;
    let subjects = ground.subjects();
    let config = StreamConfig::new([subjects.journals("till")]);
    let stream = outside.stream(&subjects.journal_stream("till"), config).await.expect("the stream");
    let subject = subjects.journal("till", &Key::new(key).expect("a key"));
    let last = stream.last(&subject).await.expect("an answer").expect("a record");
    let record: Value = serde_json::from_slice(&last.body).expect("a record is JSON");
    record["commands"][0].clone()
}

async fn e1_a_no_to_a_call_that_was_sent_again_is_final(ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    // Its first attempt is on its way somewhere.
    let no = client.actor::<Till>("t").id("late").ask(Take { amount: 10, gate: String::new() }).await;
    assert_eq!(no.expect_err("it holds nothing").refusal().map(|short| short.why.as_str()), Some("it holds 0"));
    client.actor::<Till>("t").ask(put(10)).await.expect("an answer");
    let late = outsider.ask_with("till.t.take", r#"{"amount":10}"#, headers("late", 1, None)).await;
    assert!(String::from_utf8_lossy(&late.body).contains("refused"), "{late:?}");
    assert_eq!(held(&client, "t").await, 10, "it was told no");

    // The runtime's own second attempt.
    let gate = Gate::closed();
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        tokio::spawn(async move { client.actor::<Till>("u").within(SOON * 2).ask(Take { amount: 1, gate }).await })
    };
    gate.arrived(1).await;
    drop(one);
    let two = till(&ground, "two").await;
    gate.arrived(2).await;
    gate.open(2);
    let no = soon("the call goes on", ask).await.expect("no panic").expect_err("it holds nothing");
    assert_eq!(no.refusal().map(|short| short.why.as_str()), Some("it holds 0"));
    assert!(last_command(&ground, "u").await["fate"]["refused"].is_object(), "it is remembered");
    assert_eq!(held(&two, "t").await, 10);
}

async fn e1_what_expired_unrun_is_asked_anew(ground: Ground) {
    let (_one, client) = one_and_client(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    // By a clock that runs ahead, and as many as push out all others.
    let ahead = u64::try_from(now).expect("not that late") + 6_000;
    for number in 0..140 {
        let headers = headers(&format!("c-{number}"), 1, Some(ahead + number));
        let answer = outsider.ask_with("till.t.put", r#"{"amount":1}"#, headers).await;
        assert_eq!(answer.headers.get("Nats-Service-Error-Code"), None, "{answer:?}");
    }
    let expired = outsider.ask_with("till.t.put", r#"{"amount":1}"#, headers("old", 1, Some(ahead - 5_000))).await;
    assert!(String::from_utf8_lossy(&expired.body).contains("\"born_after\":"), "{expired:?}");
    assert_eq!(client.actor::<Till>("t").ask(put(1)).await.expect("it was never run"), 141);
    // Of a call that belongs to a turn nobody knows that: the turn may have been run before.
    client.actor::<Till>("payer").ask(put(1)).await.expect("an answer");
    let pay = Pay { into: "t".to_owned(), gate: String::new() };
    let no = client.actor::<Till>("payer").ask(pay).await.expect_err("too old");
    assert!(no.refusal().is_some_and(|short| short.why.contains("expired")), "{no:?}");
    assert_eq!(held(&client, "t").await, 141);
}

async fn e1_a_callers_own_id_is_one_command(ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    let ask = async |node: &Node, amount| node.actor::<Till>("t").id("invoice-1").within(SOON).ask(put(amount)).await;
    assert_eq!(ask(&client, 10).await.expect("an answer"), 10);
    client.actor::<Till>("t").ask(put(1)).await.expect("an answer");
    // Another caller, on the actor's own node.
    assert_eq!(ask(&one, 10).await.expect("an answer"), 10, "the same reply");
    assert_eq!(kind(ask(&client, 11).await), ErrorKind::IdReused);
    assert_eq!(held(&client, "t").await, 11);
    drop((one, client));
    let two = till(&ground, "two").await;
    assert_eq!(ask(&two, 10).await.expect("an answer"), 10, "a caller that was started again");
    let mut outsider = Outsider::on(&ground).await;
    let mut with_id = Headers::new();
    with_id.push("Nats-Msg-Id", "invoice-1");
    let same = outsider.ask_with("till.t.put", &json!({ "amount": 10, "gate": "" }).to_string(), with_id).await;
    assert_eq!(&same.body[..], b"10", "{same:?}");
    assert_eq!(held(&two, "t").await, 11);
    for id in [String::new(), "x".repeat(257)] {
        assert_eq!(kind(two.actor::<Till>("t").id(id).ask(put(1)).await), ErrorKind::BadRequest);
    }
}

async fn e1_nobody_to_ask_again_is_unknown_at_the_deadline(ground: Ground) {
    let (one, client) = one_and_client(&ground).await;
    let gate = Gate::closed();
    let began = Instant::now();
    let budget = Duration::from_secs(6);
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        tokio::spawn(async move { client.actor::<Till>("t").within(budget).ask(Put { amount: 10, gate }).await })
    };
    gate.arrived(1).await;
    drop(one);
    let outcome = soon("its time is over", ask).await.expect("no panic");
    assert_eq!(kind(outcome), ErrorKind::Unknown, "it may have been run");
    assert!(began.elapsed() >= budget, "after {:?}: another owner might have come", began.elapsed());
    gate.open(1);
    // What was never sent says so at once.
    assert_eq!(kind(client.actor::<Till>("t").within(budget).ask(put(1)).await), ErrorKind::NoHost);
}

async fn c2_what_may_have_run_on_a_volatile_actor_is_never_sent_again(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one], &[&client]).await;
    let gate = Gate::closed();
    let ask = {
        let (client, gate) = (client.clone(), gate.name());
        tokio::spawn(async move { client.actor::<Probe>("k").within(SOON * 4).ask(Wait { gate, by: 1 }).await })
    };
    gate.arrived(1).await;
    drop(one);
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&two], &[&client]).await;
    let outcome = soon("it is told at once", ask).await.expect("no panic");
    assert_eq!(kind(outcome), ErrorKind::Unknown);
    assert_eq!(gate.arrivals_after_quiet().await, 1, "it ran once");
    gate.open(1);
}

#[contract(name = "chest", messages(Open))]
struct Chest;

#[message(Chest, ask, reply = u64)]
struct Open;

/// Says that it is durable, and is not.
struct Boaster {
    money: Durable<Money>,
}

#[actor(Chest, state = money, durable)]
impl Boaster {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { money: ctx.volatile()? })
    }

    #[ask]
    fn open(&mut self, _: Open) -> u64 {
        self.money.held
    }
}

/// Is durable, and does not say so.
struct Modest {
    money: Durable<Money>,
}

#[actor(Chest, state = money)]
impl Modest {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { money: ctx.durable().await? })
    }

    #[ask]
    fn open(&mut self, _: Open) -> u64 {
        self.money.held
    }
}

async fn r6_an_actor_that_is_not_what_it_says_is_not_served(ground: Ground) {
    let boaster = ground.node("one").host::<Boaster>().start().await.expect("a node starts");
    let Err(AskError::Failed(error)) = boaster.actor::<Chest>("c").ask(Open).await else { panic!("it boasts") };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("ctx.durable()"), "{error}");
    boaster.drain().await.expect("drained");
    let modest = ground.node("two").host::<Modest>().start().await.expect("a node starts");
    let Err(AskError::Failed(error)) = modest.actor::<Chest>("c").ask(Open).await else { panic!("it hides") };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("state = field, durable"), "{error}");
}
