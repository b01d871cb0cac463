//! The time of a simulation: tokio's paused clock, also where the wall's is asked for. And chance, where a pause wants it.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    static SEEDS: Cell<u64> = const { Cell::new(0) };
}

/// What the wall shows when a simulation begins, in milliseconds since 1970.
const BEGINS_MS: u64 = 1_800_000_000_000;

/// A simulation runs on this thread from now on.
pub(super) fn begin() {
    BEGAN.set(Some(Instant::now()));
    SEEDS.set(0);
}

/// It has ended.
pub(super) fn end() {
    BEGAN.set(None);
}

/// How long it has run.
pub(super) fn elapsed_ms() -> u64 {
    BEGAN.get().map_or(0, |began| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// What is as good as chance and the same each time, if a simulation runs on this thread.
pub(crate) fn seed() -> Option<u64> {
    BEGAN.get().map(|_| SEEDS.replace(SEEDS.get() + 1))
}

/// The wall's time, if a simulation runs on this thread.
pub(crate) fn wall_ms() -> Option<u64> {
    BEGAN.get().map(|_| BEGINS_MS + elapsed_ms())
}
