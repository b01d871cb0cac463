//! What this node does about each partition that it serves, gives, awaits or leaves, with a count of those it gives.

use std::collections::BTreeMap;

use super::Part;
use super::claims::Local;

/// The partitions of this node.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Parts {
    all: BTreeMap<Part, Local>,
    giving: usize,
}

impl Parts {
    pub(super) fn get(&self, part: &Part) -> Option<&Local> {
        self.all.get(part)
    }

    /// For what belongs to a state; the state itself changes by [`insert`](Self::insert).
    pub(super) fn get_mut(&mut self, part: &Part) -> Option<&mut Local> {
        self.all.get_mut(part)
    }

    pub(super) fn insert(&mut self, part: Part, local: Local) -> Option<Local> {
        self.giving += usize::from(local.is_giving());
        let before = self.all.insert(part, local);
        self.giving -= usize::from(before.as_ref().is_some_and(Local::is_giving));
        before
    }

    pub(super) fn remove(&mut self, part: &Part) {
        let before = self.all.remove(part);
        self.giving -= usize::from(before.as_ref().is_some_and(Local::is_giving));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Handovers under way with this node as the giver.
    pub(super) fn giving(&self) -> usize {
        self.giving
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Part, &Local)> {
        self.all.iter()
    }
}
