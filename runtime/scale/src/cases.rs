//! What happens to the nodes, and what is counted of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Traffic};
use crate::ownership::{Entry, Input, Key};

/// Over how long the nodes start, so that their renewals do not come all at once; a whole renew interval.
const STARTS_MS: u64 = 10_000;
/// What is still sent when every partition is where it should be, is counted for so long.
const AFTERMATH_MS: u64 = 3_000;

/// How many of what.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) partitions: u16,
    pub(crate) types: usize,
}

/// Everything measured at one size.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) size: Size,
    /// Resident memory of the process at rest over the number of nodes; 0 where the system does not tell.
    pub(crate) bytes_per_node: u64,
    /// What a second at rest costs.
    pub(crate) rest_seconds: u64,
    pub(crate) cases: Vec<Case>,
    /// Reading a claim as the bucket holds it, which the nodes' drivers do with each change.
    pub(crate) parse_claim_ns: u64,
}

/// One thing that happened.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Partitions that had to move.
    pub(crate) moves: usize,
    /// Until each was where it should be.
    pub(crate) settled_ms: u64,
    pub(crate) traffic: Traffic,
    /// Time in the machines: of all nodes, of the busiest, and the longest single step.
    pub(crate) spent_us: u64,
    pub(crate) busiest_us: u64,
    pub(crate) longest_us: u64,
}

/// Measures everything at one size; `measured` is shown it after each case.
pub(crate) fn measure(
    size: Size,
    progress: &mut dyn FnMut(&str),
    measured: &mut dyn FnMut(&Figures),
) -> Result<Figures> {
    let Size { nodes, partitions, types } = size;
    let began = Instant::now();
    let mut say =
        |what: &str| progress(&format!("{nodes} nodes, {partitions} x {types}: {what} ({:.0?})", began.elapsed()));
    say("starting");
    let mut cluster = at_rest(size);
    ensure!(cluster.alive().len() == nodes, "{} of {nodes} nodes have ended", nodes - cluster.alive().len());
    let mut figures = Figures {
        size,
        bytes_per_node: resident() / nodes as u64,
        rest_seconds: STARTS_MS / 1_000,
        cases: Vec::new(),
        parse_claim_ns: parse_claim(),
    };

    let mut keep = |case: Case| {
        figures.cases.push(case);
        measured(&figures);
    };
    say("at rest");
    keep(case(&mut cluster, "rest", |cluster| {
        cluster.run(STARTS_MS, |_| false);
    })?);

    say("one joins");
    keep(case(&mut cluster, "join", |cluster| {
        let at = cluster.add(0);
        cluster.expect(&cluster.alive());
        cluster.run(10, |_| false);
        cluster.snapshot(at);
    })?);

    say("one leaves");
    keep(case(&mut cluster, "leave", |cluster| {
        let at = nodes / 2;
        let stay: Vec<usize> = cluster.alive().into_iter().filter(|other| *other != at).collect();
        cluster.expect(&stay);
        cluster.tell(at, Input::Drain { within: Duration::from_secs(600).as_millis() as u64 });
    })?);

    let many = (nodes / 10).max(1);
    for (name, count, tells) in [
        ("death, told", 1, true),
        ("death, not told", 1, false),
        ("deaths, told", many, true),
        ("deaths, not told", many, false),
    ] {
        if count >= cluster.alive().len() || (count == 1 && name.starts_with("deaths")) {
            continue;
        }
        say(&format!("{name}: {count}"));
        let name = format!("{name}: {count}");
        keep(case(&mut cluster, &name, |cluster| {
            let alive = cluster.alive();
            // Spread over the order of ids, so that neighbours and strangers die together.
            let dead: Vec<usize> = (0..count).map(|n| alive[n * alive.len() / count]).collect();
            let stay: Vec<usize> = alive.into_iter().filter(|at| !dead.contains(at)).collect();
            cluster.expect(&stay);
            cluster.kill(&dead, tells);
        })?);
    }
    say("done");
    Ok(figures)
}

/// Nodes that have been there for long: every claim where it should be, every lease renewed in its turn.
fn at_rest(size: Size) -> Cluster {
    let mut cluster = Cluster::new(size.partitions, size.types);
    for n in 0..size.nodes {
        cluster.add(n as u64 * STARTS_MS / size.nodes as u64);
    }
    // The leases are written by the machines themselves; nobody watches yet.
    cluster.run(STARTS_MS + 100, |_| false);
    let all = cluster.alive();
    for at in &all {
        let member = cluster.member(*at);
        cluster.bucket.put(member, 0);
    }
    cluster.expect(&all);
    cluster.claim_all();
    for at in all {
        cluster.snapshot(at);
    }
    cluster.run(1_000, |_| false);
    cluster
}

/// Runs one case: what begins it, until it has settled, and a while longer.
fn case(cluster: &mut Cluster, name: &str, begin: impl FnOnce(&mut Cluster)) -> Result<Case> {
    cluster.traffic = Traffic::default();
    for node in &mut cluster.nodes {
        (node.spent, node.longest) = (Duration::ZERO, Duration::ZERO);
    }
    let from = cluster.now;
    begin(cluster);
    let moves = cluster.astray;
    let settled = cluster.run(600_000, |cluster| cluster.astray == 0);
    ensure!(settled, "{name}: {} of {moves} partitions are still not where they should be", cluster.astray);
    let settled_ms = cluster.now - from;
    if name != "rest" {
        cluster.run(AFTERMATH_MS, |_| false);
    }
    ensure!(cluster.astray == 0, "{name}: {} partitions moved again", cluster.astray);
    let micros = |time: Duration| time.as_micros() as u64;
    Ok(Case {
        name: name.to_owned(),
        moves,
        settled_ms,
        traffic: cluster.traffic.clone(),
        spent_us: cluster.nodes.iter().map(|node| micros(node.spent)).sum(),
        busiest_us: cluster.nodes.iter().map(|node| micros(node.spent)).max().unwrap_or(0),
        longest_us: cluster.nodes.iter().map(|node| micros(node.longest)).max().unwrap_or(0),
    })
}

/// The resident memory of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

fn parse_claim() -> u64 {
    let value = br#"{"node":"node512-x000512","epoch":1767225601,"nonce":"x000512-1767225601-123456","lease":123456}"#;
    let began = Instant::now();
    let rounds = 100_000;
    let read = (0..rounds).filter(|_| {
        let key = Key::parse(std::hint::black_box("part.actor0.4095"));
        key.is_some_and(|key| Entry::parse(key, std::hint::black_box(value)).is_ok())
    });
    let read = read.count() as u128;
    u64::try_from(began.elapsed().as_nanos() / read.max(1)).unwrap_or(0)
}
