//! The keys of an actor type that are always on: they never leave memory to make room.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::key::Key;

/// Usually empty, and then it is not looked at.
#[derive(Default)]
pub(crate) struct Pinned {
    keys: RwLock<HashSet<Key>>,
    count: AtomicUsize,
}

impl Pinned {
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.count.load(Ordering::SeqCst) != 0 && self.keys.read().contains(key)
    }

    pub(crate) fn set(&self, keys: HashSet<Key>) {
        let mut held = self.keys.write();
        self.count.store(keys.len(), Ordering::SeqCst);
        *held = keys;
    }
}
