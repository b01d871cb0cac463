//! What clients and servers say to the one that started them, a line each.

use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::str::FromStr;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::callers::{Client, measure};

/// The word by which a process says that it can be measured. A server adds where it listens.
pub const READY: &str = "ready";

/// Threads that each side of each system has for its tasks.
const THREADS: usize = 2;

/// What to measure: so many bytes, so many callers, so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Bytes that go, and come back.
    pub payload: usize,
    /// Callers at once.
    pub in_flight: usize,
    /// For how long new calls are made.
    pub millis: u64,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.payload, self.in_flight, self.millis)
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(payload)), Some(Ok(in_flight)), Some(Ok(millis)), None) => {
                Ok(Self { payload: usize::try_from(payload)?, in_flight: usize::try_from(in_flight)?, millis })
            }
            _ => anyhow::bail!(
                "{line:?} is no order: write bytes, calls in flight and milliseconds, as in `1024 64 500`"
            ),
        }
    }
}

/// What came of an order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spell {
    /// Calls that were answered.
    pub count: u64,
    /// From the first call until the last was answered.
    pub seconds: f64,
    /// Half of the calls took no longer.
    pub p50_us: f64,
    /// All but a hundredth took no longer.
    pub p99_us: f64,
}

/// The runtime that each side of each system runs on.
pub fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    runtime.context("no runtime could be started")
}

/// Tells that a server answers, and where.
pub fn announce(at: &str) -> anyhow::Result<()> {
    say(&format!("{READY} {at}"))
}

/// Tells that the client's connections are open, and then carries out orders until the standard input ends.
pub fn attend<C: Client>(runtime: &Runtime, client: &C) -> anyhow::Result<()> {
    say(READY)?;
    for line in std::io::stdin().lock().lines() {
        let order = line.context("the standard input cannot be read")?.parse()?;
        let spell = runtime.block_on(measure(client, order))?;
        say(&serde_json::to_string(&spell)?)?;
    }
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody reads the standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_line() -> anyhow::Result<()> {
        let order = Order { payload: 1_024, in_flight: 256, millis: 500 };
        assert_eq!(order.to_string().parse::<Order>()?, order);
        for wrong in ["", "1 2", "1 2 3 4", "a b c"] {
            assert!(wrong.parse::<Order>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
