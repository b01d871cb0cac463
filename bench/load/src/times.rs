//! How long calls took, by all callers together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::conversation::Spell;

/// Calls that a caller keeps to itself before it adds them to the others': a histogram of its own would be too large.
const OWN: usize = 64;
/// The longest time that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(600);

/// The histogram of all callers, in nanoseconds, to three digits.
pub(crate) struct Times(Arc<Mutex<Histogram<u64>>>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let all = Histogram::new_with_max(nanoseconds(LONGEST), 3)?;
        Ok(Self(Arc::new(Mutex::new(all))))
    }

    /// What one caller writes to.
    pub(crate) fn own(&self) -> OwnTimes {
        OwnTimes { own: Vec::with_capacity(OWN), all: Self(self.0.clone()) }
    }

    /// What it all came to. Callers must be gone: they add their last calls when they are dropped.
    pub(crate) fn spell(&self, took: Duration) -> Spell {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |share: f64| all.value_at_quantile(share) as f64 / 1e3;
        Spell { count: all.len(), seconds: took.as_secs_f64(), p50_us: at(0.5), p99_us: at(0.99) }
    }

    fn add(&self, some: &mut Vec<u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for time in some.drain(..) {
            all.saturating_record(time);
        }
    }
}

/// The calls of one caller.
pub(crate) struct OwnTimes {
    own: Vec<u64>,
    all: Times,
}

impl OwnTimes {
    pub(crate) fn keep(&mut self, time: Duration) {
        self.own.push(nanoseconds(time));
        if self.own.len() == OWN {
            self.all.add(&mut self.own);
        }
    }
}

impl Drop for OwnTimes {
    fn drop(&mut self) {
        self.all.add(&mut self.own);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_over_all_callers() -> anyhow::Result<()> {
        let times = Times::new()?;
        for caller in 0..100 {
            let mut own = times.own();
            for _ in 0..100 {
                own.keep(Duration::from_micros(if caller < 98 { 10 } else { 1_000 }));
            }
        }
        let spell = times.spell(Duration::from_secs(1));
        assert_eq!(spell.count, 10_000);
        assert!((spell.p50_us - 10.0).abs() < 0.1 && (spell.p99_us - 1_000.0).abs() < 10.0, "{spell:?}");
        Ok(())
    }
}
