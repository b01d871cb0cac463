//! Nodes in somebody else's program: on its runtime, beside other nodes, and gone when it says so.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use greenroom::prelude::*;
use greenroom::{HostOptions, TaskGroup};

use super::desk::{Desk, DeskService, Who};
use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, SOON, bounded, on_both, settled, soon};
use super::ledger::Entry;
use super::probe::{Add, AddAsync, Note, Probe, ProbeActor, Total, Wait, keys_on};
use crate::harness::{eventually, holds};

fn builder() -> greenroom::NodeBuilder {
    Node::local("demo").host::<ProbeActor>()
}

#[test]
fn c4_a_node_runs_on_a_runtime_of_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(bounded(async {
        let node = builder().host::<DeskService>().start().await.expect("a node starts");
        for round in 1..=10 {
            assert_eq!(node.actor::<Probe>("k").ask(AddAsync { by: 1 }).await.expect("an answer"), round);
        }
        assert_eq!(node.service::<Desk>().ask(Who).await.expect("an answer").node, node.id());
        node.drain().await.expect("drained");
    }));
}

#[test]
fn c4_a_node_is_called_from_any_thread_and_runtime() {
    let home = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let node = home.block_on(async { builder().start().await.expect("a node starts") });
    let gate = Gate::closed();
    // A runtime without a clock, on a thread of its own.
    let bare = {
        let (node, gate) = (node.clone(), gate.name());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let ready = node.actor::<Probe>("k").ask(Add { by: 1 }).await.expect("an answer");
                let waited = node.actor::<Probe>("k").ask(Wait { gate, by: 1 }).await.expect("an answer");
                let brief = node.actor::<Probe>("k").within(Duration::from_millis(50));
                let late = brief.ask(Wait { gate: "no gate".to_owned(), by: 1 }).await;
                (ready, waited, late.is_ok())
            })
        })
    };
    home.block_on(gate.arrived(1));
    gate.open(1);
    assert_eq!(bare.join().expect("no panic"), (1, 2, true));
    home.block_on(async { node.drain().await.expect("drained") });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_apps_and_nodes_in_one_process_keep_apart() {
    bounded(async {
        let one = builder().start().await.expect("a node starts");
        let other = builder().start().await.expect("the same app on another broker is another app");
        let broker = greenroom::transport::MemoryBroker::new();
        let shop = Node::builder("shop").memory(&broker).host::<ProbeActor>().start().await.expect("a node starts");
        let bank = Node::builder("bank").memory(&broker).host::<ProbeActor>().start().await.expect("a node starts");
        for (by, node) in (1..).zip([&one, &other, &shop, &bank]) {
            assert_eq!(node.actor::<Probe>("k").ask(Add { by }).await.expect("an answer"), by);
            assert_eq!(node.info().nodes.len(), 1, "{} is alone", node.id());
        }
        shop.drain().await.expect("drained");
        assert_eq!(bank.actor::<Probe>("k").ask(Total).await.expect("an answer"), 4);
    })
    .await;
}

on_both!(
    c4_a_node_is_drained_twice_and_at_once,
    c4_calls_after_a_drain_say_that_it_stopped,
    c4_a_node_that_is_dropped_is_cut_off_and_frees_everything,
);

async fn c4_a_node_is_drained_twice_and_at_once(ground: Ground) {
    let node = ground.node("one").host::<ProbeActor>().host::<DeskService>().start().await.expect("a node starts");
    let gate = Gate::closed();
    let turn = {
        let (node, gate) = (node.clone(), gate.name());
        tokio::spawn(async move { node.actor::<Probe>("k").ask(Wait { gate, by: 1 }).await })
    };
    gate.arrived(1).await;
    let drains: Vec<_> = (0..2)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.drain().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open(1);
    assert_eq!(turn.await.expect("no panic").expect("the turn that ran is finished"), 1);
    for drain in drains {
        soon("drained", drain).await.expect("no panic").expect("drained");
    }
    soon("drained once more", node.drain()).await.expect("drained");
    assert_eq!(soon("its life has ended", node.ended()).await, greenroom::node::Ended::Drained);
}

async fn c4_calls_after_a_drain_say_that_it_stopped(ground: Ground) {
    let node = ground.node("one").host::<ProbeActor>().host::<DeskService>().start().await.expect("a node starts");
    let (actor, desk) = (node.actor::<Probe>("k"), node.service::<Desk>());
    actor.ask(Add { by: 1 }).await.expect("an answer");
    node.drain().await.expect("drained");
    let began = Instant::now();
    let mut kinds = Vec::new();
    for actor in [actor, node.actor::<Probe>("k"), node.actor::<Probe>("new")] {
        kinds.push(actor.ask(Add { by: 1 }).await.map(drop).map_err(|error| error.failure().map(Error::kind)));
        kinds.push(actor.tell(Note { text: String::new() }).await.map_err(|error| Some(error.kind())));
    }
    kinds.push(desk.ask(Who).await.map(drop).map_err(|error| error.failure().map(Error::kind)));
    let watched = node.subscribe::<Entry>().live().await;
    kinds.push(watched.map(drop).map_err(|error| Some(error.kind())));
    assert!(kinds.iter().all(|kind| *kind == Err(Some(ErrorKind::Stopped))), "{kinds:?}");
    assert!(began.elapsed() < AT_ONCE);
}

/// Holds something whose end can be seen.
#[contract(name = "holder", messages(Hold))]
pub(super) struct Holder;

#[message(Holder, ask)]
pub(super) struct Hold {
    pub test: String,
}

/// What an actor holds, and for which test.
struct Held {
    test: String,
    thing: Weak<()>,
}

static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

#[derive(Default)]
pub(super) struct HolderActor {
    thing: Arc<()>,
}

#[actor(Holder)]
impl HolderActor {
    #[ask]
    fn hold(&mut self, msg: Hold) {
        HELD.lock().expect("no panic in it").push(Held { test: msg.test, thing: Arc::downgrade(&self.thing) });
    }
}

async fn c4_a_node_that_is_dropped_is_cut_off_and_frees_everything(ground: Ground) {
    let pool = HostOptions::new().pool(2);
    let lost = ground.node("lost").host::<HolderActor>().host::<ProbeActor>().host_with::<DeskService>(pool);
    let lost = lost.start().await.expect("a node starts");
    let other = ground.node("other").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&lost, &other], &[]).await;
    let (key, id) = (keys_on(&lost, &other, 1).await.remove(0), lost.id().to_owned());
    assert_eq!(other.actor::<Probe>(&key).ask(Add { by: 5 }).await.expect("an answer"), 5);
    assert_eq!(other.service::<Desk>().ask(Who).await.expect("an answer").node, id);
    for number in 0..10 {
        lost.actor::<Holder>(format!("h-{number}")).ask(Hold { test: id.clone() }).await.expect("an answer");
    }
    drop(lost);
    // As if its process had died: its actors are gone, its services do not answer, and when its
    // lease has run out the others take its share.
    eventually(SOON, "its actors are freed", async || {
        let held = HELD.lock().expect("no panic in it");
        let alive = held.iter().filter(|held| held.test == id && held.thing.strong_count() > 0).count();
        holds(alive == 0, || format!("{alive} of 10 are in memory"))
    })
    .await;
    eventually(SOON, "its service is gone", async || {
        let asked = other.service::<Desk>().ask(Who).await;
        let failed = asked.as_ref().err().and_then(AskError::failure).map(Error::kind);
        holds(failed == Some(ErrorKind::NoHost), || format!("{asked:?}"))
    })
    .await;
    settled("probe", &[&other], &[]).await;
    assert_eq!(other.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("an answer"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_node_that_cannot_start_leaves_nothing_behind() {
    bounded(async {
        let ground = Ground::memory();
        let weight = HostOptions::new().weight(0);
        let failed = ground.node("bad").host::<DeskService>().host_with::<ProbeActor>(weight).start().await;
        assert_eq!(failed.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Config));
        let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
        assert_eq!(one.info().nodes.len(), 1);
        let asked = one.service::<Desk>().ask(Who).await;
        assert_eq!(asked.map(drop).map_err(|error| error.failure().map(Error::kind)), Err(Some(ErrorKind::NoHost)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_tasks_are_restarted_by_the_rule_of_their_group_and_it_shows() {
    bounded(async {
        let gate = Gate::closed();
        let task = |gate: String, falls: bool| {
            move |_node: Node| {
                let gate = gate.clone();
                async move {
                    if let Some(gate) = Gate::named(&gate) {
                        gate.pass().await;
                    }
                    assert!(!falls, "the sky");
                    Ok(())
                }
            }
        };
        let group = TaskGroup::new("watchers", greenroom::Restart::default())
            .task("falls", task(gate.name(), true))
            .task("waits", task("no gate".to_owned(), false));
        let node = builder().group(group).start().await.expect("a node starts");
        gate.arrived(1).await;
        gate.open(2);
        // Twice it falls, and each time it is started again.
        gate.arrived(3).await;
        let report = node.supervision().into_iter().find(|group| group.name == "watchers").expect("the group");
        let of = |name: &str| report.children.iter().find(|child| child.name == name).expect("the child").clone();
        assert_eq!(of("falls").restarts, 2, "{report:?}");
        assert!(of("falls").last_failure.as_deref().is_some_and(|why| why.contains("the sky")), "{report:?}");
        assert_eq!((of("waits").restarts, of("waits").last_failure), (0, None));
        soon("drained", node.drain()).await.expect("drained");
    })
    .await;
}
