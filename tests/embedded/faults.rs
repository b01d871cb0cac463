//! Panics and refusals: what they cost, what they leave, and how an actor comes back from them.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::subscribe::Events;

use super::gate::Gate;
use super::ground::{Ground, QUIET, SOON, bounded, on_both, settled, soon};
use super::ledger::{Balance, Enter, EnterPlainly, Entry, Ledger, LedgerActor, NotEntered, Then};
use super::probe::{Add, Fall, Note, Probe, ProbeActor, Total, keys_on};
use crate::harness::eventually;

async fn local() -> Node {
    Node::local("demo").host::<ProbeActor>().host::<LedgerActor>().start().await.expect("a node starts")
}

fn fall(why: &str) -> Fall {
    Fall { why: why.to_owned(), gate: None }
}

/// Has an actor panic, as soon as it takes calls again.
async fn fall_again(node: &Node, key: &str, why: &str) -> Error {
    eventually(SOON, "the actor is started again", async || match node.actor::<Probe>(key).ask(fall(why)).await {
        Err(AskError::Failed(error)) if error.kind() == ErrorKind::Unavailable => Err(error.to_string()),
        Err(AskError::Failed(error)) => Ok(error),
        other => panic!("it should have fallen: {other:?}"),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_a_panic_hurts_its_own_actor_alone() {
    bounded(async {
        let node = local().await;
        for key in ["falls", "stands"] {
            assert_eq!(node.actor::<Probe>(key).ask(Add { by: 3 }).await.expect("an answer"), 3);
        }
        let gate = Gate::closed();
        let falling = {
            let (node, gate) = (node.clone(), Some(gate.name()));
            let why = "the sky".to_owned();
            tokio::spawn(async move { node.actor::<Probe>("falls").ask(Fall { why, gate }).await })
        };
        gate.arrived(1).await;
        let queued = {
            let node = node.clone();
            tokio::spawn(async move { node.actor::<Probe>("falls").ask(Add { by: 1 }).await })
        };
        tokio::time::sleep(QUIET).await;
        gate.open(1);
        let Err(AskError::Failed(error)) = falling.await.expect("the panic stays inside") else { panic!("it fell") };
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Panicked, false));
        assert!(error.message().contains("the sky") && error.message().contains("probe/falls"), "{error}");
        assert_eq!(queued.await.expect("no panic").expect("the queue goes on"), 1, "with a fresh activation");
        assert_eq!(node.actor::<Probe>("stands").ask(Total).await.expect("an answer"), 3);
        assert_eq!(node.actor::<Probe>("falls").ask(Add { by: 1 }).await.expect("an answer"), 2);
        assert!(node.info().quarantined.is_empty());
    })
    .await;
}

on_both!(h7_an_actor_that_goes_on_panicking_is_quarantined_until_it_is_released);

async fn h7_an_actor_that_goes_on_panicking_is_quarantined_until_it_is_released(ground: Ground) {
    let host = ground.node("host").host::<ProbeActor>().start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("probe", &[&host], &[&caller]).await;
    let keys = keys_on(&host, &caller, 2).await;
    for (key, node) in keys.iter().zip([&host, &caller]) {
        let first = fall_again(node, key, "reason 1").await;
        assert_eq!(first.kind(), ErrorKind::Panicked);
        let second = fall_again(node, key, "reason 2").await;
        assert_eq!(second.kind(), ErrorKind::Panicked, "one panic costs no pause");
        let pause = node.actor::<Probe>(key).ask(Total).await.expect_err("it pauses");
        let pause = pause.failure().expect("no refusal");
        assert_eq!((pause.kind(), pause.is_retryable()), (ErrorKind::Unavailable, true), "{pause}");
        assert!(pause.message().contains("reason 2"), "{pause}");
        let after = pause.details().and_then(|details| details["retry_after_ms"].as_u64());
        assert!(after.is_some_and(|ms| ms <= 50), "{pause:?}");
        for number in 3..=5 {
            fall_again(node, key, &format!("reason {number}")).await;
        }
        let kept = node.actor::<Probe>(key).ask(Total).await.expect_err("it is quarantined");
        let kept = kept.failure().expect("no refusal");
        assert_eq!((kept.kind(), kept.is_retryable()), (ErrorKind::Quarantined, false), "{kept}");
        assert!(kept.message().contains("reason 5") && kept.message().contains("5 times"), "{kept}");
        let told = node.actor::<Probe>(key).tell(Note { text: String::new() }).await;
        assert_eq!(told.map_err(|error| error.kind()), Err(ErrorKind::Quarantined));
        assert_eq!(host.info().quarantined.get(&format!("probe/{key}")).map(String::as_str), Some("reason 5"));
    }
    assert_eq!(host.actor::<Probe>("another").ask(Add { by: 1 }).await.expect("others go on"), 1);
    for (key, node) in keys.iter().zip([&host, &caller]) {
        assert_eq!(host.release::<Probe>(key).ok(), Some(true));
        assert_eq!(host.release::<Probe>(key).ok(), Some(false), "it was released already");
        assert_eq!(node.actor::<Probe>(key).ask(Add { by: 1 }).await.expect("it runs again"), 1);
    }
    assert!(host.info().quarantined.is_empty());
    let elsewhere = caller.release::<Probe>(&keys[0]).map_err(|error| error.kind());
    assert_eq!(elsewhere, Err(ErrorKind::NoHost), "only the node that hosts it can");
}

/// A ledger and what is told of it, from the beginning.
async fn ledger(node: &Node) -> Events<Entry> {
    node.subscribe::<Entry>().live().await.expect("a subscription")
}

async fn told(events: &mut Events<Entry>, expected: &[(u64, Entry)]) {
    for (sequence, event) in expected {
        let received = soon("an event", events.next()).await.expect("the node runs");
        assert_eq!((received.sequence, &received.event), (*sequence, event));
    }
    if let Ok(more) = tokio::time::timeout(QUIET, events.next()).await {
        panic!("nothing else has happened, and this was told: {more:?}");
    }
}

fn entered(first: u64, amount: u64) -> [(u64, Entry); 2] {
    [(first, Entry::Entered { amount }), (first + 1, Entry::Counted)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_or_a_panic_after_emit_leaves_no_trace() {
    bounded(async {
        let node = local().await;
        let mut events = ledger(&node).await;
        let actor = node.actor::<Ledger>("l-1");
        assert_eq!(actor.ask(EnterPlainly { amount: 10, then: Then::Accept }).await.expect("entered"), 10);
        told(&mut events, &entered(1, 10)).await;

        let refused = actor.ask(EnterPlainly { amount: 5, then: Then::Refuse }).await;
        assert!(matches!(refused, Err(AskError::Refused(NotEntered))), "{refused:?}");
        let refused = actor.ask(Enter { steps: vec![], rest: 5, then: Then::Refuse }).await;
        assert!(matches!(refused, Err(AskError::Refused(NotEntered))), "{refused:?}");
        assert_eq!(actor.ask(Balance).await.expect("an answer"), 10, "refused turns are undone");

        let fell = actor.ask(EnterPlainly { amount: 5, then: Then::Fall }).await.expect_err("it fell");
        assert!(fell.to_string().contains("with 15 in it"), "{fell}");
        assert_eq!(actor.ask(Balance).await.expect("an answer"), 10, "and so is one that panicked");
        let fell = actor.ask(Enter { steps: vec![], rest: 7, then: Then::Fall }).await.expect_err("it fell");
        assert!(fell.to_string().contains("with 17 in it"), "{fell}");
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(actor.ask(Balance).await.expect("an answer"), 10);

        assert_eq!(actor.ask(EnterPlainly { amount: 1, then: Then::Accept }).await.expect("entered"), 11);
        // The next events follow the first ones: nothing else was told, and no number was used up.
        told(&mut events, &entered(3, 1)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_step_survives_what_comes_after_it() {
    bounded(async {
        let node = local().await;
        let mut events = ledger(&node).await;
        let actor = node.actor::<Ledger>("l-2");
        let refused = actor.ask(Enter { steps: vec![10, 20], rest: 5, then: Then::Refuse }).await;
        assert!(matches!(refused, Err(AskError::Refused(NotEntered))), "{refused:?}");
        told(&mut events, &[entered(1, 10), entered(3, 20)].concat()).await;
        assert_eq!(actor.ask(Balance).await.expect("an answer"), 30);
        let fell = actor.ask(Enter { steps: vec![100], rest: 5, then: Then::Fall }).await.expect_err("it fell");
        assert_eq!(fell.failure().map(Error::kind), Some(ErrorKind::Panicked));
        told(&mut events, &entered(5, 100)).await;
        assert_eq!(actor.ask(Balance).await.expect("an answer"), 130);
        // A step can be seen by others before its turn has ended.
        let gate = Gate::closed();
        let turn = {
            let (node, then) = (node.clone(), Then::WaitAt { gate: gate.name() });
            tokio::spawn(async move { node.actor::<Ledger>("l-2").ask(Enter { steps: vec![1], rest: 2, then }).await })
        };
        gate.arrived(1).await;
        told(&mut events, &entered(7, 1)).await;
        gate.open(1);
        assert_eq!(turn.await.expect("no panic").expect("entered"), 133);
        told(&mut events, &entered(9, 2)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_rebuilt_from_many_events_as_it_was() {
    bounded(async {
        let node = local().await;
        let actor = node.actor::<Ledger>("l-3");
        let mut balance = 0;
        for amount in 1..=200 {
            balance += amount;
            assert_eq!(actor.ask(EnterPlainly { amount, then: Then::Accept }).await.expect("entered"), balance);
            let refused = actor.ask(EnterPlainly { amount: 1_000, then: Then::Refuse }).await;
            assert!(matches!(refused, Err(AskError::Refused(NotEntered))), "{refused:?}");
            assert_eq!(actor.ask(Balance).await.expect("an answer"), balance, "after {amount} turns");
        }
    })
    .await;
}
