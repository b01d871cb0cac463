//! `cargo xtask faults`: callers read and write a few cells while nodes are killed, frozen and cut off, and brokers
//! killed; porcupine then says whether what they saw could have come from one cell that does one thing at a time.
//!
//! Each run is a history of its own: some calm, one fault, some calm. Which fault strikes whom and when follows from
//! the seed and the run's number. Besides linearizability, the journals are compared with the answers: nothing
//! acknowledged is missing, nothing is there twice, epochs do not go back. A run counts only if most calls were
//! answered and the fault was felt.

mod cable;
mod proxy;

mod nemesis;

mod checker;

mod run;

mod report;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::rig::{Brokers, Programs, Speed, Stage, StageOptions, Told};

use cable::Cables;
pub use checker::{Judged, Porcupine};
pub use nemesis::Fault;
pub use report::Tally;

const RUNS: u32 = 200;
/// With `--quick`.
const RUNS_QUICK: u32 = 8;

/// What of the campaign can be chosen.
#[derive(Clone, Debug, Default)]
pub struct FaultsOptions {
    /// How many runs: 200 unless said otherwise.
    pub runs: Option<u32>,
    /// Few runs, unless their number is given.
    pub quick: bool,
    /// One server with one copy of everything, instead of three.
    pub one_server: bool,
    /// Which faults; all if there are none.
    pub faults: Vec<Fault>,
    /// What faults, victims, moments and calls follow from.
    pub seed: Option<u64>,
    /// Write the figures to this file.
    pub json: Option<PathBuf>,
}

impl FaultsOptions {
    fn stage(&self) -> StageOptions {
        // A lease must outlive the election of a new leader, 4 to 8 s; with one server there is none.
        let (brokers, lease_s) = if self.one_server { (Brokers::One, 4) } else { (Brokers::Three, 12) };
        StageOptions { brokers, told: Told::AtOnce, lease_s }
    }
}

/// Builds for release, runs the campaign, prints a table. The exit code says whether everything was as it should be.
pub fn run(options: &FaultsOptions, progress: &mut dyn FnMut(&str)) -> Result<ExitCode> {
    let programs = Programs::build(Speed::Release, progress)?;
    let interrupt = Interrupt::listen().context("cannot listen for Ctrl-C")?;
    let tallies = match campaign_until(options, &programs, &interrupt, progress) {
        Err(_) if interrupt.raised() => return Ok(ExitCode::from(130)),
        tallies => tallies?,
    };
    print!("{}", report::table(&tallies));
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&tallies)? + "\n";
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let missed: Vec<_> = tallies.iter().flat_map(Tally::misses).collect();
    for miss in &missed {
        eprintln!("missed: {miss}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the campaign with programs that are there, and gives a tally for each kind of fault.
///
/// # Errors
/// If a process does not do what it should; where its logs lie is told to `progress`.
pub fn campaign(options: &FaultsOptions, programs: &Programs, progress: &mut dyn FnMut(&str)) -> Result<Vec<Tally>> {
    campaign_until(options, programs, &Interrupt::default(), progress)
}

fn campaign_until(
    options: &FaultsOptions,
    programs: &Programs,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Tally>> {
    let porcupine = Porcupine::find(progress)?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let runs = options.runs.unwrap_or(if options.quick { RUNS_QUICK } else { RUNS });
    let mut faults = if options.faults.is_empty() { Fault::ALL.to_vec() } else { options.faults.clone() };
    let cables = match Cables::try_new() {
        Ok(cables) => Some(cables),
        Err(error) if options.faults.contains(&Fault::Unplugged) => {
            return Err(error.context("`unplugged` needs network namespaces"));
        }
        Err(error) => {
            faults.retain(|fault| *fault != Fault::Unplugged);
            progress(&format!("no network namespaces, so no cable is pulled: {error:#}"));
            None
        }
    };
    progress(&format!("{runs} runs, --seed {seed}"));
    let mut stage = run::Cluster::open(Stage::open(programs, options.stage(), interrupt)?, cables);
    let mut tallies: Vec<Tally> = faults.iter().map(|fault| Tally::new(*fault)).collect();
    let began = Instant::now();
    for number in 1..=runs {
        // So that a run can be had again alone: it follows from the seed and its number, not from those before it.
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        let tally = &mut tallies[(number as usize - 1) % faults.len()];
        let fault = tally.fault;
        match run::run(&mut stage, &porcupine, fault, number, &mut rng) {
            Ok(observed) => {
                let bad = tally.add(&observed);
                let seconds = began.elapsed().as_secs();
                progress(&format!("{number}/{runs} {}: {observed}  ({seconds} s)", fault.name()));
                if !bad.is_empty() {
                    for complaint in &bad {
                        progress(&format!("  {complaint}"));
                    }
                    let kept = stage.keep_copy(&observed)?;
                    progress(&format!("  the history and the logs are in {}; --seed {seed}", kept.display()));
                }
            }
            Err(error) if interrupt.raised() => return Err(error),
            Err(error) => {
                let kept = stage.into_stage().keep();
                progress(&format!("{number}/{runs} {} failed; its logs are in {}", fault.name(), kept.display()));
                return Err(error.context(format!("{}, run {number}, seed {seed}", fault.name())));
            }
        }
    }
    Ok(tallies)
}
