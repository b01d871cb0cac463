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
use super::{Machine, NodeId};
use crate::ownership::view::{Known, LeaseState};

/// What is known of the heartbeats that are watched.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Heartbeats {
    /// Those that matter; the watch may show others that did a while ago.
    pulses: BTreeMap<NodeId, Pulse>,
    /// Whether a watch was ever asked for.
    asked: bool,
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
    /// Its revision, or one less than its marker's; 0 if it was never shown. A watch that reads from a replica that is
    /// behind makes up an end one above what it had shown, and may show that very heartbeat again.
    revision: u64,
}

/// What a heartbeat that was shown means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Beats,
    /// It had been seen, and has stopped.
    Stops,
}

impl Heartbeats {
    /// How many of those watched are known to beat.
    pub(super) fn live(&self) -> usize {
        self.pulses.values().filter(|pulse| pulse.beating && pulse.revision > 0).count()
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.pulses.len()
    }

    pub(super) fn begun(&mut self) {
        self.current = false;
        self.shown.clear();
    }

    /// Takes in a heartbeat, or its end.
    pub(super) fn beat(&mut self, id: &NodeId, revision: u64, beating: bool, now: Millis) -> Heard {
        let Some(pulse) = self.pulses.get_mut(id) else { return Heard::Nothing };
        self.shown.insert(id.clone());
        // A replica that is behind may show what was before.
        if revision < pulse.revision {
            return Heard::Nothing;
        }
        let before = *pulse;
        if beating {
            *pulse = Pulse { beating, at: now, revision };
            return Heard::Beats;
        }
        if !before.beating {
            return Heard::Nothing;
        }
        *pulse = Pulse { beating, at: now, revision: revision.saturating_sub(1) };
        self.stopped = true;
        if before.revision > 0 { Heard::Stops } else { Heard::Nothing }
    }

    /// Whatever was not shown has stopped: its marker may be gone as well. Says how many had been seen before.
    pub(super) fn shown(&mut self, now: Millis) -> usize {
        self.current = true;
        let missing = self.pulses.iter_mut().filter(|(id, pulse)| pulse.beating && !self.shown.contains(*id));
        let mut seen = 0;
        for (_, pulse) in missing {
            *pulse = Pulse { beating: false, at: now, ..*pulse };
            self.stopped = true;
            seen += usize::from(pulse.revision > 0);
        }
        seen
    }

    /// True if the watch has shown nothing of a node for so long that it must have stopped, and does not say so: where it
    /// is slow, a marker may vanish before it is shown.
    fn is_overdue(&self, now: Millis, ttl: Millis) -> bool {
        let silent = self.pulses.values().any(|pulse| pulse.beating && now >= pulse.at + 2 * ttl);
        silent && now >= self.asked_at + 2 * ttl
    }
}

impl Machine {
    /// Asks for other heartbeats when the ring has changed.
    pub(super) fn attend(&mut self, out: &mut Vec<Effect>) {
        let overdue = self.heartbeats.is_overdue(self.now, self.config.lease_ttl_ms);
        let changed = self.heartbeats.looked_at != self.view.index.hosts || self.heartbeats.stopped;
        if self.sync.at.is_none() || (!overdue && !changed && self.heartbeats.asked) {
            return;
        }
        (self.heartbeats.looked_at, self.heartbeats.stopped) = (self.view.index.hosts, false);
        let (mut beating, mut wanted) = (0, self.config.neighbours);
        let mut pulses = BTreeMap::new();
        for id in self.view.after_on_ring(&self.config.me) {
            if beating == wanted {
                break;
            }
            let new = Pulse { beating: true, at: self.now, revision: 0 };
            let pulse = self.heartbeats.pulses.get(id).copied().unwrap_or(new);
            // One more for each that has stopped: of a thousand that are gone, eight after eight would take long to know.
            (beating, wanted) = if pulse.beating { (beating + 1, wanted) } else { (beating, wanted + 1) };
            pulses.insert(id.clone(), pulse);
        }
        // Whom a client takes for gone may come back.
        for (id, pulse) in &self.heartbeats.pulses {
            if self.view.is_lapsed(id) {
                pulses.entry(id.clone()).or_insert(*pulse);
            }
        }
        // What was said of others while they did not matter was not listened to.
        let covered = self.heartbeats.asked && pulses.keys().all(|id| self.heartbeats.pulses.contains_key(id));
        self.heartbeats.pulses = pulses;
        if overdue || !covered {
            let of: Vec<NodeId> = self.heartbeats.pulses.keys().cloned().collect();
            self.heartbeats.begun();
            self.heartbeats.asked = true;
            self.heartbeats.asked_at = self.now;
            out.push(Effect::WatchBeats { of });
        }
    }

    /// Ends the leases of those whose heartbeat has stopped, once that can be believed. A client, which writes nothing,
    /// takes them for gone by itself.
    pub(super) fn end_lapsed(&mut self, out: &mut Vec<Effect>) {
        let client = self.config.is_client();
        if !self.heartbeats.current || !(client || self.may_act()) {
            return;
        }
        let stopped = self.heartbeats.pulses.iter().filter(|(_, pulse)| !pulse.beating);
        let lapsed: Vec<NodeId> =
            stopped.filter(|(id, pulse)| self.has_lapsed(id, pulse)).map(|(id, _)| id.clone()).collect();
        for id in lapsed {
            if client {
                self.view.lapse(&id, true, self.now);
                self.tell_lost(id, out);
            } else {
                self.end_lease(id, true, out);
            }
        }
    }

    /// True if a node's lease is there, and nothing was heard of the node after it for so long that it cannot serve.
    fn has_lapsed(&self, id: &NodeId, pulse: &Pulse) -> bool {
        let Some(Known { value: LeaseState::Live(_), at, .. }) = self.view.leases.get(id) else { return false };
        // Of one that was never seen it is not known since when it has been silent.
        let patience = if pulse.revision > 0 { self.config.renew_every_ms } else { self.config.lease_ttl_ms };
        self.is_credible(pulse.at.max(*at), patience)
    }
}
