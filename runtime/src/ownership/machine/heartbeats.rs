//! The heartbeats of a few others: those that come after this node on a ring of all that live.
//!
//! A lease stands until somebody makes a tombstone of it. That its node still lives is proved by the heartbeat, a record
//! that the broker drops when it is not written again in time. Were all heartbeats shown to all, the broker's work would
//! grow with the square of the nodes; so each node watches those of [`neighbours`](super::Config::neighbours) that beat
//! (and of the stopped ones in between, so that whole stretches of the ring may die together), and each is watched by
//! as many.
//!
//! Whoever sees one stop, and can believe it ([`peers`](super::peers)), ends the lease by a compare-and-set at the
//! revision that it knows. A node whose heartbeat has lapsed writes its lease anew, after the next heartbeat and before
//! it serves ([`tenure`](super::tenure)): one of the two writes is refused. So a tombstone is death, and an expiry by
//! itself is nobody's.
//!
//! That lease is stored later than that heartbeat. So whoever knows it, and has been shown a heartbeat of its own that
//! was sent afterwards, has been shown that one too: no node is declared dead over a lease that it has just renewed.

use std::collections::{BTreeMap, BTreeSet};

use super::protocol::{Effect, Millis};
use super::{Entry, Machine, NodeId};
use crate::ownership::record::Lease;
use crate::ownership::view::{Known, LeaseState};

/// What is known of the heartbeats that are watched.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Heartbeats {
    /// Those that were asked for; `None` before the first time.
    pulses: Option<BTreeMap<NodeId, Pulse>>,
    /// The nodes shown since the reading under way began.
    shown: BTreeSet<NodeId>,
    /// Whether everything that there was has been shown.
    current: bool,
    /// Who lived when the ring was last looked at, as the view counts it; and whether a heartbeat has stopped since.
    looked_at: u64,
    stopped: bool,
    asked_at: Millis,
}

/// One node's heartbeat.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    beating: bool,
    /// When that was learned, on the own clock.
    at: Millis,
    /// Whether it was ever shown.
    seen: bool,
}

impl Heartbeats {
    pub(super) fn watched(&self) -> usize {
        self.pulses.as_ref().map_or(0, BTreeMap::len)
    }

    pub(super) fn begun(&mut self) {
        self.current = false;
        self.shown.clear();
    }

    /// Takes in a heartbeat, or its end. True if it was seen to stop just now.
    pub(super) fn beat(&mut self, id: NodeId, beating: bool, now: Millis) -> bool {
        let Some(pulse) = self.pulses.as_mut().and_then(|pulses| pulses.get_mut(&id)) else { return false };
        let stops = pulse.beating && !beating;
        if beating || stops {
            *pulse = Pulse { beating, at: now, seen: true };
        }
        self.shown.insert(id);
        self.stopped |= stops;
        stops && self.current
    }

    /// Whatever was not shown has stopped: its marker may be gone as well.
    pub(super) fn shown(&mut self, now: Millis) {
        self.current = true;
        for (id, pulse) in self.pulses.iter_mut().flatten() {
            if pulse.beating && !self.shown.contains(id) {
                *pulse = Pulse { beating: false, at: now, ..*pulse };
                self.stopped = true;
            }
        }
    }

    /// True if the watch has shown nothing of a node for so long that it must have stopped, and does not say so: where it
    /// is slow, a marker may vanish before it is shown.
    fn is_overdue(&self, now: Millis, ttl: Millis) -> bool {
        let mut pulses = self.pulses.iter().flatten();
        let silent = pulses.any(|(_, pulse)| pulse.beating && now >= pulse.at + 2 * ttl);
        silent && now >= self.asked_at + 2 * ttl
    }
}

impl Machine {
    /// Asks for other heartbeats when the ring has changed.
    pub(super) fn attend(&mut self, out: &mut Vec<Effect>) {
        let overdue = self.heartbeats.is_overdue(self.now, self.config.lease_ttl_ms);
        let changed = self.heartbeats.looked_at != self.view.index.hosts || self.heartbeats.stopped;
        if self.sync.at.is_none() || (!overdue && !changed && self.heartbeats.pulses.is_some()) {
            return;
        }
        (self.heartbeats.looked_at, self.heartbeats.stopped) = (self.view.index.hosts, false);
        let known = self.heartbeats.pulses.as_ref();
        let mut beating = 0;
        let mut pulses = BTreeMap::new();
        for id in self.view.after_on_ring(&self.config.me) {
            if beating == self.config.neighbours {
                break;
            }
            let new = Pulse { beating: true, at: self.now, seen: false };
            let pulse = known.and_then(|known| known.get(id)).copied().unwrap_or(new);
            beating += usize::from(pulse.beating);
            pulses.insert(id.clone(), pulse);
        }
        if overdue || known.is_none_or(|known| !known.keys().eq(pulses.keys())) {
            let of = pulses.keys().cloned().collect();
            self.heartbeats.begun();
            self.heartbeats.asked_at = self.now;
            out.push(Effect::WatchBeats { of });
        }
        self.heartbeats.pulses = Some(pulses);
    }

    /// Ends the leases of those whose heartbeat has stopped, once that can be believed. A client, which writes nothing,
    /// takes them for gone by itself.
    pub(super) fn end_lapsed(&mut self, out: &mut Vec<Effect>) {
        let client = self.config.is_client();
        if !self.heartbeats.current || !(client || self.may_act()) {
            return;
        }
        let stopped = self.heartbeats.pulses.iter().flatten().filter(|(_, pulse)| !pulse.beating);
        let lapsed: Vec<NodeId> =
            stopped.filter(|(id, pulse)| self.has_lapsed(id, pulse)).map(|(id, _)| id.clone()).collect();
        for id in lapsed {
            let Some(Known { value: LeaseState::Live(lease), .. }) = self.view.leases.get(&id) else { continue };
            if client {
                self.view.lapse(&id, self.now);
                self.tell_lost(id, out);
            } else {
                let tombstone = Lease { ended_by: Some(self.config.me.clone()), lapsed: true, ..lease.clone() };
                self.cas(Entry::Lease(id, tombstone), out);
            }
        }
    }

    /// True if a node's lease is there, and nothing was heard of the node after it for so long that it cannot serve.
    fn has_lapsed(&self, id: &NodeId, pulse: &Pulse) -> bool {
        let Some(Known { value: LeaseState::Live(_), at, .. }) = self.view.leases.get(id) else { return false };
        // Of one that was never seen it is not known since when it has been silent.
        let patience = if pulse.seen { self.config.renew_every_ms } else { self.config.lease_ttl_ms };
        self.is_credible(pulse.at.max(*at), patience)
    }
}
