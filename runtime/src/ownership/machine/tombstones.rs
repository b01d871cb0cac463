//! Tombstones: ending the lease of a node whose owning connection is gone, on the broker's word. (Of one whose heartbeat
//! has stopped: [`heartbeats`](super::heartbeats).)
//!
//! The word is a hint and decides nothing. It may be late, or about a connection that the node has replaced, and a
//! proxy may have cut the broker's side alone while the node behind it lives. What decides is one compare-and-set, at
//! the revision of the lease that names exactly the connection that has ended: a node that has a new connection writes
//! it into its lease first, and whoever wins decides.
//!
//! Before that the hint waits for as long as a round trip on the connection could have let its node serve: a second, or
//! a blink if all its keyed actors are durable. So a node
//! that reconnects in that time keeps everything, and a tombstone that stands is death at once, for everybody: nobody
//! who sees it has to wait, or to ask whether the broker is to blame.
//!
//! What a forged word can do: nothing, unless it names the very connection of a live lease; then it costs that node its
//! id, and what it had in memory, and the others would have to learn of it later than it does itself for two to serve
//! at once. The machine cannot tell such a word from a true one. That only the broker's system account may publish
//! the subject on which it comes is what protects from it.

use std::collections::BTreeMap;

use super::protocol::{Effect, Millis};
use super::{Entry, Key, Machine, NodeId, Phase};
use crate::ownership::record::Lease;
use crate::ownership::view::{Known, LeaseState};

/// For how long a round trip on the owning connection lets a node answer reads of durable actors, from when it began.
/// Short, as it holds up every take-over; and long enough for all reads of a busy node to share a few.
pub(crate) const PERMIT_MS: Millis = 5;
/// How long the word waits where nothing volatile is served: the journals refuse whoever is not the owner any more, and
/// a read needs a permit, so a round trip that began before the connection ended. More than that by a millisecond, as
/// times here are cut to whole ones. How slow the machine is does not count, as the age of a permit is looked at before
/// the read; and in that time clocks differ by less than the word takes to come.
pub(crate) const STANDS_DURABLE_MS: Millis = PERMIT_MS + 1;
/// Ends of connections remembered; a word beyond them is dropped, and the lease decides.
const CLOSURES_MAX: usize = 4_096;

/// The connections that have ended, by the broker's word, and when this node heard it.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Closures {
    heard: BTreeMap<(NodeId, String, u64), Millis>,
}

#[cfg(test)]
impl Closures {
    pub(super) fn len(&self) -> usize {
        self.heard.len()
    }
}

impl Machine {
    pub(super) fn connection_gone(&mut self, node: NodeId, server: String, client: u64) {
        if !self.config.is_client() && !self.is_me(&node) && self.closures.heard.len() < CLOSURES_MAX {
            // The lease that names it may not have been shown yet.
            self.closures.heard.entry((node, server, client)).or_insert(self.now);
        }
    }

    /// Ends the leases that name a connection which has been gone for long enough.
    pub(super) fn set_tombstones(&mut self, out: &mut Vec<Effect>) {
        if self.closures.heard.is_empty() || !self.may_act() {
            return;
        }
        let mut due = Vec::new();
        for ((id, server, client), at) in &self.closures.heard {
            let Some(Known { value: LeaseState::Live(lease), .. }) = self.view.leases.get(id) else { continue };
            let since = at + self.stands_for(id);
            if lease.server == *server && lease.client == *client && self.now >= since {
                due.push((id.clone(), since));
            }
        }
        for (id, since) in due {
            // One of those that wait is enough, and those who inherit have reason to be the first.
            if self.now < since + self.config.orphan_patience_ms && !self.inherits_from(&id) {
                continue;
            }
            self.end_lease(id, false, out);
        }
    }

    /// Makes a tombstone of a live lease, over the revision that is known.
    pub(super) fn end_lease(&mut self, id: NodeId, lapsed: bool, out: &mut Vec<Effect>) {
        if let Some(Known { value: LeaseState::Live(lease), .. }) = self.view.leases.get(&id) {
            let tombstone = Lease { ended_by: Some(self.config.me.clone()), lapsed, ..lease.clone() };
            self.cas(Entry::Lease(id, tombstone), out);
        }
    }

    /// For how long a node may serve on a connection that has ended, as far as anybody else can tell.
    fn stands_for(&self, id: &NodeId) -> Millis {
        let hosts = self.view.members.get(id).map(|member| &member.value.hosts);
        if hosts.is_some_and(|hosts| hosts.values().all(|host| host.durable)) {
            return STANDS_DURABLE_MS;
        }
        // A tenth more, for clocks that differ.
        self.config.stands_ms + self.config.stands_ms / 10
    }

    /// Takes away the tombstones that this node has set, or that the one who set them has left behind: first the
    /// member, then, once no claim names the node, the tombstone.
    pub(super) fn clear_tombstones(&mut self, out: &mut Vec<Effect>) {
        let forgotten = self.now.saturating_sub(2 * self.config.lease_ttl_ms);
        self.closures.heard.retain(|_, at| *at >= forgotten);
        if !self.may_act() {
            return;
        }
        let orphaned =
            |lease: &Known<LeaseState>| lease.at < forgotten && self.phase == Phase::Running && self.is_first();
        let to_clear = |id: &&NodeId| match self.view.leases.get(*id) {
            Some(lease @ Known { value: LeaseState::Tombstone { by, .. }, .. }) => self.is_me(by) || orphaned(lease),
            _ => false,
        };
        let mine: Vec<NodeId> = self.view.absent().filter(to_clear).cloned().collect();
        for id in mine {
            if self.view.members.contains_key(&id) {
                self.bury(id, out);
            } else if self.view.held_by(&id).next().is_none() {
                self.delete(Key::Lease(id), out);
            }
        }
    }

    /// True if this node is the first or second in rendezvous order for a partition of that node, without it.
    fn inherits_from(&mut self, holder: &NodeId) -> bool {
        let (view, roster) = (&self.view, &mut self.roster);
        let held = view.held_by(holder).filter(|part| self.config.hosts.contains_key(part.actor.as_ref()));
        let mut places = held.map(|part| roster.of(view, &part.actor).place(part.number, Some(holder)));
        places.any(|place| place.is_some_and(|place| place < 2))
    }
}
