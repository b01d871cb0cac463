//! Timers: what an actor tells itself later, and when it does not.

use std::time::{Duration, Instant};

use greenroom::prelude::*;

use super::beacon::{
    Beacon, BeaconActor, Begin, Burn, Fill, Flick, Flicks, Hold, LATER, Lamp, LampActor, Listed, Seen, Stop,
};
use super::ground::{Ground, QUIET, SOON, bounded, on_both, settled, soon};
use crate::harness::{eventually, holds};

async fn beacon() -> Node {
    Node::local("demo").host::<BeaconActor>().start().await.expect("a node starts")
}

async fn ticks(node: &Node, key: &str) -> u64 {
    node.actor::<Beacon>(key).ask(Seen).await.expect("an answer").0
}

async fn ticked(node: &Node, key: &str, times: u64) {
    eventually(SOON, "it ticks", async || {
        let seen = ticks(node, key).await;
        holds(seen >= times, || format!("{seen} ticks"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_fires_once_or_again_and_again_until_it_is_cancelled() {
    bounded(async {
        let node = beacon().await;
        let (once, again) = (node.actor::<Beacon>("once"), node.actor::<Beacon>("again"));
        let id = once.ask(Begin { ms: 10, again: false }).await.expect("begun");
        assert_eq!(id, 1);
        ticked(&node, "once", 1).await;
        let id = again.ask(Begin { ms: 5, again: true }).await.expect("begun");
        ticked(&node, "again", 10).await;
        assert_eq!(ticks(&node, "once").await, 1, "it was to fire once");
        assert!(once.ask(Listed).await.expect("an answer").is_empty(), "what has fired is over");
        assert_eq!(again.ask(Listed).await.expect("an answer"), [id]);
        assert!(again.ask(Stop { id }).await.expect("an answer"), "it ran");
        assert!(!again.ask(Stop { id }).await.expect("an answer"), "it runs no more");
        let then = ticks(&node, "again").await;
        tokio::time::sleep(QUIET).await;
        assert_eq!(ticks(&node, "again").await, then);
        assert!(again.ask(Listed).await.expect("an answer").is_empty());
        node.drain().await.expect("drained");
    })
    .await;
}

/// What a busy actor could not take meanwhile is one tick, not many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_do_not_pile_up_behind_a_long_turn_and_a_cancelled_one_does_not_run() {
    bounded(async {
        let node = beacon().await;
        let actor = node.actor::<Beacon>("slow");
        actor.ask(Begin { ms: 10, again: true }).await.expect("begun");
        let once = actor.ask(Begin { ms: 10, again: false }).await.expect("begun");
        actor.ask(Stop { id: once }).await.expect("an answer");
        ticked(&node, "slow", 1).await;
        let holds = tokio::spawn({
            let node = node.clone();
            async move { node.actor::<Beacon>("slow").ask(Hold { ms: 400 }).await }
        });
        // In the queue behind the turn that holds: one tick at the most.
        let (held, before) = (holds, ticks(&node, "slow").await);
        held.await.expect("no panic").expect("held");
        let after = ticks(&node, "slow").await;
        assert!(after - before < 20, "{before} ticks before the turn, {after} after it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_ends_with_its_activation() {
    bounded(async {
        let node = beacon().await;
        let actor = node.actor::<Beacon>("falls");
        for again in [true, false] {
            actor.ask(Begin { ms: 100, again }).await.expect("begun");
        }
        actor.ask(Burn).await.expect_err("it panics");
        assert!(actor.ask(Listed).await.expect("it is back").is_empty());
        tokio::time::sleep(QUIET * 2).await;
        assert_eq!(ticks(&node, "falls").await, 0, "what the last activation began is over");
        // One that begins its timers as it is activated has them again.
        let ticking = node.actor::<Beacon>("ticks");
        ticking.ask(Seen).await.expect("an answer");
        ticked(&node, "ticks", 2).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        ticking.ask(Burn).await.expect_err("it panics");
        ticked(&node, "ticks", 2).await;
        assert_eq!(ticking.ask(Listed).await.expect("an answer").len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_has_64_timers_at_most() {
    bounded(async {
        let node = beacon().await;
        let actor = node.actor::<Beacon>("many");
        assert_eq!(actor.ask(Fill { timers: 100 }).await.expect("an answer"), (64, "overloaded".to_owned()));
        assert_eq!(actor.ask(Listed).await.expect("an answer").len(), 64);
        assert!(actor.ask(Stop { id: 7 }).await.expect("an answer"));
        assert_eq!(actor.ask(Fill { timers: 100 }).await.expect("an answer"), (1, "overloaded".to_owned()));
    })
    .await;
}

on_both!(f3_an_actor_with_a_timer_is_not_idle);

/// Its timer is all that keeps it: until that fires nothing uses it, as nothing uses the other one.
async fn f3_an_actor_with_a_timer_is_not_idle(ground: Ground) {
    let builder = ground.node("one").host::<LampActor>().passivate_after(Duration::from_secs(1));
    let node = builder.start().await.expect("a node starts");
    settled("lamp", &[&node], &[]).await;
    let begun = Instant::now();
    let mut watches = Vec::new();
    for key in ["still", "waits"] {
        node.actor::<Lamp>(key).tell(Flick).await.expect("told");
        assert_eq!(node.actor::<Lamp>(key).ask(Flicks).await.expect("an answer"), 1, "behind the tell");
        watches.push(node.watch::<Lamp>(key).await.expect("a watch"));
    }
    // The one without a timer leaves, and so does the other once its timer has fired.
    for watch in &mut watches {
        let gone = soon("it leaves", watch.next()).await.expect("the node runs");
        assert_eq!(gone.reason, greenroom::Reason::Passivated);
    }
    assert!(begun.elapsed() > LATER, "the second left before its timer fired");
    assert_eq!(node.actor::<Lamp>("waits").ask(Flicks).await.expect("it is back"), 2, "its timer has fired");
}
