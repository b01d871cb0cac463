//! The budget: how much memory the durable actors of one type may take, by estimate, and who was used how long ago.
//!
//! Only a host that has a budget keeps this. It knows keys and sizes, and takes nobody out of memory itself.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::key::Key;

/// What an actor takes beside its state and its window: slot, map, ledger, subject. An estimate.
pub(super) const FIXED_BYTES: usize = 1_024;

/// See the module's head.
pub(super) struct Budget {
    bytes: usize,
    ages: Mutex<Ages>,
}

#[derive(Default)]
struct Ages {
    held: usize,
    last: u64,
    by_key: HashMap<Key, (u64, usize), ahash::RandomState>,
    by_age: BTreeMap<u64, Key>,
}

impl Ages {
    fn forget(&mut self, key: &Key) {
        if let Some((age, size)) = self.by_key.remove(key) {
            self.by_age.remove(&age);
            self.held -= size;
        }
    }
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, ages: Mutex::default() }
    }

    /// Notes that an actor was used just now, and its size. Returns who has to leave for it, the least recently used
    /// first: they count no more. The one that was used stays, whatever its size.
    pub(super) fn note(&self, key: &Key, size: usize) -> Vec<Key> {
        let mut ages = self.ages.lock();
        ages.forget(key);
        ages.last += 1;
        let age = ages.last;
        ages.held += size;
        ages.by_key.insert(key.clone(), (age, size));
        ages.by_age.insert(age, key.clone());
        let mut leaving = Vec::new();
        while ages.held > self.bytes && ages.by_age.len() > 1 {
            let Some((_, oldest)) = ages.by_age.pop_first() else { break };
            ages.forget(&oldest);
            leaving.push(oldest);
        }
        leaving
    }

    /// Notes that an actor has left.
    pub(super) fn forget(&self, key: &Key) {
        self.ages.lock().forget(key);
    }

    /// The bytes that are held, by estimate.
    pub(super) fn held(&self) -> usize {
        self.ages.lock().held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f3_the_least_recently_used_leave_first_and_no_more_than_must() {
        let budget = Budget::new(100);
        let key = |name: &str| Key::new(name).expect("a key");
        assert_eq!(budget.note(&key("a"), 40), []);
        assert_eq!(budget.note(&key("b"), 40), []);
        assert_eq!(budget.note(&key("a"), 45), [], "its size is counted once");
        assert_eq!(budget.note(&key("c"), 30), [key("b")], "a was used since");
        assert_eq!(budget.held(), 75);
        assert_eq!(budget.note(&key("d"), 400), [key("a"), key("c")], "what was used just now stays");
        assert_eq!(budget.note(&key("e"), 1), [key("d")]);
        budget.forget(&key("e"));
        budget.forget(&key("e"));
        assert_eq!(budget.held(), 0);
    }
}
