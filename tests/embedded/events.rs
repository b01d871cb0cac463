//! Events: told to whoever watches, typed, after their turn has committed.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::prelude::*;
use greenroom::subscribe::{Events, Received};

use super::ground::{Ground, QUIET, SOON, on_both, settled, soon};
use super::ledger::{EnterPlainly, Entry, Ledger, LedgerActor, Then};
use crate::harness::eventually;

on_both!(
    e1_events_reach_who_watches_an_actor_a_name_or_a_key,
    e1_a_group_shares_the_events,
    e1_numbers_show_what_was_missed,
    e1_a_subscription_says_what_it_cannot_do,
);

async fn enter(node: &Node, key: &str, amount: u64) {
    node.actor::<Ledger>(key).ask(EnterPlainly { amount, then: Then::Accept }).await.expect("entered");
}

async fn next(events: &mut Events<Entry>) -> Received<Entry> {
    soon("an event", events.next()).await.expect("the node runs")
}

async fn nothing_more(events: &mut Events<Entry>) {
    if let Ok(more) = tokio::time::timeout(QUIET, events.next()).await {
        panic!("nothing else has happened, and this was told: {more:?}");
    }
}

async fn pair(ground: &Ground) -> (Node, Node) {
    let one = ground.node("one").host::<LedgerActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<LedgerActor>().start().await.expect("a node starts");
    settled("ledger", &[&one, &two], &[]).await;
    (one, two)
}

async fn e1_events_reach_who_watches_an_actor_a_name_or_a_key(ground: Ground) {
    let (one, two) = pair(&ground).await;
    let keys = ["a", "b.c *>", "ключ", "d"];
    let mut all = two.subscribe::<Entry>().live().await.expect("a subscription");
    let mut counted = one.subscribe::<Entry>().name("counted").live().await.expect("a subscription");
    let mut of_key = two.subscribe::<Entry>().key("b.c *>").live().await.expect("a subscription");
    let mut both = one.subscribe::<Entry>().name("entered").key("ключ").live().await.expect("a subscription");
    for (amount, key) in (1..).zip(keys) {
        enter(if amount % 2 == 0 { &one } else { &two }, key, amount).await;
    }
    let mut told: BTreeMap<String, Vec<(u64, Entry)>> = BTreeMap::new();
    for _ in 0..8 {
        let received = next(&mut all).await;
        told.entry(received.key.to_string()).or_default().push((received.sequence, received.event));
    }
    for (amount, key) in (1..).zip(keys) {
        assert_eq!(told[key], [(1, Entry::Entered { amount }), (2, Entry::Counted)], "{key}");
    }
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let received = next(&mut counted).await;
        assert_eq!((received.event, received.sequence), (Entry::Counted, 2));
        seen.insert(received.key.to_string());
    }
    assert!(seen.iter().map(String::as_str).eq(BTreeSet::from(keys)), "{seen:?}");
    for expected in [Entry::Entered { amount: 2 }, Entry::Counted] {
        let received = next(&mut of_key).await;
        assert_eq!((received.key.as_str(), received.event), ("b.c *>", expected));
    }
    let received = next(&mut both).await;
    assert_eq!((received.key.as_str(), received.event), ("ключ", Entry::Entered { amount: 3 }));
    for events in [&mut all, &mut counted, &mut of_key, &mut both] {
        nothing_more(events).await;
    }
}

async fn e1_a_group_shares_the_events(ground: Ground) {
    let (one, two) = pair(&ground).await;
    let mut members = Vec::new();
    for node in [&one, &two, &one] {
        members.push(node.subscribe::<Entry>().name("entered").group("books").live().await.expect("a subscription"));
    }
    let mut beside = one.subscribe::<Entry>().name("entered").group("audit").live().await.expect("a subscription");
    for amount in 1..=60 {
        enter(&two, &format!("g-{}", amount % 5), amount).await;
    }
    let amount = |received: Received<Entry>| match received.event {
        Entry::Entered { amount } => amount,
        Entry::Counted => panic!("not asked for"),
    };
    let mut audited = Vec::new();
    for _ in 0..60 {
        audited.push(amount(next(&mut beside).await));
    }
    audited.sort_unstable();
    assert!(audited.iter().copied().eq(1..=60), "another group has them all: {audited:?}");
    let mut shared = Vec::new();
    for member in &mut members {
        let before = shared.len();
        while let Ok(Some(received)) = tokio::time::timeout(QUIET, member.next()).await {
            shared.push(amount(received));
        }
        assert!(shared.len() > before, "each member has a share");
    }
    shared.sort_unstable();
    assert!(shared.iter().copied().eq(1..=60), "each event goes to one of a group: {shared:?}");
}

async fn e1_numbers_show_what_was_missed(ground: Ground) {
    let (one, two) = pair(&ground).await;
    // Somebody who watches all the time, so that it is known when the others miss something.
    let mut witness = two.subscribe::<Entry>().key("n").live().await.expect("a subscription");
    enter(&one, "n", 1).await;
    assert_eq!((next(&mut witness).await.sequence, next(&mut witness).await.sequence), (1, 2));
    let mut events = two.subscribe::<Entry>().key("n").live().await.expect("a subscription");
    for amount in 2..=200 {
        enter(&one, "n", amount).await;
    }
    // Two events a turn, the first turn before this one watched.
    for sequence in 3..=400 {
        let received = next(&mut events).await;
        assert_eq!(received.sequence, sequence);
        if sequence % 2 == 1 {
            assert_eq!(received.event, Entry::Entered { amount: sequence.div_ceil(2) });
        }
    }
    drop(events);
    enter(&one, "n", 201).await;
    while next(&mut witness).await.sequence < 402 {}
    let mut events = two.subscribe::<Entry>().key("n").live().await.expect("a subscription");
    enter(&one, "n", 202).await;
    assert_eq!(next(&mut events).await.sequence, 403, "two were missed in between, and it shows");
}

async fn e1_a_subscription_says_what_it_cannot_do(ground: Ground) {
    let node = ground.node("one").host::<LedgerActor>().start().await.expect("a node starts");
    let unknown = node.subscribe::<Entry>().name("entred").live().await.expect_err("no such event");
    assert_eq!(unknown.kind(), ErrorKind::BadRequest);
    assert!(unknown.message().contains("entred") && unknown.message().contains("entered, counted"), "{unknown}");
    let unusable = node.subscribe::<Entry>().key("").live().await.expect_err("no such key");
    assert_eq!(unusable.kind(), ErrorKind::BadKey);
    let mut events = node.subscribe::<Entry>().live().await.expect("a subscription");
    node.drain().await.expect("drained");
    assert!(soon("it ends with its node", events.next()).await.is_none());
    let stopped = node.subscribe::<Entry>().live().await.expect_err("the node has stopped");
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
}

mod cut {
    use super::e1_a_subscription_outlives_its_connection;

    super::on_both!(alone: e1_a_subscription_outlives_its_connection);
}

async fn e1_a_subscription_outlives_its_connection(mut ground: Ground) {
    let (one, two) = pair(&ground).await;
    let mut events = two.subscribe::<Entry>().live().await.expect("a subscription");
    enter(&one, "r", 1).await;
    assert_eq!((next(&mut events).await.sequence, next(&mut events).await.sequence), (1, 2));
    ground.stop().await;
    nothing_more(&mut events).await;
    ground.start().await;
    // It may take a moment until both nodes are back, and what is told until then is missed.
    let received = eventually(SOON, "an event after the reconnect", async || {
        let asked = one.actor::<Ledger>("after").ask(EnterPlainly { amount: 7, then: Then::Accept }).await;
        let told = tokio::time::timeout(QUIET, events.next()).await;
        told.map_err(|_| format!("nothing was told; the last turn: {asked:?}"))
    })
    .await;
    assert_eq!(received.expect("the node runs").key.as_str(), "after");
}
