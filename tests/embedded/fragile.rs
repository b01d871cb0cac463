//! What an author writes beside a handler runs too: decoders, encoders, drops. A panic there hurts one call, or one
//! actor, and never the node.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::Outbound;
use greenroom::{Ended, ErrorKind};
use serde::{Deserializer, Serializer};

use super::gate::Gate;
use super::ground::{Ground, LEASE, bounded, on_both, settled, soon};
use super::probe::{Add, Probe, ProbeActor, Total, Wait, keys_on};
use crate::harness::{eventually, holds};

/// Breaks where it is touched.
#[contract(name = "glass", messages(Touch, Ring, Count))]
struct Glass;

/// Cannot be decoded if it says so.
#[message(Glass, ask, reply = u64)]
struct Touch {
    #[serde(deserialize_with = "brittle")]
    word: String,
}

fn brittle<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let word = String::deserialize(input)?;
    assert!(word != "break", "a decoder that unwraps");
    Ok(word)
}

/// Answers with what cannot be encoded.
#[message(Glass, ask, reply = Splinter)]
struct Ring {
    breaks: bool,
}

#[data]
struct Splinter {
    #[serde(serialize_with = "splinters")]
    breaks: bool,
}

fn splinters<S: Serializer>(breaks: &bool, output: S) -> Result<S::Ok, S::Error> {
    assert!(!*breaks, "an encoder that unwraps");
    output.serialize_bool(*breaks)
}

#[message(Glass, ask, reply = u64)]
struct Count;

static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct GlassActor {
    touched: u64,
    last: String,
}

impl Drop for GlassActor {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
        assert!(self.last != "drop", "a drop that panics");
    }
}

#[actor(Glass)]
impl GlassActor {
    #[ask]
    fn touch(&mut self, msg: Touch) -> u64 {
        self.touched += 1;
        self.last.clone_from(&msg.word);
        self.touched
    }

    #[ask]
    async fn ring(&mut self, msg: Ring) -> Splinter {
        Splinter { breaks: msg.breaks }
    }

    #[ask]
    fn count(&mut self, _: Count) -> u64 {
        self.touched
    }
}

on_both!(
    r4_a_decoder_that_panics_costs_one_call,
    r4_an_encoder_that_panics_costs_one_call_and_one_activation,
    r4_an_actor_that_panics_as_it_is_dropped_holds_up_no_handover,
    r5_what_waits_for_a_turn_is_not_run_when_the_lease_has_ended,
    r5_a_retired_node_leaves_its_place_in_the_queue_groups,
);

async fn pair(ground: &Ground) -> (Node, Node) {
    let one = ground.node("one").host::<GlassActor>().host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").start().await.expect("a client starts");
    settled("glass", &[&one], &[&two]).await;
    (one, two)
}

fn touch(word: &str) -> Touch {
    Touch { word: word.to_owned() }
}

async fn r4_a_decoder_that_panics_costs_one_call(ground: Ground) {
    let (_one, two) = pair(&ground).await;
    for round in 1..=3 {
        let broken = two.actor::<Glass>("g").ask(touch("break")).await.expect_err("it cannot be read");
        let AskError::Failed(error) = broken;
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
        assert_eq!(two.actor::<Glass>("g").ask(touch("fine")).await.expect("the node still hears"), round);
    }
}

async fn r4_an_encoder_that_panics_costs_one_call_and_one_activation(ground: Ground) {
    let (_one, two) = pair(&ground).await;
    two.actor::<Glass>("g").ask(touch("fine")).await.expect("an answer");
    let actor = two.actor::<Glass>("g").within(Duration::from_secs(10));
    let broken = actor.ask(Ring { breaks: true }).await.expect_err("it cannot be written");
    let AskError::Failed(error) = broken;
    assert!(matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Panicked), "{error}");
    eventually(Duration::from_secs(20), "the actor answers again", async || match actor.ask(Count).await {
        Ok(touched) => holds(touched == 0, || touched.to_string()),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

async fn r4_an_actor_that_panics_as_it_is_dropped_holds_up_no_handover(ground: Ground) {
    let one = ground.node("one").host::<GlassActor>().start().await.expect("a node starts");
    settled("glass", &[&one], &[]).await;
    for number in 0..64 {
        one.actor::<Glass>(format!("g-{number}")).ask(touch("drop")).await.expect("an answer");
    }
    let before = DROPPED.load(Ordering::SeqCst);
    let two = ground.node("two").host::<GlassActor>().start().await.expect("a node starts");
    settled("glass", &[&one, &two], &[]).await;
    for number in 0..64 {
        two.actor::<Glass>(format!("g-{number}")).ask(touch("fine")).await.expect("an answer");
    }
    soon("it leaves in order", one.drain()).await.expect("drained");
    eventually(Duration::from_secs(20), "what was given away was dropped", async || {
        let dropped = DROPPED.load(Ordering::SeqCst) - before;
        holds(dropped >= 64, || dropped.to_string())
    })
    .await;
}

/// A frozen node wakes with a full queue and a lease that has ended: others may serve its actors by now.
async fn r5_what_waits_for_a_turn_is_not_run_when_the_lease_has_ended(ground: Ground) {
    let node = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&node], &[]).await;
    let gate = Gate::closed();
    let ask = |by| {
        let actor = node.actor::<Probe>("k").within(Duration::from_secs(20));
        let gate = gate.name();
        tokio::spawn(async move { actor.ask(Wait { gate, by }).await })
    };
    let runs = ask(1);
    gate.arrived(1).await;
    let waits = ask(10);
    // Its turn is the thread's as much as the gate's: what ends its lease is that nothing can be renewed.
    cut_lease(&ground, &node).await;
    gate.open(2);
    assert_eq!(runs.await.expect("no panic").expect("it had begun"), 1);
    let AskError::Failed(error) = waits.await.expect("no panic").expect_err("it must not run");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
}

/// Lets somebody else delete the node's lease, which ends its life, and waits for that.
async fn cut_lease(ground: &Ground, node: &Node) {
    let outside = ground.connect("outside").await;
    let bucket = outside.bucket(&format!("{}-own", ground.app())).await.expect("the bucket");
    let lease = format!("lease.{}", node.id());
    // It may be writing it too.
    eventually(LEASE * 5, "the lease is deleted", async || {
        let found = bucket.get(&lease).await.map_err(|error| error.to_string())?;
        let revision = found.ok_or("no lease")?.revision;
        bucket.delete(&lease, revision).await.map_err(|error| format!("{error:?}"))
    })
    .await;
    assert!(matches!(soon("its life ends", node.ended()).await, Ended::Retired(_)));
}

async fn r5_a_retired_node_leaves_its_place_in_the_queue_groups(ground: Ground) {
    let node = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&node], &[]).await;
    let key = keys_on(&node, &node, 1).await.remove(0);
    node.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("an answer");
    cut_lease(&ground, &node).await;
    // The node is still there, in the hands of a program that does not look whether its life has ended.
    let heir = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&heir], &[]).await;
    let outside = ground.connect("caller").await;
    for number in 0..60 {
        let reply = greenroom::subject::Subject::parse(&format!("_INBOX.fragile.{number}")).expect("a subject");
        let mut answers = outside.subscribe(&reply.to_filter(), None, 8).await.expect("a subscription");
        let call = ground.subjects().call("probe", &Key::new(format!("k-{number}")).expect("a key"), "total");
        outside.publish(Outbound::new(call, "").reply_to(reply)).expect("sent");
        let answer = soon("an answer", answers.next()).await.expect("an answer");
        assert_eq!(&answer.body[..], b"0", "{answer:?}");
    }
    assert_eq!(heir.actor::<Probe>(&key).ask(Total).await.expect("an answer"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_a_node_whose_task_has_it_ends_all_the_same_when_its_user_drops_it() {
    bounded(async {
        let (gone, ended) = tokio::sync::oneshot::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(Some(gone)));
        let node = Node::local("demo").host::<ProbeActor>().task("endless", move |node| {
            let gone = held.lock().expect("no panic in it").take();
            async move {
                let _both = (gone, node.clone());
                std::future::pending().await
            }
        });
        let node = node.start().await.expect("a node starts");
        node.actor::<Probe>("k").ask(Add { by: 1 }).await.expect("an answer");
        let status = node.status();
        drop(node);
        soon("its task is ended", ended).await.expect_err("nothing is sent");
        let mut status = status;
        soon("its connection is closed", status.wait_for(|status| !status.is_connected())).await.ok();
    })
    .await;
}
