//! Handovers while turns run: what they hold, what they may still do, and what a drain waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::prelude::*;
use greenroom::transport::{Headers, MemoryBroker};

use super::gate::Gate;
use super::ground::{Ground, QUIET, SOON, bounded, on_both, settled, soon};
use super::outsiders::Outsider;
use super::probe::{Add, AddAsync, Late, NoteAtGate, Probe, ProbeActor, Total, Wait, Where, keys_on};
use super::tally::{Journals, Tally, TallyActor, add, numbers, tally};
use crate::harness::{eventually, holds};

on_both!(
    c5_a_turn_that_runs_holds_no_key_but_its_own,
    c5_a_turn_that_runs_while_its_node_drains_may_still_ask,
    c5_a_drain_that_is_out_of_time_says_so_and_stops,
    c5_a_drain_as_soon_as_another_node_is_there_fails_no_call,
    c5_handover_under_chain,
    c2_a_turn_whose_actor_was_still_being_activated_is_run_and_answered,
);

async fn start(ground: &Ground, name: &str) -> Node {
    ground.node(name).host::<ProbeActor>().start().await.expect("a node starts")
}

async fn c5_a_turn_that_runs_holds_no_key_but_its_own(ground: Ground) {
    let one = start(&ground, "one").await;
    // A node of another id may get other partitions, so that all keys are tried, not only these.
    let keys: Vec<String> = (0..40).map(|number| format!("k-{number}")).collect();
    let gate = Gate::closed();
    let held = {
        let (one, key, gate) = (one.clone(), keys[0].clone(), gate.name());
        tokio::spawn(async move { one.actor::<Probe>(&key).within(SOON).ask(Wait { gate, by: 1 }).await })
    };
    gate.arrived(1).await;
    let two = start(&ground, "two").await;
    for key in &keys[1..] {
        let total = soon("every other key is served", two.actor::<Probe>(key).ask(Add { by: 1 })).await;
        assert_eq!(total.expect("an answer"), 1, "{key}");
    }
    let behind = {
        let (two, key) = (two.clone(), keys[0].clone());
        tokio::spawn(
            async move { two.actor::<Probe>(&key).within(SOON).ask(Wait { gate: String::new(), by: 1 }).await },
        )
    };
    assert_eq!(gate.arrivals_after_quiet().await, 1);
    assert!(!behind.is_finished(), "its turn waits for the one that runs, wherever that is");
    gate.open(1);
    assert_eq!(held.await.expect("no panic").expect("the turn that ran is finished, and answered"), 1);
    let total = soon("then its key is served too", behind).await.expect("no panic").expect("an answer");
    assert!(total == 1 || total == 2, "on the new owner or on the old one: {total}");
    settled("probe", &[&one, &two], &[]).await;
    let after = two.actor::<Probe>(&keys[0]).ask(Add { by: 1 }).await.expect("an answer");
    // A volatile actor that was still at the old owner may have moved since, and begun anew.
    assert!(after == total + 1 || (total == 2 && after == 1), "{after} after {total}");
}

/// Its key's partition is given away between its admission and its first look at the journal: it was let in, and its
/// caller, who knows nothing but NATS, is not told to try again.
async fn c2_a_turn_whose_actor_was_still_being_activated_is_run_and_answered(ground: Ground) {
    let one = tally(&ground, "one").await;
    let gate = Gate::closed();
    let key = gate.name();
    let mut outsider = Outsider::on(&ground).await;
    let subject = format!("tally.{key}.add");
    let asked = tokio::spawn(async move { outsider.ask_with(&subject, r#"{"number":1}"#, Headers::new()).await });
    gate.arrived(1).await;
    let two = ground.node("two").host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&one, &two], &[]).await;
    let leaves = one.clone();
    let leaving = tokio::spawn(async move { leaves.drain().await });
    settled("tally", &[&two], &[]).await;
    // For this turn, and for the one at the heir.
    gate.open(2);
    let answer = soon("an answer", asked).await.expect("no panic");
    assert_eq!(String::from_utf8_lossy(&answer.body), "1", "{answer:?}");
    soon("it has left", leaving).await.expect("no panic").expect("drained");
    assert_eq!(two.actor::<Tally>(&key).within(SOON).ask(add(1)).await.expect("an answer"), 2);
    assert_eq!(numbers(&Journals::of(&ground, &key).await.records().await), [1, 1]);
}

async fn c5_a_turn_that_runs_while_its_node_drains_may_still_ask(ground: Ground) {
    let one = start(&ground, "one").await;
    let two = start(&ground, "two").await;
    settled("probe", &[&one, &two], &[]).await;
    let (ones, twos) = (keys_on(&one, &two, 3).await, keys_on(&two, &two, 1).await);
    let gate = Gate::closed();
    // One asks an actor of its own node, which is handed over meanwhile, the other one elsewhere.
    let asks: Vec<_> = [(&ones[0], &ones[2]), (&ones[1], &twos[0])]
        .into_iter()
        .map(|(from, to)| {
            let actor = two.actor::<Probe>(from).within(SOON);
            let late = Late { gate: gate.name(), key: to.clone() };
            tokio::spawn(async move { actor.ask(late).await })
        })
        .collect();
    gate.arrived(2).await;
    let drained = {
        let one = one.clone();
        tokio::spawn(async move { one.drain().await })
    };
    // By now the others' partitions are at the other node.
    let moved = eventually(SOON, "an idle key is handed over", async || {
        let place = two.actor::<Probe>(&ones[2]).ask(Where).await.map_err(|error| error.to_string())?;
        if place.node == two.id() { Ok(()) } else { Err(format!("it is at {}", place.node)) }
    });
    moved.await;
    gate.open(2);
    for ask in asks {
        let added = soon("the turn ends", ask).await.expect("no panic");
        assert_eq!(added.expect("its calls are served"), 1);
    }
    soon("drained", drained).await.expect("no panic").expect("drained");
}

async fn c5_a_drain_that_is_out_of_time_says_so_and_stops(ground: Ground) {
    let one = start(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one], &[&client]).await;
    let gate = Gate::closed();
    let stuck: Vec<_> = [&one, &client]
        .into_iter()
        .zip(["local", "remote"])
        .map(|(node, key)| {
            let actor = node.actor::<Probe>(key).within(SOON);
            let wait = Wait { gate: gate.name(), by: 1 };
            tokio::spawn(async move { actor.ask(wait).await })
        })
        .collect();
    gate.arrived(2).await;
    let began = Instant::now();
    let error = one.drain_within(Duration::from_millis(300)).await.expect_err("two turns run");
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let after = one.actor::<Probe>("local").ask(Total).await.expect_err("the node has stopped");
    assert_eq!(after.failure().map(Error::kind), Some(ErrorKind::Stopped));
    gate.open(2);
    for ask in stuck {
        // Whether it still could answer or not: nobody waits until the deadline.
        soon("the caller learns of it", ask).await.expect("no panic").ok();
    }
}

/// The node that leaves may not know of the other yet. Then it releases what it has, and the other claims it.
async fn c5_a_drain_as_soon_as_another_node_is_there_fails_no_call(ground: Ground) {
    let one = start(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one], &[&client]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    let key = format!("c-{caller}-{}", asked % 8);
                    let added = client.actor::<Probe>(&key).within(SOON).ask(AddAsync { by: 1 }).await;
                    added.unwrap_or_else(|error| panic!("call {asked} of {caller}: {error:?}"));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    tokio::time::sleep(QUIET).await;
    let two = ground.node("two").host::<ProbeActor>().start();
    let drain = async {
        eventually(SOON, "the caller knows of another", async || {
            let nodes = client.info().nodes;
            holds(nodes.iter().filter(|node| node.live).count() == 2, || format!("{nodes:?}"))
        })
        .await;
        one.drain().await
    };
    let (two, drained) = tokio::join!(two, drain);
    drained.expect("drained");
    let two = two.expect("a node starts");
    settled("probe", &[&two], &[&client]).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        let asked = soon("its last call is answered", caller).await.expect("no call fails");
        assert!(asked > 0);
    }
}

/// A turn on the old owner waits for an actor whose message the new one holds, because its last turn still runs on the
/// old owner too; and that one asks an actor that the new owner serves. All of one partition.
async fn c5_handover_under_chain(ground: Ground) {
    let start = async |name| ground.node(name).partitions(1).host::<ProbeActor>().start().await.expect("a node starts");
    let one = start("one").await;
    let client = ground.node("client").partitions(1).start().await.expect("a client starts");
    settled("probe", &[&one], &[&client]).await;
    let gates = [Gate::closed(), Gate::closed()];
    let waits = |key: &'static str, gate: &Gate, next: &str| {
        let (actor, late) = (client.actor::<Probe>(key).within(SOON), Late { gate: gate.name(), key: next.to_owned() });
        tokio::spawn(async move { actor.ask(late).await })
    };
    let (first, second) = (waits("first", &gates[0], "second"), waits("second", &gates[1], "idle"));
    gates[0].arrived(1).await;
    gates[1].arrived(1).await;
    let two = start("two").await;
    eventually(SOON, "the one knows of the other", async || {
        let nodes = one.info().nodes;
        holds(nodes.iter().any(|node| node.id == two.id() && node.live), || format!("{nodes:?}"))
    })
    .await;
    let drained = {
        let one = one.clone();
        tokio::spawn(async move { one.drain().await })
    };
    eventually(SOON, "every key without a turn is served by the new owner at once", async || {
        let place =
            client.actor::<Probe>("idle").within(SOON / 3).ask(Where).await.map_err(|error| error.to_string())?;
        holds(place.node == two.id(), || format!("it is at {}", place.node))
    })
    .await;
    let outsider = {
        let actor = two.actor::<Probe>("second").within(SOON);
        tokio::spawn(async move { actor.ask(Add { by: 10 }).await })
    };
    gates[0].open(1);
    gates[0].passed(1).await;
    tokio::time::sleep(QUIET).await;
    assert!(!first.is_finished() && !outsider.is_finished(), "what they ask for has a turn on the old owner still");
    gates[1].open(1);
    assert_eq!(soon("the second turn ends", second).await.expect("no panic").expect("its call is served"), 1);
    let added = soon("the first turn ends", first).await.expect("no panic").expect("its call is served");
    let outside = soon("the outsider", outsider).await.expect("no panic").expect("its call is served");
    assert!((added, outside) == (1, 11) || (added, outside) == (11, 10), "each once: {added}, {outside}");
    soon("drained", drained).await.expect("no panic").expect("drained");
    assert_eq!(two.actor::<Probe>("second").ask(Total).await.expect("an answer"), 11);
    assert_eq!(two.actor::<Probe>("idle").ask(Total).await.expect("an answer"), 1);
}

/// A claim names the keys whose turn still runs, and must fit into a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_partition_with_more_busy_keys_than_a_claim_can_name_is_handed_over_later() {
    bounded(async {
        let broker = MemoryBroker::new();
        broker.set_max_payload(8 * 1024);
        let ground = Ground::on(broker);
        let start = async |name| ground.node(name).partitions(1).host::<ProbeActor>().start().await;
        let one = start("one").await.expect("a node starts");
        let gate = Gate::closed();
        for number in 0..64 {
            let actor = one.actor::<Probe>(format!("{number:0>120}"));
            let note = NoteAtGate { gate: gate.name(), text: "at last".to_owned() };
            actor.tell(note).await.expect("told");
        }
        gate.arrived(64).await;
        let two = start("two").await.expect("a node starts");
        // Who leaves before it knows of another host releases what it has, once nothing runs there.
        eventually(SOON, "the one knows of the other", async || {
            let nodes = one.info().nodes;
            holds(nodes.iter().any(|node| node.id == two.id() && node.live), || format!("{nodes:?}"))
        })
        .await;
        let drained = {
            let one = one.clone();
            tokio::spawn(async move { one.drain().await })
        };
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let place = two.actor::<Probe>("idle").within(SOON).ask(Where).await;
        assert_eq!(place.expect("its node goes on serving it").node, one.id());
        gate.open(64);
        soon("drained", drained).await.expect("no panic").expect("drained");
        let place = two.actor::<Probe>("idle").ask(Where).await.expect("an answer");
        assert_eq!(place.node, two.id());
    })
    .await;
}
