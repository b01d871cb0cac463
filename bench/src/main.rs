//! Measurements of greenroom beside its peers. `cargo xtask bench` builds and runs them.
//!
//! Every figure is a median over interleaved rounds of one run, with minimum and maximum: these
//! machines are shared and noisy, so only ratios within a run count.

#![forbid(unsafe_code)]

mod compare;
mod durable;
mod follow;
mod footprint;
mod local;
mod peers;
mod raw;
mod recovery;
mod remote;
mod report;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Messages are freed by other threads than made them, which the system's allocator takes locks for.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
        /// Fewer and shorter rounds, and journals of 20,000 events instead of 100,000: a minute in all.
        #[arg(long)]
        quick: bool,
        /// Only these cases, by their letters.
        #[arg(long, value_name = "LETTERS", default_value = "abcd")]
        only: String,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Events per second that a reader of journals follows, and that drive actors.
    Follow {
        /// Fewer and shorter rounds: a minute in all.
        #[arg(long)]
        quick: bool,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// How long it takes until many durable actors answer again after their node was killed.
    Recovery {
        /// Fewer rounds, and a tenth of the actors: a minute in all.
        #[arg(long)]
        quick: bool,
        /// How many actors; 100,000 unless told otherwise.
        #[arg(long)]
        actors: Option<u64>,
        /// Write the figures here too, as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Asks from one process to another through the broker, beside requests of the client library.
    Remote(compare::RemoteOptions),
    /// The same beside gRPC, HTTP, MQTT and other actor libraries too: one table, a picture, and goals.
    Compare(compare::CompareOptions),
    /// What answers in `remote` and `compare`.
    #[command(hide = true)]
    Server {
        system: remote::System,
        #[arg(long)]
        at: String,
    },
    /// What asks there.
    #[command(hide = true)]
    Client {
        system: remote::System,
        #[arg(long)]
        at: String,
    },
    /// A node of `recovery`.
    #[command(hide = true)]
    RecoveryHost {
        #[arg(long)]
        nats: String,
        #[arg(long)]
        name: String,
        #[arg(long)]
        weight: u32,
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
        What::Follow { quick, json } => follow::run(quick, json.as_deref()),
        What::Recovery { quick, actors, json } => recovery::run(quick, actors, json.as_deref()),
        What::Remote(options) => compare::remote(options),
        What::Compare(options) => compare::run(options),
        What::Server { system, at } => remote::serve(system, &at),
        What::Client { system, at } => remote::ask(system, &at),
        What::RecoveryHost { nats, name, weight } => recovery::host(&nats, &name, weight),
        What::Durable { quick, only, json } => durable::run(quick, &only, json.as_deref()),
        What::Footprint { actors, json } => footprint::run(actors, json.as_deref()),
    }
}
