//! `shop-node`: runs services of the shop, whichever it is told to.
//!
//! Every process of the shop is this binary. Any number of them make one shop, with nothing in
//! common but the broker: which of them hosts an order or a product they settle among themselves.

mod hosts;

mod stop;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use greenroom::transport::Connect;
use greenroom::{Error, HostOptions, Node};
use tracing_subscriber::EnvFilter;

use crate::hosts::Hosted;
use crate::stop::Stop;

/// Messages are freed by other threads than made them, for which the system's allocator takes locks.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs services of the shop: users, orders, payments, inventory, notifications.
///
/// One process may host all of them, or each a process of its own, or several of each; they find
/// each other through the broker. When the node serves, it prints a line that begins with "ready".
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Args {
    /// What to host: user, order, payment, inventory, notification, several of them with commas
    /// between, or all.
    #[arg(long, value_name = "ACTORS")]
    host: Hosted,
    /// Where the broker is, as nats://host:port; several with commas between. Wins over NATS_URL.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The app: nodes of one app work together, and its name begins every subject.
    #[arg(long, default_value = "shop")]
    app: String,
    /// What the node is called in `nats server report connections` and in logs; by default as the
    /// host. Its id is this with a part that differs at each start.
    #[arg(long)]
    name: Option<String>,
    /// How long the node's actors stay its own when it can no longer prove that it lives. It
    /// renews three times as often. The broker's own elections take up to 8s, so stay above that.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    lease: Duration,
    /// How many instances of each service to run, 1 to 256; by default as many as there are cores.
    /// Actors with keys need none, and so far the shop has no others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pool: Option<u16>,
    /// What to log to stderr: error, warn, info, debug, trace, or as in greenroom=debug,info.
    /// Wins over RUST_LOG.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What is logged unless told otherwise: the runtime itself says when a connection comes and goes.
const LOG: &str = "info,async_nats=warn";

const HELP: &str = "\
Examples:
  shop-node --host all
  shop-node --host order,payment --nats nats://broker:4222 --name north-1

Without --nats the broker is found as the nats CLI finds it: NATS_URL, NATS_CREDS, NATS_NKEY,
NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CERT, NATS_KEY, NATS_CA, NATS_CONTEXT, or the context
that was selected.

SIGTERM or Ctrl-C drains: no new work is taken, running turns finish, replies go out, the actors
move to other nodes; then it exits with 0. Another signal, a second later or more, exits at once,
with 1.";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    log(args.log.as_deref())?;
    // Before anything that takes time, so that a signal during the start is not lost.
    let mut stop = Stop::listen().context("cannot listen for signals")?;
    loop {
        let node = tokio::select! {
            node = start(&args) => node?,
            () = stop.wanted() => return Ok(()),
        };
        println!("ready {} hosting {} on {}", node.id(), args.host.0.join(", "), args.broker_text());
        tokio::select! {
            () = stop.wanted() => return drain(node, &mut stop).await,
            // The others took it for dead and have its actors, so it comes back as somebody new.
            ended = node.ended() => tracing::warn!(node = node.id(), ?ended, "starting again under another id"),
        }
    }
}

async fn start(args: &Args) -> Result<Node, Error> {
    let mut node = Node::builder(&args.app).connect(args.broker()?).lease(args.lease);
    if let Some(name) = &args.name {
        node = node.name(name);
    }
    let mut options = HostOptions::new();
    if let Some(pool) = args.pool {
        options = options.pool(pool.into());
    }
    args.host.add_to(node, &options).start().await
}

async fn drain(node: Node, stop: &mut Stop) -> anyhow::Result<()> {
    tracing::info!("draining; another signal exits at once");
    tokio::select! {
        drained = node.drain() => Ok(drained?),
        () = stop.insisted() => {
            tracing::warn!("stopped before it was drained");
            // Not by returning: that would wait for what still runs.
            std::process::exit(1)
        }
    }
}

impl Args {
    fn broker(&self) -> Result<Connect, Error> {
        let connect = Connect::from_env(|name| std::env::var(name).ok())?;
        match &self.nats {
            Some(url) => connect.url(url).map_err(|error| Error::new(error.kind(), format!("--nats: {error}"))),
            None => Ok(connect),
        }
    }

    /// The broker, for people: without the credentials that a URL may hold.
    fn broker_text(&self) -> String {
        let url = self.nats.clone().or_else(|| std::env::var("NATS_URL").ok()).filter(|url| !url.is_empty());
        url.map_or_else(|| "the broker of the environment".to_owned(), |url| without_credentials(&url))
    }
}

fn without_credentials(urls: &str) -> String {
    let shown = urls.split(',').map(|url| {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("nats", url.trim()));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn log(filter: Option<&str>) -> anyhow::Result<()> {
    let filter = match filter {
        Some(filter) => EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG)),
    };
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    Ok(())
}

/// Reads `30s`, `500ms` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("a time is a whole number with a unit: 500ms, 30s or 2m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_the_command_line_says_what_to_host() {
        let args = Args::try_parse_from(["shop-node", "--host", "order,payment", "--lease", "3s"]);
        let args = args.expect("a good command line");
        assert_eq!((args.host.0.len(), args.lease), (2, Duration::from_secs(3)));
        assert!(Args::try_parse_from(["shop-node"]).is_err(), "hosting nothing is a mistake");
    }

    #[test]
    fn a_url_that_cannot_be_used_is_named_by_its_option() {
        let args = Args::try_parse_from(["shop-node", "--host", "all", "--nats", "http://x"]).expect("a command line");
        let why = args.broker().expect_err("no broker speaks HTTP").to_string();
        assert!(why.starts_with("--nats: ") && why.contains("nats://host:port"), "{why}");
    }

    #[test]
    fn the_broker_is_shown_without_credentials() {
        let shown = without_credentials("nats://ada:secret@a:4222, b:4222,tls://token@c");
        assert_eq!(shown, "nats://a:4222, nats://b:4222, tls://c");
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "30", "s", "1h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
