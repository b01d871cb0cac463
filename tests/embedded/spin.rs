//! Handlers that never give their thread back: what keeps a node alive does not need it.

use std::time::Duration;

use greenroom::prelude::*;

use super::ground::{Ground, LEASE, SOON, bounded, settled, share, soon};
use super::probe::{Add, Block, Probe, ProbeActor, keys_on};

/// How long every worker is kept: two leases and a half.
const KEPT: Duration = Duration::from_secs(5);

#[test]
fn spinning_handler_keeps_leases_in_memory() {
    // Asleep on their threads, which is the same to their runtime and leaves the cores to others.
    spinning_handler_keeps_leases(Ground::memory, false);
}

#[test]
fn spinning_handler_keeps_leases_on_nats() {
    let runtime = runtime(1);
    spinning_handler_keeps_leases(|| runtime.block_on(Ground::nats_alone()), true);
}

fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().build().expect("a runtime")
}

fn spinning_handler_keeps_leases(ground: impl FnOnce() -> Ground, spin: bool) {
    let ground = ground();
    // The node whose workers are kept has a runtime of its own; the one that watches has another.
    let (kept, watching) = (runtime(2), runtime(2));
    let start = |name: &'static str| {
        let builder = ground.node(name).host::<ProbeActor>();
        async move { builder.start().await.expect("a node starts") }
    };
    let one = kept.block_on(async { tokio::spawn(start("one")).await.expect("no panic") });
    watching.block_on(bounded(async {
        let two = start("two").await;
        settled("probe", &[&one, &two], &[]).await;
        let keys = keys_on(&one, &two, 4).await;
        for key in &keys {
            assert_eq!(two.actor::<Probe>(key).ask(Add { by: 10 }).await.expect("an answer"), 10);
        }
        let shares = |node: &Node| (share(&node.info(), "probe", one.id()), share(&node.info(), "probe", two.id()));
        let before = shares(&two);
        let mut blocked = Vec::new();
        for key in &keys[..2] {
            let (two, key, ms) = (two.clone(), key.clone(), KEPT.as_millis() as u64);
            blocked.push(tokio::spawn(async move {
                two.actor::<Probe>(&key).within(SOON).ask(Block { ms, spin }).await.expect("it ends");
            }));
        }
        let until = tokio::time::Instant::now() + KEPT - Duration::from_millis(500);
        while tokio::time::Instant::now() < until {
            let info = two.info();
            assert!(info.nodes.iter().any(|node| node.id == one.id() && node.live), "its lease has run out: {info:?}");
            assert_eq!(shares(&two), before, "its partitions were taken over");
            tokio::time::sleep(LEASE / 20).await;
        }
        // Whoever asks meanwhile is answered afterwards, by the same activation.
        let waited = soon("other actors answer", two.actor::<Probe>(&keys[2]).within(SOON).ask(Add { by: 1 })).await;
        assert_eq!(waited.expect("an answer"), 11);
        for ask in blocked {
            ask.await.expect("the turns end");
        }
        for (key, total) in keys.iter().zip([12, 12, 12, 11]) {
            let added = one.actor::<Probe>(key).ask(Add { by: 1 }).await;
            assert_eq!(added.expect("an answer"), total, "{key} is where it was");
        }
        assert_eq!(shares(&two), before);
    }));
    kept.shutdown_background();
}

#[test]
fn f1_one_that_spins_holds_up_no_other_of_its_asker() {
    let ground = Ground::memory();
    let (kept, watching) = (runtime(2), runtime(2));
    let builder = ground.node("one").host::<ProbeActor>();
    let one = kept.block_on(async { tokio::spawn(builder.start()).await.expect("no panic").expect("a node starts") });
    watching.block_on(bounded(async {
        let two = ground.node("two").start().await.expect("a node starts");
        settled("probe", &[&one], &[&two]).await;
        let other = two.actor::<Probe>("other");
        assert_eq!(other.ask(Add { by: 1 }).await.expect("an answer"), 1);
        let spins = two.actor::<Probe>("spins").within(SOON);
        spins.ask(Add { by: 1 }).await.expect("an answer");
        let spinning = tokio::spawn(async move { spins.ask(Block { ms: 2_000, spin: false }).await });
        // What comes behind it in one frame, and in later ones.
        for _ in 0..20 {
            other.ask(Add { by: 1 }).await.expect("an answer");
        }
        assert!(!spinning.is_finished(), "others had to wait until it was over");
        let total = other.ask(Add { by: 1 }).await.expect("an answer");
        assert_eq!(total, 22, "each has run once");
        spinning.await.expect("no panic").expect("it ends");
        let spun = two.actor::<Probe>("spins").ask(Add { by: 1 }).await.expect("an answer");
        assert_eq!(spun, 3, "it has run once");
    }));
    kept.shutdown_background();
}
