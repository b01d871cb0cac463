//! What the view keeps in a second order, so that the machine need not look for it.
//!
//! Owns nothing that could not be computed from members, leases and claims; is brought up to date with every change of
//! them. Its size is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::View;
use crate::ownership::record::{NodeId, Part};
use crate::ownership::rendezvous::place;

/// The second order.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(in crate::ownership) struct Index {
    /// Grows with every change that callers can see.
    pub(super) version: u64,
    /// Grows with every change of who may be chosen: members, and whether their leases are there.
    pub(in crate::ownership) hosts: u64,
    /// Which partitions the claims give to each node.
    held: BTreeMap<NodeId, BTreeSet<Part>>,
    /// The nodes that are known by a member or a lease record and have no live lease.
    absent: BTreeSet<NodeId>,
    /// The partitions to watch that no node with a live lease holds.
    open: BTreeSet<Part>,
    /// The nodes whose lease nobody has ended, each at its place on the ring.
    ring: BTreeSet<(u64, NodeId)>,
    /// Which actors' partitions are watched, and how many each has.
    watched: BTreeSet<String>,
    partitions: u16,
}

impl Index {
    pub(super) fn hosts_changed(&mut self) {
        self.hosts += 1;
        self.version += 1;
    }

    fn watches(&self, part: &Part) -> bool {
        part.number < self.partitions && self.watched.contains(part.actor.as_ref())
    }
}

impl View {
    /// From now on knows which partitions of these actors are open.
    pub(in crate::ownership) fn watch_open(&mut self, actors: &[std::sync::Arc<str>], partitions: u16) {
        self.index.watched = actors.iter().map(|actor| actor.as_ref().to_owned()).collect();
        self.index.partitions = partitions;
        let parts = actors.iter().flat_map(|actor| (0..partitions).map(|number| Part::new(actor.clone(), number)));
        let open: BTreeSet<Part> = parts.filter(|part| !self.is_held(part)).collect();
        self.index.open = open;
    }

    /// The watched partitions that no node with a live lease holds, in order.
    pub(in crate::ownership) fn open(&self) -> impl Iterator<Item = &Part> {
        self.index.open.iter()
    }

    /// The partitions whose claims name a node, in order.
    pub(in crate::ownership) fn held_by(&self, id: &NodeId) -> impl Iterator<Item = &Part> {
        self.index.held.get(id).into_iter().flatten()
    }

    /// The nodes that are known and have no live lease, in order.
    pub(in crate::ownership) fn absent(&self) -> impl Iterator<Item = &NodeId> {
        self.index.absent.iter()
    }

    /// The other nodes whose lease nobody has ended, beginning with the one that comes after `me` on the ring. Places are hashes:
    /// those that share a rack or a name, and may die together, are not neighbours.
    pub(in crate::ownership) fn after_on_ring<'a>(&'a self, me: &NodeId) -> impl Iterator<Item = &'a NodeId> {
        let here = (place(me), me.clone());
        let after = self.index.ring.range((Bound::Excluded(&here), Bound::Unbounded));
        let before = self.index.ring.range((Bound::Unbounded, Bound::Excluded(&here)));
        after.chain(before).map(|(_, id)| id)
    }

    /// A claim is about to get this holder.
    pub(super) fn index_claim(&mut self, part: &Part, holder: Option<&NodeId>) {
        self.index.version += 1;
        let before = self.claim(part).and_then(|claim| claim.value.node.clone());
        if before.as_ref() != holder {
            if let Some(before) = before
                && let Some(held) = self.index.held.get_mut(&before)
            {
                held.remove(part);
                if held.is_empty() {
                    self.index.held.remove(&before);
                }
            }
            if let Some(holder) = holder {
                self.index.held.entry(holder.clone()).or_default().insert(part.clone());
            }
        }
        if self.index.watches(part) {
            if holder.is_some_and(|holder| self.is_live(holder)) {
                self.index.open.remove(part);
            } else {
                self.index.open.insert(part.clone());
            }
        }
    }

    /// A lease has changed, or is not known any more.
    pub(super) fn lease_changed(&mut self, id: &NodeId, was_live: bool) {
        let is_live = self.is_live(id);
        if was_live && is_live {
            return;
        }
        let at = (place(id), id.clone());
        if is_live || self.is_lapsed(id) {
            self.index.ring.insert(at);
        } else {
            self.index.ring.remove(&at);
        }
        self.index.version += 1;
        if was_live == is_live {
            return self.index_node(id);
        }
        self.index.hosts_changed();
        self.index_node(id);
        let Some(held) = self.index.held.get(id) else { return };
        let parts: Vec<Part> = held.iter().filter(|part| self.index.watches(part)).cloned().collect();
        for part in parts {
            if is_live {
                self.index.open.remove(&part);
            } else {
                self.index.open.insert(part);
            }
        }
    }

    /// A member or a lease has come or gone.
    pub(super) fn index_node(&mut self, id: &NodeId) {
        let known = self.members.contains_key(id) || self.leases.contains_key(id);
        if known && !self.is_live(id) {
            self.index.absent.insert(id.clone());
        } else {
            self.index.absent.remove(id);
        }
    }

    fn is_held(&self, part: &Part) -> bool {
        let holder = self.claim(part).and_then(|claim| claim.value.node.as_ref());
        holder.is_some_and(|holder| self.is_live(holder))
    }
}
