//! The bucket: records with revisions, compare-and-set, and the log that every watch is shown. Heartbeats are kept apart,
//! in [`beats`](super::beats).

use std::collections::BTreeMap;

use crate::ownership::{Entry, Gone, Input, Key};

/// All records, and all that was ever written.
#[derive(Default)]
pub(crate) struct Bucket {
    records: BTreeMap<Key, Stored>,
    log: Vec<Input>,
}

struct Stored {
    revision: u64,
    /// `None` behind a marker.
    entry: Option<Entry>,
}

impl Bucket {
    /// The newest revision.
    pub(crate) fn revision(&self) -> u64 {
        self.log.len() as u64
    }

    /// Writes by compare-and-set; `None` is a refusal.
    pub(crate) fn put(&mut self, entry: Entry, expect: u64) -> Option<u64> {
        let key = entry.key();
        if self.known(&key) != expect {
            return None;
        }
        let revision = self.revision() + 1;
        self.log.push(Input::Record { revision, entry: entry.clone() });
        self.records.insert(key, Stored { revision, entry: Some(entry) });
        Some(revision)
    }

    /// Deletes by compare-and-set.
    pub(crate) fn delete(&mut self, key: &Key, expect: u64) -> Option<u64> {
        (self.known(key) == expect && expect > 0).then(|| self.mark(key, Gone::Deleted))
    }

    /// Deletes whatever is there; false if nothing is.
    pub(crate) fn purge(&mut self, key: &Key) -> bool {
        let there = self.entry(key).is_some();
        if there {
            self.mark(key, Gone::Deleted);
        }
        there
    }

    /// What a watch that stands at `after` has not shown.
    pub(crate) fn since(&self, after: u64) -> &[Input] {
        self.log.get(after as usize..).unwrap_or_default()
    }

    /// Everything that is there, in the order of revisions.
    pub(crate) fn snapshot(&self) -> Vec<Input> {
        let mut shown: Vec<_> = self.records.values().map(|stored| stored.revision).collect();
        shown.sort_unstable();
        shown.into_iter().filter_map(|revision| self.log.get(revision as usize - 1).cloned()).collect()
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.records.get(key)?.entry.as_ref()
    }

    pub(crate) fn known(&self, key: &Key) -> u64 {
        self.records.get(key).map_or(0, |stored| stored.revision)
    }

    fn mark(&mut self, key: &Key, reason: Gone) -> u64 {
        let revision = self.revision() + 1;
        self.log.push(Input::Deleted { revision, key: key.clone(), reason });
        self.records.insert(key.clone(), Stored { revision, entry: None });
        revision
    }
}
