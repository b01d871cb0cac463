//! Handover: a partition goes to another node on purpose, and nobody waits for anybody's turn.
//!
//! Owns both sides. The giver offers, and writes the heir into the claim once it is ready; the heir joins, holds, and
//! serves when the claim names it. Draining is handing over everything, and releasing what nobody takes.

use std::collections::BTreeSet;

use super::claims::Local;
use super::protocol::{Effect, LeaveCause, Millis};
use super::{Entry, Machine, NodeId, Part, Phase, Scope};
use crate::ownership::record::Claim;
use crate::ownership::view::{Known, LeaseState};

/// The first pause between two offers of one partition; it doubles up to one TTL, or to a fifteenth of it while
/// draining.
const PAUSE_MS: Millis = 500;
/// Offers of a partition that a draining node makes to one heir before it tries the next in order.
const OFFERS_EACH: u32 = 3;
/// Idle keys remembered before the claim that names them.
const IDLE_MAX: usize = 1_024;

/// Offers of a partition that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    failed: u32,
    not_before: Millis,
}

/// The keys of a partition that still run at its old owner.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Held {
    /// Where their turns run.
    pub(super) at: NodeId,
    pub(super) keys: BTreeSet<String>,
}

/// Leaves of one partition at one epoch that are under way; counted, because an epoch may be held twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaves {
    subscribed: u32,
    running: u32,
}

impl Leaves {
    pub(super) fn begin(&mut self) {
        self.subscribed += 1;
        self.running += 1;
    }
}

// The giver.
impl Machine {
    pub(super) fn begin_drain(&mut self, within: Millis) {
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
            self.release_at = self.now.saturating_add(within / 4 * 3);
        }
    }

    /// Offers a partition to the node that should have it.
    pub(super) fn hand_on(&mut self, part: &Part, out: &mut Vec<Effect>) {
        let Some(Local::Serving { epoch }) = self.parts.get(part) else { return };
        let epoch = *epoch;
        let draining = self.phase == Phase::Draining;
        if !draining && self.roster.is_at_home(&self.view, part) && !self.retries.contains_key(part) {
            // As almost always.
            return;
        }
        if !self.may_act() || !self.may_write(part) {
            return;
        }
        let overdue = draining && self.now >= self.release_at;
        if self.held.contains_key(part) && !overdue {
            // Its old owner tells this node, and nobody else, when the last turns there have ended.
            return;
        }
        let retry = self.retries.get(part).copied().unwrap_or(Retry { failed: 0, not_before: 0 });
        if draining && (overdue || !self.roster.of(&self.view, &part.actor).any(&self.config.me)) {
            return self.begin_release(part, epoch, out);
        }
        let soon = self.now >= retry.not_before && self.parts.giving() < self.config.handovers_at_once;
        if !soon && (draining || retry.failed == 0) {
            return;
        }
        match self.heir(part, retry.failed) {
            None => drop(self.retries.remove(part)),
            Some(heir) if soon => {
                out.push(Effect::Offer { part: part.clone(), epoch, to: heir.clone() });
                self.parts.insert(part.clone(), Local::Offering { epoch, heir, since: self.now });
            }
            Some(_) => {}
        }
    }

    pub(super) fn check_offer(&mut self, part: &Part) {
        if let Some(Local::Offering { heir, since, .. }) = self.parts.get(part)
            && (self.now >= since + self.config.offer_patience_ms || !self.view.is_live(heir))
        {
            self.offer_failed(part);
        }
    }

    pub(super) fn replied(&mut self, part: &Part, epoch: u64, heir: &NodeId, ready: bool, out: &mut Vec<Effect>) {
        match self.parts.get(part) {
            Some(Local::Offering { epoch: held, heir: asked, .. }) if *held == epoch && asked == heir => {}
            _ => return,
        }
        // It may have been taken meanwhile, or the heir may be gone: then the next look at things decides.
        let fit = ready && self.may_act() && self.stands(part) && self.may_write(part);
        if !(fit && self.send_transfer(part, epoch, heir, out)) {
            self.offer_failed(part);
        }
    }

    /// After a transfer whose answer was lost: writes it again, or takes the partition back if the heir is gone.
    pub(super) fn push_transfer(&mut self, part: &Part, out: &mut Vec<Effect>) {
        let Some(Local::Transferring { epoch, heir, .. }) = self.parts.get(part) else { return };
        let (epoch, heir) = (*epoch, heir.clone());
        if self.lease_holds() && self.may_write(part) {
            let fit = self.stands(part) && self.send_transfer(part, epoch, &heir, out);
            if !fit {
                self.reaffirm(part, out);
            }
        }
    }

    pub(super) fn release(&mut self, part: &Part, out: &mut Vec<Effect>) {
        let Some(Local::Releasing { epoch, quiet: true }) = self.parts.get(part) else { return };
        let epoch = *epoch;
        let from = Some(self.config.me.clone());
        let claim = Claim { from, ..Claim::new(None, epoch, self.nonce(epoch), self.tenure.birth) };
        if self.cas(Entry::Claim(part.clone(), claim), out) {
            self.retries.remove(part);
        }
    }

    pub(super) fn stilled(&mut self, part: Part, epoch: u64) -> Scope {
        if let Some(leaves) = self.leaving.get_mut(&(part, epoch)) {
            leaves.running = leaves.running.saturating_sub(1);
        }
        Scope::Nothing
    }

    pub(super) fn quiesced(&mut self, part: Part, epoch: u64) -> Scope {
        let key = (part, epoch);
        if let Some(leaves) = self.leaving.get_mut(&key) {
            leaves.subscribed = leaves.subscribed.saturating_sub(1);
            leaves.running = leaves.running.min(leaves.subscribed);
            if leaves.subscribed == 0 {
                self.leaving.remove(&key);
            }
        }
        if let Some(Local::Releasing { epoch: left, quiet }) = self.parts.get_mut(&key.0) {
            *quiet |= *left == epoch;
        }
        Scope::One(key.0)
    }

    pub(super) fn finish_drain(&mut self, out: &mut Vec<Effect>) {
        let quiet = self.parts.is_empty() && self.leaving.is_empty() && self.tenure.is_idle();
        if self.phase != Phase::Draining || !quiet || !self.writes.is_idle(&self.view, self.now) {
            return;
        }
        if self.view.held_by(&self.config.me).next().is_none() {
            self.phase = Phase::Over;
            self.tenure.fenced = true;
            out.push(Effect::Drained);
        }
    }

    /// The node that should have a partition instead of this one. A draining node whose offers have `failed` asks
    /// others too.
    fn heir(&mut self, part: &Part, failed: u32) -> Option<NodeId> {
        let me = &self.config.me;
        if self.phase != Phase::Draining {
            if self.roster.is_at_home(&self.view, part) {
                return None;
            }
            let first = self.roster.of(&self.view, &part.actor).first(part.number, None);
            let heir = first.filter(|id| *id != me).cloned();
            if heir.is_none() {
                self.roster.settle(part);
            }
            return heir;
        }
        let ranked = self.roster.of(&self.view, &part.actor).ranked(part.number, Some(me));
        let place = (failed / OFFERS_EACH) as usize;
        ranked.get(place % ranked.len().max(1)).copied().cloned()
    }

    fn send_transfer(&mut self, part: &Part, epoch: u64, heir: &NodeId, out: &mut Vec<Effect>) -> bool {
        let Some(Known { value: LeaseState::Live(_), revision: lease, .. }) = self.view.leases.get(heir) else {
            return false;
        };
        let (from, next) = (Some(self.config.me.clone()), epoch.saturating_add(1));
        let claim = Claim { from, ..Claim::new(Some(heir.clone()), next, self.nonce(next), *lease) };
        let expect = self.view.claim(part).map_or(0, |claim| claim.revision);
        let sent = self.transfer(Entry::Claim(part.clone(), claim), out);
        if sent {
            let lease = match self.parts.get(part) {
                Some(Local::Transferring { lease, .. }) => *lease,
                _ => self.tenure.birth,
            };
            self.parts.insert(part.clone(), Local::Transferring { epoch, heir: heir.clone(), expect, lease });
        }
        sent
    }

    fn offer_failed(&mut self, part: &Part) {
        let Some(Local::Offering { epoch, .. }) = self.parts.get(part) else { return };
        let epoch = *epoch;
        self.parts.insert(part.clone(), Local::Serving { epoch });
        let failed = self.retries.get(part).map_or(0, |retry| retry.failed).saturating_add(1);
        let longest = self.config.lease_ttl_ms / if self.phase == Phase::Draining { 15 } else { 1 };
        let pause = (PAUSE_MS << (failed - 1).min(10)).min(longest);
        self.retries.insert(part.clone(), Retry { failed, not_before: self.now + pause });
    }

    fn begin_release(&mut self, part: &Part, epoch: u64, out: &mut Vec<Effect>) {
        self.leave(part, epoch, None, LeaveCause::Released, out);
        self.parts.insert(part.clone(), Local::Releasing { epoch, quiet: false });
    }
}

// The heir.
impl Machine {
    pub(super) fn offered(&mut self, part: Part, epoch: u64, from: NodeId, out: &mut Vec<Effect>) {
        if self.accepts(&part, epoch, &from) {
            let idle = BTreeSet::new();
            let reply_to = Some((from.clone(), epoch));
            out.push(Effect::Join { part: part.clone(), epoch: epoch.saturating_add(1), reply_to });
            self.parts.insert(part, Local::Holding { epoch: epoch.saturating_add(1), from, since: self.now, idle });
        } else {
            out.push(Effect::Decline { part, epoch, to: from });
        }
    }

    /// Stops holding for a transfer that does not come. Should it come after all, the claim says so.
    pub(super) fn give_up_holding(&mut self, part: &Part, out: &mut Vec<Effect>) {
        if let Some(Local::Holding { epoch, from, since, .. }) = self.parts.get(part)
            && self.now >= since + self.config.hold_patience_ms
        {
            let (epoch, from) = (*epoch, from.clone());
            self.parts.remove(part);
            self.leave(part, epoch, Some(from), LeaveCause::NotNeeded, out);
        }
    }

    pub(super) fn idle(&mut self, part: Part, epoch: u64, key: String, out: &mut Vec<Effect>) {
        match self.parts.get_mut(&part) {
            Some(Local::Holding { epoch: awaited, idle, .. }) if *awaited == epoch && idle.len() < IDLE_MAX => {
                idle.insert(key);
            }
            Some(local) if local.serving() == Some(epoch) => {
                let Some(held) = self.held.get_mut(&part) else { return };
                if held.keys.remove(&key) {
                    if held.keys.is_empty() {
                        self.held.remove(&part);
                    }
                    out.push(Effect::Admit { part, keys: vec![key] });
                }
            }
            _ => {}
        }
    }

    /// Notes the busy keys of a claim handed over, less those known to be idle; they are what `Serve` holds back.
    pub(super) fn hold_busy(&mut self, part: &Part, claim: &Claim, idle: &BTreeSet<String>) -> Vec<String> {
        let keys: BTreeSet<String> = claim.busy.iter().filter(|key| !idle.contains(*key)).cloned().collect();
        let busy = keys.iter().cloned().collect();
        match claim.turns_run_at() {
            Some(at) if !keys.is_empty() => {
                drop(self.held.insert(part.clone(), Held { at: at.clone(), keys }));
            }
            _ => drop(self.held.remove(part)),
        }
        busy
    }

    /// Admits what waited for a node that is gone.
    pub(super) fn release_held(&mut self, out: &mut Vec<Effect>) {
        let gone: Vec<Part> =
            self.held.iter().filter(|(_, held)| self.is_gone(&held.at)).map(|(part, _)| part.clone()).collect();
        for part in gone {
            if let Some(held) = self.held.remove(&part) {
                out.push(Effect::Admit { part, keys: held.keys.into_iter().collect() });
            }
        }
    }

    fn accepts(&self, part: &Part, epoch: u64, from: &NodeId) -> bool {
        let hosted = self.config.hosts.contains_key(part.actor.as_ref()) && part.number < self.config.partitions;
        let running = self.phase == Phase::Running && self.may_act() && hosted;
        let claim = self.view.claim(part).map(|claim| &claim.value);
        let theirs = claim.is_some_and(|claim| claim.node.as_ref() == Some(from) && claim.epoch == epoch);
        let free = match self.parts.get(part) {
            None => true,
            Some(Local::Holding { from: earlier, .. }) => earlier == from,
            Some(_) => false,
        };
        // An earlier turn here may still run: two generations of one partition are one too many.
        let mut leaving = self.leaving.range((part.clone(), 0)..=(part.clone(), u64::MAX));
        running && theirs && free && leaving.all(|(_, leaves)| leaves.running == 0)
    }
}
