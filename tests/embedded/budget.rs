//! Durable actors under a memory budget: who leaves, with what, and that it comes back.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::StreamConfig;
use greenroom::{HostOptions, Reason, Watch};

use super::ground::{Ground, QUIET, on_both, settled, soon};
use crate::harness::{eventually, holds};

/// Holds what it is given.
#[contract(name = "sack", messages(Stuff, Weight), event = Stuffed)]
struct Sack;

/// The reply is how many bytes it holds then.
#[message(Sack, ask, reply = u64)]
struct Stuff {
    bytes: usize,
}

#[message(Sack, read, reply = u64)]
struct Weight;

#[event(Sack)]
enum Stuffed {
    In { what: String },
}

#[data]
#[derive(Default)]
struct Held {
    all: String,
}

impl State for Held {
    type Event = Stuffed;

    fn apply(&mut self, event: &Stuffed) {
        let Stuffed::In { what } = event;
        self.all.push_str(what);
    }
}

struct SackActor {
    held: Durable<Held>,
}

#[actor(Sack, state = held, durable)]
impl SackActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { held: ctx.durable().await? })
    }

    #[ask]
    fn stuff(&mut self, msg: Stuff) -> u64 {
        self.held.emit(Stuffed::In { what: "x".repeat(msg.bytes) });
        self.held.all.len() as u64
    }

    #[read]
    fn weight(&self, _: Weight) -> u64 {
        self.held.all.len() as u64
    }
}

on_both!(
    f3_the_least_recently_used_leaves_when_memory_is_short,
    f3_the_budget_holds_under_load,
    f3_a_snapshot_is_left_behind_where_it_pays,
);

/// What one sack holds: large enough that the rest of it does not count.
const STATE: usize = 20 * 1024;
const BUDGET: usize = 100 * 1024;

async fn sacks(ground: &Ground) -> Node {
    let options = HostOptions::new().memory_budget(BUDGET);
    let node = ground.node("one").host_with::<SackActor>(options).start().await.expect("a node starts");
    settled("sack", &[&node], &[]).await;
    node
}

async fn left(watch: &mut Watch, key: &str) {
    let gone = soon("it leaves", watch.next()).await.expect("the node runs");
    assert_eq!((gone.key.as_str(), gone.reason), (key, Reason::Passivated));
}

async fn f3_the_least_recently_used_leaves_when_memory_is_short(ground: Ground) {
    let node = sacks(&ground).await;
    let mut watches = Vec::new();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(node.actor::<Sack>(key).ask(Stuff { bytes: STATE }).await.expect("an answer"), STATE as u64);
        watches.push(node.watch::<Sack>(key).await.expect("a watch"));
    }
    assert_eq!(node.info().resident["sack"], 4, "they fit");
    // Looked at, it is in use.
    node.actor::<Sack>("a").ask(Weight).await.expect("an answer");
    node.actor::<Sack>("e").ask(Stuff { bytes: STATE }).await.expect("an answer");
    left(&mut watches[1], "b").await;
    node.actor::<Sack>("f").ask(Stuff { bytes: STATE }).await.expect("an answer");
    left(&mut watches[2], "c").await;
    for (at, key) in [(0, "a"), (3, "d")] {
        let told = tokio::time::timeout(QUIET, watches[at].next()).await;
        assert!(told.is_err(), "{key} stays: {told:?}");
    }
    // What has left is as it was.
    for key in ["b", "c"] {
        assert_eq!(node.actor::<Sack>(key).ask(Weight).await.expect("it is back"), STATE as u64, "{key}");
    }
    left(&mut watches[3], "d").await;
    left(&mut watches[0], "a").await;
    let small = ground.node("small").host_with::<SackActor>(HostOptions::new().memory_budget(1)).start().await;
    assert_eq!(small.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Config));
}

async fn f3_the_budget_holds_under_load(ground: Ground) {
    let node = sacks(&ground).await;
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut most = 0;
                for round in 0..60_u64 {
                    let key = format!("s-{caller}-{}", round % 12);
                    let held = node.actor::<Sack>(&key).ask(Stuff { bytes: 4 * 1024 }).await.expect("an answer");
                    assert_eq!(held, (round / 12 + 1) * 4 * 1024, "{key} holds what it was given");
                    most = most.max(node.info().memory["sack"]);
                }
                most
            })
        })
        .collect();
    let mut most = 0;
    for caller in callers {
        most = most.max(soon("its calls are answered", caller).await.expect("no panic"));
    }
    assert!(most <= BUDGET + STATE && most > BUDGET / 2, "{most} bytes at the most");
    eventually(super::ground::SOON, "who had to leave has left", async || {
        let resident = node.info().resident["sack"];
        // Each takes 20 KiB by now, and a little.
        holds((2..=6).contains(&resident), || format!("{resident} in memory"))
    })
    .await;
}

async fn f3_a_snapshot_is_left_behind_where_it_pays(ground: Ground) {
    let builder = ground.node("one").host::<SackActor>().passivate_after(Duration::from_secs(1));
    let node = builder.start().await.expect("a node starts");
    settled("sack", &[&node], &[]).await;
    let transport = ground.connect("reader").await;
    let name = ground.subjects().journal_stream("sack");
    let config = StreamConfig::new([ground.subjects().journals("sack")]);
    let stream = transport.stream(&name, config).await.expect("the stream");
    // Too large to be in every record; and then too little happens for a snapshot by itself.
    for (key, first, turns, pays) in [("long", 1_600, 3, true), ("short", 600, 0, false)] {
        let actor = node.actor::<Sack>(key);
        actor.ask(Stuff { bytes: first }).await.expect("an answer");
        for _ in 0..turns {
            actor.ask(Stuff { bytes: 100 }).await.expect("an answer");
        }
        let subject = ground.subjects().journal("sack", &Key::new(key).expect("a key"));
        let before = stream.last(&subject).await.expect("an answer").expect("a record");
        let json: serde_json::Value = serde_json::from_slice(&before.body).expect("JSON");
        assert!(json["snapshot"].is_null(), "{key}: {json}");
        let mut watch = node.watch::<Sack>(key).await.expect("a watch");
        left(&mut watch, key).await;
        let last = stream.last(&subject).await.expect("an answer").expect("a record");
        let json: serde_json::Value = serde_json::from_slice(&last.body).expect("JSON");
        assert_eq!(last.sequence > before.sequence, pays, "{key}: {json}");
        assert_eq!(json["snapshot"]["state"]["all"].is_string(), pays, "{key}: {json}");
        let held = actor.ask(Weight).await.expect("it is back");
        assert_eq!(held, first as u64 + 100 * turns, "{key}");
        assert_eq!(actor.ask(Stuff { bytes: 1 }).await.expect("an answer"), held + 1, "{key}");
    }
}
