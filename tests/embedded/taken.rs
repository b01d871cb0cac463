//! Claims that are taken from a holder whose lease still stands: what was asked of it does not wait for more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::{Bucket, Subscription, Transport};
use serde_json::{Value, json};

use super::ground::{Ground, SOON, on_both, settled, soon};
use crate::harness::{eventually, holds};

/// Far more than a test may take.
const BUDGET: Duration = Duration::from_secs(50);
/// A node that has records and answers nothing: as one that is frozen.
pub(super) const GHOST: &str = "ghost-1";

/// Coins that are kept.
#[contract(name = "jar", messages(Put, Take, Count), event = Moved)]
pub(super) struct Jar;

#[message(Jar, ask, reply = u64)]
pub(super) struct Put;

/// Takes a coin out, if there is one.
#[message(Jar, ask, reply = u64, refusal = Empty)]
pub(super) struct Take;

#[message(Jar, read, reply = u64)]
pub(super) struct Count;

#[refusal]
#[derive(PartialEq)]
pub(super) struct Empty;

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is empty")
    }
}

#[event(Jar)]
#[derive(PartialEq)]
pub(super) enum Moved {
    In,
    Out,
}

#[data]
#[derive(Default)]
pub(super) struct Coins {
    count: u64,
}

impl State for Coins {
    type Event = Moved;

    fn apply(&mut self, event: &Moved) {
        match event {
            Moved::In => self.count += 1,
            Moved::Out => self.count -= 1,
        }
    }
}

pub(super) struct JarActor {
    coins: Durable<Coins>,
}

#[actor(Jar, state = coins, durable)]
impl JarActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { coins: ctx.durable().await? })
    }

    #[ask]
    fn put(&mut self, _: Put) -> u64 {
        self.coins.emit(Moved::In);
        self.coins.count
    }

    #[ask]
    fn take(&mut self, _: Take) -> Result<u64, Empty> {
        if self.coins.count == 0 {
            return Err(Empty);
        }
        self.coins.emit(Moved::Out);
        Ok(self.coins.count)
    }

    #[read]
    fn count(&self, _: Count) -> u64 {
        self.coins.count
    }
}

/// Coins that are not.
#[contract(name = "pocket", messages(Slip, Feel))]
struct Pocket;

#[message(Pocket, ask, reply = u64)]
struct Slip;

#[message(Pocket, read, reply = u64)]
struct Feel;

#[derive(Default)]
struct PocketActor {
    count: u64,
}

#[actor(Pocket)]
impl PocketActor {
    #[ask]
    fn slip(&mut self, _: Slip) -> u64 {
        self.count += 1;
        self.count
    }

    #[read]
    fn feel(&self, _: Feel) -> u64 {
        self.count
    }
}

on_both!(p1_callers_do_not_sleep_through_a_take_over, p1_what_an_owner_lost_with_its_connection_is_asked_again,);

/// The records of the app, as somebody with a pen sees them.
pub(super) struct Records {
    bucket: Box<dyn Bucket>,
    pub(super) transport: Arc<dyn Transport>,
}

impl Records {
    pub(super) async fn of(ground: &Ground) -> Self {
        let transport = ground.connect("pen").await;
        let bucket = transport.bucket(&format!("{}-own", ground.app())).await.expect("the bucket");
        Self { bucket, transport }
    }

    pub(super) async fn read(&self, key: &str) -> (u64, Value) {
        let record = self.bucket.get(key).await.expect("an answer").expect("a record");
        let value = record.value.expect("a value");
        (record.revision, serde_json::from_slice(&value).expect("JSON"))
    }

    async fn write(&self, key: &str, value: &Value, expect: u64) -> u64 {
        self.bucket.write(key, value.to_string().into(), Some(expect), None).await.expect("written")
    }

    /// Makes a node the holder of every partition of an actor type, under the next epoch of each.
    pub(super) async fn give(&self, actor: &str, node: &str, from: Option<&str>) {
        let (lease, _) = self.read(&format!("lease.{node}")).await;
        for partition in 0..super::ground::PARTITIONS {
            let key = format!("part.{actor}.{partition}");
            let (revision, before) = self.read(&key).await;
            let epoch = before["epoch"].as_u64().expect("an epoch") + 1;
            let claim = json!({ "node": node, "epoch": epoch, "nonce": "pen", "lease": lease, "from": from });
            self.write(&key, &claim, revision).await;
        }
    }

    /// Has the ghost say that it is on another connection.
    async fn ghost_reconnects(&self) {
        let (revision, lease) = self.read(&format!("lease.{GHOST}")).await;
        let client = lease["client"].as_u64().expect("a number") + 1;
        self.write(
            &format!("lease.{GHOST}"),
            &json!({ "incarnation": "1", "server": "S", "client": client }),
            revision,
        )
        .await;
    }

    /// A node that lives, by its records, and what it is sent.
    pub(super) async fn ghost(&self, ground: &Ground) -> Subscription {
        let lease = json!({ "incarnation": "1", "server": "S", "client": 1 });
        // A heartbeat that does not run out.
        self.write(&format!("beat.{GHOST}"), &json!({}), 0).await;
        self.write(&format!("lease.{GHOST}"), &lease, 0).await;
        // Of no weight: nobody offers it anything.
        let hosts = json!({
            "jar": { "version": "1", "weight": 0, "durable": true },
            "pocket": { "version": "1", "weight": 0 },
        });
        let member = json!({ "id": GHOST, "name": "ghost", "hosts": hosts, "draining": false, "started_ms": 1 });
        self.write(&format!("member.{GHOST}"), &member, 0).await;
        let inbox = Subject::parse(&format!("{}.node.{GHOST}.in", ground.app())).expect("a subject");
        self.transport.subscribe(&inbox.to_filter(), None, 64).await.expect("a subscription")
    }
}

/// Waits until a node knows of no other owner than that one.
pub(super) async fn owned_by(node: &Node, owner: &str) {
    eventually(SOON, "one node owns everything", async || {
        let claims = node.info().claims;
        holds(claims.iter().all(|claim| claim.node == owner), || format!("{claims:?}"))
    })
    .await;
}

async fn p1_callers_do_not_sleep_through_a_take_over(ground: Ground) {
    let one = ground.node("one").host::<JarActor>().host::<PocketActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    for actor in ["jar", "pocket"] {
        settled(actor, &[&one], &[&client]).await;
    }
    let records = Records::of(&ground).await;
    let mut sent = records.ghost(&ground).await;
    for actor in ["jar", "pocket"] {
        records.give(actor, GHOST, Some(one.id())).await;
    }
    owned_by(&client, GHOST).await;
    let (jar, pocket) = (client.actor::<Jar>("k").within(BUDGET), client.actor::<Pocket>("k").within(BUDGET));
    // One after the other, so that each has a frame to itself.
    let mut asked = async || soon("the ghost is asked", sent.next()).await.expect("the connection is open");
    let put = tokio::spawn(async move { jar.ask(Put).await });
    asked().await;
    let slip = tokio::spawn(async move { pocket.ask(Slip).await });
    asked().await;
    let (jar, pocket) = (client.actor::<Jar>("r").within(BUDGET), client.actor::<Pocket>("r").within(BUDGET));
    let count = tokio::spawn(async move { jar.ask(Count).await });
    asked().await;
    let feel = tokio::spawn(async move { pocket.ask(Feel).await });
    asked().await;
    // Taken, as if it were dead. Its lease stands all the while.
    for actor in ["jar", "pocket"] {
        records.give(actor, one.id(), None).await;
    }
    let put = soon("what is durable is asked again", put).await.expect("no panic");
    assert_eq!(put.expect("an answer"), 1);
    let slip = soon("what is volatile is told", slip).await.expect("no panic").expect_err("nobody knows");
    assert_eq!(slip.failure().map(Error::kind), Some(ErrorKind::Unknown), "{slip:?}");
    let count = soon("a read is asked again", count).await.expect("no panic");
    assert_eq!(count.expect("an answer"), 0);
    let feel = soon("a read of what is volatile too", feel).await.expect("no panic");
    assert_eq!(feel.expect("an answer"), 0);
    assert!(client.info().nodes.iter().any(|node| node.id == GHOST && node.live), "its lease stands");
    assert_eq!(client.actor::<Jar>("k").ask(Count).await.expect("an answer"), 1, "once");
    assert_eq!(client.actor::<Pocket>("k").ask(Feel).await.expect("an answer"), 0);
}

/// Its node lives, and owns its partitions as before: but what was on its way over the connection before is lost.
async fn p1_what_an_owner_lost_with_its_connection_is_asked_again(ground: Ground) {
    let one = ground.node("one").host::<JarActor>().host::<PocketActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    for actor in ["jar", "pocket"] {
        settled(actor, &[&one], &[&client]).await;
    }
    let records = Records::of(&ground).await;
    let mut sent = records.ghost(&ground).await;
    for actor in ["jar", "pocket"] {
        records.give(actor, GHOST, Some(one.id())).await;
    }
    owned_by(&client, GHOST).await;
    let (jar, pocket) = (client.actor::<Jar>("k").within(BUDGET), client.actor::<Pocket>("k").within(BUDGET));
    let put = tokio::spawn(async move { jar.ask(Put).await });
    soon("the ghost is asked", sent.next()).await.expect("the connection is open");
    let slip = tokio::spawn(async move { pocket.ask(Slip).await });
    soon("the ghost is asked", sent.next()).await.expect("the connection is open");
    let pocket = client.actor::<Pocket>("r").within(BUDGET);
    let feel = tokio::spawn(async move { pocket.ask(Feel).await });
    soon("the ghost is asked", sent.next()).await.expect("the connection is open");
    records.ghost_reconnects().await;
    for _ in 0..2 {
        soon("what does no harm is asked again", sent.next()).await.expect("the connection is open");
    }
    assert!(!put.is_finished() && !slip.is_finished() && !feel.is_finished());
    // What is volatile may be under way, or done: only now it is known to be lost.
    for actor in ["jar", "pocket"] {
        records.give(actor, one.id(), None).await;
    }
    let put = soon("what is durable has an answer", put).await.expect("no panic");
    assert_eq!(put.expect("an answer"), 1);
    let feel = soon("a read has one", feel).await.expect("no panic");
    assert_eq!(feel.expect("an answer"), 0);
    let slip = soon("what is volatile is told", slip).await.expect("no panic").expect_err("nobody knows");
    assert_eq!(slip.failure().map(Error::kind), Some(ErrorKind::Unknown), "{slip:?}");
    let third = tokio::time::timeout(Duration::ZERO, sent.next()).await;
    assert!(third.is_err(), "it was asked a third time: {third:?}");
}
