//! Death watch: who is told when an activation ends, and why.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::{Reason, Watch};

use super::beacon::{Beacon, BeaconActor, Burn, Flick, Flicks, Keep, Lamp, LampActor, Seen};
use super::ground::{Ground, QUIET, SOON, on_both, settled, soon};
use super::probe::{Add, Fall, Probe, ProbeActor, Total, keys_on};
use crate::harness::{eventually, holds};

on_both!(
    h7_a_watch_begins_with_what_is_there,
    h7_a_watch_tells_of_every_panic_and_of_quarantine,
    h7_a_watch_tells_of_passivation,
    h7_a_watch_goes_with_its_actor_over_two_moves_and_a_drain,
    h7_a_watch_tells_of_a_node_that_is_gone,
    h7_a_watch_ends_with_its_node_and_is_forgotten,
    h7_an_actor_is_told_of_those_it_watches,
);

async fn start(ground: &Ground, name: &str) -> Node {
    ground.node(name).host::<ProbeActor>().start().await.expect("a node starts")
}

async fn pair(ground: &Ground) -> (Node, Node) {
    let host = start(ground, "host").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&host], &[&client]).await;
    (host, client)
}

async fn next(watch: &mut Watch) -> Reason {
    soon("the watch tells something", watch.next()).await.expect("its node runs").reason
}

/// Waits until the node knows of a watch.
async fn known_to(owner: &Node) {
    eventually(SOON, "its node knows of the watch", async || {
        let watched = owner.info().watched;
        holds(watched == 1, || format!("{watched} are watched"))
    })
    .await;
}

async fn nothing(watch: &mut Watch) {
    if let Ok(told) = tokio::time::timeout(QUIET, watch.next()).await {
        panic!("nothing has ended, and this was told: {told:?}");
    }
}

async fn h7_a_watch_begins_with_what_is_there(ground: Ground) {
    let (host, client) = pair(&ground).await;
    for node in [&host, &client] {
        let key = format!("k-{}", node.id());
        let before = host.info().resident["probe"];
        let mut watch = node.watch::<Probe>(&key).await.expect("a watch");
        assert_eq!(next(&mut watch).await, Reason::NotActive, "watching activates nothing");
        assert_eq!(host.info().resident["probe"], before);
        nothing(&mut watch).await;
        node.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("added");
        nothing(&mut watch).await;
        let mut second = node.actor::<Probe>(&key).watch().await.expect("a watch");
        nothing(&mut second).await;
        host.actor::<Probe>(&key).ask(Fall { why: "a sigh".to_owned(), gate: None }).await.expect_err("it falls");
        for watch in [&mut watch, &mut second] {
            let gone = soon("told", watch.next()).await.expect("the node runs");
            assert_eq!((gone.actor.as_str(), gone.key.as_str(), gone.node.as_str()), ("probe", &*key, host.id()));
            assert_eq!(gone.reason, Reason::Panicked { cause: "a sigh".to_owned() });
            assert!(gone.epoch > 0);
            nothing(watch).await;
        }
        drop((watch, second));
        host.actor::<Probe>(&key).ask(Total).await.expect("it is back");
        eventually(SOON, "dropped watches are forgotten", async || {
            let watched = host.info().watched;
            holds(watched == 0, || format!("{watched} are watched"))
        })
        .await;
    }
    let bad = host.watch::<Probe>("").await.map(drop).map_err(|error| error.kind());
    assert_eq!(bad, Err(ErrorKind::BadKey));
    let nobody = client.watch::<Beacon>("k").await.map(drop).map_err(|error| error.kind());
    assert_eq!(nobody, Err(ErrorKind::Unavailable), "nobody hosts it");
}

async fn h7_a_watch_tells_of_every_panic_and_of_quarantine(ground: Ground) {
    let (host, client) = pair(&ground).await;
    let key = keys_on(&host, &client, 1).await.remove(0);
    let mut watches = Vec::new();
    for node in [&host, &client, &client] {
        watches.push(node.watch::<Probe>(&key).await.expect("a watch"));
    }
    let mut panics = 0;
    eventually(SOON, "it is quarantined", async || {
        let fall = Fall { why: format!("reason {}", panics + 1), gate: None };
        let error = client.actor::<Probe>(&key).ask(fall).await.expect_err("it falls");
        match error.failure().map(Error::kind) {
            Some(ErrorKind::Quarantined) => return Ok(()),
            Some(ErrorKind::Panicked) => panics += 1,
            Some(ErrorKind::Unavailable) => {}
            other => panic!("{other:?}"),
        }
        Err(format!("{panics} panics"))
    })
    .await;
    assert_eq!(panics, 5);
    for watch in &mut watches {
        for number in 1..=4 {
            assert_eq!(next(watch).await, Reason::Panicked { cause: format!("reason {number}") });
        }
        assert_eq!(next(watch).await, Reason::Quarantined { cause: "reason 5".to_owned() });
        nothing(watch).await;
    }
    assert!(host.release::<Probe>(&key).expect("it is hosted here"));
    client.actor::<Probe>(&key).ask(Total).await.expect("it is back");
    client.actor::<Probe>(&key).ask(Fall { why: "again".to_owned(), gate: None }).await.expect_err("it falls");
    for watch in &mut watches {
        assert_eq!(next(watch).await, Reason::Panicked { cause: "again".to_owned() });
    }
}

async fn h7_a_watch_tells_of_passivation(ground: Ground) {
    let builder = ground.node("host").host::<LampActor>().passivate_after(Duration::from_secs(1));
    let host = builder.start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("lamp", &[&host], &[&client]).await;
    // What was never written to is in memory for one turn only.
    let mut new = client.watch::<Lamp>("new").await.expect("a watch");
    assert_eq!(next(&mut new).await, Reason::NotActive);
    assert_eq!(client.actor::<Lamp>("new").ask(Flicks).await.expect("an answer"), 0);
    assert_eq!(next(&mut new).await, Reason::Passivated);
    for node in [&host, &client] {
        let key = format!("k-{}", node.id());
        node.actor::<Lamp>(&key).tell(Flick).await.expect("told");
        eventually(SOON, "it has flicked", async || {
            let flicks = node.actor::<Lamp>(&key).ask(Flicks).await.map_err(|error| error.to_string())?;
            holds(flicks == 1, || format!("{flicks}"))
        })
        .await;
        let mut watch = node.watch::<Lamp>(&key).await.expect("a watch");
        for _ in 0..2 {
            assert_eq!(next(&mut watch).await, Reason::Passivated);
            assert_eq!(node.actor::<Lamp>(&key).ask(Flicks).await.expect("it is back"), 1);
        }
    }
}

async fn h7_a_watch_goes_with_its_actor_over_two_moves_and_a_drain(ground: Ground) {
    let one = start(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one], &[&client]).await;
    let key = keys_on(&one, &client, 1).await.remove(0);
    // One who watches from elsewhere, and one on the node that the actor comes to.
    let two = start(&ground, "two").await;
    settled("probe", &[&one, &two], &[&client]).await;
    let key =
        if keys_on(&one, &client, 1).await.contains(&key) { key } else { keys_on(&one, &client, 1).await.remove(0) };
    let mut watches =
        vec![client.watch::<Probe>(&key).await.expect("a watch"), two.watch::<Probe>(&key).await.expect("a watch")];
    let mut members = client.watch_nodes();
    soon("it is drained", one.drain()).await.expect("drained");
    for watch in &mut watches {
        assert_eq!(next(watch).await, Reason::Moved { to: two.id().to_owned() });
    }
    let gone = soon("a node has left", members.next()).await.expect("this node runs");
    assert_eq!((gone.node.as_str(), gone.reason), (one.id(), Reason::Drained));
    client.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("it is there again");
    let three = start(&ground, "three").await;
    settled("probe", &[&two, &three], &[&client]).await;
    // It may have moved when the third came, or moves now.
    client.actor::<Probe>(&key).ask(Total).await.expect("it is there");
    soon("it is drained", two.drain()).await.expect("drained");
    let told = next(&mut watches[0]).await;
    assert_eq!(told, Reason::Moved { to: three.id().to_owned() });
    let told = next(&mut watches[1]).await;
    assert_eq!(told, Reason::Moved { to: three.id().to_owned() }, "told although its own node leaves");
    assert_eq!(soon("over", watches[1].next()).await, None, "its node has stopped");
    client.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("it is there again");
    known_to(&three).await;
    soon("it is drained", three.drain()).await.expect("drained");
    assert_eq!(next(&mut watches[0]).await, Reason::Drained);
}

async fn h7_a_watch_tells_of_a_node_that_is_gone(ground: Ground) {
    let one = start(&ground, "one").await;
    let two = start(&ground, "two").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    let key = keys_on(&one, &client, 1).await.remove(0);
    let mut members = client.watch_nodes();
    let mut watch = client.watch::<Probe>(&key).await.expect("a watch");
    let dead = one.id().to_owned();
    // Cut off as if its process had been killed. This broker does not tell of connections that end.
    drop(one);
    let gone = soon("told", watch.next()).await.expect("the node runs");
    assert_eq!((gone.node.as_str(), &gone.reason), (&*dead, &Reason::NodeLost { node: dead.clone() }));
    let gone = soon("told", members.next()).await.expect("the node runs");
    assert_eq!((gone.node.as_str(), &gone.reason), (&*dead, &Reason::NodeLost { node: dead.clone() }));
    assert_eq!(client.actor::<Probe>(&key).ask(Add { by: 1 }).await.expect("it is elsewhere"), 1);
    known_to(&two).await;
    // It may have been asked before it served the actor: then it is asked again a tenth of a second later.
    tokio::time::sleep(QUIET * 5).await;
    two.actor::<Probe>(&key).ask(Fall { why: "there".to_owned(), gate: None }).await.expect_err("it falls");
    assert_eq!(next(&mut watch).await, Reason::Panicked { cause: "there".to_owned() }, "the watch went with it");
}

async fn h7_a_watch_ends_with_its_node_and_is_forgotten(ground: Ground) {
    let (host, client) = pair(&ground).await;
    let key = keys_on(&host, &client, 1).await.remove(0);
    let mut watch = client.watch::<Probe>(&key).await.expect("a watch");
    assert_eq!(host.info().watched, 1);
    let waits = tokio::spawn(async move { watch.next().await });
    client.drain().await.expect("drained");
    assert_eq!(soon("it ends", waits).await.expect("no panic"), None);
    eventually(SOON, "it is forgotten", async || {
        let watched = host.info().watched;
        holds(watched == 0, || format!("{watched} are watched"))
    })
    .await;
    let stopped = client.watch::<Probe>(&key).await.map(drop).map_err(|error| error.kind());
    assert_eq!(stopped, Err(ErrorKind::Stopped));
}

async fn h7_an_actor_is_told_of_those_it_watches(ground: Ground) {
    let one = ground.node("one").host::<BeaconActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<BeaconActor>().start().await.expect("a node starts");
    settled("beacon", &[&one, &two], &[]).await;
    let keys = ["a", "b", "c", "d", "e", "f"];
    let keeper = one.actor::<Beacon>("keeper");
    for key in keys {
        one.actor::<Beacon>(key).ask(Seen).await.expect("it is there");
        keeper.ask(Keep { key: key.to_owned() }).await.expect("an answer");
    }
    eventually(SOON, "the owners know of the watches", async || {
        let watched = one.info().watched + two.info().watched;
        holds(watched == keys.len(), || format!("{watched} are watched"))
    })
    .await;
    for key in keys {
        two.actor::<Beacon>(key).ask(Burn).await.expect_err("it burns");
    }
    let expected: Vec<String> = keys.iter().map(|key| format!("beacon/{key} panicked: burnt down")).collect();
    eventually(SOON, "it is told of each", async || {
        let (_, mut lost) = keeper.ask(Seen).await.map_err(|error| error.to_string())?;
        lost.sort();
        holds(lost == expected, || format!("{lost:?}"))
    })
    .await;
    // With its activation end its watches.
    keeper.ask(Burn).await.expect_err("it burns");
    eventually(SOON, "nobody is watched any more", async || {
        let watched = one.info().watched + two.info().watched;
        holds(watched == 0, || format!("{watched} are watched"))
    })
    .await;
}
