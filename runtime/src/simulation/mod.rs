//! Whole nodes under one seed: real nodes, real actors and the memory broker on one thread, whose time is tokio's
//! paused clock, so that a minute of crashes, pauses, cuts and lost answers takes a moment and replays exactly.
//!
//! Delays, losses and faults come from one generator: `GREENROOM_SEED=n` runs that seed alone and prints its trace,
//! `GREENROOM_SEEDS=n` tries that many (`cargo xtask sim`). What decides here and nowhere else:
//!
//! - [`clock`]: the time; [`frost`]: nodes that stand still; [`link`]: the way to the broker, its delays and losses
//! - [`list`]: the actor; [`history`]: what its callers saw, and what must be true of it
//! - [`world`]: the nodes, the callers and the faults
//!
//! The ownership machine has a simulation of its own, which is faster and knows nothing of actors.

mod clock;
mod frost;
mod history;
mod link;
mod list;
mod random;
mod world;

pub(crate) use self::clock::{seed, wall_ms};
pub(crate) use self::frost::Frost;
pub(crate) use self::link::Rig;
use self::world::{Plan, run};
use crate::ownership::machine::simulation::for_seeds;

/// Seeds of the everyday run.
const SEEDS: u64 = 1_000;

/// Whatever happens to nodes, connections and the broker: nothing that was acknowledged is lost, nothing takes effect
/// twice, nobody reads what is old, and all is well again soon after.
#[test]
fn any_faults_keep_the_promises() {
    let tally = std::sync::Mutex::new(std::collections::BTreeMap::<&str, u64>::new());
    for_seeds(SEEDS, |seed, trace| {
        let outcome = run(Plan::random(seed), trace)?;
        let mut tally = tally.lock().map_err(|_| "another seed panicked")?;
        outcome.tally.iter().for_each(|(name, count)| *tally.entry(*name).or_default() += count);
        Ok(())
    });
    // A run in which nothing went wrong would prove nothing.
    let tally = tally.into_inner().expect("no seed panicked");
    println!("{tally:#?}");
    assert!(tally.contains_key("ends with echoes") || std::env::var_os("GREENROOM_SEED").is_some(), "nobody was told");
}

/// The same seed is the same run, to the last answer.
#[test]
fn a_seed_replays() {
    let digest = |seed| run(Plan::random(seed), false).map(|outcome| outcome.digest);
    for seed in 0..10 {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
}
