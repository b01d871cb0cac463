//! The other nodes: which of them are gone, and whether the broker is to blame instead.
//!
//! Owns the judgement that a claim's holder is dead. It acts on nothing: [`claims`](super::claims) does.

use std::collections::BTreeSet;

use super::protocol::{Effect, Millis};
use super::{Key, Machine, NodeId, Phase};
use crate::ownership::record::{Claim, Entry, Lease, Past};
use crate::ownership::view::{Known, LeaseState};

/// Expiries remembered for telling an outage; more than this is one.
const EXPIRIES_MAX: usize = 1_024;

/// What is doubted, and what has been told.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Doubt {
    blame: Option<Blame>,
    /// When others' heartbeats were seen to stop, within the last renew interval.
    expiries: Vec<Millis>,
    /// The nodes told as lost and not seen since.
    pub(super) lost: BTreeSet<NodeId>,
}

/// The broker was away, so that nobody's expiry means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// Until a renewal sent after this time succeeds, and one TTL more.
    Renewal(Millis),
    /// Until this time.
    Until(Millis),
}

impl Machine {
    /// True if the holder of a claim is to be acted upon as dead: its lease was ended or deleted since, or was never seen
    /// and had the time to be.
    pub(super) fn is_dead(&self, holder: &NodeId, claim: &Known<Claim>) -> bool {
        match self.view.leases.get(holder) {
            Some(Known { value: LeaseState::Live(_), .. }) => false,
            // Whoever ended it has waited for as long as the node could have served.
            Some(Known { revision, .. }) if *revision > claim.value.lease => true,
            // Never seen, or only an end that the claim has outlived: one TTL without any news of it.
            _ => {
                let since = self.sync.at.map_or(self.now, |at| at.max(claim.at));
                self.is_credible(since, self.config.lease_ttl_ms)
            }
        }
    }

    /// Blames the broker because the own lease could not be renewed.
    pub(super) fn blame_for_own_lapse(&mut self) {
        if !matches!(self.doubt.blame, Some(Blame::Renewal(_))) {
            self.doubt.blame = Some(Blame::Renewal(self.now));
        }
    }

    pub(super) fn blame_until_after_renewal(&mut self, sent_at: Millis) {
        if let Some(Blame::Renewal(since)) = self.doubt.blame
            && sent_at >= since
        {
            self.doubt.blame = Some(Blame::Until(self.now + self.config.lease_ttl_ms));
        }
    }

    /// What has to be looked at as time passes.
    pub(super) fn sweep(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.doubt.blame, Some(Blame::Until(until)) if self.now >= until) {
            self.doubt.blame = None;
        }
        let ended = self.view.absent().filter(|id| self.view.leases.contains_key(*id));
        let lost: Vec<NodeId> = ended.filter(|id| self.is_gone(id)).cloned().collect();
        for id in lost {
            self.tell_lost(id, out);
        }
        self.release_held(out);
        self.writes.prune(&self.view, self.now);
        self.rewatch_if_stuck(out);
        self.end_lapsed(out);
        self.clear_tombstones(out);
        self.tidy(out);
    }

    /// True if a node's lease has ended and that is to be believed.
    pub(super) fn is_gone(&self, id: &NodeId) -> bool {
        match self.view.leases.get(id) {
            Some(Known { value: LeaseState::Live(_), .. }) => false,
            Some(_) => true,
            None => self.sync.at.is_some_and(|at| self.is_credible(at, self.config.lease_ttl_ms)),
        }
    }

    /// True if `patience` has passed since `since`, a renewal sent since then has been acknowledged and has come back
    /// through both watches, and the broker is not to blame.
    pub(super) fn is_credible(&self, since: Millis, patience: Millis) -> bool {
        let connected = self.tenure.is_connected() && self.sync.at.is_some();
        let heard = (self.config.is_client() && connected) || self.tenure.heard_at.is_some_and(|heard| heard >= since);
        heard && self.now >= since + patience && self.doubt.blame.is_none()
    }

    /// Asks for a new watch if a write was refused and the watch has not said why for a while, or if it has left
    /// something out.
    fn rewatch_if_stuck(&mut self, out: &mut Vec<Effect>) {
        if self.sync.at.is_none() || self.now < self.sync.rewatch_at {
            return;
        }
        let since = self.now.saturating_sub(self.config.unsure_patience_ms);
        if self.sync.doubted || self.writes.stuck(&self.view, since) {
            self.sync.doubted = false;
            // Not more often than a broker that is slow to answer can bear.
            self.sync.rewatch_at = self.now + 2 * self.config.unsure_patience_ms;
            out.push(Effect::Rewatch);
        }
    }

    /// Takes in that so many heartbeats of others were seen to stop.
    pub(super) fn count_expiries(&mut self, stopped: usize) {
        if stopped == 0 {
            return;
        }
        let from = self.now.saturating_sub(self.config.renew_every_ms);
        self.doubt.expiries.retain(|at| *at >= from);
        let room = EXPIRIES_MAX.saturating_sub(self.doubt.expiries.len());
        self.doubt.expiries.extend(std::iter::repeat_n(self.now, stopped.min(room)));
        let expired = self.doubt.expiries.len();
        if expired >= 2 && expired * 3 > self.heartbeats.live() + expired {
            self.doubt.blame = Some(if self.config.is_client() {
                Blame::Until(self.now + self.config.lease_ttl_ms)
            } else {
                Blame::Renewal(self.now)
            });
        }
    }

    pub(super) fn tell_lost(&mut self, id: NodeId, out: &mut Vec<Effect>) {
        if !self.is_me(&id) && self.doubt.lost.insert(id.clone()) {
            out.push(Effect::NodeLost { id });
        }
    }

    /// Looks whether a lease that is known names another connection now.
    pub(super) fn tell_reconnected(&self, id: &NodeId, now: &Lease, out: &mut Vec<Effect>) {
        let Some(Known { value: LeaseState::Live(before), .. }) = self.view.leases.get(id) else { return };
        let another = (&before.server, before.client) != (&now.server, now.client);
        if another && !self.is_me(id) {
            out.push(Effect::Reconnected { id: id.clone() });
        }
    }

    /// Removes the records of nodes that have been gone for two TTLs and hold nothing. The first of the live nodes does
    /// it, in the order of ids; if two believe to be that, one is refused.
    fn tidy(&mut self, out: &mut Vec<Effect>) {
        let Some(before) = self.now.checked_sub(2 * self.config.lease_ttl_ms) else { return };
        self.view.forget_markers(before);
        let gone = |id: &NodeId| {
            let lease = self.view.leases.get(id);
            let since = lease.map(|lease| lease.at).or(self.sync.at);
            let tombstone = lease.is_some_and(|lease| matches!(lease.value, LeaseState::Tombstone { .. }));
            !tombstone && !self.is_me(id) && since.is_some_and(|at| at <= before) && self.is_gone(id)
        };
        let holds = |id: &NodeId| self.view.held_by(id).next().is_some();
        let gone: Vec<NodeId> = self.view.absent().filter(|id| gone(id) && !holds(id)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let mine = self.may_act() && self.phase == Phase::Running && self.is_first();
        for id in gone {
            if !self.view.members.contains_key(&id) {
                self.view.forget(&Key::Lease(id.clone()));
                self.doubt.lost.remove(&id);
            } else if mine {
                self.bury(id, out);
            }
        }
    }

    /// Deletes the record of a node that is gone; one that did not do so itself has died.
    pub(super) fn bury(&mut self, id: NodeId, out: &mut Vec<Effect>) {
        let name: Option<std::sync::Arc<str>> =
            self.view.members.get(&id).map(|member| member.value.name.as_str().into());
        if self.delete(Key::Member(id), out)
            && let Some(name) = name
        {
            let deaths = self.view.deaths(&name).saturating_add(1);
            self.cas(Entry::Past(name, Past { deaths }), out);
        }
    }

    /// True if this node is the first of the live ones, in the order of ids.
    pub(super) fn is_first(&self) -> bool {
        self.view.members.keys().find(|id| self.view.is_live(id)) == Some(&self.config.me)
    }
}
