//! `cargo xtask failover`: how long a cell is out of reach when its node is killed, frozen or told to leave, and
//! whether anything is lost or done twice meanwhile.
//!
//! Real processes, real signals. For each run callers append two hundred values a second to each of four cells of one
//! node, and others to other cells; then something happens to that node. Measured is the time from there to the next
//! append to the same cell that another node acknowledges. After every run what callers were told is compared with the
//! journals. It stops by itself, and leaves nothing running.

mod disturbance;

mod outsiders;

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

pub use report::Row;

/// How many runs of the most important variants there are by default.
const RUNS: u32 = 100;
/// With `--quick`.
const RUNS_QUICK: u32 = 5;

/// What of the measurement can be chosen.
#[derive(Clone, Debug, Default)]
pub struct FailoverOptions {
    /// How many runs of `kill9` and `sigterm`; the slower variants have a fifth or a tenth of them.
    pub runs: Option<u32>,
    /// Few runs, unless their number is given.
    pub quick: bool,
    /// Which variants; all if there are none.
    pub variants: Vec<Variant>,
    /// What victims and moments follow from.
    pub seed: Option<u64>,
    /// Write the figures to this file.
    pub json: Option<PathBuf>,
    /// Keep what the processes wrote, and say where, even if nothing is wrong.
    pub keep: bool,
}

/// What happens to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Variant {
    /// SIGKILL, and the broker says so.
    Kill9,
    /// SIGKILL, and the broker says nothing: the lease decides.
    Kill9Untold,
    /// SIGSTOP past its lease, then SIGCONT.
    Paused,
    /// SIGTERM.
    Sigterm,
    /// Every node is told to leave and replaced, one after the other.
    Rolling,
    /// The same, and the callers are `nats req`.
    RollingCli,
}

impl Variant {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 6] =
        [Self::Kill9, Self::Kill9Untold, Self::Paused, Self::Sigterm, Self::Rolling, Self::RollingCli];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "kill9",
            Self::Kill9Untold => "kill9-untold",
            Self::Paused => "paused",
            Self::Sigterm => "sigterm",
            Self::Rolling => "rolling",
            Self::RollingCli => "rolling-cli",
        }
    }

    /// How many runs of it there are, if there are so many of the most important.
    fn runs(self, runs: u32) -> u32 {
        let share = match self {
            Self::Kill9 | Self::Sigterm => 1,
            Self::Kill9Untold | Self::Paused => 5,
            Self::Rolling | Self::RollingCli => 10,
        };
        (runs / share).max(1)
    }

    /// How many seconds leases live.
    pub fn lease_s(self) -> u64 {
        match self {
            Self::Kill9Untold | Self::Paused => 3,
            Self::Kill9 | Self::Sigterm | Self::Rolling | Self::RollingCli => 30,
        }
    }

    fn told(self) -> Told {
        if self == Self::Kill9Untold { Told::ByTheLease } else { Told::AtOnce }
    }
}

/// Builds for release, runs every variant, prints a table. The exit code says whether everything was as it should be.
pub fn run(options: &FailoverOptions, progress: &mut dyn FnMut(&str)) -> Result<ExitCode> {
    let programs = Programs::build(Speed::Release, progress)?;
    let interrupt = Interrupt::listen().context("cannot listen for Ctrl-C")?;
    let rows = match measure_until(options, &programs, &interrupt, progress) {
        Err(_) if interrupt.raised() => return Ok(ExitCode::from(130)),
        rows => rows?,
    };
    print!("{}", report::table(&rows));
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&rows)? + "\n";
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let missed: Vec<_> = rows.iter().flat_map(Row::misses).collect();
    for miss in &missed {
        eprintln!("missed: {miss}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the variants with programs that are there, and gives a row for each.
///
/// # Errors
/// If a process does not do what it should; where its logs lie is told to `progress`.
pub fn measure(options: &FailoverOptions, programs: &Programs, progress: &mut dyn FnMut(&str)) -> Result<Vec<Row>> {
    measure_until(options, programs, &Interrupt::default(), progress)
}

fn measure_until(
    options: &FailoverOptions,
    programs: &Programs,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Row>> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let runs = options.runs.unwrap_or(if options.quick { RUNS_QUICK } else { RUNS });
    let variants = if options.variants.is_empty() { Variant::ALL.to_vec() } else { options.variants.clone() };
    let mut rows = Vec::new();
    for variant in variants {
        rows.push(vary(
            &Plan { variant, runs: variant.runs(runs), seed, keep: options.keep },
            programs,
            interrupt,
            progress,
        )?);
    }
    Ok(rows)
}

/// What is to be run.
struct Plan {
    variant: Variant,
    runs: u32,
    seed: u64,
    keep: bool,
}

/// All runs of one variant, on one broker.
fn vary(plan: &Plan, programs: &Programs, interrupt: &Interrupt, progress: &mut dyn FnMut(&str)) -> Result<Row> {
    let Plan { variant, runs, seed, keep } = *plan;
    let name = variant.name();
    progress(&format!("{name}: {runs} runs, --seed {seed}"));
    let lease_s = variant.lease_s();
    let mut stage =
        Stage::open(programs, StageOptions { brokers: Brokers::One, told: variant.told(), lease_s }, interrupt)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let began = Instant::now();
    let mut row = Row::new(variant);
    for number in 1..=runs {
        let measured = run::run(&mut stage, variant, number, &mut rng);
        match measured {
            Ok(measured) => {
                let bad = row.add(measured);
                progress(&format!("{name} {number}/{runs}  {row}  ({} s)", began.elapsed().as_secs()));
                for complaint in &bad {
                    progress(&format!("  {complaint}"));
                }
            }
            Err(error) if interrupt.raised() => return Err(error),
            Err(error) => {
                let kept = stage.keep();
                progress(&format!("{name} {number}/{runs} failed; everything it wrote is in {}", kept.display()));
                return Err(error.context(format!("{name}, run {number}, seed {seed}")));
            }
        }
    }
    if keep || !row.is_clean() {
        progress(&format!("everything it wrote is in {}; again with --seed {seed}", stage.keep().display()));
    }
    Ok(row)
}
