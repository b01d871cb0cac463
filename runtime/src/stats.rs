//! What the runtime counts of its calls, and `nats micro stats` shows.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{AskError, Error};

/// The counts of one verb on one node.
#[derive(Debug, Default)]
pub(crate) struct VerbStats {
    /// Turns that ended and calls that were refused one, from this node and others.
    pub(crate) requests: AtomicU64,
    /// Those among them that came from this node and touched no broker.
    pub(crate) local: AtomicU64,
    /// Failures among them. A refusal is none: the actor was asked, and answered.
    pub(crate) errors: AtomicU64,
    /// Time from receipt to answer of calls from the wire, in nanoseconds.
    pub(crate) processing_ns: AtomicU64,
    /// Calls that this time was summed over.
    pub(crate) timed: AtomicU64,
    last_error: Mutex<String>,
}

impl VerbStats {
    pub(crate) fn ended<R>(&self, error: Option<&AskError<R>>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(AskError::Failed(error)) = error {
            self.error(format!("{}:{error}", error.kind().code()));
        }
    }

    pub(crate) fn failed(&self, error: &Error) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.error(format!("{}:{error}", error.kind().code()));
    }

    /// Counts an error of a call that is counted already.
    #[cfg(feature = "ractor")]
    pub(crate) fn note(&self, error: &Error) {
        self.error(format!("{}:{error}", error.kind().code()));
    }

    pub(crate) fn timed(&self, since: std::time::Instant) {
        let spent = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.processing_ns.fetch_add(spent, Ordering::Relaxed);
        self.timed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    fn error(&self, text: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = text;
    }
}
