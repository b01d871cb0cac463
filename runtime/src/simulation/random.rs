//! The one source of chance.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::ownership::machine::simulation;

/// The generator of the ownership simulation. Clones go on with one sequence.
#[derive(Clone, Debug)]
pub(super) struct Random(Arc<Mutex<simulation::Random>>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(simulation::Random::new(seed))))
    }

    pub(super) fn next(&self) -> u64 {
        self.0.lock().next()
    }

    /// A number from `low` up to, but not including, `high`.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        self.0.lock().between(low, high)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.0.lock().chance(percent)
    }

    /// One of them.
    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.between(0, of.len() as u64) as usize]
    }
}
