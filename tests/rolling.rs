//! A broker of a cluster that is taken out of service in order, while durable actors are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::{Connect, Status};
use xtask::broker::Cluster;

use crate::harness::{eventually, holds, tools};

/// Counts.
#[contract(name = "tally", messages(Count), event = Counted)]
struct Tally;

#[message(Tally, ask, reply = u64)]
struct Count;

#[event(Tally)]
enum Counted {
    One,
}

#[data]
#[derive(Default)]
struct Sum {
    counted: u64,
}

impl State for Sum {
    type Event = Counted;

    fn apply(&mut self, _: &Counted) {
        self.counted += 1;
    }
}

struct TallyActor {
    sum: Durable<Sum>,
}

#[actor(Tally, state = sum, durable)]
impl TallyActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { sum: ctx.durable().await? })
    }

    #[ask]
    fn count(&mut self, _: Count) -> u64 {
        self.sum.emit(Counted::One);
        self.sum.counted
    }
}

/// The server's own grace before it begins to close connections, and what a busy machine adds.
const MOVED_WITHIN: Duration = Duration::from_secs(60);

fn server_of(node: &Node) -> Option<String> {
    match &*node.status().borrow() {
        Status::Connected { server, .. } => Some(server.clone()),
        Status::Disconnected | Status::Closed => None,
    }
}

/// No claim changes hands, no call fails, and nothing takes effect twice: what was on its way over the connection that
/// the server closes is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn p1_a_server_in_lame_duck_mode_costs_no_claim_and_no_durable_call() {
    let cluster = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start(tools(), 3).expect("a cluster starts");
        cluster.wait_for_meta_leader(Duration::from_secs(60)).expect("it has a leader");
        cluster
    });
    let cluster = cluster.await.expect("no panic");
    let at = || Connect::new(&cluster.urls()).expect("addresses").replicas(3).timeout(Duration::from_secs(20));
    let node = |name| Node::builder("shop").name(name).connect(at()).partitions(8);
    let one = node("one").host::<TallyActor>().start().await.expect("a node starts");
    let two = node("two").host::<TallyActor>().start().await.expect("a node starts");
    let server = server_of(&one).expect("it is connected");
    let lame = cluster.brokers().iter().find(|broker| {
        tokio::task::block_in_place(|| broker.monitor("/varz")).is_ok_and(|varz| varz["server_id"] == server.as_str())
    });
    let lame = lame.expect("one of the three");
    // Who calls is at another one: its own connection is not what is tried here.
    let others: Vec<_> = cluster.brokers().iter().map(|broker| broker.url()).filter(|url| *url != lame.url()).collect();
    let caller = Node::builder("shop").name("caller").connect(others.join(",").as_str()).partitions(8);
    let caller = caller.start().await.expect("a client starts");
    eventually(Duration::from_secs(30), "they share", async || {
        let claims = caller.info().claims;
        holds(claims.len() == 2, || format!("{claims:?}"))
    })
    .await;
    let owners = || {
        let mut claims: Vec<_> = caller.info().claims.into_iter().map(|claim| (claim.node, claim.partitions)).collect();
        claims.sort();
        claims
    };
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let (caller, done, asked) = (caller.clone(), done.clone(), asked.clone());
            tokio::spawn(async move {
                let actor = caller.actor::<Tally>(format!("t-{number}")).within(Duration::from_secs(10));
                let mut counted = 0;
                while !done.load(Ordering::Relaxed) {
                    counted += 1;
                    let sum = actor.ask(Count).await.unwrap_or_else(|error| panic!("call {counted}: {error}"));
                    assert_eq!(sum, counted, "each call counts once");
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                counted
            })
        })
        .collect();
    // On a slow machine the second one may still be given what is its own.
    let (mut before, mut since) = (owners(), asked.load(Ordering::Relaxed));
    eventually(Duration::from_secs(60), "nothing moves for 3,000 calls, which is 3 s or more", async || {
        let (now, count) = (owners(), asked.load(Ordering::Relaxed));
        if now != before {
            (before, since) = (now, count);
        }
        holds(count >= since + 3_000, || format!("{before:?} since call {since} of {count}"))
    })
    .await;
    tokio::task::block_in_place(|| {
        let signal = format!("ldm={}", lame.pid());
        let status = std::process::Command::new(&tools().nats_server).args(["--signal", &signal]).status();
        assert!(status.expect("it runs").success());
    });
    let lame = lame.url();
    eventually(MOVED_WITHIN, "the node is at another server", async || {
        let now = server_of(&one);
        holds(now.as_ref().is_some_and(|now| *now != server), || format!("{now:?}, away from {lame}"))
    })
    .await;
    let then = asked.load(Ordering::Relaxed);
    eventually(MOVED_WITHIN, "calls go on", async || {
        let now = asked.load(Ordering::Relaxed);
        holds(now > then + 100, || format!("{then} calls, and now {now}"))
    })
    .await;
    done.store(true, Ordering::Relaxed);
    let mut all = 0;
    for caller in callers {
        all += caller.await.expect("no call failed");
    }
    println!("{all} durable calls");
    assert_eq!(owners(), before, "no claim changed hands");
    // It sends its clients away one after the other.
    for node in [&one, &two, &caller] {
        eventually(MOVED_WITHIN, "nobody is left there", async || {
            let now = server_of(node);
            holds(now.as_ref() != Some(&server), || format!("{now:?}"))
        })
        .await;
    }
}
