//! Measurements of greenroom beside its peers. `cargo xtask bench` builds and runs them.
//!
//! Every figure is a median over interleaved rounds of one run, with minimum and maximum: these
//! machines are shared and noisy, so only ratios within a run count.

mod durable;
mod footprint;
mod local;
mod peers;
mod report;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure greenroom beside its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Ask and tell on one node beside ractor, kameo and a bare tokio channel; bytes per idle actor.
    Local {
        /// Fewer and shorter rounds: half a minute in all.
        #[arg(long)]
        quick: bool,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Durable commands on a real server, beside the appends that they stand on.
    Durable {
        /// Fewer and shorter rounds: a minute in all.
        #[arg(long)]
        quick: bool,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Bytes per idle keyed actor, and activations per second. Measures this process: run it alone.
    Footprint {
        /// How many actors.
        #[arg(long, default_value_t = 1_000_000)]
        actors: u64,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Local { quick, json } => local::run(quick, json.as_deref()),
        What::Durable { quick, json } => durable::run(quick, json.as_deref()),
        What::Footprint { actors, json } => footprint::run(actors, json.as_deref()),
    }
}
