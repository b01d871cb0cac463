//! A thousand crash orders in a second: machines against a broker made of a map, under a seed.
//!
//! Time, delays, losses and faults come from one splitmix64, so that a seed replays: `GREENROOM_SEED=n` runs that one
//! alone and prints its trace, and `GREENROOM_SEEDS=n` tries that many. [`broker`] keeps revisions, compare-and-set,
//! TTL, markers that vanish and a watch that shows only the last value of a key; [`world`] plays the nodes, [`faults`]
//! what goes wrong, [`links`] their connections and what the broker says of those, [`lags`] their watches, [`driver`]
//! their drivers; [`checks`] holds what must be true at every instant, and at the end, and [`rules`] aims faults at one
//! rule each.

mod broker;
mod checks;
mod driver;
mod faults;
mod lags;
mod links;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;

use self::faults::Fault;
use self::world::{Plan, World};

/// Seeds of the everyday run. The library's own tests, which nothing optimises, try the first of them; `runtime/scale`
/// compiles the same source with optimisation, and there all are tried in seconds.
fn seeds() -> u64 {
    if env!("CARGO_PKG_NAME") == "greenroom" { 400 } else { 2_000 }
}

/// The generator of all randomness here.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to, but not including, `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }
}

/// Runs `run` for each seed, or for `GREENROOM_SEED` alone, on two threads, and names the seeds that fail.
pub(crate) fn for_seeds(count: u64, run: impl Fn(u64, bool) -> Result<(), String> + Send + Sync) {
    if let Some(seed) = std::env::var("GREENROOM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let count = std::env::var("GREENROOM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(count);
    let run = &run;
    let failed: Vec<String> = std::thread::scope(|scope| {
        let half = |odd: u64| {
            move || {
                let seeds = (0..count).filter(|seed| seed % 2 == odd);
                let failed =
                    seeds.filter_map(|seed| run(seed, false).err().map(|error| format!("seed {seed}: {error}")));
                failed.take(3).collect::<Vec<_>>()
            }
        };
        let threads = [scope.spawn(half(0)), scope.spawn(half(1))];
        threads.into_iter().flat_map(|thread| thread.join().expect("a simulation panicked")).collect()
    });
    assert!(failed.is_empty(), "GREENROOM_SEED=n replays one:\n{}", failed.join("\n"));
}

/// Safety at every instant and liveness at the end, under everything at once.
#[test]
fn any_order_of_faults() {
    let tally = Mutex::new(BTreeMap::<_, u64>::new());
    for_seeds(seeds(), |seed, trace| {
        let mut world = World::new(seed, Plan::random(seed), trace);
        world.run_faults(30_000)?;
        world.heal();
        world.run_for(32_000)?;
        world.check_settled()?;
        let writes = world.broker.claim_writes;
        world.run_for(8_000)?;
        if world.broker.claim_writes != writes {
            return Err("claims are still written after everything settled".to_owned());
        }
        let mut tally = tally.lock().map_err(|_| "another seed panicked")?;
        world.tally.iter().for_each(|(name, count)| *tally.entry(*name).or_default() += count);
        world.check_settled()
    });
    // A run in which nothing went wrong would prove nothing.
    let tally = tally.into_inner().expect("no seed panicked");
    println!("{tally:#?}");
    assert!(tally.len() == 26 || std::env::var_os("GREENROOM_SEED").is_some(), "something never happened: {tally:?}");
}

/// Whatever the broker's outage lasts, no claim changes its holder because of it.
#[test]
fn an_outage_moves_nothing() {
    for_seeds(150, |seed, trace| {
        let mut world = World::new(seed, Plan::quiet(2 + (seed % 5) as usize), trace);
        world.run_for(25_000)?;
        world.check_settled()?;
        let moves = world.broker.moves;
        let lasts = world.random.between(500, 30_000);
        world.fault(Fault::Outage(lasts));
        world.run_for(lasts + 30_000)?;
        world.check_settled()?;
        if world.broker.moves != moves {
            return Err(format!("{} claims moved in an outage of {lasts} ms", world.broker.moves - moves));
        }
        Ok(())
    });
}

/// A claim goes straight to the heir: each partition of a node that dies moves once, to where it stays.
#[test]
fn each_partition_of_a_dead_node_moves_once() {
    for_seeds(100, |seed, trace| {
        // With and without the broker's word.
        let plan = Plan { tells: seed % 2 == 0, ..Plan::quiet(4) };
        let mut world = World::new(seed, plan, trace);
        world.run_for(25_000)?;
        world.check_settled()?;
        let (moves, held) = (world.broker.moves, world.held_by(0));
        world.fault(Fault::Crash(0));
        world.run_for(25_000)?;
        world.check_settled()?;
        if world.broker.moves != moves + held {
            return Err(format!("{held} partitions lost their node, {} moved", world.broker.moves - moves));
        }
        Ok(())
    });
}

/// With the broker's word nobody waits for a lease: each partition of a node that dies has moved within two seconds.
#[test]
fn the_brokers_word_is_quick() {
    for_seeds(100, |seed, trace| {
        let mut world = World::new(seed, Plan::quiet(2 + (seed % 4) as usize), trace);
        world.run_for(25_000)?;
        world.check_settled()?;
        let (moves, held) = (world.broker.moves, world.held_by(0));
        world.fault(Fault::Crash(0));
        world.run_for(2_000)?;
        if world.broker.moves != moves + held {
            return Err(format!("{held} partitions lost their node, {} moved", world.broker.moves - moves));
        }
        world.check_settled()
    });
}

/// A drain hands everything over, releases nothing, moves each partition once, and ends.
#[test]
fn a_drain_hands_over() {
    for_seeds(100, |seed, trace| {
        let mut world = World::new(seed, Plan::quiet(3), trace);
        world.run_for(25_000)?;
        world.check_settled()?;
        let (moves, held) = (world.broker.moves, world.held_by(1));
        world.fault(Fault::Drain(1));
        world.run_for(20_000)?;
        world.check_settled()?;
        if world.broker.moves != moves + held || world.broker.releases > 0 {
            return Err(format!(
                "{held} to hand over, {} moves, {} releases",
                world.broker.moves - moves,
                world.broker.releases
            ));
        }
        Ok(())
    });
}

/// The same seed is the same run, to the last effect.
#[test]
fn a_seed_replays() {
    let trace = |seed| {
        let mut world = World::new(seed, Plan::random(seed), false);
        drop(world.run_faults(20_000));
        (world.digest, world.broker.revision, world.steps)
    };
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}
