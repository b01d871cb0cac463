//! `shop-demo`: a crowd of customers for a running shop, and the audit afterwards.
//!
//! It is a node that hosts nothing: it registers the users, restocks the products, places the
//! orders of a file with many in flight and some of them through the stock `nats` CLI, and then
//! checks that goods and money add up exactly: by asking the actors, and from the streams of their
//! journals, which `shop-demo audit` reads alone; and that users were told once of all that became of
//! their orders. Whatever does not is exit code 1.

mod data;

mod setup;

mod place;

mod cli;

mod progress;

mod audit;

mod journals;

mod goods;

mod notices;

mod proof;

mod report;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use futures_util::{StreamExt, stream};
use greenroom::Node;
use greenroom::transport::{Connect, NatsTransport, Transport};

use crate::audit::Before;
use crate::cli::NatsCli;
use crate::data::{Data, OrderRow};
use crate::place::{Placing, place};
use crate::progress::Progress;
use crate::proof::{Journals, Proof};
use crate::report::Report;

/// How long users may wait to be told what became of their orders.
const NOTICES_WITHIN: Duration = Duration::from_secs(30);
/// The pause before the streams are read again.
const AGAIN: Duration = Duration::from_millis(250);

/// Places orders in a running shop, and checks that goods and money add up.
///
/// Start the shop first: `shop-node --host all`. Nobody else should order meanwhile.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the broker is; without it, what the `nats` CLI goes by: NATS_URL, NATS_CONTEXT, …
    #[arg(long, value_name = "URL", global = true)]
    nats: Option<String>,
    /// The app whose orders these are.
    #[arg(long, default_value = "shop", global = true)]
    app: String,
    /// The orders, one JSON object a line: id, user, lines, card.
    #[arg(long, value_name = "FILE", default_value = "examples/data/orders.jsonl")]
    orders: PathBuf,
    /// The products, one JSON object a line: sku, name, price_cents, stock. By default
    /// products.jsonl beside the orders.
    #[arg(long, value_name = "FILE")]
    products: Option<PathBuf>,
    /// The users, one JSON object a line: id, name, email. By default users.jsonl beside the orders.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// How many of the orders to place; all of them by default.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// How many orders are placed at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// How many of the orders go through the stock `nats` CLI, as `nats req`.
    #[arg(long, value_name = "N", default_value_t = 20)]
    cli_sample: usize,
    /// The `nats` CLI.
    #[arg(long, value_name = "PATH", default_value = "nats")]
    nats_cli: PathBuf,
    /// For how many seconds an order is placed again that could not be placed, or was not answered.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Where to write the figures, as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Where to write how many orders are through, at each of them: `412 of 1000`.
    #[arg(long, value_name = "PATH")]
    progress: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Only prove from the streams of the journals, asking no actor, that goods and money add up, and that
    /// users were told once what became of their orders
    ///
    /// Nobody should order meanwhile.
    Audit {
        /// Write the figures to stdout as JSON, instead of a line for people
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Audit { json }) = &args.command {
        return prove_only(&args, *json).await;
    }
    let data = args.data()?;
    let cli = (args.cli_sample > 0).then(|| NatsCli::new(&args.nats_cli, args.nats.as_deref(), &args.app));
    if let Some(cli) = &cli {
        cli.check().await?;
    }
    let node = Node::builder(&args.app).connect(args.connect()?).start().await?;
    let report = visit(&node, &data, cli.as_ref(), &args).await;
    node.drain().await?;
    let report = report?.with_proof(prove(&args).await?);

    print!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report.figures())?;
        std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(report.is_fine(), "{}", report.complaint());
    Ok(())
}

/// `shop-demo audit`.
async fn prove_only(args: &Args, json: bool) -> anyhow::Result<()> {
    let proof = prove(args).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&proof)?);
    } else {
        print!("{proof}");
    }
    ensure!(proof.adds_up, "{} times the streams do not add up", proof.complaints.count);
    Ok(())
}

/// Reads the streams, by a connection of its own.
async fn prove(args: &Args) -> anyhow::Result<Proof> {
    let transport = NatsTransport::connect(args.connect()?.name("shop-audit")).await?;
    let proof = settled_proof(&transport, &args.app).await;
    transport.close().await;
    proof.context("the streams cannot be read")
}

/// The proof, once users have been told what they are told after the orders: that comes later, but it comes.
async fn settled_proof(transport: &NatsTransport, app: &str) -> anyhow::Result<Proof> {
    let began = Instant::now();
    loop {
        let proof = Proof::of(&Journals::read(transport, app).await?);
        if proof.notices_missing == 0 || began.elapsed() > NOTICES_WITHIN {
            return Ok(proof);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl Args {
    fn connect(&self) -> anyhow::Result<Connect> {
        let connect = Connect::from_env(|name| std::env::var(name).ok())?;
        Ok(match &self.nats {
            Some(url) => connect.url(url)?,
            None => connect,
        })
    }

    fn data(&self) -> anyhow::Result<Data> {
        let beside =
            |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| self.orders.with_file_name(name));
        let users = beside(&self.users, "users.jsonl");
        let products = beside(&self.products, "products.jsonl");
        Data::read(&users, &products, &self.orders, self.count)
    }
}

/// Does everything that the demo does, through a node that is there already.
pub(crate) async fn visit(node: &Node, data: &Data, cli: Option<&NatsCli>, args: &Args) -> anyhow::Result<Report> {
    let in_flight = usize::from(args.in_flight);
    let before = Before::look(node, data, in_flight).await?;
    setup::register(node, &data.users, in_flight).await?;
    setup::restock(node, &data.products, in_flight).await?;

    let sample = if cli.is_some() { args.cli_sample } else { 0 };
    let (by_cli, by_node) = split(&data.orders, sample);
    let progress = Progress::new("placed", data.orders.len(), args.progress.as_deref());
    let patience = Duration::from_secs(args.patience);
    let began = Instant::now();
    let by_cli = async {
        let mut placings = Vec::new();
        for order in by_cli {
            if let Some(cli) = cli {
                placings.push(cli.place(order, patience).await);
                progress.step();
            }
        }
        placings
    };
    let by_node = async {
        let placings: Vec<Placing<'_>> = stream::iter(by_node)
            .map(async |order| {
                let placing = place(node, order, patience).await;
                progress.step();
                placing
            })
            .buffer_unordered(in_flight)
            .collect()
            .await;
        (placings, began.elapsed())
    };
    let (by_cli, (by_node, elapsed)) = tokio::join!(by_cli, by_node);
    progress.finish();

    let audit = audit::audit(node, data, &before, by_node.iter().chain(&by_cli), in_flight).await?;
    Ok(Report::new(&by_node, &by_cli, elapsed, in_flight, audit))
}

/// Picks a sample that is spread evenly over all orders.
fn split(orders: &[OrderRow], sample: usize) -> (Vec<&OrderRow>, Vec<&OrderRow>) {
    let sample = sample.min(orders.len());
    let is_picked = |n: usize| (n + 1) * sample / orders.len() > n * sample / orders.len();
    let (picked, rest): (Vec<_>, Vec<_>) = orders.iter().enumerate().partition(|(n, _)| is_picked(*n));
    let rows = |numbered: Vec<(usize, _)>| numbered.into_iter().map(|(_, order)| order).collect();
    (rows(picked), rows(rest))
}

/// The pause before try number `tries + 1`: from 25 ms doubling up to 800 ms.
pub(crate) fn pause(tries: u32) -> Duration {
    Duration::from_millis(25 << tries.clamp(1, 6).saturating_sub(1))
}
