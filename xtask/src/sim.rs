//! `cargo xtask sim`: the seeded simulations of the runtime's own tests, over as many seeds as one likes.

use std::time::Instant;

use anyhow::{Result, ensure};

/// The simulations, as the test harness names them: whole nodes, and the ownership machine alone.
const SIMULATIONS: [&str; 2] = ["simulation::any_faults_keep_the_promises", "ownership::machine::simulation"];

/// What is simulated.
pub struct SimOptions {
    /// Seeds 0 to this, of each simulation.
    pub seeds: u64,
    /// One seed alone, with its trace.
    pub seed: Option<u64>,
    /// Whole nodes only.
    pub nodes_only: bool,
}

/// Runs them, optimised. A seed that fails is named, with what went wrong.
pub fn run(options: &SimOptions, progress: &mut dyn FnMut(&str)) -> Result<()> {
    ensure!(options.seeds > 0, "there is nothing to simulate: give --seeds 1 or more");
    progress("building the simulation for release");
    let chosen = if options.nodes_only || options.seed.is_some() { &SIMULATIONS[..1] } else { &SIMULATIONS[..] };
    let mut command = crate::cargo();
    command.args(["test", "--quiet", "--release", "--package", "greenroom", "--lib", "--"]).args(chosen);
    command.args(["--nocapture", "--test-threads", "1"]);
    match options.seed {
        Some(seed) => command.env("GREENROOM_SEED", seed.to_string()),
        None => command.env("GREENROOM_SEEDS", options.seeds.to_string()),
    };
    let began = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "a seed failed: cargo xtask sim --seed N replays one, with its trace");
    progress(&format!("all seeds passed in {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}
