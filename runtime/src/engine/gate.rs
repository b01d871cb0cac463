//! Gates: which partitions of an actor type this node serves, in one atomic each.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::proof::Proof;
use crate::key::Key;

/// Open for a partition while this node owns it. Read inside the lock of a slot, so that whoever
/// closes it and then looks at every slot has seen every turn that will run.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The epoch of the claim that is served, 0 if none is.
    epochs: Vec<AtomicU64>,
    /// The epoch of the claim that is served or was served last, 0 if none ever was.
    served: Vec<AtomicU64>,
    /// Whether the claim was taken without its holder's doing: that one may still have something on its way.
    contested: Vec<AtomicBool>,
    /// The node's lease, without which nothing is served.
    proof: Arc<Proof>,
    /// Keys whose last turn still runs at the node that handed their partition over.
    held: RwLock<HashSet<Key>>,
    /// How many those are: usually none, and then the set is not looked at.
    holding: AtomicUsize,
}

/// Why a gate does not let a call in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Another node owns the partition, or nobody yet.
    NotOwned,
    /// This node owns it but cannot prove its lease just now.
    Fenced,
}

impl Gate {
    pub(crate) fn new(partitions: u16, proof: Arc<Proof>) -> Self {
        Self {
            epochs: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            served: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            contested: (0..partitions).map(|_| AtomicBool::new(true)).collect(),
            proof,
            held: RwLock::new(HashSet::new()),
            holding: AtomicUsize::new(0),
        }
    }

    pub(crate) fn check(&self, partition: u16, key: &Key) -> Result<(), Shut> {
        if self.epoch(partition) == 0 || self.holds(key) {
            return Err(Shut::NotOwned);
        }
        if !self.is_proved() {
            return Err(Shut::Fenced);
        }
        Ok(())
    }

    /// Whether the node's lease is proved now.
    pub(crate) fn is_proved(&self) -> bool {
        self.proof.holds()
    }

    /// The epoch of the claim that is served; 0 if the partition is not.
    pub(crate) fn epoch(&self, partition: u16) -> u64 {
        self.epochs.get(usize::from(partition)).map_or(0, |epoch| epoch.load(Ordering::SeqCst))
    }

    /// The epoch under which turns run that were let in: those that a partition was given away under go on, and its heir
    /// holds their keys until they have ended. 0 if it was never served.
    pub(crate) fn epoch_of_turns(&self, partition: u16) -> u64 {
        self.served.get(usize::from(partition)).map_or(0, |epoch| epoch.load(Ordering::SeqCst))
    }

    /// Whether the claim was taken without its holder's doing.
    pub(crate) fn is_contested(&self, partition: u16) -> bool {
        self.contested.get(usize::from(partition)).is_none_or(|contested| contested.load(Ordering::SeqCst))
    }

    /// Lets calls in, under a claim that its last holder handed over or released (`planned`), or not.
    pub(crate) fn open(&self, partition: u16, epoch: u64, planned: bool) {
        if let Some(contested) = self.contested.get(usize::from(partition)) {
            contested.store(!planned, Ordering::SeqCst);
        }
        self.reopen(partition, epoch);
    }

    pub(crate) fn close(&self, partition: u16) {
        self.reopen(partition, 0);
    }

    /// Opens it as it was before it was closed.
    pub(crate) fn reopen(&self, partition: u16, epoch: u64) {
        if let Some(served) = self.served.get(usize::from(partition)).filter(|_| epoch > 0) {
            served.store(epoch, Ordering::SeqCst);
        }
        if let Some(slot) = self.epochs.get(usize::from(partition)) {
            slot.store(epoch, Ordering::SeqCst);
        }
    }

    /// Whether the key waits for a turn at the node that handed its partition over.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.holding.load(Ordering::SeqCst) != 0 && self.held.read().contains(key)
    }

    pub(crate) fn hold(&self, keys: impl IntoIterator<Item = Key>) {
        let mut held = self.held.write();
        held.extend(keys);
        self.holding.store(held.len(), Ordering::SeqCst);
    }

    pub(crate) fn admit<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut held = self.held.write();
        for key in keys {
            held.remove(key);
        }
        self.holding.store(held.len(), Ordering::SeqCst);
    }
}
