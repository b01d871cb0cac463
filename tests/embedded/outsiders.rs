//! Calls of programs that know nothing but NATS and JSON, with and without the broker's mapping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Headers, Inbound, MemoryBroker, Outbound, Subscription, Transport};
use serde_json::{Value, json};

use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, PARTITIONS, QUIET, SOON, bounded, on_both, settled, soon};
use super::probe::{Probe, ProbeActor, Total, Wait, Where};
use crate::harness::{eventually, holds};

on_both!(
    r6_mistakes_are_answered_with_what_was_expected,
    r1_replies_are_json_whatever_they_are,
    r3_an_answer_that_does_not_fit_is_an_error,
    c5_every_call_is_answered_when_its_time_is_over,
);

/// Somebody with a connection and an inbox.
pub(super) struct Outsider {
    app: String,
    transport: Arc<dyn Transport>,
    /// Of every call so far: nothing more may come.
    inboxes: Vec<Subscription>,
}

impl Outsider {
    pub(super) async fn on(ground: &Ground) -> Self {
        let transport = ground.connect("outsider").await;
        Self { app: ground.app().to_owned(), transport, inboxes: Vec::new() }
    }

    /// Calls `{app}.{subject}`.
    pub(super) async fn ask_with(&mut self, subject: &str, body: &str, headers: Headers) -> Inbound {
        let inbox = Subject::parse(&format!("_INBOX.{}.{}", self.app, self.inboxes.len())).expect("a subject");
        let mut answers = self.transport.subscribe(&inbox.to_filter(), None, 8).await.expect("a subscription");
        let subject = Subject::parse(&format!("{}.{subject}", self.app)).expect("a subject");
        let message = Outbound::new(subject, body.to_owned());
        self.transport.publish(message.reply_to(inbox).with_headers(headers)).expect("sent");
        let answer = soon("an answer", answers.next()).await.expect("the connection is open");
        self.inboxes.push(answers);
        answer
    }

    /// Checks that each call was answered once.
    pub(super) async fn nothing_more(mut self) {
        tokio::time::sleep(QUIET).await;
        for (number, answers) in self.inboxes.iter_mut().enumerate() {
            let twice = answers.next().now_or_never();
            assert!(twice.is_none(), "call {number} was answered twice: {twice:?}");
        }
    }

    async fn ask(&mut self, subject: &str, body: &str) -> Inbound {
        self.ask_with(subject, body, Headers::new()).await
    }

    /// The reply, which must be none of an error.
    async fn reply(&mut self, subject: &str, body: &str) -> Value {
        let answer = self.ask(subject, body).await;
        assert_eq!(answer.headers.get("Nats-Service-Error-Code"), None, "{subject}: {answer:?}");
        assert_eq!(answer.headers.get("Content-Type"), Some("application/json"));
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// The error's code, kind and whole body.
    async fn error(&mut self, subject: &str, body: &str) -> (u64, String, Value) {
        let answer = self.ask(subject, body).await;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no error: {answer:?}"));
        let code = answer.headers.get("Nats-Service-Error-Code").unwrap_or_else(|| panic!("no error: {answer:?}"));
        assert_eq!(json["code"].to_string(), code, "{json}");
        assert_eq!(answer.headers.get("Nats-Service-Error"), json["message"].as_str(), "{json}");
        (json["code"].as_u64().expect("a number"), json["kind"].as_str().expect("a text").to_owned(), json)
    }
}

async fn host(ground: &Ground) -> (Node, Node) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    (one, two)
}

async fn r1_replies_are_json_whatever_they_are(ground: Ground) {
    let _nodes = host(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    for key in ["a", "b", "c", "d", "a=2Eb=20=2A"] {
        assert_eq!(outsider.reply(&format!("probe.{key}.add"), r#"{"by":3}"#).await, json!(3));
        assert_eq!(outsider.reply(&format!("probe.{key}.total"), "").await, json!(3), "an empty body");
        let noted = outsider.reply(&format!("probe.{key}.note"), r#"{"text":"ü"}"#).await;
        assert_eq!(noted, json!({}), "a tell is answered when it is admitted");
        assert_eq!(outsider.reply(&format!("probe.{key}.notes"), "null").await, json!(["ü"]));
        let unit = outsider.reply(&format!("probe.{key}.block"), r#"{"ms":0,"spin":false}"#).await;
        assert_eq!(unit, Value::Null, "nothing is null, since an empty message ends a stream");
    }
    let (code, kind, body) = outsider.error("probe.a.refuse", r#"{"why":"no"}"#).await;
    assert_eq!((code, kind.as_str(), &body["details"]), (418, "refused", &json!({ "no": { "why": "no" } })));
    assert_eq!(body["retryable"], json!(false));
    outsider.nothing_more().await;
}

async fn r6_mistakes_are_answered_with_what_was_expected(ground: Ground) {
    let _nodes = host(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    let mut wrong = async |subject: &str, body: &str, code: u64, kind: &str, told: &[&str]| {
        let (found, named, body) = outsider.error(subject, body).await;
        assert_eq!((found, named.as_str()), (code, kind), "{subject}: {body}");
        for text in told {
            assert!(body.to_string().contains(text), "{subject} must say {text:?}: {body}");
        }
    };
    wrong("probe.k.dance", "", 404, "unknown_verb", &["dance", "add_async", "note_at_gate"]).await;
    wrong("probe.k.add", "{", 400, "bad_request", &["probe.add", "by: integer"]).await;
    wrong("probe.k.add", "", 400, "bad_request", &["by: integer", "empty"]).await;
    wrong("probe.k.add", r#"{"by":1,"twice":true}"#, 400, "bad_request", &["`twice`", "by: integer"]).await;
    wrong("probe.k.add", r#"{"by":-1}"#, 400, "bad_request", &["-1", "by: integer"]).await;
    wrong("probe.=6B.add", r#"{"by":1}"#, 400, "bad_key", &[r#"write \"k\""#, r#""canonical":"k""#]).await;
    wrong("probe.a=2eb.add", r#"{"by":1}"#, 400, "bad_key", &["a=2Eb"]).await;
    wrong("probe.ключ.add", r#"{"by":1}"#, 400, "bad_key", &["=D0=BA"]).await;
    wrong(&format!("probe.{}.add", "k".repeat(129)), r#"{"by":1}"#, 400, "bad_key", &["129", "1 to 128"]).await;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(600 * 1024));
    wrong("probe.k.note", &long, 413, "payload_too_large", &["524288"]).await;
    wrong("probe.k.big", r#"{"bytes":600000}"#, 413, "payload_too_large", &["524288"]).await;
    let total = outsider.reply("probe.k.total", "").await;
    assert_eq!(total, json!(0), "nothing of all this was run");

    for (name, value, kind, told) in [
        ("Content-Type", "text/plain", "bad_request", "application/json"),
        ("Greenroom-Timeout-Ms", "soon", "bad_request", "Greenroom-Timeout-Ms"),
        ("Greenroom-Expires", "1", "deadline_exceeded", "nothing was run"),
        ("Greenroom-Timeout-Ms", "0", "deadline_exceeded", "nothing was run"),
    ] {
        let mut headers = Headers::new();
        headers.push(name, value);
        let answer = outsider.ask_with("probe.k.add", r#"{"by":1}"#, headers).await;
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["kind"], kind, "{name}: {value}: {body}");
        assert!(body["message"].as_str().is_some_and(|message| message.contains(told)), "{body}");
    }
    let mut headers = Headers::new();
    headers.push("Greenroom-Schema", "another");
    let newer = outsider.ask_with("probe.k.add", r#"{"by":1,"colour":"red"}"#, headers).await;
    assert_eq!(&newer.body[..], b"1", "a program of a newer version may say more");
    assert!(outsider.ask("nobody.k.add", "").await.no_responders, "where nobody listens the broker says so");
    outsider.nothing_more().await;
}

/// With the mapping owners are reached at once, without it by one hop; the answers are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_outsiders_reach_owners_with_and_without_the_mapping() {
    bounded(async {
        for mapped in [false, true] {
            let broker = MemoryBroker::new();
            if mapped {
                broker.map_partitions("demo", "probe", PARTITIONS);
            }
            let ground = Ground::on(broker);
            let (one, two) = host(&ground).await;
            let mut outsider = Outsider::on(&ground).await;
            for round in 1..=3 {
                for number in 0..20 {
                    let subject = format!("probe.m-{number}.add");
                    assert_eq!(outsider.reply(&subject, r#"{"by":1}"#).await, json!(round), "mapped: {mapped}");
                }
            }
            for number in 0..20 {
                let total = two.actor::<Probe>(format!("m-{number}")).ask(Total).await;
                assert_eq!(total.expect("an answer"), 3);
            }
            one.drain().await.expect("drained");
            let answers = outsider.reply("probe.after.add", r#"{"by":1}"#).await;
            assert_eq!(answers, json!(1));
            outsider.nothing_more().await;
        }
    })
    .await;
}

/// A refusal stands in an answer three times: as header, message and details.
async fn r3_an_answer_that_does_not_fit_is_an_error(ground: Ground) {
    let _nodes = host(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(400 * 1024));
    let (code, kind, body) = outsider.error("probe.k.refuse", &long).await;
    assert_eq!((code, kind.as_str()), (413, "payload_too_large"));
    assert_eq!(body["details"]["ran"], json!(true), "{body}");
    outsider.nothing_more().await;
}

/// Not when the turn ends before which it cannot start, and not when its own ends.
async fn c5_every_call_is_answered_when_its_time_is_over(ground: Ground) {
    let (one, _two) = host(&ground).await;
    let mut outsider = Outsider::on(&ground).await;
    let gate = Gate::closed();
    let within = |ms: &str| {
        let mut headers = Headers::new();
        headers.push("Greenroom-Timeout-Ms", ms);
        headers
    };
    let body = format!(r#"{{"gate":"{}","by":1}}"#, gate.name());
    let waiting = outsider.ask_with("probe.k.wait", &body, within("2000")).await;
    let waiting: Value = serde_json::from_slice(&waiting.body).expect("JSON");
    assert_eq!((&waiting["kind"], &waiting["retryable"]), (&json!("unknown"), &json!(false)), "{waiting}");
    gate.arrived(1).await;
    for (subject, body) in [("probe.k.add", r#"{"by":100}"#), ("probe.k.total", "")] {
        let queued = outsider.ask_with(subject, body, within("300")).await;
        let queued: Value = serde_json::from_slice(&queued.body).expect("JSON");
        let found = (&queued["kind"], &queued["retryable"]);
        assert_eq!(found, (&json!("deadline_exceeded"), &json!(true)), "{subject}: {queued}");
    }
    gate.open(1);
    let total = one.actor::<Probe>("k").ask(Total).await.expect("an answer");
    assert_eq!(total, 1, "the turn that ran has ended; what was answered as not run was not");
    outsider.nothing_more().await;
}

/// A call's time runs from when it was taken, also while it is held for a key whose turn still runs
/// on another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_call_that_is_held_ends_by_its_own_deadline() {
    bounded(async {
        for mapped in [false, true] {
            let broker = MemoryBroker::new();
            if mapped {
                broker.map_partitions("demo", "probe", 1);
            }
            let ground = Ground::on(broker);
            // All keys are of one partition: where an idle one is handed over, so is the busy one.
            let start = async |name| ground.node(name).partitions(1).host::<ProbeActor>().start().await;
            let one = start("one").await.expect("a node starts");
            let gate = Gate::closed();
            let running = {
                let (actor, gate) = (one.actor::<Probe>("busy").within(SOON), gate.name());
                tokio::spawn(async move { actor.ask(Wait { gate, by: 1 }).await })
            };
            gate.arrived(1).await;
            let two = start("two").await.expect("a node starts");
            eventually(SOON, "the one knows of the other", async || {
                let nodes = one.info().nodes;
                holds(nodes.iter().any(|node| node.id == two.id() && node.live), || format!("{nodes:?}"))
            })
            .await;
            let drained = tokio::spawn(async move { one.drain().await });
            eventually(SOON, "an idle key is handed over", async || {
                let place = two.actor::<Probe>("idle").ask(Where).await.map_err(|error| error.to_string())?;
                holds(place.node == two.id(), || format!("it is at {}", place.node))
            })
            .await;
            let mut outsider = Outsider::on(&ground).await;
            let mut brief = Headers::new();
            brief.push("Greenroom-Timeout-Ms", "300");
            let began = Instant::now();
            let answer = outsider.ask_with("probe.busy.add", r#"{"by":100}"#, brief).await;
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body["kind"], "deadline_exceeded", "mapped: {mapped}: {body}");
            assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
            gate.open(1);
            running.await.expect("no panic").expect("the turn that ran is finished, and answered");
            soon("drained", drained).await.expect("no panic").expect("drained");
            let total = two.actor::<Probe>("busy").ask(Total).await.expect("an answer");
            assert!(total < 100, "what was answered as not run was run: {total}");
            outsider.nothing_more().await;
        }
    })
    .await;
}

/// A reply subject that is a stream's, or anything else, would turn the reply into an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_go_nowhere_but_to_inboxes() {
    bounded(async {
        let ground = Ground::memory();
        let (one, _two) = host(&ground).await;
        let outsider = ground.connect("outsider").await;
        for reply in ["demo.evt.probe.k", "demo.probe.k.add", "demo.cmd.probe.k.add", "$JS.API.INFO", "inbox.1"] {
            let subject = Subject::parse(reply).expect("a subject");
            let mut answers = outsider.subscribe(&subject.to_filter(), None, 8).await.expect("a subscription");
            let call = Subject::parse("demo.probe.r.add").expect("a subject");
            outsider.publish(Outbound::new(call, r#"{"by":1}"#).reply_to(subject)).expect("sent");
            let answer = tokio::time::timeout(Duration::from_millis(50), answers.next()).await;
            assert!(answer.is_err(), "an answer went to {reply}: {answer:?}");
        }
        assert_eq!(one.actor::<Probe>("r").ask(Total).await.expect("an answer"), 0, "such calls are not run");
    })
    .await;
}
