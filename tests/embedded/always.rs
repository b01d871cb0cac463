//! Actors that are always on: who keeps them, where, and what brings them back.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::transport::Outbound;
use greenroom::{HostOptions, Reason};

use super::beacon::{Beacon, BeaconActor, Burn, Flick, Flicks, Lamp, LampActor, Seen, lit};
use super::ground::{Ground, SOON, on_both, settled, soon};
use crate::harness::{eventually, holds};

on_both!(
    h7_what_is_always_on_is_active_before_anybody_asks,
    h7_what_is_always_on_comes_back_after_panics_and_failures,
    h7_what_is_always_on_goes_with_its_partition,
    h7_what_is_always_on_never_leaves_memory,
    p1_what_is_always_on_is_listed_with_where_it_lives,
);

async fn start(ground: &Ground, name: &str, keys: &[&str]) -> Node {
    let options = HostOptions::new().always_on(keys.iter().copied());
    ground.node(name).host_with::<BeaconActor>(options).start().await.expect("a node starts")
}

/// Waits until a key has been activated so often on one of these nodes.
async fn lit_on(nodes: &[&Node], key: &str, times: u32) {
    eventually(SOON, "it is activated", async || {
        let lit: Vec<u32> = nodes.iter().map(|node| lit(node, key)).collect();
        holds(lit.iter().any(|lit| *lit >= times), || format!("{lit:?}"))
    })
    .await
}

async fn h7_what_is_always_on_is_active_before_anybody_asks(ground: Ground) {
    let one = start(&ground, "one", &["main", "a"]).await;
    lit_on(&[&one], "main", 1).await;
    lit_on(&[&one], "a", 1).await;
    // What the hosts name is put together, whoever owns it.
    let two = start(&ground, "two", &["main", "b"]).await;
    settled("beacon", &[&one, &two], &[]).await;
    lit_on(&[&one, &two], "b", 1).await;
    let mut watch = two.watch::<Beacon>("b").await.expect("a watch");
    let told = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(told.is_err(), "it is active: {told:?}");
    assert_eq!(lit(&one, "c") + lit(&two, "c"), 0, "nobody names it");
}

async fn h7_what_is_always_on_comes_back_after_panics_and_failures(ground: Ground) {
    let one = start(&ground, "one", &["ticks", "damp"]).await;
    lit_on(&[&one], "ticks", 1).await;
    // Two activations fail, and it is tried again.
    lit_on(&[&one], "damp", 3).await;
    for times in 2..=5 {
        eventually(SOON, "it panics", async || match one.actor::<Beacon>("ticks").ask(Burn).await {
            Err(AskError::Failed(error)) if error.kind() == ErrorKind::Panicked => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        // Nobody asks; it ticks again.
        lit_on(&[&one], "ticks", times).await;
    }
    eventually(SOON, "it is quarantined", async || {
        drop(one.actor::<Beacon>("ticks").ask(Burn).await);
        holds(one.info().quarantined.contains_key("beacon/ticks"), || "not yet".to_owned())
    })
    .await;
    let then = lit(&one, "ticks");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(lit(&one, "ticks"), then, "quarantine holds for it too");
    assert!(one.release::<Beacon>("ticks").expect("it is hosted here"));
    lit_on(&[&one], "ticks", then + 1).await;
    assert_eq!(one.actor::<Beacon>("damp").ask(Seen).await.expect("an answer").0, 0);
}

async fn h7_what_is_always_on_goes_with_its_partition(ground: Ground) {
    let mut nodes = vec![start(&ground, "one", &["main"]).await, start(&ground, "two", &["main"]).await];
    settled("beacon", &[&nodes[0], &nodes[1]], &[]).await;
    // By a handover.
    let owner = take_owner(&mut nodes);
    soon("it is drained", owner.drain()).await.expect("drained");
    lit_on(&[&nodes[0]], "main", 1).await;
    // By a death: the node is cut off as if its process had been killed.
    nodes.push(start(&ground, "three", &["main"]).await);
    settled("beacon", &[&nodes[0], &nodes[1]], &[]).await;
    drop(take_owner(&mut nodes));
    let before = lit(&nodes[0], "main");
    eventually(SOON, "it has another owner", async || {
        let owner = nodes[0].info().always_on[0].node.clone();
        holds(owner.as_deref() == Some(nodes[0].id()), || format!("{owner:?}"))
    })
    .await;
    lit_on(&[&nodes[0]], "main", before + 1).await;
}

/// Takes out the node that owns the key.
fn take_owner(nodes: &mut Vec<Node>) -> Node {
    let owner = nodes[0].info().always_on[0].node.clone().expect("it is owned");
    let at = nodes.iter().position(|node| node.id() == owner).expect("by one of these");
    nodes.remove(at)
}

async fn h7_what_is_always_on_never_leaves_memory(ground: Ground) {
    let options = HostOptions::new().always_on(["main"]);
    let builder = ground.node("one").host_with::<LampActor>(options).passivate_after(Duration::from_secs(1));
    let node = builder.start().await.expect("a node starts");
    settled("lamp", &[&node], &[]).await;
    eventually(SOON, "it is there, although nothing was ever written to it", async || {
        let resident = node.info().resident["lamp"];
        holds(resident == 1, || format!("{resident} in memory"))
    })
    .await;
    node.actor::<Lamp>("other").tell(Flick).await.expect("told");
    assert_eq!(node.actor::<Lamp>("other").ask(Flicks).await.expect("an answer"), 1, "behind the tell");
    let mut main = node.watch::<Lamp>("main").await.expect("a watch");
    let mut other = node.watch::<Lamp>("other").await.expect("a watch");
    for _ in 0..2 {
        let gone = soon("the other leaves", other.next()).await.expect("the node runs");
        assert_eq!(gone.reason, Reason::Passivated);
        assert_eq!(node.actor::<Lamp>("other").ask(Flicks).await.expect("it is back"), 1);
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), main.next()).await.is_err(), "it was there all the time");
    assert_eq!(node.actor::<Lamp>("main").ask(Flicks).await.expect("an answer"), 0);
}

async fn p1_what_is_always_on_is_listed_with_where_it_lives(ground: Ground) {
    let one = start(&ground, "one", &["main", "2nd floor"]).await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("beacon", &[&one], &[&client]).await;
    let listed = client.info().always_on;
    let listed: Vec<_> = listed.iter().map(|one| (one.actor.as_str(), one.key.as_str(), one.node.as_deref())).collect();
    assert_eq!(listed, [("beacon", "2nd floor", Some(one.id())), ("beacon", "main", Some(one.id()))]);
    let transport = ground.connect("outsider").await;
    let inbox = Subject::parse("_INBOX.always.1").expect("a subject");
    let mut answers = transport.subscribe(&inbox.to_filter(), None, 8).await.expect("a subscription");
    let asked = Subject::parse(&format!("$SRV.INFO.{}-beacon", ground.app())).expect("a subject");
    transport.publish(Outbound::new(asked, "").reply_to(inbox)).expect("sent");
    let answer = soon("an answer", answers.next()).await.expect("the connection is open");
    let info: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let expected = format!("2nd=20floor@{0},main@{0}", one.id());
    assert_eq!(info["metadata"]["greenroom.always_on"], expected, "{info}");
    let bad = ground.node("bad").host_with::<BeaconActor>(HostOptions::new().always_on([""])).start().await;
    assert_eq!(bad.map(drop).map_err(|error| error.kind()), Err(ErrorKind::BadKey));
    let many = HostOptions::new().always_on((0..257).map(|number| number.to_string()));
    let many = ground.node("many").host_with::<BeaconActor>(many).start().await;
    assert_eq!(many.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Config));
}
