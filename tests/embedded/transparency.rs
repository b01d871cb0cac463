//! One address: whoever asks, from whichever node, for an actor on whichever node.

use std::time::{Duration, Instant};

use greenroom::prelude::*;

use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, PARTITIONS, SOON, on_both, settled, share, soon};
use super::ledger::{EnterPlainly, Ledger, LedgerActor, NotEntered, Then};
use super::probe::{Add, Fall, Note, NoteAtGate, Notes, Probe, ProbeActor, Refuse, Refused, Total, Wait, keys_on};
use crate::harness::{eventually, holds};

on_both!(
    c5_actors_answer_whichever_node_is_asked,
    c5_tells_say_that_they_are_admitted,
    r1_refusals_come_typed_from_any_node,
    r6_failures_have_the_same_kind_from_any_node,
    r6_an_actor_that_nobody_hosts_is_said_at_once,
    r7_a_verb_that_the_owner_does_not_know_is_named,
    c5_actors_move_when_nodes_come_and_go,
    c5_a_drained_node_loses_no_call,
    p1_nodes_know_each_other_and_what_they_host,
);

async fn two(ground: &Ground) -> (Node, Node) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    (one, two)
}

async fn c5_actors_answer_whichever_node_is_asked(ground: Ground) {
    let (one, two) = two(&ground).await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    for number in 0..40 {
        // Keys of all kinds, so that tokens and partitions are those of both ends.
        let key = format!("ключ {number}.*>=");
        for (round, node) in (1..).zip([&one, &two, &client]) {
            let total = node.actor::<Probe>(&key).ask(Add { by: 1 }).await;
            assert_eq!(total.expect("an answer"), round, "{key} from {}", node.id());
        }
    }
    let resident = |node: &Node| node.info().resident["probe"];
    assert_eq!(resident(&one) + resident(&two), 40, "each actor is on one node");
    assert!(resident(&one) > 0 && resident(&two) > 0);
}

async fn c5_tells_say_that_they_are_admitted(ground: Ground) {
    let (one, two) = two(&ground).await;
    let key = keys_on(&two, &one, 1).await.remove(0);
    let gate = Gate::closed();
    let note = |text: &str| NoteAtGate { gate: gate.name(), text: text.to_owned() };
    // Admitted, and not waited for: the first stands at the gate, the second behind it.
    soon("admitted", one.actor::<Probe>(&key).tell(note("first"))).await.expect("told");
    gate.arrived(1).await;
    soon("admitted", one.actor::<Probe>(&key).tell(note("second"))).await.expect("told");
    // An ask may be told too: it runs, and nobody waits for its reply.
    soon("admitted", one.actor::<Probe>(&key).tell(Add { by: 5 })).await.expect("told");
    gate.open(2);
    assert_eq!(one.actor::<Probe>(&key).ask(Notes).await.expect("an answer"), ["first", "second"]);
    assert_eq!(two.actor::<Probe>(&key).ask(Total).await.expect("an answer"), 5);
}

async fn r1_refusals_come_typed_from_any_node(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().host::<LedgerActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one], &[&client]).await;
    for node in [&one, &client] {
        let why = "nein, *wirklich* nicht".to_owned();
        let refused = node.actor::<Probe>("k").ask(Refuse { why: why.clone() }).await;
        let Err(AskError::Refused(refusal)) = refused else { panic!("it was refused: {refused:?}") };
        assert_eq!(refusal, Refused::No { why });
        let refused = node.actor::<Ledger>("k").ask(EnterPlainly { amount: 1, then: Then::Refuse }).await;
        assert!(matches!(refused, Err(AskError::Refused(NotEntered))), "{refused:?}");
    }
}

async fn r6_failures_have_the_same_kind_from_any_node(ground: Ground) {
    let (one, two) = two(&ground).await;
    let key = keys_on(&two, &one, 1).await.remove(0);
    for node in [&one, &two] {
        let fallen = node.actor::<Probe>(&key).ask(Fall { why: "the sky".to_owned(), gate: None }).await;
        let Err(AskError::Failed(error)) = fallen else { panic!("it fell: {fallen:?}") };
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Panicked, false));
        assert!(error.message().contains("the sky"), "{error}");
        eventually(SOON, "the actor is started again", async || {
            let added = node.actor::<Probe>(&key).ask(Add { by: 1 }).await;
            holds(added.is_ok(), || format!("{added:?}"))
        })
        .await;
    }
    let gate = Gate::closed();
    let slow = one.actor::<Probe>(&key).within(Duration::from_millis(200));
    let Err(AskError::Failed(error)) = slow.ask(Wait { gate: gate.name(), by: 1 }).await else { panic!("too slow") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unknown, false), "{error}");
    assert!(error.message().contains(two.id()), "it says where it was asked: {error}");
    gate.open(1);
}

async fn r6_an_actor_that_nobody_hosts_is_said_at_once(ground: Ground) {
    let (one, two) = two(&ground).await;
    for node in [&one, &two] {
        let began = Instant::now();
        let asked = node.actor::<Ledger>("k").ask(super::ledger::Balance).await;
        let Err(AskError::Failed(error)) = asked else { panic!("nobody hosts it: {asked:?}") };
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NoHost, true));
        assert!(error.message().contains("ledger"), "{error}");
        assert!(began.elapsed() < AT_ONCE);
    }
}

/// The same actor as callers of a newer version know it.
mod newer {
    use greenroom::prelude::*;

    #[contract(name = "probe", version = "9.0.0", messages(Dance))]
    pub(super) struct Probe;

    #[message(Probe, ask)]
    pub(super) struct Dance {
        pub steps: u32,
    }
}

async fn r7_a_verb_that_the_owner_does_not_know_is_named(ground: Ground) {
    let (one, two) = two(&ground).await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    let asked = client.actor::<newer::Probe>("k").ask(newer::Dance { steps: 1 }).await;
    let Err(AskError::Failed(error)) = asked else { panic!("nobody dances: {asked:?}") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::UnknownVerb, false));
    assert!(error.message().contains("\"dance\"") && error.message().contains("add_async"), "{error}");
    let verbs = error.details().expect("details")["verbs"].clone();
    assert!(verbs.as_array().is_some_and(|verbs| verbs.contains(&"add".into())), "{verbs}");
}

async fn c5_actors_move_when_nodes_come_and_go(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one], &[]).await;
    for number in 0..16 {
        one.actor::<Probe>(format!("m-{number}")).ask(Add { by: 1 }).await.expect("an answer");
    }
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    for node in [&one, &two] {
        for number in 0..16 {
            node.actor::<Probe>(format!("m-{number}")).ask(Add { by: 1 }).await.expect("an answer");
        }
    }
    one.drain().await.expect("drained");
    settled("probe", &[&two], &[]).await;
    assert_eq!(share(&two.info(), "probe", two.id()), usize::from(PARTITIONS));
    for number in 0..16 {
        two.actor::<Probe>(format!("m-{number}")).ask(Add { by: 1 }).await.expect("an answer");
    }
}

async fn c5_a_drained_node_loses_no_call(ground: Ground) {
    let (one, two) = two(&ground).await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let (client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut calls = 0_u64;
                while !*stopped.borrow() {
                    let key = format!("load-{}", (caller * 7 + calls) % 64);
                    client.actor::<Probe>(key).ask(Add { by: 1 }).await.expect("no call fails");
                    client
                        .actor::<Probe>(format!("load-{caller}"))
                        .tell(Note { text: String::new() })
                        .await
                        .expect("told");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    one.drain().await.expect("drained");
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send_replace(true);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("no panic");
    }
    assert!(calls > 100, "only {calls} calls were made");
}

async fn p1_nodes_know_each_other_and_what_they_host(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().host::<LedgerActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    for node in [&one, &two] {
        let info = node.info();
        assert_eq!((info.app.as_str(), info.node.as_str(), info.partitions), (ground.app(), node.id(), PARTITIONS));
        assert_eq!(info.nodes.len(), 2);
        let of = |id| info.nodes.iter().find(|known| known.id == id).expect("it is known");
        assert!(of(one.id()).live && of(two.id()).live && !of(one.id()).draining);
        assert!(of(one.id()).hosts.keys().eq(["ledger", "probe"]), "{info:?}");
        assert!(of(two.id()).hosts.keys().eq(["probe"]), "{info:?}");
        assert_eq!(share(&info, "ledger", one.id()), usize::from(PARTITIONS));
    }
    assert!(one.id().starts_with("one-") && one.id() != two.id());
    let gone = two.id().to_owned();
    two.drain().await.expect("drained");
    eventually(SOON, "a drained node is forgotten", async || {
        let info = one.info();
        holds(info.nodes.iter().all(|known| known.id != gone), || format!("{info:?}"))
    })
    .await;
}
