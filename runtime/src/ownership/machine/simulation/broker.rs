//! The broker: a bucket of history 1 with revisions, compare-and-set and TTL, whose markers vanish after a while.

use std::collections::{BTreeMap, BTreeSet};

use crate::ownership::machine::Gone;
use crate::ownership::record::{Entry, Key, Lease, NodeId};

/// How long the marker of what expired stays. Shorter than a lease, so that a node that was away misses some.
const MARKER_MS: u64 = 3_000;
/// That of a deletion: longer than a write can be late, or a watch, while nobody notices a lost connection.
const DELETED_MS: u64 = 30_000;

/// The bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Broker {
    pub(super) up: bool,
    pub(super) revision: u64,
    keys: BTreeMap<Key, Stored>,
    log: Vec<Key>,
    /// Writes of claims, changes of holder and releases.
    pub(super) claim_writes: u64,
    pub(super) moves: u64,
    pub(super) releases: u64,
    /// Whose lease has ended at least once, by time or by somebody's hand.
    pub(super) lapsed: BTreeSet<NodeId>,
}

#[derive(Clone, Debug)]
struct Stored {
    revision: u64,
    value: Result<Entry, Gone>,
    ends_at: Option<u64>,
}

/// What the watch shows.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) key: Key,
    pub(super) revision: u64,
    pub(super) value: Result<Entry, Gone>,
}

impl Broker {
    pub(super) fn new() -> Self {
        Self { up: true, ..Self::default() }
    }

    /// Writes by compare-and-set. `Err` carries what a check found wrong, `Ok(None)` is a refusal.
    pub(super) fn put(
        &mut self,
        by: &NodeId,
        entry: Entry,
        expect: u64,
        ends_at: Option<u64>,
    ) -> Result<Option<u64>, String> {
        let key = entry.key();
        let before = self.keys.get(&key);
        if before.map_or(0, |stored| stored.revision) != expect {
            return Ok(None);
        }
        if let Entry::Claim(part, claim) = &entry {
            let old = match before.map(|stored| &stored.value) {
                Some(Ok(Entry::Claim(_, old))) => Some(old),
                _ => None,
            };
            let (holder, epoch) = old.map_or((None, 0), |old| (old.node.clone(), old.epoch));
            let grows = u64::from(claim.node.is_some() && claim.node != holder);
            let taken_up = u64::from(claim.node.is_some() && holder.is_none());
            if claim.epoch != epoch + grows.max(taken_up) {
                return Err(format!(
                    "{part}: epoch {epoch} of {holder:?} became {} of {:?} by {by}",
                    claim.epoch, claim.node
                ));
            }
            let released = holder.is_none() && claim.from == old.and_then(|old| old.from.clone());
            if claim.from.is_some() && holder.as_ref() != Some(by) && !released {
                return Err(format!("{part}: {by} gave away what {holder:?} holds"));
            }
            self.claim_writes += 1;
            self.moves += u64::from(claim.node.is_some() && claim.node != holder && old.is_some());
            self.releases += u64::from(claim.node.is_none());
        }
        Ok(Some(self.store(key, Ok(entry), ends_at)))
    }

    /// Deletes a key, with a marker that vanishes. `None` is a refusal.
    pub(super) fn delete(&mut self, key: &Key, expect: Option<u64>, now: u64) -> Option<u64> {
        let stored = self.keys.get(key)?;
        if expect.is_some_and(|expect| expect != stored.revision) || (expect.is_none() && stored.value.is_err()) {
            return None;
        }
        Some(self.store(key.clone(), Err(Gone::Deleted), Some(now + DELETED_MS)))
    }

    /// Ends what has run out by `now`: leases become markers, markers vanish. True if there is something to show.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let over: Vec<Key> = self
            .keys
            .iter()
            .filter(|(_, stored)| stored.ends_at.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        let mut show = false;
        for key in over {
            if self.keys.get(&key).is_some_and(|stored| stored.value.is_ok()) {
                self.store(key, Err(Gone::Expired), Some(now + MARKER_MS));
                show = true;
            } else {
                self.keys.remove(&key);
            }
        }
        show
    }

    /// What a watch that stands at `after` has to show up to `until`: only what is still the last of its key.
    pub(super) fn shown(&self, after: u64, until: u64) -> Vec<Shown> {
        let revisions = (after + 1)..=until.min(self.revision);
        let shown = revisions.filter_map(|revision| {
            let key = self.log.get(usize::try_from(revision).ok()? - 1)?;
            let stored = self.keys.get(key).filter(|stored| stored.revision == revision)?;
            Some(Shown { key: key.clone(), revision, value: stored.value.clone() })
        });
        shown.collect()
    }

    pub(super) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.keys.get(key)?.value.as_ref().ok()
    }

    pub(super) fn revision_of(&self, key: &Key) -> u64 {
        self.keys.get(key).map_or(0, |stored| stored.revision)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.keys.values().filter_map(|stored| stored.value.as_ref().ok())
    }

    fn store(&mut self, key: Key, value: Result<Entry, Gone>, ends_at: Option<u64>) -> u64 {
        self.revision += 1;
        if let (Key::Lease(id), Err(_)) | (Key::Lease(id), Ok(Entry::Lease(_, Lease { ended_by: Some(_), .. }))) =
            (&key, &value)
        {
            self.lapsed.insert(id.clone());
        }
        self.log.push(key.clone());
        self.keys.insert(key, Stored { revision: self.revision, value, ends_at });
        self.revision
    }
}
