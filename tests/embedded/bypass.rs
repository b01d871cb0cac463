//! Local is local: a call to an actor on the same node touches neither codec nor broker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use greenroom::prelude::*;
use greenroom::subject::Filter;
use greenroom::transport::Subscription;

use super::ground::{Ground, PARTITIONS, QUIET, bounded, on_both, settled};
use crate::harness::Server;

/// Weighs what it is given.
#[contract(name = "scale", messages(Weigh, Look, Drop_))]
pub(super) struct Scale;

#[message(Scale, ask, reply = Weight)]
pub(super) struct Weigh {
    pub counted: Weight,
}

#[message(Scale, read, reply = Weight)]
pub(super) struct Look {
    pub counted: Weight,
}

#[message(Scale, tell, verb = "drop_it")]
pub(super) struct Drop_ {
    pub counted: Weight,
}

/// Cannot be written or read without being counted, in whichever codec: by these two conversions.
#[data]
#[derive(PartialEq)]
#[serde(from = "u64", into = "u64")]
#[schemars(with = "u64")]
pub(super) struct Weight(pub u64);

static WRITTEN: AtomicUsize = AtomicUsize::new(0);
static READ: AtomicUsize = AtomicUsize::new(0);

impl From<Weight> for u64 {
    fn from(weight: Weight) -> u64 {
        // Those that are drawn while a type's form is looked at weigh nothing.
        WRITTEN.fetch_add(usize::from(weight.0 != 0), Ordering::SeqCst);
        weight.0
    }
}

impl From<u64> for Weight {
    fn from(weight: u64) -> Self {
        READ.fetch_add(usize::from(weight != 0), Ordering::SeqCst);
        Weight(weight)
    }
}

#[derive(Default)]
pub(super) struct ScaleActor {
    sum: u64,
}

#[actor(Scale)]
impl ScaleActor {
    #[ask]
    fn weigh(&mut self, msg: Weigh) -> Weight {
        self.sum += msg.counted.0;
        Weight(self.sum)
    }

    #[read]
    async fn look(&self, msg: Look) -> Weight {
        tokio::task::yield_now().await;
        Weight(self.sum + msg.counted.0)
    }

    #[tell]
    async fn drop_it(&mut self, msg: Drop_) {
        tokio::task::yield_now().await;
        self.sum += msg.counted.0;
    }
}

/// Hears everything that is said on the subjects of the app.
async fn spies(ground: &Ground) -> Vec<Subscription> {
    let subjects = ground.subjects();
    let mut filters: Vec<Filter> = (0..PARTITIONS).map(|partition| subjects.owner("*", partition)).collect();
    filters.extend([subjects.services("*"), subjects.calls("scale"), subjects.lives("*", None, None)]);
    filters.push(subjects.node_all("*"));
    let spy = ground.connect("spy").await;
    let mut spies = Vec::new();
    for filter in &filters {
        spies.push(spy.subscribe(filter, None, 1_024).await.expect("a subscription"));
    }
    // The subscriptions end with their connection.
    std::mem::forget(spy);
    spies
}

async fn heard(spies: &mut [Subscription]) -> Vec<String> {
    tokio::time::sleep(QUIET).await;
    let mut heard = Vec::new();
    for spy in spies {
        while let Some(Some(message)) = spy.next().now_or_never() {
            heard.push(message.subject);
        }
    }
    heard
}

async fn call_thrice(node: &Node, key: &str, weight: u64) {
    let actor = node.actor::<Scale>(key);
    actor.ask(Weigh { counted: Weight(weight) }).await.expect("an answer");
    actor.ask(Look { counted: Weight(weight) }).await.expect("an answer");
    actor.tell(Drop_ { counted: Weight(weight) }).await.expect("told");
}

async fn counted() -> (usize, usize) {
    (WRITTEN.load(Ordering::SeqCst), READ.load(Ordering::SeqCst))
}

/// One test for both brokers: they would count each other's messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_call_touches_neither_codec_nor_broker() {
    bounded(async {
        for ground in [Ground::memory(), Ground::nats_alone().await] {
            let node = ground.node("one").host::<ScaleActor>().start().await.expect("a node starts");
            settled("scale", &[&node], &[]).await;
            let mut spies = spies(&ground).await;
            let (before, since) = ((counted().await, received(&ground).await), Instant::now());
            for number in 0..100 {
                call_thrice(&node, &format!("s-{}", number % 10), 7).await;
            }
            let last = node.actor::<Scale>("s-0").ask(Look { counted: Weight(0) }).await.expect("an answer");
            assert_eq!(last, Weight(10 * 2 * 7), "the calls were made");
            assert_eq!(heard(&mut spies).await, [""; 0], "nothing was said on the app's subjects");
            assert_eq!(counted().await, before.0, "messages written and read");
            if let (Some(before), Some(now)) = (before.1, received(&ground).await) {
                // The node's own round trips, four a second there and back, and one under way at either end.
                let trips = 2 * (since.elapsed().as_millis() as u64 / 250 + 2);
                assert!(now <= before + trips, "{} messages in {:?}", now - before, since.elapsed());
            }

            // The same calls from another node are seen by all three.
            let caller = ground.node("caller").start().await.expect("a node starts");
            settled("scale", &[&node], &[&caller]).await;
            heard(&mut spies).await;
            call_thrice(&caller, "s-0", 7).await;
            // Three messages and two replies, each written once and read once.
            assert_eq!(counted().await, (before.0.0 + 5, before.0.1 + 5));
            assert_eq!(heard(&mut spies).await.len(), 6, "three questions and three answers");
            if let Some(before) = before.1 {
                assert!(received(&ground).await.is_some_and(|now| now >= before + 3), "the owning connection is seen");
            }
        }
    })
    .await;
}

/// How many messages a real server has had from and for the node's own connection.
async fn received(ground: &Ground) -> Option<u64> {
    Some(own_messages(ground.server()?).await)
}

/// The messages from and for the own connections of nodes named `one`.
pub(super) async fn own_messages(server: &Server) -> u64 {
    let connections = server.monitor("/connz").await;
    let all = connections["connections"].as_array().cloned().unwrap_or_default();
    let own = all.iter().filter(|one| {
        let name = one["name"].as_str().unwrap_or_default();
        name.starts_with("one-") && name.ends_with("/own")
    });
    own.map(|one| one["in_msgs"].as_u64().unwrap_or(0) + one["out_msgs"].as_u64().unwrap_or(0)).sum()
}

on_both!(r1_local_and_remote_calls_mean_the_same);

/// What a caller sees is the same wherever its actor is.
async fn r1_local_and_remote_calls_mean_the_same(ground: Ground) {
    use super::probe::{Add, Big, Note, Notes, Probe, ProbeActor, Refuse, Total, Via};

    let host = ground.node("host").host::<ProbeActor>().start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("probe", &[&host], &[&caller]).await;
    let mut seen = Vec::new();
    for node in [&host, &caller] {
        let key = format!("same-{}", seen.len());
        let actor = node.actor::<Probe>(&key);
        let mut all = vec![format!("{:?}", actor.ask(Add { by: 2 }).await.map_err(|error| error.to_string()))];
        let refused = actor.ask(Refuse { why: "because".to_owned() }).await;
        all.push(format!("{:?}", refused.map_err(|error| error.to_string())));
        for number in 0..3 {
            actor.tell(Note { text: number.to_string() }).await.expect("told");
        }
        all.push(format!("{:?}", actor.ask(Notes).await.expect("an answer")));
        let refused = actor.ask(Big { bytes: 0 }).await;
        all.push(format!("{:?}", refused.map_err(|error| error.to_string())));
        let cycle = actor.ask(Via { path: vec!["other".to_owned(), key.clone()] }).await;
        all.push(format!("{:?}", cycle.map_err(|error| error.to_string())).replace(&key, "[key]"));
        let deadline = node.actor::<Probe>(&key).within(Duration::ZERO).ask(Total).await;
        all.push(format!("{:?}", deadline.map_err(|error| error.to_string())).replace(&key, "[key]"));
        seen.push(all);
    }
    assert_eq!(seen[0], seen[1]);
}
