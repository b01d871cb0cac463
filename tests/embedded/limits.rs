//! Bounds of a call: its time, and how many may wait. What is refused was not run, and what may
//! have been run says so.

use std::pin::pin;
use std::time::{Duration, Instant};

use greenroom::{AskError, Error, ErrorKind, Node};

use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, SOON, bounded, on_both, settled, soon};
use super::probe::{Add, Big, Late, Note, Probe, ProbeActor, Refused, Total, Wait, Where, keys_on};
use crate::harness::eventually;

const BRIEF: Duration = Duration::from_millis(150);

async fn local() -> Node {
    Node::local("demo").host::<ProbeActor>().start().await.expect("a node starts")
}

fn failure<R: std::fmt::Debug, E: std::fmt::Debug>(outcome: Result<R, AskError<E>>) -> Error {
    match outcome {
        Err(AskError::Failed(error)) => error,
        other => panic!("it should have failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_tells_what_was_started_from_what_was_not() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = || node.actor::<Probe>("timed");
        let began = Instant::now();
        let started = failure(actor().within(BRIEF).ask(Wait { gate: gate.name(), by: 1 }).await);
        assert_eq!((started.kind(), started.is_retryable()), (ErrorKind::Unknown, false), "{started}");
        let queued = failure(actor().within(BRIEF).ask(Add { by: 100 }).await);
        assert_eq!((queued.kind(), queued.is_retryable()), (ErrorKind::DeadlineExceeded, true), "{queued}");
        assert!(began.elapsed() >= 2 * BRIEF, "each had its whole budget");
        for error in [&started, &queued] {
            assert!(error.message().contains("probe/timed"), "it names the actor: {error}");
        }
        gate.open(1);
        assert_eq!(soon("the actor goes on", actor().ask(Total)).await.expect("an answer"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tell_whose_time_is_over_is_not_run() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("told");
        let mut first = pin!(actor.ask(Wait { gate: gate.name(), by: 1 }));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        gate.arrived(1).await;
        let brief = node.actor::<Probe>("told").within(BRIEF);
        brief.tell(Note { text: "late".to_owned() }).await.expect("admitted");
        tokio::time::sleep(2 * BRIEF).await;
        gate.open(1);
        first.await.expect("an answer");
        assert_eq!(actor.ask(super::probe::Notes).await.expect("an answer"), [""; 0]);
    })
    .await;
}

on_both!(
    r1_a_call_without_time_is_not_run,
    r1_a_call_of_a_turn_whose_time_is_over_is_not_run,
    r1_a_turn_passes_on_what_is_left_of_its_time,
    r1_budgets_of_any_size_can_be_named,
    r6_a_full_mailbox_is_overloaded,
    r6_asks_over_the_limit_of_a_node_are_overloaded,
    r3_what_is_too_large_is_named_either_way,
);

/// A node that hosts and one that only calls, with the keys of two actors.
async fn pair(ground: &Ground) -> (Node, Node, [String; 2]) {
    let host = ground.node("host").host::<ProbeActor>().mailbox(4).start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("probe", &[&host], &[&caller]).await;
    let keys = keys_on(&host, &caller, 2).await;
    (host, caller, [keys[0].clone(), keys[1].clone()])
}

async fn r1_a_call_without_time_is_not_run(ground: Ground) {
    let (host, caller, [key, _]) = pair(&ground).await;
    for node in [&host, &caller] {
        let error = failure(node.actor::<Probe>(&key).within(Duration::ZERO).ask(Add { by: 100 }).await);
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "from {}: {error}", node.id());
    }
    assert_eq!(host.actor::<Probe>(&key).ask(Total).await.expect("an answer"), 0);
}

async fn r1_a_call_of_a_turn_whose_time_is_over_is_not_run(ground: Ground) {
    let (host, caller, [key, other]) = pair(&ground).await;
    for (round, node) in [&host, &caller].into_iter().enumerate() {
        let gate = Gate::closed();
        let late = Late { gate: gate.name(), key: other.clone() };
        let error = failure(node.actor::<Probe>(&key).within(10 * BRIEF).ask(late).await);
        assert_eq!(error.kind(), ErrorKind::Unknown, "its turn has started: {error}");
        gate.open(1);
        gate.passed(1).await;
        // Behind the turn that was too late, so that its call would have been made before.
        host.actor::<Probe>(&key).ask(Total).await.expect("an answer");
        assert_eq!(host.actor::<Probe>(&other).ask(Total).await.expect("an answer"), 0, "round {round}");
    }
}

async fn r1_a_turn_passes_on_what_is_left_of_its_time(ground: Ground) {
    let (host, caller, [key, other]) = pair(&ground).await;
    for node in [&host, &caller] {
        let budget = Duration::from_secs(3);
        let place = node.actor::<Probe>(&key).within(budget).ask(Where).await.expect("an answer");
        assert!((1_000..=3_000).contains(&place.remaining_ms), "{place:?}");
        let twice = super::probe::Twice { key: other.clone() };
        let places = node.actor::<Probe>(&key).within(budget).ask(twice).await.expect("an answer");
        for place in &places {
            assert!((1_000..=3_000).contains(&place.remaining_ms), "a child has its parent's time: {place:?}");
        }
        assert_ne!(places[0].turn, places[1].turn, "two calls of one turn are two turns");
    }
}

async fn r1_budgets_of_any_size_can_be_named(ground: Ground) {
    let (host, caller, [key, _]) = pair(&ground).await;
    for node in [&host, &caller] {
        for budget in [Duration::from_secs(60 * 60 * 24 * 365 * 1_000), Duration::MAX] {
            let (node, key) = (node.clone(), key.clone());
            let asked = tokio::spawn(async move { node.actor::<Probe>(&key).within(budget).ask(Add { by: 0 }).await });
            let outcome = soon("an answer", asked).await;
            assert!(matches!(outcome, Ok(Ok(0))), "{budget:?}: {outcome:?}");
        }
    }
}

async fn r6_a_full_mailbox_is_overloaded(ground: Ground) {
    let (host, caller, [key, _]) = pair(&ground).await;
    for node in [&host, &caller] {
        let gate = Gate::closed();
        let actor = host.actor::<Probe>(&key);
        let before = actor.ask(Total).await.expect("an answer");
        let mut running = pin!(actor.ask(Wait { gate: gate.name(), by: 1 }));
        assert!(futures_util::poll!(running.as_mut()).is_pending());
        gate.arrived(1).await;
        for _ in 0..4 {
            node.actor::<Probe>(&key).tell(Note { text: "waits".to_owned() }).await.expect("there is room");
        }
        let began = Instant::now();
        let full = failure(node.actor::<Probe>(&key).ask(Add { by: 100 }).await);
        assert_eq!((full.kind(), full.is_retryable()), (ErrorKind::Overloaded, true), "{full}");
        assert!(full.message().contains("4 messages") && full.message().contains(&key), "{full}");
        let told = node.actor::<Probe>(&key).tell(Note { text: "too many".to_owned() }).await;
        assert_eq!(told.map_err(|error| error.kind()), Err(ErrorKind::Overloaded));
        assert!(began.elapsed() < AT_ONCE, "it is said at once");
        gate.open(1);
        assert_eq!(running.await.expect("an answer"), before + 1);
        let total = eventually(SOON, "there is room again", async || actor.ask(Total).await).await;
        assert_eq!(total, before + 1, "what was refused was not run");
    }
}

async fn r6_asks_over_the_limit_of_a_node_are_overloaded(ground: Ground) {
    let limited = |name| ground.node(name).in_flight(3);
    let host = limited("host").host::<ProbeActor>().start().await.expect("a node starts");
    let caller = limited("caller").start().await.expect("a node starts");
    settled("probe", &[&host], &[&caller]).await;
    for node in [&host, &caller] {
        let gate = Gate::closed();
        let name = |number| format!("f-{number}-{}", node.id());
        let actors: Vec<_> = (0..3).map(|number| node.actor::<Probe>(name(number))).collect();
        let mut waiting: Vec<_> =
            actors.iter().map(|actor| Box::pin(actor.ask(Wait { gate: gate.name(), by: 1 }))).collect();
        for ask in &mut waiting {
            assert!(futures_util::poll!(ask.as_mut()).is_pending());
        }
        gate.arrived(3).await;
        let over = failure(actors[0].ask(Add { by: 100 }).await);
        assert_eq!((over.kind(), over.is_retryable()), (ErrorKind::Overloaded, true), "{over}");
        assert!(over.message().contains("3 calls"), "{over}");
        // The actor of this one is idle: it may be served, or not, but not refused and then run.
        let idle = node.actor::<Probe>(name(3)).within(BRIEF).ask(Wait { gate: gate.name(), by: 10 }).await;
        let idle = failure(idle);
        gate.open(4);
        for ask in waiting {
            assert_eq!(ask.await.expect("an answer"), 1);
        }
        let total = async |number| node.actor::<Probe>(name(number)).ask(Total).await.expect("an answer");
        assert_eq!(soon("the actor is free", total(0)).await, 1, "retryable means that it was certainly not run");
        let run = soon("the actor is free", total(3)).await;
        assert_eq!(run == 10, !idle.is_retryable(), "{idle} and its actor has {run}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_over_the_limit_of_a_node_are_overloaded() {
    bounded(async {
        let node = Node::local("demo").host::<ProbeActor>().activations(10).start().await.expect("a node starts");
        for number in 0..10 {
            node.actor::<Probe>(format!("a-{number}")).ask(Add { by: 1 }).await.expect("there is room");
        }
        let over = failure(node.actor::<Probe>("a-10").ask(Add { by: 1 }).await);
        assert_eq!(over.kind(), ErrorKind::Overloaded, "{over}");
        assert!(over.message().contains("10 actors"), "{over}");
        assert_eq!(node.actor::<Probe>("a-9").ask(Add { by: 1 }).await.expect("those that are there go on"), 2);
    })
    .await;
}

async fn r3_what_is_too_large_is_named_either_way(ground: Ground) {
    let (host, caller, [key, _]) = pair(&ground).await;
    let limit = 512 * 1024;
    let long = "x".repeat(limit + 1);
    let error = caller.actor::<Probe>(&key).tell(Note { text: long }).await.expect_err("too large to be sent");
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    assert!(error.message().contains(&limit.to_string()), "{error}");
    // Larger than the app's limit, and larger than what a broker takes.
    for bytes in [limit + 1, 3 << 20] {
        let began = Instant::now();
        let error = failure(caller.actor::<Probe>(&key).within(SOON).ask(Big { bytes }).await);
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "a reply of {bytes} bytes: {error}");
        assert!(began.elapsed() < 3 * AT_ONCE, "its cause is known, so that nobody waits for a deadline");
    }
    assert_eq!(caller.actor::<Probe>(&key).ask(Big { bytes: 300 * 1024 }).await.expect("fits").len(), 300 * 1024);
    // On one node nothing is sent.
    assert_eq!(host.actor::<Probe>(&key).ask(Big { bytes: 3 << 20 }).await.expect("local").len(), 3 << 20);
}

/// Calls that cannot be made at all say so without having been made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_keys_that_cannot_be_used_are_bad_keys() {
    bounded(async {
        let node = local().await;
        for key in ["", &"k".repeat(129)] {
            let error = failure(node.actor::<Probe>(key).ask(Total).await);
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::BadKey, false), "{error}");
            let error = node.actor::<Probe>(key).tell(Note { text: String::new() }).await.expect_err("no such key");
            assert_eq!(error.kind(), ErrorKind::BadKey);
            assert_eq!(node.release::<Probe>(key).map_err(|error| error.kind()), Err(ErrorKind::BadKey));
        }
        let refused: Result<(), AskError<Refused>> =
            node.actor::<Probe>("*.> \r\n").ask(super::probe::Refuse { why: "no".to_owned() }).await;
        assert!(matches!(refused, Err(AskError::Refused(_))), "any other text is a key: {refused:?}");
    })
    .await;
}
