//! Pauses between attempts: each about twice as long as the last, up to a bound, and none quite like another's. And the
//! wait for a moment that there may not be.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// The pauses of one that tries again and again.
#[derive(Debug)]
pub(crate) struct Pauses {
    first: Duration,
    max: Duration,
    next: Duration,
    seed: u64,
    number: u64,
}

impl Pauses {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first, seed: seed(), number: 0 }
    }

    /// The next pause: between three quarters of its length and all of it, so that those who failed together do not
    /// come back together.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.next.min(self.max);
        self.next = (whole * 2).min(self.max);
        self.number += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.number).hash(&mut hasher);
        let share = (hasher.finish() % 1_024) as u32;
        whole * 3 / 4 + whole / 4 * share / 1_024
    }

    /// It went well: the next pause is the first again.
    pub(crate) fn begin_anew(&mut self) {
        self.next = self.first;
    }
}

fn seed() -> u64 {
    #[cfg(test)]
    if let Some(seed) = crate::simulation::seed() {
        return seed;
    }
    RandomState::new().hash_one(0)
}

/// Waits until then; for ever if there is nothing to wait for. Safe to cancel.
pub(crate) async fn reached(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_bound_and_begin_anew() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut pauses = Pauses::new(first, max);
        for whole in [100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis) {
            let pause = pauses.next();
            assert!(pause >= whole * 3 / 4 && pause <= whole, "{pause:?} of {whole:?}");
        }
        pauses.begin_anew();
        assert!(pauses.next() <= first);
    }
}
