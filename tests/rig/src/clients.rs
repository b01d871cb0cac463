//! Callers of the usual kind: one operation after the other, of every kind, on a few keys that they share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use fastrand::Rng;
use greenroom::Node;
use greenroom_history::{Call, Operation, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::Place;
use crate::calls::call;
use crate::load::write;

/// Calls of one caller; a caller that has made so many waits for the end.
const CALLS_MAX: usize = 20_000;
/// How long after the last fault a key may be out of reach.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// How long a caller rests when a call could not be made.
const REST_AFTER_FAILURE_MS: u64 = 250;
/// Nothing lasts longer than this, whoever has forgotten to end it.
const LASTS_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub(crate) struct ClientsArgs {
    #[command(flatten)]
    place: Place,
    /// What the names of the keys begin with.
    #[arg(long)]
    prefix: String,
    /// How many keys they share.
    #[arg(long, value_name = "N", default_value_t = 5)]
    keys: u32,
    /// How many there are.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: u32,
    /// How many milliseconds each rests between two operations, on average.
    #[arg(long, value_name = "MS", default_value_t = 25)]
    rest: u64,
    /// How long a call may take.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    budget: u64,
    /// What the choices follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where every call is written down, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Says `calling` once every key has answered; ends with SIGTERM, when every call has and every key was read.
pub(crate) async fn run(args: ClientsArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let budget = Duration::from_millis(args.budget);
    let keys: Vec<String> = (0..args.keys).map(|number| format!("{}-{number}", args.prefix)).collect();
    // Two nodes, so that not all callers see the cluster through the same eyes.
    let nodes = [args.place.client("calls-a").await?, args.place.client("calls-b").await?];
    let mut calls = Vec::new();
    let mut owners = Vec::new();
    for key in &keys {
        let read = reached(&nodes[0], key, budget).await?;
        owners.push(format!("{key}={}", read.node.as_deref().unwrap_or_default()));
        calls.push(read);
    }
    println!("calling {}", owners.join(" "));
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for (number, node) in (0..args.clients).zip(nodes.iter().cycle()) {
        let caller = Caller {
            node: node.clone(),
            number,
            keys: keys.clone(),
            budget,
            rest: args.rest,
            rng: Rng::with_seed(args.seed.wrapping_mul(1_000).wrapping_add(u64::from(number))),
            seen: BTreeMap::new(),
            stop: stop.clone(),
        };
        callers.spawn(caller.calls());
    }
    tokio::select! {
        _ = terminate.recv() => {}
        () = tokio::time::sleep(LASTS_MAX) => {}
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(its) = callers.join_next().await {
        calls.extend(its?);
    }
    for key in &keys {
        calls.push(reached(&nodes[1], key, budget).await?);
    }
    write(&args.out, &calls)?;
    println!("ended {} calls", calls.len());
    for node in nodes {
        node.drain().await?;
    }
    Ok(())
}

/// Reads a key until it answers, and gives the one read that did.
async fn reached(node: &Node, key: &str, budget: Duration) -> anyhow::Result<Call> {
    let give_up = Instant::now() + HEALS_WITHIN;
    loop {
        // No caller's number: a read that got no answer has no effect, so it need not be written down.
        let read = call(node, u32::MAX, key, Operation::Get, budget).await;
        if read.outcome == Outcome::Ok {
            return Ok(read);
        }
        ensure!(Instant::now() < give_up, "{key} does not answer: {:?}", read.error);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Caller {
    node: Node,
    number: u32,
    keys: Vec<String>,
    budget: Duration,
    rest: u64,
    rng: Rng,
    /// What it saw last in the register of each key.
    seen: BTreeMap<String, u64>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    async fn calls(mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while !self.stop.load(Ordering::Relaxed) && calls.len() < CALLS_MAX {
            let key = self.keys[self.rng.usize(..self.keys.len())].clone();
            let value = u64::from(self.number + 1) * 1_000_000 + calls.len() as u64;
            let operation = match self.rng.u8(..10) {
                0..3 => Operation::Append { value },
                3..5 => Operation::Set { value },
                5..7 => Operation::Cas { expected: self.seen.get(&key).copied().unwrap_or(0), value },
                _ => Operation::Get,
            };
            let call = call(&self.node, self.number, &key, operation, self.budget).await;
            match (operation, call.outcome) {
                (Operation::Set { value } | Operation::Cas { value, .. }, Outcome::Ok) => {
                    self.seen.insert(key, value);
                }
                (_, Outcome::Ok | Outcome::Refused) => {
                    self.seen.extend(call.register.map(|register| (key, register)));
                }
                _ => {}
            }
            // Who is told at once that nobody is there does not try again at once.
            let rest =
                if call.outcome == Outcome::Failed { REST_AFTER_FAILURE_MS } else { self.rng.u64(..=2 * self.rest) };
            calls.push(call);
            tokio::time::sleep(Duration::from_millis(rest)).await;
        }
        calls
    }
}
