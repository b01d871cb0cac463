//! The proof of the node's lease: until when its keyed actors may be served.

use std::sync::atomic::{AtomicU64, Ordering};

use coarsetime::Instant;

/// Read before every turn, so that a node which was frozen past its lease serves nothing on waking,
/// however late the thread that renews the lease wakes up.
///
/// The clock is the coarse monotonic one: reading it costs a few nanoseconds and is at most some
/// milliseconds late, far below the margin that the lease is ended before its time.
#[derive(Debug)]
pub(crate) struct Proof {
    origin: Instant,
    /// Milliseconds since the origin; 0 while the lease cannot be proved.
    until: AtomicU64,
}

impl Proof {
    /// A proof that has not been given yet.
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Whether the lease is proved now.
    pub(crate) fn holds(&self) -> bool {
        self.now() < self.until.load(Ordering::SeqCst)
    }

    /// The time now, to count a proof from: read before whatever says how long it lasts, so that a thread which is
    /// held up in between proves less, never more.
    pub(crate) fn reading(&self) -> u64 {
        self.now()
    }

    /// The lease is proved for that many milliseconds from a [`reading`](Self::reading).
    pub(crate) fn extend(&self, reading: u64, left_ms: u64) {
        self.until.store(reading.saturating_add(left_ms), Ordering::SeqCst);
    }

    /// The lease is not proved any more.
    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// How long the node has lived, in seconds.
    pub(crate) fn seconds(&self) -> u32 {
        u32::try_from(self.now() / 1_000).unwrap_or(u32::MAX)
    }

    fn now(&self) -> u64 {
        #[cfg(test)]
        if let Some(now) = crate::simulation::wall_ms() {
            return now;
        }
        Instant::now().duration_since(self.origin).as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_ends_by_itself_and_at_once_when_told() {
        let proof = Proof::new();
        assert!(!proof.holds());
        proof.extend(proof.reading(), 60_000);
        assert!(proof.holds());
        proof.end();
        assert!(!proof.holds());
        proof.extend(proof.reading(), 0);
        assert!(!proof.holds());
        let reading = proof.reading();
        std::thread::sleep(std::time::Duration::from_millis(100));
        proof.extend(reading, 50);
        assert!(!proof.holds(), "it counts from the reading");
    }
}
