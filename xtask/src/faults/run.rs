//! One run: a history, one fault in the middle of it, and what the judges say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::cable::{Cable, Cables};
use super::checker::{Judged, Porcupine};
use super::nemesis::Fault;
use super::proxy::Proxy;
use super::report::Observed;
use crate::rig::{Call, Change, Entry, Outcome, Stage, judge};

/// How many nodes share the cells.
const NODES: usize = 3;
/// A call that took longer has felt something.
const SLOW_US: u64 = 100_000;

/// How long the search may take for each key.
const AS_THEY_ARE: Duration = Duration::from_secs(10);
/// The same, once the journal has been asked.
const BY_THE_JOURNAL: Duration = Duration::from_secs(60);

/// A stage whose nodes reach each server by a cable of their own and a proxy; callers reach it directly.
pub(super) struct Cluster {
    stage: Stage,
    /// `None` if this machine has no namespaces for us: nodes have its own network then.
    cables: Option<Cables>,
    ways: BTreeMap<String, Way>,
}

/// What is between a node and the servers. The proxies go before the cable.
struct Way {
    proxies: Vec<Proxy>,
    cable: Option<Cable>,
}

impl Cluster {
    pub(super) fn open(stage: Stage, cables: Option<Cables>) -> Self {
        Self { stage, cables, ways: BTreeMap::new() }
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    pub(super) fn stage_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }

    pub(super) fn into_stage(self) -> Stage {
        self.stage
    }

    /// What stands between that node and the servers.
    pub(super) fn proxies(&self, name: &str) -> Result<&[Proxy]> {
        Ok(&self.way(name)?.proxies)
    }

    /// The only cable to that node.
    pub(super) fn cable(&self, name: &str) -> Result<&Cable> {
        self.way(name)?.cable.as_ref().context("this machine lets us make no network namespaces")
    }

    fn way(&self, name: &str) -> Result<&Way> {
        self.ways.get(name).with_context(|| format!("there is no node {name}"))
    }

    /// Starts a node behind proxies, at the end of a cable.
    pub(super) fn start_node(&mut self) -> Result<()> {
        let cable = self.cables.as_mut().map(Cables::lay).transpose()?;
        let near = cable.as_ref().map_or(Ipv4Addr::LOCALHOST, Cable::near);
        let proxies: Result<Vec<_>> = self.stage.ports().into_iter().map(|port| Proxy::before(port, near)).collect();
        let proxies = proxies?;
        let urls: Vec<String> = proxies.iter().map(Proxy::url).collect();
        let name = self.stage.start_node_at(&urls.join(","), |command| match &cable {
            Some(cable) => cable.at_the_far_end(&command),
            None => command,
        })?;
        self.ways.insert(name, Way { proxies, cable });
        Ok(())
    }

    /// Three nodes that are ready; the ways of those that are gone go too.
    fn fill(&mut self) -> Result<()> {
        let names: BTreeSet<&String> = self.stage.nodes().iter().map(|node| &node.name).collect();
        self.ways.retain(|name, _| names.contains(name));
        while self.stage.nodes().len() < NODES {
            self.start_node()?;
        }
        self.stage.until_ready()
    }

    /// Copies what was written, so that it outlives this.
    pub(super) fn keep_copy(&self, observed: &Observed) -> Result<PathBuf> {
        let prefix = format!("greenroom-faults-{}-{}-", observed.fault.name(), observed.number);
        let kept = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
        for entry in fs::read_dir(self.stage.dir())? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, kept.join(name))?;
            }
        }
        Ok(kept)
    }
}

/// Some calm, the fault, some calm.
pub(super) fn run(
    cluster: &mut Cluster,
    porcupine: &Porcupine,
    fault: Fault,
    number: u32,
    rng: &mut Rng,
) -> Result<Observed> {
    cluster.fill()?;
    let prefix = format!("r{number}");
    let args = ["--prefix", &prefix, "--seed", &rng.u64(1..1 << 40).to_string()].map(str::to_owned);
    let stage = cluster.stage_mut();
    let mut clients = stage.start_caller("clients", &format!("clients-{number}"), &args)?;
    stage.until_caller(&mut clients, "calling ")?;
    // `key=node`, by the node that answered first.
    let said = clients.said("calling ");
    let owners: Vec<&str> = said.split_whitespace().filter_map(|owned| Some(owned.split_once('=')?.1)).collect();
    ensure!(!owners.is_empty(), "the callers said {said:?}");
    let owner = owners[rng.usize(..owners.len())];
    let victim = owner.rsplit_once('-').map_or(owner, |(name, _)| name).to_owned();
    stage.rest(Duration::from_millis(rng.u64(800..1_600)))?;
    fault.strike(cluster, &victim, rng)?;
    let stage = cluster.stage_mut();
    stage.rest(Duration::from_millis(rng.u64(800..1_600)))?;
    let calls = stage.end_caller(clients)?;
    let entries = stage.new_entries()?;
    let judged = judge_all(porcupine, &calls, &entries, stage.dir())?;
    Ok(observe(fault, number, &calls, &entries, judged))
}

/// Judges the calls as they are, every one of unknown fate open to the end. If that takes too long, because there are
/// many, those that left nothing in the journal are left out: had anybody seen one take effect, the rest would not be
/// linearizable without it.
fn judge_all(porcupine: &Porcupine, calls: &[Call], entries: &[Entry], dir: &Path) -> Result<Judged> {
    let judged = porcupine.judge(calls, AS_THEY_ARE, dir)?;
    if !judged.says("unknown") {
        return Ok(judged);
    }
    let changes = entries.iter().flat_map(|entry| entry.changes.iter().map(|change| (entry.key.as_str(), change)));
    let there: BTreeSet<(&str, u64)> =
        changes.map(|(key, Change::Appended(value) | Change::Written(value))| (key, *value)).collect();
    let left_a_trace = |call: &&Call| {
        let value = call.operation.value();
        call.outcome != Outcome::Info || value.is_some_and(|value| there.contains(&(call.key.as_str(), value)))
    };
    let known: Vec<Call> = calls.iter().filter(left_a_trace).cloned().collect();
    porcupine.judge(&known, BY_THE_JOURNAL, dir)
}

fn observe(fault: Fault, number: u32, calls: &[Call], entries: &[Entry], judged: Judged) -> Observed {
    let mut writers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Entry { key, node, .. } in entries {
        writers.entry(key).or_default().insert(node);
    }
    let count = |outcome| calls.iter().filter(|call| call.outcome == outcome).count() as u64;
    let slow = |call: &&Call| call.ended_us.saturating_sub(call.invoked_us) > SLOW_US;
    Observed {
        fault,
        number,
        calls: calls.len() as u64,
        answered: count(Outcome::Ok) + count(Outcome::Refused),
        open: count(Outcome::Info),
        failed: count(Outcome::Failed),
        slow: calls.iter().filter(slow).count() as u64,
        moved: writers.values().filter(|nodes| nodes.len() > 1).count() as u64,
        verdict: judge(calls, entries),
        judged,
    }
}
