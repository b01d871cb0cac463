//! The broker goes away and comes back: what fails says so at once, and all recovers by itself.

use std::time::{Duration, Instant};

use greenroom::HostOptions;
use greenroom::prelude::*;

use super::desk::{Desk, DeskService, Who};
use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, LEASE, SOON, bounded, on_both, settled, soon};
use super::probe::{Add, Note, Probe, ProbeActor, Total, Wait, keys_on};
use crate::harness::{eventually, holds};

on_both!(
    alone:
    c5_while_the_broker_is_away_calls_fail_at_once,
    c5_calls_in_flight_learn_that_their_fate_is_not_known,
    c5_after_the_broker_came_back_all_goes_on,
);

async fn three(ground: &Ground) -> (Node, Node, Node) {
    let pool = || HostOptions::new().pool(1);
    let hosts = |name| ground.node(name).host::<ProbeActor>().host_with::<DeskService>(pool()).start();
    let one = hosts("one").await.expect("a node starts");
    let two = hosts("two").await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    (one, two, client)
}

async fn cut(ground: &mut Ground, nodes: &[&Node]) {
    ground.stop().await;
    for node in nodes {
        let mut status = node.status();
        let lost = soon("the loss is noticed", status.wait_for(|status| !status.is_connected())).await;
        drop(lost.expect("the node runs"));
    }
}

async fn c5_while_the_broker_is_away_calls_fail_at_once(mut ground: Ground) {
    let (one, two, client) = three(&ground).await;
    let there = keys_on(&two, &one, 1).await.remove(0);
    cut(&mut ground, &[&one, &two, &client]).await;
    let began = Instant::now();
    for node in [&one, &client] {
        let asked = node.actor::<Probe>(&there).ask(Add { by: 1 }).await;
        let Err(AskError::Failed(error)) = asked else { panic!("it cannot be reached: {asked:?}") };
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
        let told = node.actor::<Probe>(&there).tell(Note { text: String::new() }).await.expect_err("out of reach");
        assert_eq!(told.kind(), ErrorKind::Unavailable, "{told}");
    }
    let asked = client.service::<Desk>().ask(Who).await;
    let Err(AskError::Failed(error)) = asked else { panic!("it cannot be reached: {asked:?}") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert!(began.elapsed() < AT_ONCE, "at once: {:?}", began.elapsed());
    // A service's instance on the same node needs no broker.
    assert_eq!(one.service::<Desk>().ask(Who).await.expect("an answer").node, one.id());
    // And its keyed actors are served no longer than the lease can be proved.
    let here = (0..100).map(|number| format!("here-{number}"));
    tokio::time::sleep(LEASE).await;
    for key in here.take(10) {
        let asked = one.actor::<Probe>(&key).ask(Total).await;
        let Err(AskError::Failed(error)) = asked else { panic!("another node may own it by now: {asked:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

async fn c5_calls_in_flight_learn_that_their_fate_is_not_known(mut ground: Ground) {
    let (one, two, client) = three(&ground).await;
    let there = keys_on(&two, &one, 1).await.remove(0);
    let gate = Gate::closed();
    let ask = {
        let (client, there, gate) = (client.clone(), there.clone(), gate.name());
        tokio::spawn(async move {
            client.actor::<Probe>(&there).within(Duration::from_secs(60)).ask(Wait { gate, by: 1 }).await
        })
    };
    gate.arrived(1).await;
    cut(&mut ground, &[&one, &two, &client]).await;
    let asked = soon("it is not waited for until its deadline", ask).await.expect("no panic");
    let Err(AskError::Failed(error)) = asked else { panic!("nobody can know: {asked:?}") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unknown, false), "{error}");
    assert!(error.message().contains("connection to the broker broke"), "{error}");
    gate.open(1);
    gate.passed(1).await;
}

async fn c5_after_the_broker_came_back_all_goes_on(mut ground: Ground) {
    let (one, two, client) = three(&ground).await;
    for number in 0..20 {
        client.actor::<Probe>(format!("on-{number}")).ask(Add { by: 1 }).await.expect("an answer");
    }
    cut(&mut ground, &[&one, &two, &client]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ground.start().await;
    for node in [&one, &two, &client] {
        eventually(SOON, "actors answer again", async || {
            for number in 0..20 {
                let asked = node.actor::<Probe>(format!("on-{number}")).ask(Add { by: 1 }).await;
                asked.map_err(|error| format!("from {}: {error}", node.id()))?;
            }
            Ok::<_, String>(())
        })
        .await;
        eventually(SOON, "services answer again", async || {
            let asked = node.service::<Desk>().ask(Who).await;
            holds(asked.is_ok(), || format!("from {}: {asked:?}", node.id()))
        })
        .await;
    }
    for node in [&one, &two, &client] {
        soon("drained", node.drain()).await.expect("drained");
    }
}

/// So quick that nobody had the time to look in between.
#[tokio::test]
async fn c5_a_connection_that_is_back_at_once_has_lost_its_answers_all_the_same() {
    bounded(async {
        let mut ground = Ground::memory();
        let host = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
        let client = ground.node("client").start().await.expect("a node starts");
        settled("probe", &[&host], &[&client]).await;
        let gate = Gate::closed();
        let ask = {
            let (client, gate) = (client.clone(), gate.name());
            tokio::spawn(async move {
                client.actor::<Probe>("k").within(Duration::from_secs(50)).ask(Wait { gate, by: 1 }).await
            })
        };
        gate.arrived(1).await;
        // Nothing here waits, so no other task of this one thread runs in between.
        ground.stop().await;
        ground.start().await;
        let asked = soon("it is not waited for until its deadline", ask).await.expect("no panic");
        let Err(AskError::Failed(error)) = asked else { panic!("nobody can know: {asked:?}") };
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        assert!(error.message().contains("connection to the broker broke"), "{error}");
        gate.open(1);
    })
    .await;
}
