//! A node that hosts cells.

use std::time::Duration;

use greenroom::{Error, Node};
use tokio::signal::unix::{SignalKind, signal};

use crate::Place;
use crate::cell::CellActor;

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    place: Place,
    /// What the node is called.
    #[arg(long)]
    name: String,
    /// How many seconds its lease lives.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lease: u64,
}

/// Hosts until SIGTERM. A node that was taken for dead comes back as somebody new, as a service would.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let node = tokio::select! {
            node = start(&args) => node,
            _ = terminate.recv() => return Ok(()),
        };
        let node = match node {
            Ok(node) => node,
            // A broker that is away, or has no leader just now, is what the faults are about.
            Err(error) => {
                tracing::warn!(%error, "the node cannot start; it is tried again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(500)) => continue,
                    _ = terminate.recv() => return Ok(()),
                }
            }
        };
        println!("ready {}", node.id());
        tokio::select! {
            _ = terminate.recv() => return Ok(node.drain().await?),
            ended = node.ended() => tracing::warn!(node = node.id(), ?ended, "starting again under another id"),
        }
    }
}

async fn start(args: &NodeArgs) -> Result<Node, Error> {
    Node::builder(&args.place.app)
        .name(&args.name)
        .connect(args.place.connect()?)
        .lease(Duration::from_secs(args.lease))
        .host::<CellActor>()
        .start()
        .await
}
