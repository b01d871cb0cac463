//! Sums of what was measured.

/// The spread of some times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many there were.
    pub count: usize,
    /// Half of them were at most this, in milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred were at most this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    /// Of these times, in microseconds, in any order. All zero if there are none.
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let at = |share: f64| {
            let rank = (share * times_us.len() as f64).ceil() as usize;
            let time = times_us.get(rank.saturating_sub(1)).copied().unwrap_or(0);
            (time as f64 / 10.0).round() / 100.0
        };
        Self { count: times_us.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}
