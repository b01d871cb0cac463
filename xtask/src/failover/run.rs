//! One run: callers at work, something happens, and what came of every call.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::Variant;
use super::disturbance::{Strike, strike};
use super::outsiders::Outsiders;
use crate::rig::{Call, Outcome, Stage, Verdict, judge};

/// How many nodes share the cells.
const NODES: usize = 3;
/// How many cells are measured.
const MEASURED: usize = 4;

/// What came of one run.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// For each measured cell: how long it was out of reach, in microseconds.
    pub(super) gaps_us: Vec<u64>,
    /// How long those calls took that were on their way when it happened.
    pub(super) in_flight_us: Vec<u64>,
    /// All calls.
    pub(super) calls: u64,
    /// Those that were not answered.
    pub(super) failed: u64,
    /// Why, of the first.
    pub(super) failures: Vec<String>,
    /// What the journals say.
    pub(super) verdict: Verdict,
}

/// Three nodes, a load, and what the variant says.
pub(super) fn run(stage: &mut Stage, variant: Variant, number: u32, rng: &mut Rng) -> Result<Measured> {
    while stage.nodes().len() < NODES {
        stage.start_node()?;
    }
    stage.until_ready()?;
    let victim = stage.nodes()[rng.usize(..NODES)].name.clone();
    let moment = Duration::from_millis(rng.u64(300..700));
    let prefix = format!("{}-{number}", variant.name());
    let (keys, calls, struck) = if variant == Variant::RollingCli {
        by_outsiders(stage, variant, &prefix, &victim, moment)?
    } else {
        by_clients(stage, variant, &prefix, &victim, moment)?
    };
    let entries = stage.new_entries()?;
    ensure!(!entries.is_empty(), "the journals have nothing of this run");

    let mut verdict = judge(&calls, &entries);
    after_its_end(&calls, &struck, &mut verdict);
    let of_measured = || calls.iter().filter(|call| keys.contains(&call.key));
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.outcome != Outcome::Ok) {
        *failures.entry(call.error.clone().unwrap_or_default()).or_default() += 1;
    }
    let mut gaps_us = Vec::new();
    for key in &keys {
        let of_key: Vec<&Call> = of_measured().filter(|call| call.key == *key).collect();
        match gap(&of_key, &struck) {
            Some(gap) => gaps_us.push(gap),
            None => {
                verdict.wrong += 1;
                verdict.complaints.push(format!("{key} was not answered again"));
            }
        }
    }
    let in_flight = of_measured().filter(|call| (call.invoked_us..call.ended_us).contains(&struck.at_us));
    Ok(Measured {
        gaps_us,
        in_flight_us: in_flight.map(|call| call.ended_us - call.invoked_us).collect(),
        calls: calls.len() as u64,
        failed: failures.values().sum(),
        failures: failures.into_iter().take(5).map(|(error, times)| format!("{times} × {error}")).collect(),
        verdict,
    })
}

type Ran = (Vec<String>, Vec<Call>, Strike);

fn by_clients(stage: &mut Stage, variant: Variant, prefix: &str, victim: &str, moment: Duration) -> Result<Ran> {
    // What a lease of 3 s decides takes longer than the usual 5 s.
    let budget_ms = if variant.lease_s() < 10 { 20_000 } else { 5_000 };
    let args = ["--on", victim, "--prefix", prefix, "--budget", &budget_ms.to_string()].map(str::to_owned);
    let mut load = stage.start_caller("load", &format!("load-{prefix}"), &args)?;
    stage.until_caller(&mut load, "loading ")?;
    let said = load.said("loading ");
    let keys: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    ensure!(keys.len() == MEASURED, "the load said {said:?}");
    stage.rest(moment)?;
    let struck = strike(stage, variant, victim)?;
    Ok((keys, stage.end_caller(load)?, struck))
}

fn by_outsiders(stage: &mut Stage, variant: Variant, prefix: &str, victim: &str, moment: Duration) -> Result<Ran> {
    let keys: Vec<String> = (0..MEASURED).map(|number| format!("{prefix}-{number}")).collect();
    let callers = Outsiders::start(&stage.programs().tools.nats, &stage.urls(), &keys);
    let struck = stage.rest(moment).and_then(|()| strike(stage, variant, victim));
    // Whatever came of it, nobody goes on calling.
    let calls = callers.end();
    Ok((keys, calls?, struck?))
}

/// How long the cell was out of reach. After a death: from there to the first answer by another node than the one that
/// died, on which a call that was on its way may wait as well as a later one. In a planned move: the longest time
/// between two answers.
fn gap(calls: &[&Call], struck: &Strike) -> Option<u64> {
    let answered = calls.iter().filter(|call| call.outcome == Outcome::Ok);
    match &struck.victim {
        Some(victim) if struck.is_death => {
            let by_others = answered.filter(|call| call.ended_us > struck.at_us && call.node.as_ref() != Some(victim));
            by_others.map(|call| call.ended_us - struck.at_us).min()
        }
        _ => {
            let mut ends: Vec<u64> = answered.map(|call| call.ended_us).collect();
            ends.sort_unstable();
            let during = ends.windows(2).filter(|pair| pair[1] >= struck.at_us && pair[0] <= struck.until_us);
            during.map(|pair| pair[1] - pair[0]).max()
        }
    }
}

/// A node that was killed or frozen answers nothing that was asked afterwards.
fn after_its_end(calls: &[Call], struck: &Strike, verdict: &mut Verdict) {
    let Some(victim) = struck.victim.as_ref().filter(|_| struck.is_death) else { return };
    for call in calls.iter().filter(|call| call.invoked_us > struck.still_us && call.node.as_ref() == Some(victim)) {
        verdict.wrong += 1;
        verdict.complaints.push(format!("{victim} answered what was asked after its end: {call:?}"));
    }
    verdict.complaints.truncate(10);
}
