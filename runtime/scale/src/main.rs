//! What ownership costs with many nodes: `cargo xtask scale`.
//!
//! Drives the library's own state machine, one for each node, against a bucket made of a map, on a clock of its own. The
//! machine is no part of the library's API, so its source is compiled into this program a second time; nothing of it is
//! copied or imitated. What it leaves out is what docs/scale.md takes into account apart: the broker's own work, the
//! network, the JSON of the records, and the actors.
//!
//! [`bucket`] keeps the records, [`beats`] the heartbeats, [`cluster`] plays the nodes' drivers and the paths between them, [`cases`] says what
//! happens and what is counted, [`report`] prints it.

// The library uses more of these than the measurement does.
#[allow(dead_code, unused_imports)]
#[path = "../../src/key/fnv.rs"]
mod key;
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../../src/ownership/mod.rs"]
mod ownership;

mod beats;
mod bucket;
mod cluster;
mod effects;
mod cases;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// Measure the ownership machine with many nodes in one process
#[derive(Parser)]
#[command(name = "cargo xtask scale", bin_name = "cargo xtask scale")]
struct Options {
    /// How many nodes; several numbers, with commas, are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000", value_name = "N")]
    nodes: Vec<usize>,
    /// How many partitions each actor type has
    #[arg(long, value_delimiter = ',', default_value = "4096", value_name = "N")]
    partitions: Vec<u16>,
    /// How many actor types, each hosted by every node
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "N")]
    types: Vec<usize>,
    /// 100 nodes, 512 partitions, 1 type: a few seconds
    #[arg(long, conflicts_with_all = ["nodes", "partitions", "types"])]
    quick: bool,
    /// Write the figures here too
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut options: Options) -> Result<()> {
    if options.quick {
        (options.nodes, options.partitions, options.types) = (vec![100], vec![512], vec![1]);
    }
    ensure!(options.nodes.iter().all(|nodes| (2..=10_000).contains(nodes)), "--nodes must be 2 to 10,000");
    ensure!(options.partitions.iter().all(|count| *count > 0), "--partitions must be 1 or more");
    ensure!(options.types.iter().all(|types| (1..=64).contains(types)), "--types must be 1 to 64");
    let mut all = Vec::new();
    for nodes in &options.nodes {
        for partitions in &options.partitions {
            for types in &options.types {
                let size = cases::Size { nodes: *nodes, partitions: *partitions, types: *types };
                let figures = cases::measure(size, &mut |line| eprintln!("{line}"), &mut report::print_last)?;
                all.push(figures);
            }
        }
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&all)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
