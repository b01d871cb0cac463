//! The registry: the actors of one type that are in memory on this node, found by partition and key.
//!
//! One map for each partition: to give a partition away is to look at its own actors, however many the others have.
//! No lock of it is ever held while an actor's own code runs, nor given out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::slot::Slot;
use crate::key::Key;

/// Lock order: a partition's map before a slot in it, never the other way round.
pub(super) struct Registry<A> {
    partitions: Box<[RwLock<Slots<A>>]>,
    resident: AtomicUsize,
}

type Slots<A> = HashMap<Key, Arc<Slot<A>>, ahash::RandomState>;

impl<A> Registry<A> {
    pub(super) fn new(partitions: u16, hasher: &ahash::RandomState) -> Self {
        let maps = (0..partitions).map(|_| RwLock::new(HashMap::with_hasher(hasher.clone())));
        Self { partitions: maps.collect(), resident: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.resident.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, partition: u16, key: &Key) -> Option<Arc<Slot<A>>> {
        self.partitions.get(usize::from(partition))?.read().get(key).cloned()
    }

    /// The slot of a key, made if there is none; `None` for a partition that the app does not have.
    pub(super) fn get_or_make(&self, partition: u16, key: &Key) -> Option<Arc<Slot<A>>> {
        let mut slots = self.partitions.get(usize::from(partition))?.write();
        Some(match slots.entry(key.clone()) {
            Entry::Occupied(held) => held.get().clone(),
            Entry::Vacant(place) => {
                self.resident.fetch_add(1, Ordering::Relaxed);
                place.insert(Arc::new(Slot::new(key.clone(), partition))).clone()
            }
        })
    }

    /// Takes a slot out, if it is still the one that is held.
    pub(super) fn remove(&self, slot: &Arc<Slot<A>>) {
        let Some(slots) = self.partitions.get(usize::from(slot.partition())) else { return };
        let mut slots = slots.write();
        if slots.get(slot.key()).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            slots.remove(slot.key());
            self.resident.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Keeps the slots of a partition for which `keep` is true.
    pub(super) fn retain(&self, partition: u16, mut keep: impl FnMut(&Arc<Slot<A>>) -> bool) {
        let Some(slots) = self.partitions.get(usize::from(partition)) else { return };
        let mut slots = slots.write();
        let before = slots.len();
        slots.retain(|_, slot| keep(slot));
        self.resident.fetch_sub(before - slots.len(), Ordering::Relaxed);
    }

    /// Looks at every slot of a partition.
    pub(super) fn each(&self, partition: u16, look: impl FnMut(&Arc<Slot<A>>)) {
        if let Some(slots) = self.partitions.get(usize::from(partition)) {
            slots.read().values().for_each(look);
        }
    }

    /// Looks at every slot there is.
    pub(super) fn each_of_all(&self, mut look: impl FnMut(&Arc<Slot<A>>)) {
        for slots in &self.partitions {
            slots.read().values().for_each(&mut look);
        }
    }
}
