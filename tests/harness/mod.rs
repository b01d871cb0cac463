//! What every test stands on: the tools, brokers, the CLI, and the shop's processes.
//!
//! Start reading at [`Server::start`], [`nats`] and [`ShopNode::spawn`]. Whatever is started here
//! ends with the value that stands for it, also when a test panics, and also when the test runner
//! is killed.

mod audit;
mod cli;
mod demo;
mod duo;
mod info;
mod load;
mod node;
mod pricing;
mod program;
mod proxy;
mod server;
mod shop;

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use xtask::tools::{self, Tools};

pub(crate) use self::audit::{Audit, story};
pub(crate) use self::cli::{CliOutput, Listener, nats, nats_many, shell};
pub(crate) use self::demo::Demo;
pub(crate) use self::duo::{Duo, TAKES_OVER};
pub(crate) use self::info::{Info, all_partitions, key_in};
pub(crate) use self::load::{Call, Load, PRICE_CENTS, SKU, SLACK, STOCK, client, each_names_its_cause, place, prepare};
pub(crate) use self::node::ShopNode;
pub(crate) use self::pricing::pricing;
pub(crate) use self::program::{example, program};
pub(crate) use self::proxy::Proxy;
pub(crate) use self::server::Server;
pub(crate) use self::shop::{LEASE, Shop};
pub(crate) use xtask::broker::Profile;

/// `nats-server` and the `nats` CLI, found or fetched at the first call.
pub(crate) fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| match tools::provision(&mut |line| eprintln!("{line}")) {
        Ok(tools) => tools,
        Err(error) => panic!("{error:#}"),
    })
}

/// Looks again and again until `look` gives `Ok`, and returns what is in it. The last `Err`, which
/// says what was there instead, is shown when `limit` is over.
///
/// ```ignore
/// let two = eventually(Duration::from_secs(5), "two nodes are listed", async || {
///     let nodes = listed().await;
///     if nodes.len() == 2 { Ok(nodes) } else { Err(format!("{nodes:?}")) }
/// }).await;
/// ```
#[track_caller]
pub(crate) fn eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut last = "it was not looked at once".to_owned();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left.max(Duration::from_millis(1)), look()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("{last} (and the last look did not return)"),
            }
            assert!(Instant::now() < deadline, "{caller}: not within {limit:?}: {what}; last seen: {last}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `Ok(())` if it holds, or else what was seen: for [`eventually`].
pub(crate) fn holds(condition: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen()) }
}
