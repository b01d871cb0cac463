//! The writes under way: one at a time for each key, and what a missing or negative answer blocks.
//!
//! Owns the bookkeeping of compare-and-set. What is written, and why, is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::protocol::{CasId, CasResult, Effect, Millis};
use super::{Entry, Key, Machine, Part, Scope};
use crate::ownership::view::View;

/// Writes in flight at once, heartbeats and the own lease apart; the rest waits for the next look.
const AT_ONCE: usize = 64;

/// The state of the own writes.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Writes {
    last: CasId,
    pending: BTreeMap<CasId, (Write, u64)>,
    blocked: BTreeMap<Key, Block>,
    /// The partitions whose writes found no room.
    waiting: BTreeSet<Part>,
}

/// What was asked for.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Write {
    Put(Entry),
    Delete(Key),
}

/// Why a key must not be written now.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Block {
    InFlight,
    /// Refused at this revision: somebody wrote, and the watch has to show it.
    Refused {
        expect: u64,
        since: Millis,
    },
    /// Unanswered at this revision: the watch may show it; the same expectation may be tried again later, because at
    /// most one of the two can succeed.
    Unsure {
        expect: u64,
        until: Millis,
    },
}

impl Writes {
    pub(super) fn ready(&self, key: &Key, known: u64, now: Millis) -> bool {
        !self.is_full() && self.is_free(key, known, now)
    }

    /// True if no other write of the key stands in the way.
    fn is_free(&self, key: &Key, known: u64, now: Millis) -> bool {
        match self.blocked.get(key) {
            None => true,
            Some(Block::InFlight) => false,
            Some(Block::Refused { expect, .. }) => known != *expect,
            Some(Block::Unsure { expect, until }) => known != *expect || now >= *until,
        }
    }

    /// True if nothing more may be written before an answer comes.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= AT_ONCE
    }

    /// Whose turn it is when there is room again.
    pub(super) fn next_waiting(&mut self) -> Option<Part> {
        self.waiting.pop_first()
    }

    /// True if no write is in flight and none may still turn out to have happened.
    pub(super) fn is_idle(&self, view: &View, now: Millis) -> bool {
        self.blocked.iter().all(|(key, block)| match block {
            Block::InFlight => false,
            Block::Refused { expect, .. } => view.revision(key) != *expect || !matches!(key, Key::Part(_)),
            Block::Unsure { expect, until } => view.revision(key) != *expect || now >= *until,
        })
    }

    /// True if something refused before `since` is still unexplained.
    pub(super) fn stuck(&self, view: &View, since: Millis) -> bool {
        self.blocked.iter().any(|(key, block)| match block {
            Block::Refused { expect, since: at } => *at <= since && view.revision(key) == *expect,
            Block::InFlight | Block::Unsure { .. } => false,
        })
    }

    /// When a write over this revision was refused, if nothing has explained it.
    pub(super) fn refused_at(&self, key: &Key, known: u64) -> Option<Millis> {
        match self.blocked.get(key) {
            Some(Block::Refused { expect, since }) if *expect == known => Some(*since),
            _ => None,
        }
    }

    /// A whole snapshot has been shown: what was refused can be judged anew.
    pub(super) fn forget_refusals(&mut self) {
        self.blocked.retain(|_, block| !matches!(block, Block::Refused { .. }));
    }

    pub(super) fn prune(&mut self, view: &View, now: Millis) {
        self.blocked.retain(|key, block| match block {
            Block::InFlight => true,
            Block::Refused { expect, .. } => view.revision(key) == *expect,
            Block::Unsure { expect, until } => view.revision(key) == *expect && now < *until,
        });
    }

    fn start(&mut self, key: Key, write: Write, expect: u64) -> CasId {
        self.last += 1;
        self.pending.insert(self.last, (write, expect));
        self.blocked.insert(key, Block::InFlight);
        self.last
    }
}

impl Machine {
    /// Writes an entry over what is known of its key, if no other write stands in the way. True if it was sent.
    pub(super) fn cas(&mut self, entry: Entry, out: &mut Vec<Effect>) -> bool {
        let Some((id, expect)) = self.start(&entry) else { return false };
        out.push(Effect::Cas { id, entry, expect });
        true
    }

    /// The same for a claim that the driver completes. True if it was sent.
    pub(super) fn transfer(&mut self, entry: Entry, out: &mut Vec<Effect>) -> bool {
        let Some((id, expect)) = self.start(&entry) else { return false };
        if let Entry::Claim(part, claim) = entry {
            out.push(Effect::Transfer { id, part, claim, expect });
        }
        true
    }

    /// Deletes a key as it is known, if no other write stands in the way. True if that was sent.
    pub(super) fn delete(&mut self, key: Key, out: &mut Vec<Effect>) -> bool {
        let expect = self.view.revision(&key);
        let ready = self.writes.ready(&key, expect, self.now);
        if ready {
            let id = self.writes.start(key.clone(), Write::Delete(key.clone()), expect);
            out.push(Effect::Delete { id, key, expect });
        }
        ready
    }

    pub(super) fn written(&mut self, id: CasId, result: CasResult, out: &mut Vec<Effect>) -> Scope {
        let Some((write, expect)) = self.writes.pending.remove(&id) else { return Scope::Nothing };
        let key = match &write {
            Write::Put(entry) => entry.key(),
            Write::Delete(key) => key.clone(),
        };
        if matches!(&key, Key::Lease(id) if self.is_me(id)) {
            self.tenure.declared(matches!(result, CasResult::Ok(_)));
        }
        match (result, write) {
            (CasResult::Ok(revision), write) => {
                self.writes.blocked.remove(&key);
                self.shown(|| key.clone());
                match write {
                    Write::Put(entry) => drop(self.learn(entry, revision, out)),
                    Write::Delete(key) => {
                        self.view.unlearn(key, revision, self.now);
                    }
                }
            }
            (CasResult::Conflict, _) => {
                self.writes.blocked.insert(key.clone(), Block::Refused { expect, since: self.now });
            }
            (CasResult::Unknown, _) => {
                let until = self.now + self.config.unsure_patience_ms;
                self.writes.blocked.insert(key.clone(), Block::Unsure { expect, until });
            }
        }
        match key {
            Key::Part(part) if self.writes.waiting.is_empty() => Scope::One(part),
            // Others have been waiting for this answer.
            Key::Part(part) => Scope::Waiting(part),
            _ => Scope::All,
        }
    }

    /// True if there is room for one more write; if not, the partition's turn comes when there is.
    pub(super) fn has_room_for(&mut self, part: &Part) -> bool {
        let full = self.writes.is_full();
        if full {
            self.writes.waiting.insert(part.clone());
        }
        !full
    }

    fn start(&mut self, entry: &Entry) -> Option<(CasId, u64)> {
        let key = entry.key();
        let expect = self.view.revision(&key);
        if let Entry::Claim(part, _) = entry
            && !self.has_room_for(part)
        {
            return None;
        }
        // The own lease is what everything else waits for.
        let urgent = matches!(entry, Entry::Lease(id, _) if self.is_me(id));
        let free = self.writes.is_free(&key, expect, self.now);
        (free && (urgent || !self.writes.is_full()))
            .then(|| (self.writes.start(key, Write::Put(entry.clone()), expect), expect))
    }
}
