//! Gates: how a test holds a handler where it wants it, and learns that it is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use tokio::sync::{Semaphore, watch};

use super::ground::{QUIET, soon};

static GATES: LazyLock<Mutex<HashMap<String, Weak<Gate>>>> = LazyLock::new(Mutex::default);

/// A gate with a name of its own, which messages carry to the handlers that pass it.
pub(super) struct Gate {
    name: String,
    arrived: watch::Sender<usize>,
    passed: watch::Sender<usize>,
    inside: AtomicUsize,
    most: AtomicUsize,
    open: Semaphore,
}

/// Counts a handler that left, whether it ended or was cut.
struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    /// A closed gate.
    pub(super) fn closed() -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("gate-{}", LAST.fetch_add(1, Ordering::Relaxed));
        let gate = Arc::new(Self {
            name: name.clone(),
            arrived: watch::Sender::new(0),
            passed: watch::Sender::new(0),
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            open: Semaphore::new(0),
        });
        GATES.lock().expect("no panic in it").insert(name, Arc::downgrade(&gate));
        gate
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// For handlers: the gate of this name, as long as its test holds it.
    pub(super) fn named(name: &str) -> Option<Arc<Self>> {
        GATES.lock().expect("no panic in it").get(name).and_then(Weak::upgrade)
    }

    /// For handlers: waits until the gate lets one through.
    pub(super) async fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let _inside = Inside(self);
        self.arrived.send_modify(|arrived| *arrived += 1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
        self.passed.send_modify(|passed| *passed += 1);
    }

    /// Lets that many through.
    pub(super) fn open(&self, handlers: usize) {
        self.open.add_permits(handlers);
    }

    /// Waits until that many handlers have come, in all.
    pub(super) async fn arrived(&self, handlers: usize) {
        let mut arrived = self.arrived.subscribe();
        drop(soon("handlers arrive at the gate", arrived.wait_for(|arrived| *arrived >= handlers)).await);
    }

    /// Waits until that many handlers have passed, in all.
    pub(super) async fn passed(&self, handlers: usize) {
        let mut passed = self.passed.subscribe();
        drop(soon("handlers pass the gate", passed.wait_for(|passed| *passed >= handlers)).await);
    }

    /// How many handlers have come, in all, after a while in which another could have.
    pub(super) async fn arrivals_after_quiet(&self) -> usize {
        tokio::time::sleep(QUIET).await;
        *self.arrived.borrow()
    }

    /// How many handlers were at the gate together, at most.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Ok(mut gates) = GATES.lock() {
            gates.remove(&self.name);
        }
    }
}
