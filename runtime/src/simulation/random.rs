//! The one source of chance, and runs over many seeds.

use std::sync::Arc;

use parking_lot::Mutex;

/// A splitmix64. Clones go on with one sequence.
#[derive(Clone, Debug)]
pub(super) struct Random(Arc<Mutex<u64>>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    pub(super) fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to, but not including, `high`.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// One of them.
    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.between(0, of.len() as u64) as usize]
    }
}

/// Runs `run` for each seed, or for `GREENROOM_SEED` alone, on two threads, and names the seeds that fail.
pub(super) fn for_seeds(count: u64, run: impl Fn(u64, bool) -> Result<(), String> + Send + Sync) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("GREENROOM_SEED") {
        return run(seed, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let count = number("GREENROOM_SEEDS").unwrap_or(count);
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
