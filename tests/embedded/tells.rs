//! Durable tells: what was kept is announced, in order and with effect once, wherever actors live meanwhile.

use std::sync::Arc;
use std::time::Duration;

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Headers, MemoryBroker, Retention, Stream, StreamConfig, Transport};
use serde_json::{Value, json};

use super::ground::{Ground, bounded, on_both, settled, soon};
use super::letterbox::{
    self, Chalk, Jot, Kept, Letter, Letterbox, LetterboxActor, Letters, Mail, Mood, Peek, Post, PostActor, Slate,
    SlateActor,
};
use crate::harness::{eventually, holds};

on_both!(
    e1_what_a_turn_sends_arrives_once_and_in_order,
    e1_a_refused_or_panicking_turn_sends_nothing,
    e1_what_was_saved_is_announced_although_its_node_died,
    e1_a_tell_waits_until_somebody_hosts_its_actor,
    e3_a_tell_that_comes_twice_takes_effect_once,
    e3_a_tell_is_known_however_much_was_asked_meanwhile,
    e1_tells_keep_their_order_over_moves,
    e1_a_volatile_actor_tells_at_once_and_is_told_at_least_once,
    e1_an_address_that_outlives_its_turn_swallows_nothing,
    e1_types_that_send_nothing_cost_nothing,
    e1_a_tell_that_is_tried_again_is_not_overtaken,
    e1_lanes_reach_the_actors_of_other_nodes,
);

/// A node that hosts senders and receivers.
async fn office(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<PostActor>().host::<LetterboxActor>().host::<SlateActor>();
    node.start().await.expect("a node starts")
}

async fn letters(node: &Node, key: &str) -> Vec<String> {
    node.actor::<Letterbox>(key).within(Duration::from_secs(10)).ask(Letters).await.expect("an answer")
}

/// Waits until a letterbox holds exactly these.
async fn holds_letters(node: &Node, key: &str, expected: &[String]) {
    eventually(Duration::from_secs(20), "the letters have come", async || {
        let found = node.actor::<Letterbox>(key).ask(Letters).await.map_err(|error| error.to_string())?;
        holds(found == expected, || format!("{key}: {} of {}: {found:?}", found.len(), expected.len()))
    })
    .await;
}

fn send(to: &[&str], numbers: std::ops::Range<u32>) -> Mail {
    Mail { to: to.iter().map(|to| (*to).to_owned()).collect(), numbers: numbers.collect(), mood: Mood::Accept }
}

fn named(from: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{from} {number}")).collect()
}

/// The stream of durable tells, which the nodes have made, and the connection it is read by.
async fn commands(ground: &Ground) -> (Box<dyn Stream>, Arc<dyn Transport>) {
    let outside = ground.connect("outside").await;
    let config = StreamConfig::new([ground.subjects().commands()]).retention(Retention::WorkQueue);
    (outside.stream(&ground.subjects().command_stream(), config).await.expect("the stream"), outside)
}

async fn e1_what_a_turn_sends_arrives_once_and_in_order(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let post = node.actor::<Post>("p");
    for round in 0..5 {
        assert_eq!(post.ask(send(&["a", "b"], round * 4..round * 4 + 4)).await.expect("an answer"), round + 1);
    }
    for key in ["a", "b"] {
        holds_letters(&node, key, &named("p", 0..20)).await;
    }
    // Nothing is left on the way, and what was sent stands in the journal of its sender.
    let (stream, outside) = commands(&ground).await;
    eventually(Duration::from_secs(20), "the queue is empty", async || {
        let next = stream.next(&ground.subjects().lane("box", 0), 1).await.expect("an answer");
        holds(next.is_none(), || format!("{next:?}"))
    })
    .await;
    let journals = StreamConfig::new([ground.subjects().journals("post")]);
    let journals = outside.stream(&ground.subjects().journal_stream("post"), journals).await.expect("the stream");
    let subject = ground.subjects().journal("post", &Key::new("p").expect("a key"));
    let record = journals.last(&subject).await.expect("an answer").expect("a record");
    assert_eq!(record.headers.get("Greenroom-Outbox"), Some("8"));
    let json: Value = serde_json::from_slice(&record.body).expect("json");
    let tell = &json["tells"][7];
    assert_eq!((&tell["actor"], &tell["key"], &tell["verb"]), (&json!("box"), &json!("b"), &json!("letter")), "{json}");
    assert_eq!(tell["body"]["number"], json!(19));
}

async fn e1_a_refused_or_panicking_turn_sends_nothing(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let post = node.actor::<Post>("p");
    let refused = post.ask(Mail { mood: Mood::Refuse, ..send(&["a"], 0..2) }).await.expect_err("no");
    assert!(refused.refusal().is_some(), "{refused}");
    let fell = post.ask(Mail { mood: Mood::Panic, ..send(&["a"], 2..4) }).await.expect_err("it falls");
    assert_eq!(fell.failure().map(Error::kind), Some(ErrorKind::Panicked));
    // What was committed in between goes, the rest does not.
    let cut = post.ask(Mail { mood: Mood::RefuseAfterStep, ..send(&["a"], 4..6) }).await.expect_err("no");
    assert!(cut.refusal().is_some(), "{cut}");
    // A turn that emits nothing and sends something is kept.
    post.ask(Mail { mood: Mood::Silent, ..send(&["a"], 6..7) }).await.expect("an answer");
    holds_letters(&node, "a", &["p 4".to_owned(), "p 6".to_owned()]).await;
}

async fn e1_what_was_saved_is_announced_although_its_node_died(ground: Ground) {
    let expected: Vec<String> = named("p", 0..60);
    let mut sent = 0;
    let mut number = 0;
    // Cut off right behind the acknowledgement, again and again: nothing that was acknowledged is missing.
    while sent < 60 {
        let node = office(&ground, &format!("n-{number}")).await;
        number += 1;
        settled("post", &[&node], &[]).await;
        for _ in 0..4 {
            node.actor::<Post>("p")
                .within(Duration::from_secs(20))
                .ask(send(&["a"], sent..sent + 5))
                .await
                .expect("kept");
            sent += 5;
        }
        drop(node);
    }
    let node = office(&ground, "last").await;
    settled("box", &[&node], &[]).await;
    holds_letters(&node, "a", &expected).await;
}

async fn e1_a_tell_waits_until_somebody_hosts_its_actor(ground: Ground) {
    let sender = ground.node("sender").host::<PostActor>().start().await.expect("a node starts");
    settled("post", &[&sender], &[]).await;
    sender.actor::<Post>("p").ask(send(&["a"], 0..3)).await.expect("an answer");
    let client = ground.node("client").start().await.expect("a client starts");
    let letter = |number| Letter { from: "c".into(), number, mood: Mood::Accept };
    client.actor::<Letterbox>("b").tell_durably(letter(1)).await.expect("it is stored");
    client.actor::<Letterbox>("b").id("c-2").tell_durably(letter(2)).await.expect("it is stored");
    client.actor::<Letterbox>("b").id("c-2").tell_durably(letter(2)).await.expect("it is stored already");
    client.actor::<Letterbox>("c").id("c-2").tell_durably(letter(3)).await.expect("an id is for one actor");
    // Somebody else, with nothing but a message.
    let (stream, _outside) = commands(&ground).await;
    let subject = Subject::parse(&format!("{}.cmd.box.b.letter", ground.app())).expect("a subject");
    let body = r#"{"from":"x","number":9,"mood":"accept"}"#;
    stream.append(&subject, None, Headers::new(), body.into()).await.expect("stored");
    stream.append(&subject, None, Headers::new(), body.into()).await.expect("stored");

    let host = ground.node("host").host::<LetterboxActor>().start().await.expect("a node starts");
    settled("box", &[&host], &[&client]).await;
    holds_letters(&client, "a", &named("p", 0..3)).await;
    holds_letters(&client, "b", &["c 1", "c 2", "x 9", "x 9"].map(str::to_owned)).await;
    holds_letters(&client, "c", &["c 3".to_owned()]).await;
}

/// What the relay of a later owner sends again, and what the broker gives out again.
async fn e3_a_tell_that_comes_twice_takes_effect_once(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let first = Letter { from: "c".into(), number: 0, mood: Mood::Accept };
    node.actor::<Letterbox>("a").tell_durably(first).await.expect("stored");
    let (stream, _outside) = commands(&ground).await;
    let subject = Subject::parse(&format!("{}.cmd.box.a.letter", ground.app())).expect("a subject");
    let again = async |copy: u32, id: &str, number: u32| {
        let mut headers = Headers::new();
        headers.push("Nats-Msg-Id", format!("{id} copy {copy}"));
        headers.push("Greenroom-Id", id);
        headers.push("Greenroom-Schema", "none");
        let body = json!({ "from": "x", "number": number, "mood": "accept", "newer": 1 }).to_string();
        stream.append(&subject, None, headers, body.into()).await.expect("stored");
    };
    let ids = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    for copy in 0..5 {
        again(copy, ids[0], 1).await;
        again(copy, ids[1], 2).await;
    }
    again(9, ids[0], 3).await;
    node.actor::<Letterbox>("a")
        .tell_durably(Letter { from: "c".into(), number: 4, mood: Mood::Accept })
        .await
        .expect("stored");
    holds_letters(&node, "a", &["c 0", "x 1", "x 2", "c 4"].map(str::to_owned)).await;
    // The same id with another message is a mistake that somebody must hear of.
    let letter = soon("a dead letter", first_dead(&node)).await;
    assert_eq!((letter.kind.as_str(), letter.id.as_str(), letter.attempts), ("id_reused", ids[0], 1), "{letter:?}");
    // The next owner knows them as well.
    drop(node);
    let heir = office(&ground, "two").await;
    settled("box", &[&heir], &[]).await;
    again(10, ids[0], 1).await;
    again(10, "00000000000000000000000000000001", 5).await;
    holds_letters(&heir, "a", &["c 0", "x 1", "x 2", "c 4", "x 5"].map(str::to_owned)).await;
}

/// The first dead letter, as soon as there is one.
async fn first_dead(node: &Node) -> greenroom::tell::DeadLetter {
    loop {
        if let Some(letter) = node.dead_letters().next(None, 1).await.expect("an answer") {
            return letter;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn e3_a_tell_is_known_however_much_was_asked_meanwhile(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let first = Letter { from: "c".into(), number: 0, mood: Mood::Accept };
    node.actor::<Letterbox>("a").tell_durably(first).await.expect("stored");
    let (stream, _outside) = commands(&ground).await;
    let subject = Subject::parse(&format!("{}.cmd.box.a.letter", ground.app())).expect("a subject");
    let tell = async |copy: &str, born: &str, id: &str, number: u32| {
        let mut headers = Headers::new();
        headers.push("Nats-Msg-Id", format!("{id} {copy}"));
        headers.push("Greenroom-Id", id);
        headers.push("Greenroom-Born", born);
        let body = json!({ "from": "x", "number": number, "mood": "accept" }).to_string();
        stream.append(&subject, None, headers, body.into()).await.expect("stored");
    };
    tell("first", "1000", "0123456789abcdef0123456789abcdef", 1).await;
    holds_letters(&node, "a", &["c 0", "x 1"].map(str::to_owned)).await;
    let mut expected = vec!["c 0".to_owned(), "x 1".to_owned()];
    for number in 0..200 {
        node.actor::<Letterbox>("a").ask(Jot { number }).await.expect("an answer");
        expected.push(format!("jot {number}"));
    }
    tell("second", "1000", "0123456789abcdef0123456789abcdef", 1).await;
    // One that was never here, older than all that was asked: it is not taken for a repeat.
    tell("first", "1001", "0123456789abcdef0123456789abcde0", 2).await;
    expected.push("x 2".to_owned());
    holds_letters(&node, "a", &expected).await;
}

async fn e1_tells_keep_their_order_over_moves(ground: Ground) {
    const EACH: u32 = 60;
    let client = ground.node("client").host::<SlateActor>().start().await.expect("a node starts");
    let mut nodes = vec![office(&ground, "n-0").await];
    settled("box", &[&nodes[0]], &[&client]).await;
    let boxes = ["a", "b", "c", "d", "e", "f"];
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..EACH / 3 {
                    let key = format!("p-{sender}");
                    let post = client.actor::<Post>(key).within(Duration::from_secs(30));
                    post.ask(send(&boxes, round * 3..round * 3 + 3)).await.expect("an answer");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    // Nodes come, leave in order, and are cut off.
    for round in 1..=4 {
        nodes.push(office(&ground, &format!("n-{round}")).await);
        tokio::time::sleep(Duration::from_millis(250)).await;
        let gone = nodes.remove(0);
        if round % 2 == 0 {
            drop(gone);
        } else {
            soon("it leaves in order", gone.drain()).await.expect("drained");
        }
    }
    for sender in senders {
        soon("they have sent", sender).await.expect("no panic");
    }
    for key in boxes {
        let mut found = Vec::new();
        eventually(Duration::from_secs(25), "all letters have come", async || {
            found = letters(&client, key).await;
            holds(found.len() >= 4 * EACH as usize, || format!("{key}: {}", found.len()))
        })
        .await;
        for sender in 0..4 {
            let from = format!("p-{sender} ");
            let of: Vec<String> = found.iter().filter(|letter| letter.starts_with(&from)).cloned().collect();
            assert_eq!(of, named(&format!("p-{sender}"), 0..EACH), "{key}");
        }
        assert_eq!(found.len(), 4 * EACH as usize, "{key}: once");
    }
}

async fn e1_a_volatile_actor_tells_at_once_and_is_told_at_least_once(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("slate", &[&node], &[]).await;
    let slate = node.actor::<Slate>("s");
    assert_eq!(slate.ask(Chalk { tell: vec!["a".into()], slates: vec![] }).await.expect("an answer"), 0);
    holds_letters(&node, "a", &["s 0".to_owned()]).await;
    // To volatile actors from durable and volatile ones, and from outside.
    node.actor::<Post>("p").ask(Mail { mood: Mood::ToSlates, ..send(&["t"], 0..3) }).await.expect("an answer");
    slate.ask(Chalk { tell: vec![], slates: vec!["t".into()] }).await.expect("an answer");
    eventually(Duration::from_secs(10), "all strokes are there", async || {
        let strokes = node.actor::<Slate>("t").ask(Chalk { tell: vec![], slates: vec![] }).await.expect("an answer");
        holds(strokes == 4, || strokes.to_string())
    })
    .await;
}

async fn e1_an_address_that_outlives_its_turn_swallows_nothing(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let post = node.actor::<Post>("p");
    post.ask(Mail { mood: Mood::KeepAddress, ..send(&["a"], 0..1) }).await.expect("an answer");
    // The turn's own tell goes, the one that was made by its address later is refused, with a reason.
    holds_letters(&node, "a", &["p 0".to_owned()]).await;
    let told = post.ask(Kept).await.expect("an answer");
    assert!(told.contains("the turn that this address belongs to has ended"), "{told}");
    let read = post.ask(Peek).await.expect("an answer");
    assert!(read.contains("a read and an activation"), "{read}");
    // Too many, and too much.
    let many = post.ask(Mail { mood: Mood::Many, ..send(&["a"], 0..1) }).await.expect_err("too many");
    assert!(many.to_string().contains("256"), "{many}");
    holds_letters(&node, "a", &["p 0".to_owned()]).await;
}

async fn e1_types_that_send_nothing_cost_nothing(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    for number in 0..20 {
        node.actor::<Letterbox>("a").ask(Jot { number }).await.expect("an answer");
    }
    let outside = ground.connect("outside").await;
    let bucket = outside.bucket(&format!("{}-own", ground.app())).await.expect("the bucket");
    let mark = async |name: &str| bucket.get(name).await.expect("an answer").is_some_and(|record| record.value.is_ok());
    for name in ["outbox.post", "outbox.box", "told.box", "told.slate"] {
        assert!(!mark(name).await, "{name}: nobody has sent anything");
    }
    node.actor::<Post>("p").ask(send(&["a"], 0..1)).await.expect("an answer");
    eventually(Duration::from_secs(10), "it has come", async || {
        let found = letters(&node, "a").await;
        holds(found.len() == 21, || found.len().to_string())
    })
    .await;
    for (name, there) in [("outbox.post", true), ("outbox.box", false), ("told.box", true), ("told.slate", false)] {
        assert_eq!(mark(name).await, there, "{name}");
    }
}

async fn e1_a_tell_that_is_tried_again_is_not_overtaken(ground: Ground) {
    let node = office(&ground, "one").await;
    settled("box", &[&node], &[]).await;
    let from = format!("fragile-{}-{}", ground.app(), node.id());
    let letter = |number, mood| Letter { from: from.clone(), number, mood };
    let actor = node.actor::<Letterbox>("a");
    actor.tell_durably(letter(1, Mood::Fragile)).await.expect("stored");
    for number in 2..10 {
        actor.tell_durably(letter(number, Mood::Accept)).await.expect("stored");
    }
    node.actor::<Letterbox>("b").tell_durably(letter(0, Mood::Accept)).await.expect("stored");
    holds_letters(&node, "b", &named(&from, 0..1)).await;
    assert_eq!(letters(&node, "a").await, Vec::<String>::new(), "the first has failed, and the others wait");
    letterbox::mend(&from);
    holds_letters(&node, "a", &named(&from, 1..10)).await;
}

/// With more partitions than lanes, a lane has keys of other nodes.
async fn e1_lanes_reach_the_actors_of_other_nodes(ground: Ground) {
    let host = |name| ground.node(name).partitions(96).host::<LetterboxActor>().start();
    let (one, two) = (host("one").await.expect("a node starts"), host("two").await.expect("a node starts"));
    settled("box", &[&one, &two], &[]).await;
    let keys: Vec<String> = (0..48).map(|number| format!("k-{number}")).collect();
    for number in 0..3 {
        for key in &keys {
            let letter = Letter { from: "c".into(), number, mood: Mood::Accept };
            one.actor::<Letterbox>(key).tell_durably(letter).await.expect("stored");
        }
    }
    for key in &keys {
        holds_letters(&two, key, &named("c", 0..3)).await;
    }
    // What goes wrong elsewhere is told here.
    let letter = Letter { from: "c".into(), number: 9, mood: Mood::Panic };
    for key in &keys[..4] {
        one.actor::<Letterbox>(key).tell_durably(letter.clone()).await.expect("stored");
    }
    let mut found = 0;
    eventually(Duration::from_secs(20), "all four are dead letters", async || {
        let dead = two.dead_letters();
        let (mut from, mut count) = (1, 0);
        while let Some(letter) = dead.next(Some("box"), from).await.map_err(|error| error.to_string())? {
            (from, count) = (letter.sequence + 1, count + 1);
            assert!(letter.cause.contains("the letterbox falls at 9"), "{letter:?}");
        }
        found = count;
        holds(count == 4, || count.to_string())
    })
    .await;
    assert_eq!(found, 4);
}

/// The relay is between the record and the stream: whatever it cannot send now, it sends later, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_a_stream_that_is_away_delays_and_loses_nothing() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = office(&ground, "one").await;
        settled("box", &[&node], &[]).await;
        node.actor::<Post>("p").ask(send(&["a"], 0..1)).await.expect("an answer");
        holds_letters(&node, "a", &named("p", 0..1)).await;
        let faults = broker.faults(&ground.subjects().command_stream());
        for round in 1..6 {
            faults.lose_next_answer();
            node.actor::<Post>("p").ask(send(&["a"], round..round + 1)).await.expect("an answer");
            faults.no_leader(Duration::from_millis(150));
            holds_letters(&node, "a", &named("p", 0..round + 1)).await;
        }
    })
    .await;
}

/// What is on its way to the stream and has no answer holds up what the same actor sent after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_what_is_sent_again_is_not_overtaken_by_what_was_sent_after_it() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = office(&ground, "one").await;
        settled("box", &[&node], &[]).await;
        let post = node.actor::<Post>("p");
        post.ask(send(&["a"], 0..1)).await.expect("an answer");
        holds_letters(&node, "a", &named("p", 0..1)).await;
        let faults = broker.faults(&ground.subjects().command_stream());
        for round in 0..5 {
            faults.delay_next(Duration::from_millis(300));
            for number in 1..4 {
                post.ask(send(&["a"], round * 3 + number..round * 3 + number + 1)).await.expect("an answer");
            }
            holds_letters(&node, "a", &named("p", 0..round * 3 + 4)).await;
        }
    })
    .await;
}

/// On a broker of their own.
mod alone {
    use super::*;

    on_both!(alone: e1_tells_survive_the_broker);

    async fn e1_tells_survive_the_broker(mut ground: Ground) {
        let node = office(&ground, "one").await;
        settled("box", &[&node], &[]).await;
        for round in 0..3 {
            // Under one id, until the node has its connection and its lease again.
            eventually(Duration::from_secs(20), "the turn is kept", async || {
                let post = node.actor::<Post>("p").id(format!("round-{round}"));
                post.ask(send(&["a", "b"], round * 10..round * 10 + 10)).await
            })
            .await;
            // Right behind the answer: what was sent is somewhere on its way.
            ground.stop().await;
            ground.start().await;
        }
        for key in ["a", "b"] {
            holds_letters(&node, key, &named("p", 0..30)).await;
        }
    }
}
