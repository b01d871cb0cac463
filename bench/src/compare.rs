//! Requests and replies from one process to another, by greenroom and by what else one might use.
//!
//! Every system has a server and a client of its own, which stay alive with their connections open, and some have a
//! broker between the two. They are measured in turn: each round goes through all cases, and each case through all
//! systems, whose order moves on by one from round to round. So what is compared in a ratio was measured within seconds.

mod system;

mod stage;

mod mosquitto;

mod rounds;

mod ratio;

mod goals;

mod facts;

mod document;

mod plot;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::report;
use facts::Facts;
use rounds::{Plan, Results};
use stage::Stage;
pub use system::System;

const PAYLOADS: [usize; 4] = [100, 1_024, 10_240, 102_400];
const IN_FLIGHT: [usize; 3] = [1, 64, 256];
/// The cases of `remote`.
const REMOTE: [(usize, usize); 8] =
    [(100, 1), (100, 256), (1_024, 1), (1_024, 64), (1_024, 256), (10_240, 64), (102_400, 1), (102_400, 64)];

/// How large, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub payload: usize,
    pub in_flight: usize,
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let case = text.split_once('x').and_then(|(payload, in_flight)| {
            Some(Self { payload: payload.parse().ok()?, in_flight: in_flight.parse().ok()? })
        });
        let usual = |case: &Case| case.in_flight > 0 && case.in_flight <= 256;
        case.filter(usual)
            .ok_or_else(|| anyhow!("{text:?} is no case: write BYTESxCALLS with at most 256 calls, as in 1024x256"))
    }
}

/// What of the comparison can be chosen.
#[derive(clap::Args)]
pub struct CompareOptions {
    /// Fewer and shorter rounds: less than two minutes in all. Nothing goes into `docs/`.
    #[arg(long)]
    quick: bool,
    /// Only these systems.
    #[arg(long, value_name = "SYSTEMS", value_delimiter = ',', value_parser = System::named)]
    only: Vec<System>,
    /// Only these cases, as BYTESxCALLS: 1024x256,100x1.
    #[arg(long, value_name = "CASES", value_delimiter = ',')]
    cases: Vec<Case>,
    /// How many rounds; five unless told otherwise, three with `--quick`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Write the figures here too, as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write compare.md, compare.svg and compare.json into this directory; a run of everything takes `docs/benchmarks`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What of `remote` can be chosen.
#[derive(clap::Args)]
pub struct RemoteOptions {
    /// Fewer and shorter rounds: half a minute in all.
    #[arg(long)]
    quick: bool,
    /// Only these cases, as BYTESxCALLS: 1024x256,100x1.
    #[arg(long, alias = "only", value_name = "CASES", value_delimiter = ',')]
    cases: Vec<Case>,
    /// Write the figures here too, as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// Compares all systems, or those that are named.
pub fn run(options: CompareOptions) -> anyhow::Result<()> {
    let CompareOptions { quick, only, cases, rounds, json, out } = options;
    let everything = !quick && only.is_empty() && cases.is_empty();
    let out = out.or_else(|| everything.then(|| xtask::workspace_root().join("docs/benchmarks")));
    let systems = if only.is_empty() { System::ALL.to_vec() } else { only };
    let all = || PAYLOADS.iter().flat_map(|payload| IN_FLIGHT.map(|in_flight| Case { payload: *payload, in_flight }));
    let plan = Plan {
        cases: if cases.is_empty() { all().collect() } else { cases },
        rounds: rounds.unwrap_or(if quick { 3 } else { 5 }),
        spell: Duration::from_millis(if quick { 200 } else { 1_000 }),
    };
    let (results, facts) = measure(&systems, &plan)?;
    println!("{}", document::tables(&results));
    if goals::all().iter().any(|goal| goal.judge(&results).is_some()) {
        println!("{}", document::goals(&results));
    }
    if let Some(out) = out {
        write(&out, &results, &facts)?;
    }
    report::write(json.as_deref(), &results.rows())
}

/// Compares greenroom with the client library that it stands on.
pub fn remote(options: RemoteOptions) -> anyhow::Result<()> {
    let RemoteOptions { quick, cases, json } = options;
    let all = REMOTE.map(|(payload, in_flight)| Case { payload, in_flight });
    let plan = Plan {
        cases: if cases.is_empty() { all.to_vec() } else { cases },
        rounds: if quick { 3 } else { 5 },
        spell: Duration::from_millis(if quick { 400 } else { 1_000 }),
    };
    let (results, _) = measure(&System::REMOTE, &plan)?;
    println!("{}", document::tables(&results));
    report::write(json.as_deref(), &results.rows())
}

fn measure(systems: &[System], plan: &Plan) -> anyhow::Result<(Results, Facts)> {
    let mut stage = Stage::open(systems)?;
    let facts = Facts::gather(&stage)?;
    let results = rounds::measure(&mut stage, plan)?;
    Ok((results, facts))
}

fn write(out: &Path, results: &Results, facts: &Facts) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let put = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
    };
    put("compare.md", document::whole(results, facts))?;
    put("compare.svg", plot::svg(results))?;
    put("compare.json", serde_json::to_string_pretty(&results.rows())? + "\n")?;
    eprintln!("compare.md, compare.svg and compare.json are in {}", out.display());
    Ok(())
}
