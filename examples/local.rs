//! No broker at all: two nodes in one process, on a broker in memory, behave as two machines do.
//!
//! ```text
//! cargo run -p greenroom-examples --example local
//! ```
//!
//! `Node::local("app")` is the short form, with a broker that no other node shares.

use std::collections::BTreeMap;

use greenroom::prelude::*;
use greenroom::transport::MemoryBroker;

/// Says where it lives.
#[contract(messages(Locate))]
struct Nomad;

#[message(Nomad, read, reply = String)]
struct Locate;

#[derive(Default)]
struct NomadActor;

#[actor(Nomad)]
impl NomadActor {
    #[read]
    fn locate(&self, _: Locate, ctx: &mut Context<'_, Self>) -> String {
        ctx.node().map_or_else(|error| error.to_string(), |node| node.id().to_owned())
    }
}

/// Asks a hundred actors where they live, and counts by node.
async fn census(client: &Node) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut lives = BTreeMap::new();
    for n in 0..100 {
        let node = client.actor::<Nomad>(format!("nomad {n}")).ask(Locate).await?;
        *lives.entry(node).or_default() += 1;
    }
    Ok(lives)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let broker = MemoryBroker::new();
    let node = |name: &str| Node::builder("plain").memory(&broker).name(name);
    let east = node("east").host::<NomadActor>().start().await?;
    let west = node("west").host::<NomadActor>().start().await?;
    // A node that hosts nothing is a client.
    let client = node("client").start().await?;

    let shared = census(&client).await?;
    println!("two nodes: {shared:?}");
    assert_eq!(shared.values().sum::<u32>(), 100);

    // A node that drains hands its actors over; callers notice nothing.
    east.drain().await?;
    let alone = census(&client).await?;
    println!("one node:  {alone:?}");
    assert_eq!(alone, BTreeMap::from([(west.id().to_owned(), 100)]));

    west.drain().await?;
    Ok(client.drain().await?)
}
