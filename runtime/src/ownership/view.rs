//! What a node knows: members, leases and claims as the watch has shown them.
//!
//! Owns that knowledge and the two questions asked of it, who owns a partition and who should. It has no clock (it
//! keeps when things were learned, for the machine) and decides nobody's death: see [`machine`](super::machine).
//! Its size is that of the bucket: what the bucket forgets is dropped here too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::machine::{Gone, Millis};
use super::record::{Claim, Entry, Key, Lease, Member, Meta, NodeId, Part, Past};
use super::rendezvous;

/// Where messages for a partition go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A node holds the claim, and nothing newer says that it is gone.
    Node {
        /// The holder.
        id: NodeId,
        /// The epoch at which it holds.
        epoch: u64,
    },
    /// Live nodes host the actor, but none holds a live claim yet.
    Vacant,
    /// No live node hosts the actor.
    NoHosts,
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// In order.
    Left,
    /// The broker said that its connection had ended, and that was decided.
    Died,
    /// Its lease ran out.
    Lost,
}

/// The shared knowledge. Made by feeding it every record of the watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(super) meta: Option<Meta>,
    pub(super) members: BTreeMap<NodeId, Known<Member>>,
    pub(super) leases: BTreeMap<NodeId, Known<LeaseState>>,
    pasts: BTreeMap<Arc<str>, Known<Past>>,
    // In two levels, so that a look-up by &str allocates nothing.
    claims: BTreeMap<Arc<str>, BTreeMap<u16, Known<Claim>>>,
    // Revisions of deleted members and claims, so that they can be written again.
    markers: BTreeMap<Key, Known<()>>,
}

/// Something with the revision it was learned at.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub(super) value: T,
    pub(super) revision: u64,
    /// When, on the own clock.
    pub(super) at: Millis,
}

/// What is known of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeaseState {
    Live(Lease),
    /// Ended by this node, on the broker's word that the connection it named was gone.
    Tombstone(NodeId),
    Gone(Gone),
}

impl View {
    /// An empty view.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Who owns a partition, as far as is known.
    pub(crate) fn owner(&self, actor: &str, partition: u16) -> Owner {
        if let Some(Claim { node: Some(id), epoch, lease, .. }) =
            self.claim_of(actor, partition).map(|known| &known.value)
            && !self.gone_after(id, *lease)
        {
            return Owner::Node { id: id.clone(), epoch: *epoch };
        }
        match self.hosts(actor).next() {
            Some(_) => Owner::Vacant,
            None => Owner::NoHosts,
        }
    }

    /// Who should own a partition: the first in weighted rendezvous order among the live hosts that are ready for it,
    /// or among the others if there are none.
    pub(crate) fn desired(&self, actor: &str, partition: u16) -> Option<&NodeId> {
        self.first_host(actor, partition, |member| member.is_ready())
            .or_else(|| self.first_host(actor, partition, |member| !member.draining))
            .or_else(|| self.first_host(actor, partition, |_| true))
    }

    /// The members with a live lease that host an actor, with their weights.
    pub(crate) fn hosts<'a, 'b>(
        &'a self,
        actor: &'b str,
    ) -> impl Iterator<Item = (&'a NodeId, &'a Member, u32)> + use<'a, 'b> {
        let live = self.members.iter().filter(|(id, _)| self.is_live(id));
        live.filter_map(move |(id, member)| Some((id, &member.value, member.value.hosts.get(actor)?.weight)))
    }

    /// Whether a node says that its actors of a type remember their commands.
    pub(crate) fn is_durable(&self, id: &NodeId, actor: &str) -> bool {
        self.members.get(id).and_then(|member| member.value.hosts.get(actor)).is_some_and(|host| host.durable)
    }

    /// The keys of an actor type that some live host of it wants to be always on.
    pub(crate) fn always_on(&self, actor: &str) -> BTreeSet<&str> {
        let hosts = self.hosts(actor).filter_map(|(_, member, _)| member.hosts.get(actor));
        hosts.flat_map(|host| host.always_on.iter().map(String::as_str)).collect()
    }

    /// Every member that is known.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|known| &known.value)
    }

    /// Every partition that a live node holds, with that node.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (Part, NodeId)> + '_ {
        self.claims().filter_map(|(part, _)| match self.owner(&part.actor, part.number) {
            Owner::Node { id, .. } => Some((part, id)),
            Owner::Vacant | Owner::NoHosts => None,
        })
    }

    /// How a node went that is gone.
    pub(crate) fn departure(&self, id: &NodeId) -> Departure {
        let draining = self.members.get(id).is_some_and(|member| member.value.draining);
        match self.leases.get(id).map(|lease| &lease.value) {
            Some(LeaseState::Tombstone(_)) => Departure::Died,
            // Whoever made a tombstone takes it away, after the member.
            Some(LeaseState::Gone(Gone::Deleted)) if draining => Departure::Left,
            Some(LeaseState::Gone(Gone::Deleted)) => Departure::Died,
            Some(LeaseState::Gone(Gone::Expired) | LeaseState::Live(_)) | None => Departure::Lost,
        }
    }

    /// Who handed a partition over to its present holder, and who that is.
    pub(crate) fn handed_over(&self, actor: &str, partition: u16) -> Option<(&NodeId, &NodeId)> {
        let claim = &self.claim_of(actor, partition)?.value;
        Some((claim.from.as_ref()?, claim.node.as_ref()?))
    }

    /// True if the node's lease is there.
    pub(crate) fn is_live(&self, id: &NodeId) -> bool {
        matches!(self.leases.get(id), Some(Known { value: LeaseState::Live(_), .. }))
    }

    /// Takes in a record, unless something newer is known of its key. True if it was new.
    pub(super) fn learn(&mut self, entry: Entry, revision: u64, now: Millis) -> bool {
        let key = entry.key();
        let known = self.revision(&key);
        if revision < known {
            return false;
        }
        // An echo keeps the time it was first learned, but may complete the value (a transfer's busy keys).
        let at = if revision == known { self.learned_at(&key).unwrap_or(now) } else { now };
        self.markers.remove(&key);
        match entry {
            Entry::Meta(meta) => self.meta = Some(meta),
            Entry::Member(id, value) => drop(self.members.insert(id, Known { value, revision, at })),
            Entry::Past(name, value) => drop(self.pasts.insert(name, Known { value, revision, at })),
            Entry::Lease(id, lease) => {
                let value = match lease.ended_by {
                    Some(by) => LeaseState::Tombstone(by),
                    None => LeaseState::Live(lease),
                };
                drop(self.leases.insert(id, Known { value, revision, at }));
            }
            Entry::Claim(part, value) => {
                self.claims.entry(part.actor).or_default().insert(part.number, Known { value, revision, at });
            }
        }
        revision > known
    }

    /// Takes in a marker, unless something newer is known of its key. True if it was new.
    pub(super) fn unlearn(&mut self, key: Key, reason: Gone, revision: u64, now: Millis) -> bool {
        if revision <= self.revision(&key) {
            return false;
        }
        if let Key::Lease(id) = key {
            self.leases.insert(id, Known { value: LeaseState::Gone(reason), revision, at: now });
        } else {
            self.forget(&key);
            self.markers.insert(key, Known { value: (), revision, at: now });
        }
        true
    }

    /// Drops a key altogether: it is not in the bucket.
    pub(super) fn forget(&mut self, key: &Key) {
        self.markers.remove(key);
        match key {
            Key::Meta => self.meta = None,
            Key::Member(id) => drop(self.members.remove(id)),
            Key::Lease(id) => drop(self.leases.remove(id)),
            Key::Past(name) => drop(self.pasts.remove(name)),
            Key::Part(part) => {
                if let Some(claims) = self.claims.get_mut(&part.actor) {
                    claims.remove(&part.number);
                }
            }
        }
    }

    /// The last revision known of a key; 0 if it was never seen.
    pub(super) fn revision(&self, key: &Key) -> u64 {
        let value = match key {
            Key::Meta => None,
            Key::Member(id) => self.members.get(id).map(|known| known.revision),
            Key::Lease(id) => self.leases.get(id).map(|known| known.revision),
            Key::Past(name) => self.pasts.get(name).map(|known| known.revision),
            Key::Part(part) => self.claim(part).map(|known| known.revision),
        };
        value.or_else(|| self.markers.get(key).map(|known| known.revision)).unwrap_or(0)
    }

    pub(super) fn claim(&self, part: &Part) -> Option<&Known<Claim>> {
        self.claim_of(&part.actor, part.number)
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = (Part, &Known<Claim>)> {
        let all = self.claims.iter().flat_map(|(actor, claims)| claims.iter().map(move |claim| (actor, claim)));
        all.map(|(actor, (number, claim))| (Part { actor: actor.clone(), number: *number }, claim))
    }

    /// Every key that is known with a value or a marker.
    pub(super) fn keys(&self) -> Vec<Key> {
        let members = self.members.keys().cloned().map(Key::Member);
        let leases = self.leases.keys().cloned().map(Key::Lease);
        let claims = self.claims().map(|(part, _)| Key::Part(part));
        let pasts = self.pasts.keys().cloned().map(Key::Past);
        members.chain(leases).chain(claims).chain(pasts).chain(self.markers.keys().cloned()).collect()
    }

    /// Drops markers older than `before`; their keys expect revision 0 again, or a watch started over.
    pub(super) fn forget_markers(&mut self, before: Millis) {
        self.markers.retain(|_, marker| marker.at >= before);
    }

    /// True if the node's lease is known to have ended later than at revision `lease`.
    pub(super) fn gone_after(&self, id: &NodeId, lease: u64) -> bool {
        self.leases.get(id).is_some_and(|known| !matches!(known.value, LeaseState::Live(_)) && known.revision > lease)
    }

    /// The hosts to choose a partition's owner from, but for `without`: those that are ready; if there are none, those
    /// that wait.
    pub(super) fn candidates<'a>(&'a self, actor: &str, without: Option<&NodeId>) -> Vec<(&'a NodeId, u32)> {
        let others = self.hosts(actor).filter(|(id, member, _)| !member.draining && Some(*id) != without);
        let (ready, waiting): (Vec<_>, Vec<_>) = others.partition(|(_, member, _)| member.is_ready());
        let chosen = if ready.is_empty() { waiting } else { ready };
        chosen.into_iter().map(|(id, _, weight)| (id, weight)).collect()
    }

    /// How many nodes of a name have died of late.
    pub(super) fn deaths(&self, name: &str) -> u32 {
        self.pasts.get(name).map_or(0, |past| past.value.deaths)
    }

    fn first_host(&self, actor: &str, partition: u16, fit: impl Fn(&Member) -> bool) -> Option<&NodeId> {
        let hosts = self.hosts(actor).filter(|(_, member, _)| fit(member));
        rendezvous::first(actor, partition, hosts.map(|(id, _, weight)| (id, weight)))
    }

    fn claim_of(&self, actor: &str, partition: u16) -> Option<&Known<Claim>> {
        self.claims.get(actor)?.get(&partition)
    }

    fn learned_at(&self, key: &Key) -> Option<Millis> {
        match key {
            Key::Meta => None,
            Key::Member(id) => self.members.get(id).map(|known| known.at),
            Key::Lease(id) => self.leases.get(id).map(|known| known.at),
            Key::Past(name) => self.pasts.get(name).map(|known| known.at),
            Key::Part(part) => self.claim(part).map(|known| known.at),
        }
    }
}
