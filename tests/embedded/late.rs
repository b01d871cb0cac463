//! What arrives late: attempts that others have overtaken, and frames that waited while their node stood still.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Inbound, Outbound, Subscription, Transport};

use super::gate::Gate;
use super::ground::{Ground, SOON, bounded, on_both, settled, soon};
use super::taken::{Count, GHOST, Jar, JarActor, Put, Records, Take, owned_by};

/// Far more than a test may take.
const BUDGET: Duration = Duration::from_secs(50);

/// What an answer's head says that it is.
const REPLY: u8 = 0;
const REFUSAL: u8 = 1;
const FAILURE: u8 = 2;
const MOVED: u8 = 3;

on_both!(late_first_attempt);

/// The network, as far as a test can play it: delivers frames that it has seen, late.
struct Network {
    transport: Arc<dyn Transport>,
    to: Subject,
    reply: Subject,
    answers: Subscription,
}

impl Network {
    async fn before(ground: &Ground, transport: Arc<dyn Transport>, node: &Node) -> Self {
        let to = format!("{}.node.{}.in", ground.app(), node.id());
        let to = Subject::parse(&to).expect("a subject");
        // As if a node of this name had asked.
        let reply = |number| Subject::parse(&format!("{}.node.late.r.{number}", ground.app())).expect("a subject");
        let answers = transport.subscribe(&reply(0).to_filter(), None, 8).await.expect("a subscription");
        Self { transport, to, reply: reply(1), answers }
    }

    fn deliver(&self, frame: &Inbound) {
        let message = Outbound::new(self.to.clone(), frame.body.clone()).reply_to(self.reply.clone());
        self.transport.publish(message).expect("sent");
    }

    /// What the next answer is.
    async fn answer(&mut self) -> u8 {
        let answer = soon("an answer", self.answers.next()).await.expect("the connection is open");
        // The letter, the version, the length of the head, the number, the kind.
        assert_eq!(&answer.body[..2], b"A\x01", "{answer:?}");
        answer.body[4]
    }

    async fn delivered(&mut self, frame: &Inbound) -> u8 {
        self.deliver(frame);
        self.answer().await
    }
}

/// The same frame as if it had been sent under another claim.
fn under(frame: &Inbound, before: u64, now: u64) -> Inbound {
    let varint = |epoch: u64| [&[252][..], &u32::try_from(epoch).expect("seconds since 1970").to_le_bytes()].concat();
    let (before, now) = (varint(before), varint(now));
    let places: Vec<usize> = (0..frame.body.len() - 5).filter(|at| frame.body[*at..].starts_with(&before)).collect();
    assert_eq!(places.len(), 1, "the epoch stands in the head once");
    let mut body = frame.body.to_vec();
    body[places[0]..places[0] + 5].copy_from_slice(&now);
    Inbound { body: body.into(), ..frame.clone() }
}

async fn late_first_attempt(ground: Ground) {
    let one = ground.node("one").host::<JarActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("jar", &[&one], &[&client]).await;
    let records = Records::of(&ground).await;
    let mut sent = records.ghost(&ground).await;
    records.give("jar", GHOST, Some(one.id())).await;
    owned_by(&client, GHOST).await;
    let take = {
        let jar = client.actor::<Jar>("k").within(BUDGET);
        tokio::spawn(async move { jar.ask(Take).await })
    };
    // It stays in the network, which is what the ghost is here.
    let first = soon("the first attempt", sent.next()).await.expect("the connection is open");
    let briefly = client.actor::<Jar>("b").within(Duration::from_millis(300)).ask(Put).await;
    assert!(briefly.is_err(), "nobody has served it: {briefly:?}");
    let brief = soon("a call with little time", sent.next()).await.expect("the connection is open");
    records.give("jar", one.id(), None).await;
    let no = soon("the second attempt is answered", take).await.expect("no panic");
    assert!(no.expect_err("it is empty").refusal().is_some());
    for _ in 0..3 {
        client.actor::<Jar>("k").within(SOON).ask(Put).await.expect("an answer");
    }
    let mut network = Network::before(&ground, records.transport.clone(), &one).await;
    assert_eq!(network.delivered(&first).await, MOVED, "it was sent under another claim");
    let (_, claim) = records.read("part.jar.0").await;
    let epoch = claim["epoch"].as_u64().expect("an epoch");
    // As if it had come to this node in the first place: its second attempt was told no, and that is kept.
    assert_eq!(network.delivered(&under(&first, epoch - 1, epoch)).await, REFUSAL);
    // Its budget says that there is time left, and the clock that there is none.
    assert_eq!(network.delivered(&under(&brief, epoch - 1, epoch)).await, FAILURE);
    for (key, coins) in [("k", 3), ("b", 0)] {
        let count = client.actor::<Jar>(key).within(SOON).ask(Count).await.expect("an answer");
        assert_eq!(count, coins, "what came late to {key} took no effect");
    }
}

/// Keeps the thread it runs on.
#[contract(name = "dozer", messages(Doze, Awake))]
struct Dozer;

/// Passes a gate, and keeps its thread for so long.
#[message(Dozer, ask)]
struct Doze {
    gate: String,
    ms: u64,
}

#[message(Dozer, read, reply = u64)]
struct Awake;

#[derive(Default)]
struct DozerActor {
    naps: u64,
}

#[actor(Dozer)]
impl DozerActor {
    #[ask]
    async fn doze(&mut self, msg: Doze) {
        if let Some(gate) = Gate::named(&msg.gate) {
            gate.pass().await;
        }
        std::thread::sleep(Duration::from_millis(msg.ms));
        self.naps += 1;
    }

    #[read]
    fn awake(&self, _: Awake) -> u64 {
        self.naps
    }
}

#[test]
fn r5_what_waited_while_its_node_stood_still_is_sent_again_in_memory() {
    stood_still(async { Ground::memory() });
}

#[test]
fn r5_what_waited_while_its_node_stood_still_is_sent_again_on_nats() {
    stood_still(Ground::nats_alone());
}

fn stood_still(ground: impl Future<Output = Ground>) {
    let runtime = |workers| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(workers).enable_all().build().expect("a runtime")
    };
    // All of the one node stands still, but its connection.
    let (still, watching) = (runtime(1), runtime(2));
    let ground = watching.block_on(ground);
    let start = {
        let builder = ground.node("one").host::<DozerActor>();
        async move { builder.start().await.expect("a node starts") }
    };
    let one = still.block_on(async { tokio::spawn(start).await.expect("no panic") });
    watching.block_on(bounded(async {
        let client = ground.node("client").start().await.expect("a node starts");
        settled("dozer", &[&one], &[&client]).await;
        let transport = ground.connect("network").await;
        let mut network = Network::before(&ground, transport.clone(), &one).await;
        let mut spied = transport.subscribe(&network.to.to_filter(), None, 64).await.expect("a subscription");
        let awake = client.actor::<Dozer>("other").within(BUDGET);
        assert_eq!(awake.ask(Awake).await.expect("an answer"), 0);
        let frame = soon("the frame passes by", spied.next()).await.expect("the connection is open");
        assert_eq!(network.delivered(&frame).await, REPLY, "what is read in time is served");
        let gate = Gate::closed();
        gate.open(1);
        let doze = {
            let (actor, gate) = (client.actor::<Dozer>("k").within(BUDGET), gate.name());
            tokio::spawn(async move { actor.ask(Doze { gate, ms: 1_700 }).await })
        };
        gate.arrived(1).await;
        network.deliver(&frame);
        let waits = tokio::spawn(async move { awake.ask(Awake).await });
        assert_eq!(network.answer().await, MOVED, "it waited while the node stood still");
        soon("it is sent again", waits).await.expect("no panic").expect("an answer");
        soon("it wakes", doze).await.expect("no panic").expect("an answer");
        assert_eq!(network.delivered(&frame).await, REPLY, "there is no doubt any more");
    }));
    still.shutdown_background();
}
