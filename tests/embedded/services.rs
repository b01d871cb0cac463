//! Services: who answers, how the load is shared, and what happens when an instance or a node goes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use greenroom::prelude::*;
use greenroom::{HostOptions, Restart};

use super::desk::{Crack, Desk, DeskService, Hint, Leave, Served, Stay, Who};
use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, SOON, bounded, on_both, soon};
use super::ledger::{Entry, Sum};
use crate::harness::{eventually, holds};

on_both!(
    r4_calls_are_shared_by_the_size_of_pools,
    r4_an_instance_on_the_same_node_is_preferred,
    r4_all_instances_work_at_the_same_time,
    r4_a_drained_node_of_a_service_loses_nothing,
    r4_what_waits_at_a_drained_node_is_served,
    r6_a_service_that_nobody_hosts_is_said_at_once,
    r6_a_full_service_is_overloaded,
    h7_a_panic_costs_an_instance_its_state_and_no_call,
    h7_an_instance_that_hangs_costs_its_own_share_only,
    h7_what_waits_outlives_the_restart_of_an_instance,
    h7_a_service_that_gave_up_leaves_its_calls_to_others,
    r1_a_service_may_be_told,
);

async fn host(ground: &Ground, name: &str, pool: usize) -> Node {
    let options = HostOptions::new().pool(pool);
    ground.node(name).host_with::<DeskService>(options).start().await.expect("a node starts")
}

async fn calls(node: &Node, number: usize) -> Vec<Served> {
    let asks = iter(0..number).map(|_| async { node.service::<Desk>().ask(Who).await.expect("an answer") });
    asks.buffer_unordered(32).collect().await
}

async fn r4_calls_are_shared_by_the_size_of_pools(ground: Ground) {
    let (large, small) = (host(&ground, "large", 3).await, host(&ground, "small", 1).await);
    let client = ground.node("client").start().await.expect("a node starts");
    let served = calls(&client, 2_000).await;
    let mut by_node = HashMap::new();
    let mut instances: HashMap<u64, usize> = HashMap::new();
    for one in &served {
        *by_node.entry(one.node.clone()).or_insert(0) += 1;
        *instances.entry(one.instance).or_insert(0) += 1;
    }
    // 1,500 and 500 with a deviation of 20: these bounds are ten of them wide.
    assert!((1_300..=1_700).contains(&by_node[large.id()]), "{by_node:?}");
    assert!((300..=700).contains(&by_node[small.id()]), "{by_node:?}");
    assert_eq!(instances.len(), 4, "all instances work: {instances:?}");
    assert!(instances.values().all(|calls| (250..=800).contains(calls)), "{instances:?}");
}

async fn r4_an_instance_on_the_same_node_is_preferred(ground: Ground) {
    let (one, two) = (host(&ground, "one", 1).await, host(&ground, "two", 4).await);
    for node in [&one, &two] {
        let nodes: HashSet<String> = calls(node, 200).await.into_iter().map(|served| served.node).collect();
        assert_eq!(nodes, HashSet::from([node.id().to_owned()]));
    }
}

async fn r4_all_instances_work_at_the_same_time(ground: Ground) {
    let node = host(&ground, "one", 3).await;
    let client = ground.node("client").start().await.expect("a node starts");
    for asker in [&node, &client] {
        let gate = Gate::closed();
        let asks: Vec<_> = (0..3)
            .map(|_| {
                let (asker, gate) = (asker.clone(), gate.name());
                tokio::spawn(async move { asker.service::<Desk>().ask(Stay { gate }).await.expect("an answer") })
            })
            .collect();
        gate.arrived(3).await;
        gate.open(3);
        let mut instances = HashSet::new();
        for ask in asks {
            instances.insert(ask.await.expect("no panic").instance);
        }
        assert_eq!((gate.most(), instances.len()), (3, 3));
    }
}

async fn r4_a_drained_node_of_a_service_loses_nothing(ground: Ground) {
    let (one, two) = (host(&ground, "one", 2).await, host(&ground, "two", 2).await);
    let client = ground.node("client").start().await.expect("a node starts");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..24)
        .map(|_| {
            let (client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut nodes: HashMap<String, u64> = HashMap::new();
                while !*stopped.borrow() {
                    let served = client.service::<Desk>().ask(Who).await.expect("no call fails");
                    *nodes.entry(served.node).or_default() += 1;
                }
                nodes
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    one.drain().await.expect("drained");
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send_replace(true);
    let mut served: HashMap<String, u64> = HashMap::new();
    for nodes in join_all(callers).await {
        for (node, calls) in nodes.expect("no panic") {
            *served.entry(node).or_default() += calls;
        }
    }
    assert!(served[one.id()] > 20 && served[two.id()] > 20, "{served:?}");
}

async fn r4_what_waits_at_a_drained_node_is_served(ground: Ground) {
    let one = host(&ground, "one", 1).await;
    let client = ground.node("client").start().await.expect("a node starts");
    let gate = Gate::closed();
    let ask = |gate: String| {
        let client = client.clone();
        tokio::spawn(async move { client.service::<Desk>().within(SOON).ask(Stay { gate }).await })
    };
    let first = ask(gate.name());
    gate.arrived(1).await;
    // Behind the one at the gate: the broker has given them to this node, so nobody else has them.
    let waiting: Vec<_> = (0..5).map(|_| ask(gate.name())).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let drained = {
        let one = one.clone();
        tokio::spawn(async move { one.drain().await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open(6);
    first.await.expect("no panic").expect("the turn that ran is finished, and answered");
    for ask in waiting {
        ask.await.expect("no panic").expect("what was taken in is served");
    }
    soon("drained", drained).await.expect("no panic").expect("drained");
}

async fn r6_a_service_that_nobody_hosts_is_said_at_once(ground: Ground) {
    let one = host(&ground, "one", 1).await;
    let client = ground.node("client").start().await.expect("a node starts");
    client.service::<Desk>().ask(Who).await.expect("an answer");
    one.drain().await.expect("drained");
    let began = Instant::now();
    let asked = client.service::<Desk>().ask(Who).await;
    let Err(AskError::Failed(error)) = asked else { panic!("nobody is there: {asked:?}") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NoHost, true), "{error}");
    let told = client.service::<Desk>().tell(Hint { gate: String::new() }).await;
    assert_eq!(told.map_err(|error| error.kind()), Err(ErrorKind::NoHost));
    assert!(began.elapsed() < AT_ONCE);
}

async fn r6_a_full_service_is_overloaded(ground: Ground) {
    let options = HostOptions::new().pool(1);
    let node = ground.node("one").mailbox(3).host_with::<DeskService>(options).start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    let gate = Gate::closed();
    for _ in 0..3 {
        client.service::<Desk>().tell(Hint { gate: gate.name() }).await.expect("there is room");
    }
    gate.arrived(1).await;
    // The one that is served may have given its place back, or not.
    let last = client.service::<Desk>().tell(Hint { gate: gate.name() }).await;
    let over = match last {
        Ok(()) => client.service::<Desk>().ask(Who).await.map(drop).map_err(|error| error.to_string()),
        Err(error) => Err(format!("failed ({}): {error}", error.kind())),
    };
    assert!(over.as_ref().is_err_and(|error| error.starts_with("failed (overloaded)")), "{over:?}");
    gate.open(10);
    eventually(SOON, "there is room again", async || {
        let served = node.service::<Desk>().ask(Who).await;
        holds(served.is_ok(), || format!("{served:?}"))
    })
    .await;
}

async fn h7_a_panic_costs_an_instance_its_state_and_no_call(ground: Ground) {
    let node = host(&ground, "one", 1).await;
    let client = ground.node("client").start().await.expect("a node starts");
    for asker in [&node, &client] {
        let before = asker.service::<Desk>().ask(Who).await.expect("an answer");
        let gate = Gate::closed();
        asker.service::<Desk>().tell(Hint { gate: gate.name() }).await.expect("told");
        gate.arrived(1).await;
        let ask = |panics: bool| {
            let asker = asker.clone();
            tokio::spawn(async move {
                let desk = asker.service::<Desk>();
                match panics {
                    true => desk.ask(Leave { why: "the sky".to_owned() }).await.map(|()| 0),
                    false => desk.ask(Who).await.map(|served| served.served),
                }
            })
        };
        let falls = ask(true);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let queued = ask(false);
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.open(1);
        let Err(AskError::Failed(error)) = falls.await.expect("it stays inside") else { panic!("it fell") };
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(error.message().contains("the sky"), "{error}");
        assert_eq!(queued.await.expect("no panic").expect("the queue goes on"), 1, "with a fresh instance");
        let after = asker.service::<Desk>().ask(Who).await.expect("an answer");
        assert!(after.instance > before.instance && after.served == 2, "{before:?} {after:?}");
    }
}

async fn h7_an_instance_that_hangs_costs_its_own_share_only(ground: Ground) {
    let node = host(&ground, "one", 2).await;
    let client = ground.node("client").start().await.expect("a node starts");
    let gate = Gate::closed();
    node.service::<Desk>().tell(Hint { gate: gate.name() }).await.expect("told");
    gate.arrived(1).await;
    for asker in [&node, &client] {
        for _ in 0..10 {
            let served = asker.service::<Desk>().within(SOON).ask(Who).await;
            served.expect("the other instance answers");
        }
    }
    gate.open(1);
}

async fn h7_what_waits_outlives_the_restart_of_an_instance(ground: Ground) {
    let node = host(&ground, "one", 1).await;
    let client = ground.node("client").start().await.expect("a node starts");
    let gate = Gate::closed();
    let cracks = {
        let (node, gate) = (node.clone(), gate.name());
        tokio::spawn(async move { node.service::<Desk>().within(SOON).ask(Crack { gate, activations: 2 }).await })
    };
    gate.arrived(1).await;
    let behind: Vec<_> = [&node, &client, &node, &client]
        .map(|asker| {
            let asker = asker.clone();
            tokio::spawn(async move { asker.service::<Desk>().within(SOON).ask(Who).await })
        })
        .into();
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open(1);
    let error = cracks.await.expect("it stays inside").expect_err("it panicked");
    assert_eq!(error.failure().map(Error::kind), Some(ErrorKind::Panicked), "{error}");
    for ask in behind {
        soon("the next instance serves it", ask).await.expect("no panic").expect("an answer");
    }
}

async fn h7_a_service_that_gave_up_leaves_its_calls_to_others(ground: Ground) {
    let options = HostOptions::new().pool(1).restart(Restart { intensity: 0, ..Restart::default() });
    let one = ground.node("one").host_with::<DeskService>(options).start().await.expect("a node starts");
    let two = host(&ground, "two", 1).await;
    let client = ground.node("client").start().await.expect("a node starts");
    // Its own instance goes first, so this cracks it.
    let cracked = one.service::<Desk>().ask(Crack { gate: String::new(), activations: 1 }).await;
    assert!(cracked.is_err(), "it panicked");
    one.service::<Desk>().ask(Who).await.ok();
    eventually(SOON, "it gives up", async || {
        let report = one.supervision();
        holds(report.iter().any(|group| group.name == "desk" && group.gave_up.is_some()), || format!("{report:?}"))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for asker in [&one, &client] {
        for _ in 0..30 {
            let served = asker.service::<Desk>().ask(Who).await.expect("the healthy node answers");
            assert_eq!(served.node, two.id());
        }
        asker.service::<Desk>().tell(Hint { gate: String::new() }).await.expect("the healthy node takes it");
    }
}

async fn r1_a_service_may_be_told(ground: Ground) {
    let node = host(&ground, "one", 2).await;
    let client = ground.node("client").start().await.expect("a node starts");
    let gate = Gate::closed();
    for asker in [&node, &client] {
        soon("admitted", asker.service::<Desk>().tell(Hint { gate: gate.name() })).await.expect("told");
    }
    gate.arrived(2).await;
    gate.open(2);
    gate.passed(2).await;
}

/// Opens a cell that nobody commits.
#[contract(service, name = "tally", messages(Tally))]
pub(super) struct Tallies;

#[message(Tallies, ask, reply = u64)]
pub(super) struct Tally;

pub(super) struct TallyService {
    sum: Durable<Sum>,
}

#[service(Tallies)]
impl TallyService {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { sum: ctx.volatile()? })
    }

    #[ask]
    fn tally(&mut self, _: Tally) -> u64 {
        self.sum.emit(Entry::Counted);
        0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_service_whose_cell_has_no_name_does_not_start() {
    bounded(async {
        let options = HostOptions::new().pool(1).restart(Restart { intensity: 0, ..Restart::default() });
        let error = Node::local("demo").host_with::<TallyService>(options).start().await.expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("tally opens a state cell but does not name it"), "{error}");
    })
    .await;
}
