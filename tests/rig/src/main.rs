//! `rig`: the processes that `cargo xtask failover` and `cargo xtask faults` set against each other.
//!
//! One program, so that it is built once: a node that hosts cells (`rig node`), callers that write down what became of
//! every call (`rig load` at a steady pace, `rig clients` one call after the other), and a reader of the journals
//! (`rig journal`), which asks no actor. Starting, killing and judging them is the business of `xtask`.

mod cell;

mod host;

mod calls;

mod load;

mod clients;

mod journal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use greenroom::transport::Connect;
use greenroom::{Error, Node};
use tracing_subscriber::EnvFilter;

/// Nodes, callers and a reader of journals, for `cargo xtask failover` and `cargo xtask faults`.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where the broker is, and whose subjects these are.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Where the broker is; several addresses with commas between.
    #[arg(long, value_name = "URL")]
    nats: String,
    /// The app.
    #[arg(long, default_value = "rig")]
    app: String,
    /// How many servers keep each journal and the records of ownership.
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: usize,
}

impl Place {
    /// The broker, for one of these processes.
    pub(crate) fn connect(&self) -> Result<Connect, Error> {
        Ok(Connect::new(&self.nats)?.replicas(self.replicas))
    }

    /// A node that hosts nothing.
    pub(crate) async fn client(&self, name: &str) -> Result<Node, Error> {
        Node::builder(&self.app).name(name).connect(self.connect()?).start().await
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Host cells until SIGTERM, then drain
    Node(host::NodeArgs),
    /// Append to cells of one node at a steady pace until SIGTERM, and write down every call
    Load(load::LoadArgs),
    /// Call cells one operation after the other until SIGTERM, and write down every call
    Clients(clients::ClientsArgs),
    /// Write down the journals of the cells
    Journal(journal::JournalArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let result = match Args::parse().command {
        Command::Node(args) => host::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Clients(args) => clients::run(args).await,
        Command::Journal(args) => journal::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}
