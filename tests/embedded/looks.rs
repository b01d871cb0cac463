//! Looks at durable actors: how sure each wants to be that nobody else has written.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::Headers;
use serde_json::json;

use super::ground::{Ground, SOON, on_both, settled};
use super::outsiders::Outsider;
use super::tally::{Journals, Sum, SumStale, SumStrict, Tally, add, list, numbers, rival, tally};
use crate::harness::{eventually, holds};

on_both!(r5_a_strict_look_appends_first, r5_a_stale_look_says_how_old_it_may_be);

mod fenced {
    super::on_both!(alone: r5_a_stale_look_is_answered_by_a_node_that_proves_nothing);

    use super::r5_a_stale_look_is_answered_by_a_node_that_proves_nothing;
}

async fn r5_a_strict_look_appends_first(ground: Ground) {
    let node = tally(&ground, "one").await;
    let (journals, actor) = (Journals::of(&ground, "t").await, node.actor::<Tally>("t"));
    assert_eq!(actor.ask(SumStrict).await.expect("an answer"), 0);
    assert!(journals.records().await.is_empty(), "what never was gets no record");
    actor.ask(add(10)).await.expect("an answer");
    assert_eq!(actor.ask(Sum).await.expect("an answer"), 10);
    assert_eq!(journals.records().await.len(), 1, "a look appends nothing");
    for looks in 1..=3 {
        assert_eq!(actor.ask(SumStrict).await.expect("an answer"), 10);
        let records = journals.records().await;
        assert_eq!(records.len(), 1 + looks);
        assert!(list(&records[looks], "events").is_empty() && list(&records[looks], "commands").is_empty());
    }
    // Somebody else writes. What the node has is old then, and only the strict look finds out.
    rival(&journals, 5).await;
    assert_eq!(actor.ask(SumStale).await.expect("an answer"), 10);
    let refused = actor.ask(SumStrict).await.expect_err("it is not the newest");
    assert!(refused.failure().is_some_and(Error::is_retryable), "{refused:?}");
    assert_eq!(actor.ask(SumStrict).await.expect("an answer"), 10 + (5 | 1 << 40));
    assert_eq!(numbers(&journals.records().await), [10, 5 | 1 << 40]);
}

async fn r5_a_stale_look_says_how_old_it_may_be(ground: Ground) {
    let node = tally(&ground, "one").await;
    node.actor::<Tally>("t").ask(add(10)).await.expect("an answer");
    let mut outsider = Outsider::on(&ground).await;
    let old = outsider.ask_with("tally.t.sum_stale", "", Headers::new()).await;
    assert_eq!(&old.body[..], b"10", "{old:?}");
    let age: u64 = old.headers.get("Greenroom-Age-Ms").expect("its age").parse().expect("a number");
    assert!(age < 10_000, "{age} ms: the node proves itself all the time");
    for verb in ["sum", "sum_strict"] {
        let new = outsider.ask_with(&format!("tally.t.{verb}"), "", Headers::new()).await;
        assert_eq!((&new.body[..], new.headers.get("Greenroom-Age-Ms")), (&b"10"[..], None), "{new:?}");
    }
    // From another node.
    let client = ground.node("client").start().await.expect("a client starts");
    settled("tally", &[&node], &[&client]).await;
    assert_eq!(client.actor::<Tally>("t").ask(SumStale).await.expect("an answer"), 10);
    assert_eq!(client.actor::<Tally>("t").ask(SumStrict).await.expect("an answer"), 10);
}

async fn r5_a_stale_look_is_answered_by_a_node_that_proves_nothing(mut ground: Ground) {
    let node = tally(&ground, "one").await;
    let patient = node.actor::<Tally>("t");
    let actor = node.actor::<Tally>("t").within(Duration::from_millis(200));
    patient.ask(add(10)).await.expect("an answer");
    ground.stop().await;
    eventually(SOON, "the node is fenced", async || {
        // What cannot be stored would cost the actor its memory.
        let told = actor.ask(Sum).await.expect_err("nobody proves it");
        holds(format!("{told:?}").contains("cannot prove its lease"), || format!("{told:?}"))
    })
    .await;
    assert_eq!(patient.ask(SumStale).await.expect("what the node has"), 10);
    for told in [actor.ask(Sum).await, actor.ask(SumStrict).await] {
        assert!(told.as_ref().is_err_and(|error| error.failure().is_some_and(Error::is_retryable)), "{told:?}");
    }
    // An actor that is not in memory cannot be looked at.
    let other = node.actor::<Tally>("other").within(Duration::from_millis(200));
    assert!(other.ask(SumStale).await.is_err());
    ground.start().await;
    eventually(SOON, "the node serves again", async || {
        patient.ask(Sum).await.map(|sum| assert_eq!(json!(sum), json!(10)))
    })
    .await;
}
