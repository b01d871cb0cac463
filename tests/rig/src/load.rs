//! Callers at a steady pace, whatever the answers do: calls are made when they are due, not when the last has ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use greenroom::Node;
use greenroom_history::{Call, Operation, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::Place;
use crate::calls::call;

/// How long the claims may take to come to rest before the load begins.
const SETTLES_WITHIN: Duration = Duration::from_secs(40);
/// For how long no claim may have changed.
const AT_REST: Duration = Duration::from_millis(400);
/// Calls of one key at once; what is due beyond that is counted and left out.
const IN_FLIGHT_MAX: usize = 900;
/// No load lasts longer than this, whoever has forgotten to end it.
const LASTS_MAX: Duration = Duration::from_secs(180);

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    place: Place,
    /// The measured keys live on the node of this name.
    #[arg(long, value_name = "NAME")]
    on: String,
    /// What the names of the keys begin with.
    #[arg(long)]
    prefix: String,
    /// How many keys are measured.
    #[arg(long, value_name = "N", default_value_t = 4)]
    measured: u32,
    /// Appends a second to each measured key.
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,
    /// Other keys, wherever they live, each called once a second.
    #[arg(long, value_name = "N", default_value_t = 100)]
    others: u32,
    /// How long a call may take.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    budget: u64,
    /// How many nodes have to share the cells before the load begins.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Where every call is written down, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Says `loading` once the load has begun; ends with SIGTERM, when every call has.
pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let node = args.place.client("load").await?;
    let budget = Duration::from_millis(args.budget);
    let partitions = at_rest(&node, &args).await?;
    let keys = measured_keys(&args, &partitions)?;
    let others: Vec<String> = (0..args.others).map(|number| format!("{}-o{number}", args.prefix)).collect();
    let mut calls = Vec::new();
    for key in keys.iter().chain(&others) {
        // So that every cell is in memory when it begins, as in the middle of a day.
        calls.push(first(&node, key, budget).await?);
    }

    let mut load = Load { node: node.clone(), budget, value: 0, left_out: 0, running: JoinSet::new(), calls };
    load.value = load.calls.len() as u64;
    println!("loading {}", keys.join(" "));
    let until = Instant::now() + LASTS_MAX;
    let mut due = pace(&keys, args.rate, &others);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            () = tokio::time::sleep_until(until.into()) => break,
            key = due.next() => load.append(key),
        }
    }
    let left_out = load.left_out;
    let mut calls = load.ended().await;
    for key in &keys {
        calls.push(call(&node, 0, key, Operation::Get, budget).await);
    }
    write(&args.out, &calls)?;
    println!("ended {} calls, {left_out} left out", calls.len());
    Ok(node.drain().await?)
}

/// The partitions of the node of that name, once so many nodes share all of them and nothing has moved for a while.
async fn at_rest(node: &Node, args: &LoadArgs) -> anyhow::Result<Vec<u16>> {
    let give_up = Instant::now() + SETTLES_WITHIN;
    let mut before = (BTreeMap::new(), Instant::now());
    loop {
        let info = node.info();
        let claims: BTreeMap<String, Vec<u16>> =
            info.claims.into_iter().filter(|claim| claim.actor == "cell").fold(BTreeMap::new(), |mut all, claim| {
                all.entry(claim.node).or_insert_with(Vec::new).extend(claim.partitions);
                all
            });
        if claims != before.0 {
            before = (claims.clone(), Instant::now());
        }
        let claimed: usize = claims.values().map(Vec::len).sum();
        // With fewer than that the node has only begun to get its share, which chance may make small.
        let fair = usize::from(info.partitions) / (4 * args.nodes.max(1));
        let shared = claims.len() == args.nodes && claims.values().all(|its| its.len() >= fair);
        if claimed == usize::from(info.partitions) && shared && before.1.elapsed() >= AT_REST {
            let prefix = format!("{}-", args.on);
            let its = claims.into_iter().find(|(id, _)| id.starts_with(&prefix));
            return Ok(its.with_context(|| format!("{} owns nothing", args.on))?.1);
        }
        ensure!(
            Instant::now() < give_up,
            "the claims do not come to rest within {} s: {claims:?}",
            SETTLES_WITHIN.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keys in as many different partitions of these.
fn measured_keys(args: &LoadArgs, partitions: &[u16]) -> anyhow::Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut taken = Vec::new();
    for number in 0..100_000 {
        let key = format!("{}-{number}", args.prefix);
        let partition = partition(&key, 64);
        if partitions.contains(&partition) && !taken.contains(&partition) {
            keys.push(key);
            taken.push(partition);
        }
        if keys.len() == args.measured as usize {
            return Ok(keys);
        }
    }
    bail!("{} partitions are too few for {} keys", partitions.len(), args.measured)
}

/// FNV-1a of the key's token, as the broker computes it; the keys here are their own tokens.
fn partition(key: &str, partitions: u16) -> u16 {
    let hash = key.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    u16::try_from(hash % u32::from(partitions)).unwrap_or(0)
}

async fn first(node: &Node, key: &str, budget: Duration) -> anyhow::Result<Call> {
    // A value of its own for each key, below those of the load.
    let value = fastrand::u64(1 << 40..1 << 50);
    let call = call(node, 0, key, Operation::Append { value }, budget).await;
    ensure!(call.outcome == Outcome::Ok, "the first call of {key}: {:?}", call.error);
    Ok(call)
}

/// Gives the keys as they are due.
struct Pace<'a> {
    keys: Vec<&'a str>,
    next: usize,
    ticks: tokio::time::Interval,
}

/// Every tick is one call: measured keys in turn, and between them one of the others.
fn pace<'a>(keys: &'a [String], rate: u32, others: &'a [String]) -> Pace<'a> {
    let rounds = rate as usize;
    let mut all = Vec::new();
    for round in 0..rounds {
        all.extend(keys.iter().map(String::as_str));
        let (from, to) = (round * others.len() / rounds, (round + 1) * others.len() / rounds);
        all.extend(others[from..to].iter().map(String::as_str));
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(all.len()).unwrap_or(u32::MAX));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    Pace { keys: all, next: 0, ticks }
}

impl<'a> Pace<'a> {
    async fn next(&mut self) -> &'a str {
        self.ticks.tick().await;
        let key = self.keys[self.next];
        self.next = (self.next + 1) % self.keys.len();
        key
    }
}

struct Load {
    node: Node,
    budget: Duration,
    value: u64,
    left_out: u64,
    running: JoinSet<Call>,
    calls: Vec<Call>,
}

impl Load {
    fn append(&mut self, key: &str) {
        while let Some(Ok(call)) = self.running.try_join_next() {
            self.calls.push(call);
        }
        if self.running.len() >= 4 * IN_FLIGHT_MAX {
            self.left_out += 1;
            return;
        }
        self.value += 1;
        let (node, key, value, budget) = (self.node.clone(), key.to_owned(), self.value, self.budget);
        self.running.spawn(async move { call(&node, 0, &key, Operation::Append { value }, budget).await });
    }

    /// All calls, when the last has ended.
    async fn ended(mut self) -> Vec<Call> {
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok(call) => self.calls.push(call),
                Err(error) => tracing::error!(%error, "a call panicked"),
            }
        }
        self.calls
    }
}

/// Writes the calls down, one a line.
pub(crate) fn write(path: &Path, calls: &[Call]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?);
    for call in calls {
        serde_json::to_writer(&mut out, call)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
