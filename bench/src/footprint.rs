//! The memory of idle keyed actors.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use greenroom::Node;

use crate::peers::{Add, Counter, CounterActor};
use crate::report::{self, Footprint};

/// Activates that many actors by one call each, and weighs the process.
pub fn run(actors: u64, json: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let footprint = runtime.block_on(async {
        let node = Node::local("bench").host::<CounterActor>().start().await?;
        let before = report::resident_bytes()?;
        let began = Instant::now();
        for number in 0..actors {
            node.actor::<Counter>(format!("actor-{number:08}")).ask(Add(1)).await?;
            if number % 100_000 == 99_999 {
                eprintln!("  {} of {actors} actors", number + 1);
            }
        }
        let took = began.elapsed().as_secs_f64();
        let bytes = report::resident_bytes()?.saturating_sub(before);
        let resident = node.info().resident.get("counter").copied().unwrap_or(0);
        ensure!(resident as u64 == actors, "{resident} actors are in memory, not {actors}");
        let footprint = Footprint {
            system: "greenroom".to_owned(),
            actors,
            bytes_per_actor: bytes as f64 / actors as f64,
            activations_per_s: actors as f64 / took,
        };
        node.drain().await?;
        anyhow::Ok(footprint)
    })?;
    println!(
        "{} idle actors with 16 bytes of state: {:.0} bytes each, activated at {:.0}/s",
        footprint.actors, footprint.bytes_per_actor, footprint.activations_per_s
    );
    report::write(json, &footprint)
}
