//! The arithmetic of restarts, without clocks or actors: how many, how long to wait, which children.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::{Backoff, Restart, Strategy};

/// The restarts of a group that still count.
pub(super) struct Budget {
    intensity: usize,
    within: Duration,
    // Holds at most `intensity` entries.
    restarts: VecDeque<Instant>,
}

impl Budget {
    pub(super) fn new(restart: &Restart) -> Self {
        Self {
            intensity: usize::try_from(restart.intensity).unwrap_or(usize::MAX),
            within: restart.within,
            restarts: VecDeque::new(),
        }
    }

    /// Counts one restart, unless that would be one too many.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        while let Some(oldest) = self.restarts.front()
            && now.saturating_duration_since(*oldest) >= self.within
        {
            self.restarts.pop_front();
        }
        let admitted = self.restarts.len() < self.intensity;
        if admitted {
            self.restarts.push_back(now);
        }
        admitted
    }

    /// How many restarts count just now.
    pub(super) fn spent(&self) -> u32 {
        u32::try_from(self.restarts.len()).unwrap_or(u32::MAX)
    }
}

/// The wait after this many failures in a row, of which there is at least one.
pub(super) fn delay(backoff: Backoff, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    backoff.first.saturating_mul(1 << doublings).min(backoff.max)
}

/// Which of `all` children are restarted when one fails.
pub(super) fn affected(strategy: Strategy, failed: usize, all: usize) -> Range<usize> {
    match strategy {
        Strategy::OneForOne => failed..failed + 1,
        Strategy::OneForAll => 0..all,
        Strategy::RestForOne => failed..all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(intensity: u32, seconds: u64) -> Restart {
        Restart { intensity, within: Duration::from_secs(seconds), ..Restart::default() }
    }

    #[test]
    fn h7_intensity_counts_restarts_in_a_sliding_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = Budget::new(&rule(2, 10));
        assert!(budget.admit(at(0)));
        assert!(budget.admit(at(4)));
        assert!(!budget.admit(at(9)), "a third within 10 s");
        assert_eq!(budget.spent(), 2);
        assert!(budget.admit(at(10)), "the first no longer counts");
        assert!(!budget.admit(at(13)));
        assert!(budget.admit(at(14)));
        assert!(!Budget::new(&rule(0, 10)).admit(start), "none is borne");
    }

    #[test]
    fn h7_backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff::default();
        let waits = [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        for (failures, millis) in (1..).zip(waits) {
            assert_eq!(delay(backoff, failures), Duration::from_millis(millis));
        }
        assert_eq!(delay(backoff, u32::MAX), backoff.max);
        let widest = Backoff { first: Duration::MAX, max: Duration::MAX };
        assert_eq!(delay(widest, 9), Duration::MAX);
    }
}
