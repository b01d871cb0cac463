//! Claims: taking what is free, serving what is held, letting go of what was taken.
//!
//! Owns the state of each partition on this node and its look at the level of things, [`Machine::settle`]. How a
//! partition goes to another node on purpose is in [`handover`](super::handover).

use std::collections::BTreeSet;

use super::protocol::{Effect, LeaveCause, Millis, RetireReason};
use super::{Entry, Key, Machine, NodeId, Part, Phase};
use crate::ownership::record::Claim;

/// What this node does about a partition.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Local {
    /// It admits turns.
    Serving { epoch: u64 },
    /// It admits turns, and waits for an heir to be ready.
    Offering { epoch: u64, heir: NodeId, since: Millis },
    /// It admits nothing; the claim goes to the heir, if the write succeeds over the revision `expect`. The first such
    /// write was made under the own lease that began at `lease`.
    Transferring { epoch: u64, heir: NodeId, expect: u64, lease: u64 },
    /// It holds messages until the claim names it; `idle` are the busy keys already told to be so.
    Holding { epoch: u64, from: NodeId, since: Millis, idle: BTreeSet<String> },
    /// It has left without an heir; the release is written once it is quiet.
    Releasing { epoch: u64, quiet: bool },
}

impl Local {
    /// The epoch at which turns are admitted.
    pub(super) fn serving(&self) -> Option<u64> {
        match self {
            Self::Serving { epoch } | Self::Offering { epoch, .. } => Some(*epoch),
            Self::Transferring { .. } | Self::Holding { .. } | Self::Releasing { .. } => None,
        }
    }

    pub(super) fn admits(&self) -> bool {
        self.serving().is_some()
    }

    /// True from the offer until the claim is the heir's.
    pub(super) fn is_giving(&self) -> bool {
        matches!(self, Self::Offering { .. } | Self::Transferring { .. })
    }
}

impl Machine {
    /// Looks at every partition that this node does, or may have to do, something about: all but those that another
    /// live node holds and that were not free at the last look.
    pub(super) fn settle_all(&mut self, out: &mut Vec<Effect>) {
        let mut parts: Vec<Part> = self.parts.iter().map(|(part, _)| part.clone()).collect();
        let own = parts.len();
        parts.extend(self.view.held_by(&self.config.me).filter(|part| self.parts.get(part).is_none()).cloned());
        parts.extend(self.free_since.keys().cloned());
        if self.phase == Phase::Running && self.may_act() {
            parts.extend(self.view.open().cloned());
        }
        if parts.len() > own {
            parts.sort();
            parts.dedup();
        }
        for part in parts {
            if self.phase == Phase::Over {
                return;
            }
            self.settle(&part, out);
        }
    }

    /// Looks at those whose writes found no room, until there is none again.
    pub(super) fn settle_waiting(&mut self, out: &mut Vec<Effect>) {
        while self.phase != Phase::Over
            && !self.writes.is_full()
            && let Some(part) = self.writes.next_waiting()
        {
            self.settle(&part, out);
        }
    }

    /// Looks at one partition and does what is missing.
    pub(super) fn settle(&mut self, part: &Part, out: &mut Vec<Effect>) {
        if !self.config.hosts.contains_key(part.actor.as_ref()) || part.number >= self.config.partitions {
            return;
        }
        self.follow(part, out);
        if self.phase == Phase::Over {
            return;
        }
        match self.parts.get(part) {
            None | Some(Local::Holding { .. }) => {
                self.give_up_holding(part, out);
                self.claim_if_free(part, out);
            }
            Some(Local::Serving { .. }) if !self.stands(part) => self.reaffirm(part, out),
            Some(Local::Serving { .. }) => self.hand_on(part, out),
            Some(Local::Offering { .. }) => self.check_offer(part),
            Some(Local::Transferring { .. }) => self.push_transfer(part, out),
            Some(Local::Releasing { .. }) => self.release(part, out),
        }
    }

    /// True if the claim is this node's and was written under its present lease: nobody can have good reason to take
    /// it.
    pub(super) fn stands(&self, part: &Part) -> bool {
        let claim = self.view.claim(part).map(|claim| &claim.value);
        claim.is_some_and(|claim| claim.node.as_ref() == Some(&self.config.me) && claim.lease >= self.tenure.birth)
    }

    /// Writes a claim of one's own anew: under the present lease, or over a transfer that may have failed.
    pub(super) fn reaffirm(&mut self, part: &Part, out: &mut Vec<Effect>) {
        let Some(before) = self.view.claim(part).map(|claim| &claim.value) else { return };
        if self.lease_holds() {
            let mut claim = self.own_claim(before.epoch);
            (claim.busy, claim.busy_at) = match (self.parts.get(part), self.held.get(part)) {
                // Not served yet: what it has to wait for stands there.
                (None | Some(Local::Holding { .. }), _) => self.waited_for(before),
                (_, Some(held)) => (held.keys.iter().cloned().collect(), Some(held.at.clone())),
                (_, None) => (Vec::new(), None),
            };
            self.cas(Entry::Claim(part.clone(), claim), out);
        }
    }

    pub(super) fn nonce(&self, epoch: u64) -> String {
        // The time tells apart two writes over one revision, of which only one can succeed anyway.
        format!("{}-{epoch}-{}", self.config.incarnation, self.now)
    }

    pub(super) fn leave(
        &mut self,
        part: &Part,
        epoch: u64,
        heir: Option<NodeId>,
        cause: LeaveCause,
        out: &mut Vec<Effect>,
    ) {
        self.held.remove(part);
        self.retries.remove(part);
        self.leaving.entry((part.clone(), epoch)).or_default().begin();
        out.push(Effect::Leave { part: part.clone(), epoch, heir, cause });
    }

    /// Tells callers that a claim has another holder.
    pub(super) fn tell_moved(&self, part: &Part, claim: &Claim, revision: u64, out: &mut Vec<Effect>) {
        let before = self.view.claim(part);
        let from = before.and_then(|before| before.value.node.clone());
        if before.is_some_and(|before| before.revision >= revision) || from == claim.node {
            return;
        }
        // Several changes may be shown as one. Nothing is taken from a node that lives.
        let skipped = before.is_some_and(|before| before.value.epoch.saturating_add(1) < claim.epoch);
        let lives = from.as_ref().is_some_and(|from| self.view.is_live(from));
        let planned = from.is_none() || claim.node.is_none() || claim.from == from || (skipped && lives);
        out.push(Effect::Moved { part: part.clone(), from, to: claim.node.clone(), epoch: claim.epoch, planned });
    }

    /// Looks whether somebody took a partition from an heir of this node, and waits for turns that run here.
    pub(super) fn tell_waited_for(&self, part: &Part, claim: &Claim, revision: u64, out: &mut Vec<Effect>) {
        let Some(to) = claim.node.clone().filter(|_| claim.busy_at.as_ref() == Some(&self.config.me)) else { return };
        if self.view.claim(part).is_none_or(|known| known.revision < revision) {
            let (part, epoch, keys) = (part.clone(), claim.epoch, claim.busy.clone());
            out.push(Effect::ReportIdle { part, epoch, to, keys });
        }
    }

    /// Makes what this node does agree with what the claim says.
    fn follow(&mut self, part: &Part, out: &mut Vec<Effect>) {
        match self.view.claim(part) {
            Some(claim) if claim.value.node.as_ref() == Some(&self.config.me) => {
                // A claim from before the present lease may be about to be taken: it is written anew first.
                let stands = self.tenure.birth > 0 && claim.value.lease >= self.tenure.birth;
                if stands && self.is_news(part, claim.value.epoch, claim.revision) {
                    let claim = claim.value.clone();
                    self.serve(part, &claim, out);
                }
            }
            claim if self.parts.get(part).is_some() => {
                let claim = claim.map(|claim| claim.value.clone());
                self.follow_other(part, claim, out);
            }
            _ => {}
        }
    }

    /// True if an own claim asks for more than is done about it.
    fn is_news(&self, part: &Part, claimed: u64, revision: u64) -> bool {
        match self.parts.get(part) {
            None | Some(Local::Holding { .. }) => true,
            Some(Local::Serving { epoch } | Local::Offering { epoch, .. }) => claimed != *epoch,
            Some(Local::Transferring { expect, .. }) => revision > *expect,
            Some(Local::Releasing { .. }) => false,
        }
    }

    fn serve(&mut self, part: &Part, claim: &Claim, out: &mut Vec<Effect>) {
        let epoch = claim.epoch;
        let before = self.parts.insert(part.clone(), Local::Serving { epoch });
        let told = match before {
            Some(Local::Holding { idle, .. }) => idle,
            Some(Local::Transferring { .. }) => BTreeSet::new(),
            _ => {
                out.push(Effect::Join { part: part.clone(), epoch, reply_to: None });
                BTreeSet::new()
            }
        };
        let busy = self.hold_busy(part, claim, &told);
        self.free_since.remove(part);
        out.push(Effect::Serve { part: part.clone(), epoch, busy, from: claim.from.clone() });
    }

    fn follow_other(&mut self, part: &Part, claim: Option<Claim>, out: &mut Vec<Effect>) {
        let holder = claim.as_ref().and_then(|claim| claim.node.clone());
        let claimed = claim.as_ref().map_or(0, |claim| claim.epoch);
        let (epoch, cause) = match self.parts.get(part) {
            None => return,
            Some(Local::Holding { epoch, from, .. }) => {
                let awaited = holder.is_none() || (holder.as_ref() == Some(from) && claimed < *epoch);
                if awaited || holder.as_ref().is_some_and(|holder| !self.view.is_live(holder)) {
                    return;
                }
                (*epoch, LeaveCause::NotNeeded)
            }
            // Released, and perhaps claimed by another, and released again, before the watch could show the release:
            // the bucket keeps one revision of a key. Nothing of it runs here any more.
            Some(Local::Releasing { epoch, quiet })
                if (holder.is_none() && claimed == *epoch) || (*quiet && (holder.is_some() || claimed > *epoch)) =>
            {
                self.parts.remove(part);
                return;
            }
            // Given away, and perhaps handed on before the watch could show that: while the lease has not ended since,
            // nobody can have had good reason to take it.
            Some(Local::Transferring { epoch, lease, .. })
                if claimed > *epoch && holder.is_some() && self.unbroken_since(*lease) =>
            {
                (*epoch, LeaveCause::HandedOver)
            }
            Some(
                Local::Serving { epoch }
                | Local::Offering { epoch, .. }
                | Local::Transferring { epoch, .. }
                | Local::Releasing { epoch, .. },
            ) => {
                let given = claim.as_ref().and_then(|claim| claim.from.as_ref()) == Some(&self.config.me);
                let planned = given && claimed == epoch.saturating_add(1);
                (*epoch, if planned { LeaveCause::HandedOver } else { LeaveCause::Superseded })
            }
        };
        self.parts.remove(part);
        self.leave(part, epoch, holder, cause, out);
        if cause == LeaveCause::Superseded {
            // Somebody believed this node dead, and others may be about to: rule 1.
            self.retire(RetireReason::ClaimTaken, out);
        }
    }

    /// Claims a partition that nobody holds, when it is this node's turn to.
    fn claim_if_free(&mut self, part: &Part, out: &mut Vec<Effect>) {
        let claim = self.view.claim(part);
        let holder = claim.and_then(|claim| Some((claim.value.node.as_ref()?, claim)));
        if let Some((holder, claim)) = holder {
            if self.is_me(holder) {
                // Its own by a write from before the present lease.
                return self.reaffirm(part, out);
            }
            if !self.is_dead(holder, claim) {
                self.free_since.remove(part);
                return;
            }
        }
        let epoch = claim.map_or(self.config.first_epoch, |claim| claim.value.epoch).saturating_add(1);
        // What was released was left in order.
        let from = claim.filter(|claim| claim.value.node.is_none()).and_then(|claim| claim.value.from.clone());
        // An heir that is gone may have waited for turns of the owner before it.
        let (busy, busy_at) = claim.map_or((Vec::new(), None), |claim| self.waited_for(&claim.value));
        if self.phase != Phase::Running || !self.may_act() {
            return;
        }
        let since = *self.free_since.entry(part.clone()).or_insert(self.now);
        let candidates = self.roster.of(&self.view, &part.actor);
        let Some(place) = candidates.place(part.number, None) else { return };
        // The first at once, the second after the patience, anybody after twice that.
        if self.now >= since + self.config.orphan_patience_ms * place && self.has_room_for(part) {
            let claim = Claim { from, busy, busy_at, ..self.own_claim(epoch) };
            self.cas(Entry::Claim(part.clone(), claim), out);
        }
    }

    /// The busy keys of a claim whose turns may run still, and where.
    fn waited_for(&self, claim: &Claim) -> (Vec<String>, Option<NodeId>) {
        match claim.turns_run_at().filter(|at| self.is_me(at) || !self.is_gone(at)) {
            Some(at) => (claim.busy.clone(), Some(at.clone())),
            None => (Vec::new(), None),
        }
    }

    fn own_claim(&self, epoch: u64) -> Claim {
        Claim::new(Some(self.config.me.clone()), epoch, self.nonce(epoch), self.tenure.birth)
    }

    /// The state of a partition's key for a write.
    pub(super) fn may_write(&self, part: &Part) -> bool {
        let key = Key::Part(part.clone());
        self.writes.ready(&key, self.view.revision(&key), self.now)
    }
}
