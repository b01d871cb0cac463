//! Heartbeats: who watches whose, as the broker sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use greenroom::prelude::*;
use serde_json::Value;

use crate::harness::{Profile, Server, eventually, nats};

const NODES: usize = 12;
/// How many others a node watches.
const NEIGHBOURS: usize = 8;

/// An actor like any other.
#[contract(name = "pebble", messages(Lift))]
struct Pebble;

#[message(Pebble, ask)]
struct Lift;

#[derive(Default)]
struct PebbleActor;

#[actor(Pebble)]
impl PebbleActor {
    fn activate() -> Result<Self, Error> {
        Ok(Self)
    }

    #[ask]
    fn lift(&mut self, _: Lift) {}
}

/// What the broker delivers for renewals grows with the nodes, not with their square; and nobody goes unwatched, also
/// when somebody leaves.
#[tokio::test(flavor = "multi_thread")]
async fn p1_every_heartbeat_is_watched_by_eight_others() {
    let server = Server::start(Profile::Shop).await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let node = Node::builder("ring").name(format!("n{number}")).connect(server.url()).host::<PebbleActor>();
        nodes.push(node.start().await.expect("a node starts"));
    }
    let client = Node::builder("ring").name("client").connect(server.url()).start().await.expect("a client starts");
    // Two consumers show a node its own; a client has none.
    everybody_is_watched(&server, &nodes, 1).await;
    let leaver = nodes.remove(NODES / 2);
    leaver.drain().await.expect("it leaves");
    everybody_is_watched(&server, &nodes, 1).await;
    client.drain().await.expect("it leaves");
    everybody_is_watched(&server, &nodes, 0).await;
}

async fn everybody_is_watched(server: &Server, nodes: &[Node], clients: usize) {
    let ids: BTreeSet<String> = nodes.iter().map(|node| format!("$KV.ring-own.beat.{}", node.id())).collect();
    eventually(Duration::from_secs(20), "each is watched by eight", async || {
        let consumers = beats_by_consumer(server).await?;
        let mut watchers: BTreeMap<&str, usize> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        for beats in &consumers {
            if beats.len() > NEIGHBOURS + 1 {
                return Err(format!("one watches {} heartbeats: {beats:?}", beats.len()));
            }
            for beat in beats {
                *watchers.get_mut(beat.as_str()).ok_or_else(|| format!("{beat} is watched"))? += 1;
            }
        }
        // Each by eight others, by its own node twice, and by some of the clients.
        let least = NEIGHBOURS + 2;
        let total = ids.len() * least + clients * NEIGHBOURS;
        let right = watchers.values().all(|count| (least..=least + clients).contains(count));
        let sum: usize = watchers.values().sum();
        if right && sum == total { Ok(()) } else { Err(format!("{watchers:?}")) }
    })
    .await;
}

/// The heartbeats that each consumer of the bucket shows, if it shows any.
async fn beats_by_consumer(server: &Server) -> Result<Vec<Vec<String>>, String> {
    let listed = nats(server, &["req", "$JS.API.CONSUMER.LIST.KV_ring-own", "", "--raw"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).map_err(|error| format!("{error}: {listed:?}"))?;
    let consumers = listed["consumers"].as_array().ok_or_else(|| listed.to_string())?;
    let subjects = consumers.iter().map(|consumer| &consumer["config"]["filter_subjects"]);
    let beats = subjects.map(|subjects| {
        let subjects = subjects.as_array().into_iter().flatten().filter_map(Value::as_str);
        subjects.filter(|subject| subject.contains(".beat.")).map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(beats.filter(|beats| !beats.is_empty()).collect())
}
