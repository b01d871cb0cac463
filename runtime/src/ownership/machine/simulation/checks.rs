//! What must be true.
//!
//! At every instant: (i) for each partition at most one node is *active*, which is to say that it admits turns, is not
//! fenced, and its own clock is before `serves_until`; crashed nodes count for nothing, paused ones count. And the
//! stored claim names that node, and no key that it admits has a turn on another one. (ii) Epochs grow by
//! one with each change of holder, and only then; only a holder gives away (both in `broker`). (iii) No node writes a
//! claim before it has seen a whole snapshot and its own lease and member are acknowledged; a pure client writes
//! nothing. (iv) Nobody retires whose lease has never ended, and no tombstone is written over a lease whose connection
//! stands, or over that of a node which serves. At the end: every partition of every actor that has a host is active at
//! the first in rendezvous order, nowhere else, with nothing held back, and nobody holds calls for it; drained nodes have
//! ended and left no record.

use super::world::{Life, Node, World};
use crate::ownership::machine::{Effect, Millis};
use crate::ownership::record::{Entry, Key, NodeId, Part};
use crate::ownership::rendezvous;

impl World {
    /// Checks one partition, at the moments when somebody may have become active there.
    pub(super) fn check_active(&self, part: &Part) -> Result<(), String> {
        let active: Vec<&NodeId> =
            self.nodes.iter().filter(|node| node.is_active(part, self.now)).map(|node| &node.id).collect();
        match active[..] {
            [] => Ok(()),
            [one] => match self.broker.entry(&Key::Part(part.clone())) {
                Some(Entry::Claim(_, claim)) if claim.node.as_ref() == Some(one) => Ok(()),
                other => Err(format!("at {}: {one} is active on {part} without a claim: {other:?}", self.now)),
            },
            _ => Err(format!("at {}: {active:?} are all active on {part}", self.now)),
        }
    }

    /// No key that a node admits has a turn on another one, as long as that one may run it.
    pub(super) fn check_turns(&self, at: usize, part: &Part) -> Result<(), String> {
        let node = &self.nodes[at];
        if !node.is_active(part, self.now) {
            return Ok(());
        }
        let held = node.held.get(part);
        for other in self.nodes.iter().filter(|other| other.id != node.id && other.is_proved(self.now)) {
            let mut running = other.running.get(part).into_iter().flatten();
            if let Some(key) = running.find(|key| !held.is_some_and(|held| held.contains(*key))) {
                let (now, id, old) = (self.now, &node.id, &other.id);
                return Err(format!("at {now}: {id} admits {key} of {part}, whose turn runs on {old}"));
            }
        }
        Ok(())
    }

    /// Nobody is active on a partition any more when somebody else's claim is stored.
    pub(super) fn check_claim(&self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Claim(part, _) => self.check_active(part),
            _ => Ok(()),
        }
    }

    pub(super) fn check_all_active(&self, at: usize) -> Result<(), String> {
        self.nodes[at].admitting.keys().try_for_each(|part| self.check_active(part))
    }

    pub(super) fn check_effect(&self, at: usize, effect: &Effect) -> Result<(), String> {
        let node = &self.nodes[at];
        let writes = matches!(
            effect,
            Effect::Renew { .. } | Effect::Cas { .. } | Effect::Delete { .. } | Effect::Transfer { .. }
        );
        if writes && node.hosts.is_empty() {
            return Err(format!("{}, a pure client, wrote: {effect:?}", node.id));
        }
        let claims = matches!(effect, Effect::Cas { entry: Entry::Claim(..), .. } | Effect::Transfer { .. });
        if claims && !(node.snapshots > 0 && node.leased && node.enrolled) {
            return Err(format!("{} wrote too early: {effect:?}", node.id));
        }
        if let Effect::Retire { reason } = effect
            && !self.broker.lapsed.contains(&node.id)
        {
            return Err(format!("{} retired for {reason:?}, and its lease has never ended", node.id));
        }
        if matches!(effect, Effect::Cas { entry: Entry::Member(..), .. }) && !node.leased {
            return Err(format!("{} wrote its member before its lease", node.id));
        }
        Ok(())
    }

    /// Checks that everything is where it should be.
    pub(super) fn check_settled(&self) -> Result<(), String> {
        for node in &self.nodes {
            if node.life == Life::Up && node.told_to_drain {
                return Err(format!("{} still drains", node.id));
            }
            if node.life == Life::Up && !node.hosts.is_empty() && node.machine.is_fenced() {
                return Err(format!("{} is still fenced", node.id));
            }
            if node.life == Life::Up && node.held.values().any(|keys| !keys.is_empty()) {
                return Err(format!("{} still holds keys back: {:?}", node.id, node.held));
            }
            // Whoever is in a queue group and admits nothing holds calls, and nobody would hear of them.
            if node.life == Life::Up
                && let Some(part) = node.joined.iter().find(|part| !node.admitting.contains_key(part))
            {
                return Err(format!("at {}: {} still holds the calls of {part}", self.now, node.id));
            }
        }
        for actor in self.actors() {
            for number in 0..self.plan.partitions {
                self.check_owner(&Part::new(actor.as_str(), number))?;
            }
        }
        self.check_records()
    }

    /// How many partitions the claims give to the node in a slot.
    pub(super) fn held_by(&self, slot: usize) -> u64 {
        let id = &self.nodes[slot].id;
        let held = self
            .broker
            .entries()
            .filter(|entry| matches!(entry, Entry::Claim(_, claim) if claim.node.as_ref() == Some(id)));
        held.count() as u64
    }

    fn check_owner(&self, part: &Part) -> Result<(), String> {
        let up = self.nodes.iter().filter(|node| node.life == Life::Up);
        let hosts = up.filter_map(|node| Some((&node.id, *node.hosts.get(part.actor.as_ref())?)));
        let Some(desired) = rendezvous::first(&part.actor, part.number, hosts) else { return Ok(()) };
        let active = self.nodes.iter().filter(|node| node.is_active(part, self.now)).map(|node| &node.id);
        let active: Vec<&NodeId> = active.collect();
        if active != [desired] {
            let claim = self.broker.entry(&Key::Part(part.clone()));
            return Err(format!("at {}: {part} should be at {desired}, is at {active:?}: {claim:?}", self.now));
        }
        for node in self.nodes.iter().filter(|node| node.life == Life::Up) {
            if node.machine.view().desired(&part.actor, part.number) != Some(desired) {
                let believed = node.machine.view().desired(&part.actor, part.number);
                return Err(format!("{} believes that {believed:?} should have {part}, not {desired}", node.id));
            }
        }
        Ok(())
    }

    fn check_records(&self) -> Result<(), String> {
        let up = |id: &NodeId| self.nodes.iter().any(|node| node.id == *id && node.life == Life::Up);
        let hosted = self.actors();
        for entry in self.broker.entries() {
            match entry {
                Entry::Claim(part, claim)
                    if hosted.contains(part.actor.as_ref()) && !claim.node.as_ref().is_some_and(up) =>
                {
                    return Err(format!("the claim of {part} names {:?}", claim.node));
                }
                // A tombstone stays while a claim names its node, here of an actor that nobody hosts; and everything
                // while nobody is there who writes.
                Entry::Lease(id, lease) if lease.ended_by.is_some() && self.is_named(id) => {}
                Entry::Lease(id, _) if !up(id) && !hosted.is_empty() => {
                    return Err(format!("{id} is gone and left its lease"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_named(&self, id: &NodeId) -> bool {
        let mut claims = self.broker.entries();
        claims.any(|entry| matches!(entry, Entry::Claim(_, claim) if claim.node.as_ref() == Some(id)))
    }

    /// The actors that somebody hosts.
    fn actors(&self) -> std::collections::BTreeSet<String> {
        let up = self.nodes.iter().filter(|node| node.life == Life::Up);
        up.flat_map(|node| node.hosts.keys().cloned()).collect()
    }
}

impl Node {
    fn is_active(&self, part: &Part, now: Millis) -> bool {
        self.admitting.contains_key(part) && self.is_proved(now)
    }

    pub(super) fn is_proved(&self, now: Millis) -> bool {
        self.life == Life::Up && !self.machine.is_fenced() && self.clock(now) < self.machine.serves_until()
    }
}
