//! The state machine: inputs in, effects out.
//!
//! Owns every decision about ownership and the state behind it; [`protocol`] lists what it can be told and what it asks
//! for. It decides by level, not by edge: after every change it looks at what is known now and does what is missing, so
//! a lost, late or repeated input costs time and nothing else.
//!
//! What is promised, if the clocks of nodes and broker run within a tenth of the lease's TTL of each other over one
//! TTL: at any instant at most one node admits turns of a partition while it is unfenced and its own clock is before
//! [`Machine::serves_until`].
//! Four rules carry this. A lease is valid from before its renewal was sent, and only while round trips on the owning
//! connection prove that it stands. A claim can be taken only on evidence of its holder's death that is newer than the
//! claim ([`Claim::lease`](super::record::Claim::lease)): an end of its lease, which is a tombstone unless it left. A
//! tombstone is written by compare-and-set over the very lease that names a connection which has ended, or whose node
//! has sent no heartbeat, and not before its node has stopped serving. And a node that has another connection, or whose
//! heartbeat had lapsed, writes its lease anew before it unfences, so that whoever wanted to end it is refused. Nothing
//! that is *stored* rests on this: the journal's compare-and-set stands behind it.
//!
//! It deliberately knows no keys but the busy ones of a handover, and no messages.

mod protocol;
mod tenure;
mod writes;
mod parts;
mod peers;
mod heartbeats;
mod tombstones;
mod claims;
mod handover;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
pub(crate) mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[cfg(test)]
pub(crate) use self::protocol::CasId;
pub(crate) use self::protocol::{CasResult, Config, Effect, Gone, Input, LeaveCause, Millis, RetireReason};
pub(crate) use self::tombstones::{PERMIT_MS, STANDS_DURABLE_MS};

use self::claims::Local;
use self::handover::{Held, Leaves, Retry};
use self::heartbeats::Heartbeats;
use self::parts::Parts;
use self::peers::Doubt;
use self::tenure::{Tenure, Watching};
use self::tombstones::Closures;
use self::writes::Writes;
use super::record::{Entry, Key, Lease, Member, NodeId, Part, WIRE};
use super::roster::Roster;
use super::view::View;

/// One node's part in deciding who owns what. See the module's head for what it promises.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Machine {
    config: Config,
    view: View,
    roster: Roster,
    now: Millis,
    phase: Phase,
    sync: Sync,
    /// When the first snapshot was complete.
    joined_at: Option<Millis>,
    tenure: Tenure,
    doubt: Doubt,
    closures: Closures,
    heartbeats: Heartbeats,
    writes: Writes,
    /// What this node does about each partition that it serves, gives, awaits or leaves.
    parts: Parts,
    /// Leaves that are not quiet yet.
    leaving: BTreeMap<(Part, u64), Leaves>,
    /// When a draining node stops offering what nobody has taken, and releases it.
    release_at: Millis,
    /// Since when each partition that this node could claim has been free.
    free_since: BTreeMap<Part, Millis>,
    retries: BTreeMap<Part, Retry>,
    held: BTreeMap<Part, Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Over,
}

/// Where the watch stands.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Sync {
    /// When the last snapshot was complete; `None` before, and while another is under way.
    at: Option<Millis>,
    /// The keys shown, or written, since the snapshot under way began.
    shown: Option<BTreeSet<Key>>,
    rewatch_at: Millis,
    /// It has left out something that nobody deleted.
    doubted: bool,
}

/// What a step has to look at again.
enum Scope {
    Nothing,
    One(Part),
    /// One, and then those whose writes found no room.
    Waiting(Part),
    All,
}

impl Machine {
    /// A machine that has been told nothing yet.
    pub(crate) fn new(config: Config) -> Self {
        let actors: Vec<Arc<str>> = config.hosts.keys().map(|actor| Arc::from(actor.as_str())).collect();
        let mut view = View::new();
        view.watch_open(&actors, config.partitions);
        Self {
            roster: Roster::new(config.me.clone()),
            config,
            view,
            now: 0,
            phase: Phase::Running,
            sync: Sync::default(),
            joined_at: None,
            tenure: Tenure::default(),
            doubt: Doubt::default(),
            closures: Closures::default(),
            heartbeats: Heartbeats::default(),
            writes: Writes::default(),
            parts: Parts::default(),
            leaving: BTreeMap::new(),
            release_at: Millis::MAX,
            free_since: BTreeMap::new(),
            retries: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Takes in one input and pushes what is to be done about it. `now` is monotonic; an earlier one counts as the
    /// last. After [`Effect::Drained`] or [`Effect::Retire`] it only keeps its view. The cost of a step is that of the
    /// partitions it concerns; a tick, and a change of members or leases, looks at those that are its own or that no
    /// live node holds. What others hold costs nothing.
    pub(crate) fn step(&mut self, input: Input, now: Millis, out: &mut Vec<Effect>) {
        // Half of the range is no bound in practice, and leaves room for every sum of a time and a duration.
        self.now = self.now.max(now.min(Millis::MAX / 2));
        if self.phase != Phase::Over {
            self.watch_clock(out);
        }
        let scope = self.take_in(input, out);
        if self.phase == Phase::Over {
            return;
        }
        self.renew_if_due(out);
        self.declare(out);
        self.prove_connection(out);
        self.attend(out);
        self.enrol(out);
        self.set_tombstones(out);
        match scope {
            Scope::Nothing => {}
            Scope::One(part) => self.settle(&part, out),
            Scope::Waiting(part) => {
                self.settle(&part, out);
                self.settle_waiting(out);
            }
            Scope::All => self.settle_all(out),
        }
        if self.phase != Phase::Over {
            self.fence_or_unfence(out);
            self.finish_drain(out);
        }
    }

    /// What the node knows, for routing.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// True while the lease is not proved: from the start, and between [`Effect::Fence`] and [`Effect::Unfence`].
    pub(crate) fn is_fenced(&self) -> bool {
        self.tenure.fenced
    }

    /// A machine of the same node that has been told nothing yet. For a client, which wrote nothing.
    pub(crate) fn anew(&self) -> Self {
        Self::new(self.config.clone())
    }

    /// True if the node hosts nothing, and has no lease.
    pub(crate) fn is_client(&self) -> bool {
        self.config.is_client()
    }

    /// Until when, on the own clock, volatile turns and reads may be served if unfenced. To be compared with the clock
    /// before each of them: after a pause, the fence is a step too late.
    pub(crate) fn serves_until(&self) -> Millis {
        self.tenure.serves_until(self.config.lease_ttl_ms / 10)
    }

    /// Every partition this node serves, with its epoch.
    #[cfg(test)]
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&Part, u64)> {
        self.parts.iter().filter_map(|(part, local)| Some((part, local.serving()?)))
    }

    /// True once nothing holds `key` back at `epoch` any more: the old owner need not tell [`Input::Idle`] again.
    pub(crate) fn settled(&self, part: &Part, epoch: u64, key: &str) -> bool {
        let claim = self.view.claim(part);
        let over = claim.is_some_and(|claim| claim.value.epoch > epoch);
        let serves = self.parts.get(part).and_then(Local::serving) == Some(epoch);
        let held = self.held.get(part).is_some_and(|held| held.keys.contains(key));
        over || (serves && !held) || self.phase == Phase::Over
    }

    fn take_in(&mut self, input: Input, out: &mut Vec<Effect>) -> Scope {
        if self.phase == Phase::Over
            && !matches!(
                input,
                Input::Record { .. } | Input::Deleted { .. } | Input::SnapshotBegun | Input::SnapshotDone
            )
        {
            return Scope::Nothing;
        }
        match input {
            Input::Started => self.tenure.started = true,
            Input::Connected { server, client } => self.tenure.connect(server, client),
            Input::Disconnected => self.tenure.disconnect(),
            Input::RoundTripDone { id, ok } => {
                self.returned(id, ok);
                // While it is fenced, everything waits for this; else it changes nothing.
                return if self.tenure.fenced { Scope::All } else { Scope::Nothing };
            }
            Input::ConnectionGone { node, server, client } => {
                self.connection_gone(node, server, client);
                return Scope::Nothing;
            }
            Input::SnapshotBegun => self.snapshot_begun(),
            Input::SnapshotDone => self.snapshot_done(),
            Input::Record { revision, entry } => return self.recorded(revision, entry, out),
            Input::BeatsBegun => {
                self.heartbeats.begun();
                return Scope::Nothing;
            }
            Input::Beat { id, revision, beating } => {
                self.beat(id, revision, beating);
                return Scope::Nothing;
            }
            Input::BeatsShown => {
                let stopped = self.heartbeats.shown(self.now);
                self.count_expiries(stopped);
                return Scope::Nothing;
            }
            Input::Deleted { revision, key, reason } => return self.deleted(revision, key, reason, out),
            Input::RenewDone { sent_at, result } => self.renewed(sent_at, result),
            Input::CasDone { id, result } => return self.written(id, result, out),
            Input::Offered { part, epoch, from } => self.offered(part, epoch, from, out),
            Input::HandoverReply { part, epoch, heir, ready } => self.replied(&part, epoch, &heir, ready, out),
            Input::Idle { part, epoch, key } => self.idle(part, epoch, key, out),
            Input::Stilled { part, epoch } => return self.stilled(part, epoch),
            Input::Quiesced { part, epoch } => return self.quiesced(part, epoch),
            Input::RecordsGone => self.retire(RetireReason::RecordsGone, out),
            Input::Drain { within } => self.begin_drain(within),
            Input::Tick => self.sweep(out),
        }
        Scope::All
    }

    fn snapshot_begun(&mut self) {
        self.sync.at = None;
        self.tenure.snapshot_begun();
        self.sync.shown = Some(BTreeSet::new());
    }

    /// Drops what the bucket no longer has: markers vanish, so a watch that was away may never have shown them.
    fn snapshot_done(&mut self) {
        self.sync.at = Some(self.now);
        self.joined_at.get_or_insert(self.now);
        let Some(shown) = self.sync.shown.take() else { return };
        let newer_than = self.tenure.snapshot_newer_than();
        let own = Key::Lease(self.config.me.clone());
        for key in self.view.keys().into_iter().filter(|key| !shown.contains(key)) {
            // A snapshot may come from a replica that is behind. What was learned after it is kept; and claims and the
            // own lease, unless the leader has refused to write over them before it. A client, which has no heartbeat to
            // tell, has to believe it.
            let own = key == own;
            let forget = match &key {
                key if own || matches!(key, Key::Part(_)) => {
                    self.writes.refused_at(key, self.view.revision(key)).is_some_and(|at| at < newer_than)
                }
                key => self.config.is_client() || self.view.learned_at(key).is_none_or(|at| at < newer_than),
            };
            if forget {
                self.view.forget(&key);
            } else {
                self.tenure.restate |= own;
                self.sync.doubted |= !own && !matches!(key, Key::Part(_));
            }
        }
        self.writes.forget_refusals();
    }

    fn recorded(&mut self, revision: u64, entry: Entry, out: &mut Vec<Effect>) -> Scope {
        self.shown(|| entry.key());
        match &entry {
            Entry::Meta(meta) if meta.partitions != self.config.partitions || meta.wire != WIRE => {
                self.retire(RetireReason::MetaMismatch, out);
            }
            Entry::Lease(id, lease) if *id == self.config.me => {
                if lease.incarnation != self.config.incarnation {
                    self.retire(RetireReason::LeaseTaken, out);
                } else if lease.ended_by.is_some() {
                    self.retire(RetireReason::Tombstoned, out);
                }
            }
            Entry::Beat(id) => {
                if self.is_me(id) {
                    self.tenure.heard(Watching::Records, revision);
                }
                return Scope::Nothing;
            }
            _ => {}
        }
        self.learn(entry, revision, out)
    }

    fn deleted(&mut self, revision: u64, key: Key, reason: Gone, out: &mut Vec<Effect>) -> Scope {
        if matches!(key, Key::Beat(_)) {
            // The watch of heartbeats tells of those.
            return Scope::Nothing;
        }
        if reason == Gone::Expired && !matches!(key, Key::Past(_)) {
            // None of those has a TTL. The watch was lost, and reads from a replica that is behind, or one that has lost
            // something: a whole snapshot is asked for.
            self.sync.doubted = true;
            return Scope::Nothing;
        }
        self.shown(|| key.clone());
        let known = self.view.revision(&key) > 0;
        if !self.view.unlearn(key.clone(), revision, self.now) {
            return Scope::Nothing;
        }
        match key {
            Key::Lease(id) if id == self.config.me => self.retire(RetireReason::LeaseDeleted, out),
            // Of those that went long before, nobody here knew.
            Key::Lease(id) if known => self.tell_lost(id, out),
            Key::Lease(_) => {}
            Key::Part(part) => return Scope::One(part),
            Key::Meta | Key::Member(_) | Key::Beat(_) | Key::Past(_) => {}
        }
        Scope::All
    }

    /// Takes a record into the view and says what it may change.
    fn learn(&mut self, entry: Entry, revision: u64, out: &mut Vec<Effect>) -> Scope {
        let known = self.view.revision(&entry.key());
        // The same lease again says nothing of its heartbeat.
        let echo = revision == known && matches!(&entry, Entry::Lease(id, _) if self.view.is_lapsed(id));
        if revision < known || echo {
            return Scope::Nothing;
        }
        let scope = match &entry {
            Entry::Claim(part, claim) => {
                self.tell_moved(part, claim, revision, out);
                self.tell_waited_for(part, claim, revision, out);
                Scope::One(part.clone())
            }
            Entry::Lease(id, Lease { ended_by: Some(_), .. }) => {
                self.tell_lost(id.clone(), out);
                Scope::All
            }
            // Another connection changes nothing here; a lease that is new, or back, does.
            Entry::Lease(id, lease) if self.view.is_live(id) => {
                self.tell_reconnected(id, lease, out);
                Scope::Nothing
            }
            Entry::Lease(id, _) => {
                self.doubt.lost.remove(id);
                Scope::All
            }
            Entry::Member(..) => Scope::All,
            // What it changes, if anything, is this node's own member.
            Entry::Meta(_) | Entry::Past(..) | Entry::Beat(_) => Scope::Nothing,
        };
        let born = matches!(&entry, Entry::Lease(id, _) if self.is_me(id) && !self.view.is_live(id));
        if !self.view.learn(entry, revision, self.now) {
            return Scope::Nothing;
        }
        if born && self.view.is_live(&self.config.me) {
            self.tenure.birth = revision;
        }
        scope
    }

    fn shown(&mut self, key: impl FnOnce() -> Key) {
        if let Some(shown) = &mut self.sync.shown {
            shown.insert(key());
        }
    }

    /// Keeps the member record as it should be, once the lease is there and the others are known.
    fn enrol(&mut self, out: &mut Vec<Effect>) {
        let Some(joined_at) = self.joined_at else { return };
        if self.config.is_client() || !self.lease_holds() {
            return;
        }
        let (draining, waiting) = (self.phase == Phase::Draining, self.now < joined_at + self.pause());
        let me = &self.config.me;
        let as_it_is = |member: &Member| member.draining == draining && member.waiting == waiting;
        if self.view.members.get(me).is_some_and(|member| as_it_is(&member.value)) {
            return;
        }
        let member = Member {
            id: me.clone(),
            name: self.config.name.clone(),
            hosts: self.config.hosts.clone(),
            services: self.config.services.clone(),
            draining,
            waiting,
            started_ms: self.config.started_ms,
        };
        self.cas(Entry::Member(me.clone(), member), out);
    }

    /// How long this node waits before it attracts partitions: the longer, the more often nodes of its name have died.
    fn pause(&self) -> Millis {
        match self.view.deaths(&self.config.name) {
            0 => 0,
            deaths => (self.config.loop_pause_ms << (deaths - 1).min(16)).min(self.config.loop_pause_max_ms),
        }
    }

    fn retire(&mut self, reason: RetireReason, out: &mut Vec<Effect>) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.tenure.fenced = true;
            self.parts.clear();
            self.held.clear();
            out.push(Effect::Retire { reason });
        }
    }

    /// True if this node may start something: what it knows is complete and its lease holds.
    fn may_act(&self) -> bool {
        self.sync.at.is_some() && self.lease_holds() && self.view.members.contains_key(&self.config.me)
    }

    fn is_me(&self, id: &NodeId) -> bool {
        *id == self.config.me
    }
}
