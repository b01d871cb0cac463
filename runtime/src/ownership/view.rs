//! What a node knows: members, leases and claims as the watch has shown them.
//!
//! Owns that knowledge and the question asked of it, who owns a partition. It has no clock (it
//! keeps when things were learned, for the machine) and decides nobody's death: see [`machine`](super::machine).
//! Its size is that of the bucket: what the bucket forgets is dropped here too. What the machine asks at every step has
//! an index (`index`), so that no question costs a walk over all nodes or all claims.

mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::index::Index;

use super::machine::Millis;
use super::record::{Claim, Entry, Key, Lease, Member, Meta, NodeId, Part, Past};
#[cfg(test)]
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
    /// Its heartbeat stopped.
    Lost,
}

/// How many claims of an actor are copied together, once callers hold an older view.
const CHUNK: u16 = 64;

/// The shared knowledge. Made by feeding it every record of the watch.
///
/// Members, leases and chunks of claims are shared with the views that callers hold until they change: showing a view
/// costs its number of chunks, not of claims.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct View {
    pub(super) meta: Option<Meta>,
    pub(super) members: Arc<BTreeMap<NodeId, Known<Member>>>,
    pub(super) leases: Arc<BTreeMap<NodeId, Known<LeaseState>>>,
    pasts: BTreeMap<Arc<str>, Known<Past>>,
    // By actor, then by chunk: so that a look-up by &str allocates nothing.
    claims: BTreeMap<Arc<str>, BTreeMap<u16, Arc<Chunk>>>,
    // Revisions of deleted members and claims, so that they can be written again.
    markers: BTreeMap<Key, Known<()>>,
    pub(super) index: Index,
}

/// The claims of some neighbouring partitions, in their order. There are many in the memory of a node: no slot is empty.
#[derive(Clone, Debug, Default)]
struct Chunk(Vec<(u16, Known<Claim>)>);

impl Chunk {
    fn get(&self, number: u16) -> Option<&Known<Claim>> {
        let at = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.0.get(at).map(|(_, claim)| claim)
    }

    fn put(&mut self, number: u16, claim: Known<Claim>) {
        match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.0[at].1 = claim,
            Err(at) => self.0.insert(at, (number, claim)),
        }
    }
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
    /// Ended by another node.
    Tombstone {
        by: NodeId,
        /// Because its heartbeat had stopped, not on the broker's word that the connection it named was gone.
        lapsed: bool,
    },
    /// There, but to a client, which writes no tombstones, its node is gone: its heartbeat has stopped.
    Lapsed(Lease),
    Gone,
}

impl View {
    /// An empty view.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What callers are shown: everything but the indexes and markers of the machine.
    pub(crate) fn shown(&self) -> Self {
        Self {
            meta: self.meta,
            members: self.members.clone(),
            leases: self.leases.clone(),
            claims: self.claims.clone(),
            ..Self::default()
        }
    }

    /// Grows with every change that callers can see; the renewal of a lease is none.
    pub(crate) fn version(&self) -> u64 {
        self.index.version
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

    /// Whether a partition is still claimed by this node under this epoch or an earlier one, whether it lives or not.
    pub(crate) fn still_holds(&self, part: &Part, by: &NodeId, epoch: u64) -> bool {
        self.claim(part).is_some_and(|claim| claim.value.epoch < epoch || claim.value.node.as_ref() == Some(by))
    }

    /// The tokens of the keys that ran when the partition was handed over, as its claim names them.
    pub(crate) fn busy(&self, actor: &str, partition: u16) -> &[String] {
        self.claim_of(actor, partition).map_or(&[], |claim| &claim.value.busy)
    }

    /// Who should own a partition: the first in weighted rendezvous order among the live hosts that are ready for it,
    /// or among the others if there are none.
    #[cfg(test)]
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
        // Both are in the order of ids: one walk instead of a look-up for each member.
        let mut leases = self.leases.iter().peekable();
        let live = self.members.iter().filter(move |(id, _)| {
            while leases.next_if(|(other, _)| other < id).is_some() {}
            leases.peek().is_some_and(|(other, lease)| other == id && matches!(lease.value, LeaseState::Live(_)))
        });
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
            Some(LeaseState::Tombstone { lapsed: false, .. }) => Departure::Died,
            // Whoever made a tombstone takes it away, after the member.
            Some(LeaseState::Gone) if draining => Departure::Left,
            Some(LeaseState::Gone) => Departure::Died,
            Some(LeaseState::Tombstone { .. } | LeaseState::Lapsed(_) | LeaseState::Live(_)) | None => Departure::Lost,
        }
    }

    /// Who handed a partition over to its present holder, and who that is.
    pub(crate) fn handed_over(&self, actor: &str, partition: u16) -> Option<(&NodeId, &NodeId)> {
        let claim = &self.claim_of(actor, partition)?.value;
        Some((claim.from.as_ref()?, claim.node.as_ref()?))
    }

    /// A client sees a heartbeat stop, or come back: it writes no tombstones, and whoever should may be gone as well.
    pub(super) fn lapse(&mut self, id: &NodeId, stopped: bool, now: Millis) {
        let value = match self.leases.get(id).map(|known| &known.value) {
            Some(LeaseState::Live(lease)) if stopped => LeaseState::Lapsed(lease.clone()),
            Some(LeaseState::Lapsed(lease)) if !stopped => LeaseState::Live(lease.clone()),
            _ => return,
        };
        let revision = self.revision(&Key::Lease(id.clone()));
        self.put_lease(id.clone(), Known { value, revision, at: now });
    }

    /// True if a client takes a node for gone whose lease is there.
    pub(super) fn is_lapsed(&self, id: &NodeId) -> bool {
        matches!(self.leases.get(id), Some(Known { value: LeaseState::Lapsed(_), .. }))
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
            Entry::Member(id, value) => {
                Arc::make_mut(&mut self.members).insert(id.clone(), Known { value, revision, at });
                self.index.hosts_changed();
                self.index_node(&id);
            }
            Entry::Past(name, value) => drop(self.pasts.insert(name, Known { value, revision, at })),
            Entry::Lease(id, lease) => {
                let value = match lease.ended_by {
                    Some(by) => LeaseState::Tombstone { by, lapsed: lease.lapsed },
                    None => LeaseState::Live(lease),
                };
                self.put_lease(id, Known { value, revision, at });
            }
            // Heartbeats are the machine's own business.
            Entry::Beat(_) => {}
            Entry::Claim(part, value) => {
                self.index_claim(&part, value.node.as_ref());
                let chunks = self.claims.entry(part.actor).or_default();
                let chunk = Arc::make_mut(chunks.entry(part.number / CHUNK).or_default());
                chunk.put(part.number, Known { value, revision, at });
            }
        }
        revision > known
    }

    /// Takes in a marker, unless something newer is known of its key. True if it was new.
    pub(super) fn unlearn(&mut self, key: Key, revision: u64, now: Millis) -> bool {
        if revision <= self.revision(&key) {
            return false;
        }
        if let Key::Lease(id) = key {
            self.put_lease(id, Known { value: LeaseState::Gone, revision, at: now });
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
            Key::Member(id) => {
                if Arc::make_mut(&mut self.members).remove(id).is_some() {
                    self.index.hosts_changed();
                    self.index_node(id);
                }
            }
            Key::Lease(id) => {
                let was_live = self.is_live(id);
                if Arc::make_mut(&mut self.leases).remove(id).is_some() {
                    self.lease_changed(id, was_live);
                }
            }
            Key::Past(name) => drop(self.pasts.remove(name)),
            Key::Beat(_) => {}
            Key::Part(part) => {
                self.index_claim(part, None);
                if let Some(chunk) =
                    self.claims.get_mut(&part.actor).and_then(|chunks| chunks.get_mut(&(part.number / CHUNK)))
                {
                    Arc::make_mut(chunk).0.retain(|(number, _)| *number != part.number);
                }
            }
        }
    }

    /// The last revision known of a key; 0 if it was never seen.
    pub(super) fn revision(&self, key: &Key) -> u64 {
        let value = match key {
            Key::Meta | Key::Beat(_) => None,
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
        let chunks = self.claims.iter().flat_map(|(actor, chunks)| chunks.values().map(move |chunk| (actor, chunk)));
        let all = chunks.flat_map(|(actor, chunk)| chunk.0.iter().map(move |claim| (actor, claim)));
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

    /// Drops markers older than `before`. Whoever writes such a key again is refused, if its marker is still there, and
    /// starts the watch over.
    pub(super) fn forget_markers(&mut self, before: Millis) {
        self.markers.retain(|_, marker| marker.at >= before);
    }

    /// True if the node's lease is known to have ended later than at revision `lease`.
    pub(super) fn gone_after(&self, id: &NodeId, lease: u64) -> bool {
        self.leases.get(id).is_some_and(|known| match known.value {
            LeaseState::Live(_) => false,
            LeaseState::Lapsed(_) => true,
            LeaseState::Tombstone { .. } | LeaseState::Gone => known.revision > lease,
        })
    }

    /// How many nodes of a name have died of late.
    pub(super) fn deaths(&self, name: &str) -> u32 {
        self.pasts.get(name).map_or(0, |past| past.value.deaths)
    }

    fn put_lease(&mut self, id: NodeId, lease: Known<LeaseState>) {
        let was_live = self.is_live(&id);
        Arc::make_mut(&mut self.leases).insert(id.clone(), lease);
        self.lease_changed(&id, was_live);
    }

    #[cfg(test)]
    fn first_host(&self, actor: &str, partition: u16, fit: impl Fn(&Member) -> bool) -> Option<&NodeId> {
        let hosts = self.hosts(actor).filter(|(_, member, _)| fit(member));
        rendezvous::first(actor, partition, hosts.map(|(id, _, weight)| (id, weight)))
    }

    fn claim_of(&self, actor: &str, partition: u16) -> Option<&Known<Claim>> {
        self.claims.get(actor)?.get(&(partition / CHUNK))?.get(partition)
    }

    pub(super) fn learned_at(&self, key: &Key) -> Option<Millis> {
        match key {
            Key::Meta | Key::Beat(_) => None,
            Key::Member(id) => self.members.get(id).map(|known| known.at),
            Key::Lease(id) => self.leases.get(id).map(|known| known.at),
            Key::Past(name) => self.pasts.get(name).map(|known| known.at),
            Key::Part(part) => self.claim(part).map(|known| known.at),
        }
    }
}
