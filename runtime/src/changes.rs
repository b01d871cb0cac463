//! Changes: a count that goes up, and can be waited for.
//!
//! Whoever waits is woken in the order of waiting. A `watch` wakes in any order, and then a simulation would not be the
//! same twice.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A count of changes. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicU64,
    notify: Notify,
}

/// How many of them somebody has seen.
#[derive(Debug)]
pub(crate) struct SeenChanges {
    of: Changes,
    seen: u64,
}

impl Changes {
    /// Something has changed.
    pub(crate) fn note(&self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::SeqCst)
    }

    /// One who has seen all so far.
    pub(crate) fn seen(&self) -> SeenChanges {
        SeenChanges { of: self.clone(), seen: self.count() }
    }
}

impl SeenChanges {
    /// All so far are seen.
    pub(crate) fn mark_unchanged(&mut self) {
        self.seen = self.of.count();
    }

    /// Waits for one that was not seen, and sees it. Safe to cancel.
    pub(crate) async fn changed(&mut self) {
        let inner = self.of.0.clone();
        loop {
            let mut woken = pin!(inner.notify.notified());
            // Before the look: what changes after it wakes.
            woken.as_mut().enable();
            let count = inner.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_change_is_missed() {
        let changes = Changes::default();
        let mut seen = changes.seen();
        changes.note();
        seen.changed().await;
        let waiting = tokio::spawn(async move {
            seen.changed().await;
            seen
        });
        tokio::task::yield_now().await;
        changes.note();
        let mut seen = waiting.await.expect("it was woken");
        changes.note();
        seen.mark_unchanged();
        let soon = tokio::time::timeout(std::time::Duration::from_millis(20), seen.changed());
        assert!(soon.await.is_err(), "nothing has changed since");
    }
}
