//! The drivers: they carry effects out, with all the delays and losses of the path to the broker.

use std::collections::BTreeSet;

use super::broker::Shown;
use super::world::{ANSWER_MS, Event, Fate, Life, TTL_MS, World, Write};
use crate::ownership::machine::{CasResult, Effect, Input, LeaveCause, RetireReason};
use crate::ownership::record::{Entry, Key, Part};

impl World {
    /// Gives an input to a node and carries out what comes of it.
    pub(super) fn tell(&mut self, at: usize, input: Input) -> Result<(), String> {
        if self.nodes[at].life != Life::Up {
            return Ok(());
        }
        self.boundary();
        if self.nodes[at].life != Life::Up {
            return Ok(());
        }
        let mut out = Vec::new();
        let clock = self.nodes[at].clock(self.now);
        let renewed = matches!(input, Input::RenewDone { .. });
        if self.trace && input != Input::Tick {
            println!("{:>6} {} <- {input:?}", self.now, self.nodes[at].id);
        }
        self.nodes[at].machine.step(input, clock, &mut out);
        self.steps += 1;
        self.digest = self.digest.wrapping_mul(31).wrapping_add(self.now ^ (at as u64) << 32 ^ out.len() as u64);
        let serves = out.iter().any(|effect| matches!(effect, Effect::Serve { .. } | Effect::Unfence));
        for effect in out {
            if self.trace {
                println!("{:>6} {} -> {effect:?}", self.now, self.nodes[at].id);
            }
            if let Some(name) = name(&effect) {
                *self.tally.entry(name).or_default() += 1;
            }
            self.check_effect(at, &effect)?;
            self.carry_out(at, effect)?;
            self.boundary();
            if self.nodes[at].life == Life::Crashed {
                return Ok(());
            }
        }
        if serves || renewed { self.check_all_active(at) } else { Ok(()) }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) -> Result<(), String> {
        let me = self.nodes[at].id.clone();
        match effect {
            Effect::Renew { sent_at } => self.send(at, Write::Renew(Entry::Beat(me), sent_at)),
            Effect::WatchBeats { of } => {
                let node = &mut self.nodes[at];
                node.beats = of.into_iter().chain((!node.hosts.is_empty()).then_some(me)).collect();
                node.asked += 1;
                node.beats_cursor = None;
                let (link, asked) = (node.link, node.asked);
                let later = self.latency();
                self.after(later, Event::Beats(at, link, asked));
            }
            Effect::RoundTrip { id, client, .. } => {
                if !(self.faulty && self.random.chance(self.plan.losses)) {
                    let later = self.latency();
                    self.after(later, Event::Trip(at, client, id));
                }
            }
            Effect::Cas { id, entry, expect } => self.send(at, Write::Put(entry, expect, id)),
            Effect::Delete { id, key, expect } => self.send(at, Write::Delete(key, expect, id)),
            Effect::Transfer { id, part, mut claim, expect } => {
                self.nodes[at].admitting.remove(&part);
                let busy: Vec<String> = (0..self.random.between(0, 3)).map(|key| format!("k{key}")).collect();
                claim.busy = self.nodes[at].busy.entry(part.clone()).or_insert(busy).clone();
                self.nodes[at].running.insert(part.clone(), claim.busy.iter().cloned().collect());
                self.send(at, Write::Put(Entry::Claim(part, claim), expect, id));
            }
            Effect::Offer { part, epoch, to } => self.message(&to, Input::Offered { part, epoch, from: me }),
            Effect::Decline { part, epoch, to } => {
                self.message(&to, Input::HandoverReply { part, epoch, heir: me, ready: false });
            }
            Effect::Join { part, reply_to: Some((to, epoch)), .. } => {
                if self.nodes[at].loud.iter().any(|(loud, _)| *loud == part) {
                    return Err(format!("{me} is ready for {part}, and turns from before run there still"));
                }
                self.nodes[at].joined.insert(part.clone());
                self.message(&to, Input::HandoverReply { part, epoch, heir: me, ready: true });
            }
            Effect::Serve { part, epoch, busy, .. } => {
                self.nodes[at].held.insert(part.clone(), busy.into_iter().collect());
                self.nodes[at].busy.remove(&part);
                self.nodes[at].running.remove(&part);
                self.nodes[at].admitting.insert(part.clone(), epoch);
                self.check_turns(at, &part)?;
            }
            Effect::Admit { part, keys } => {
                if let Some(held) = self.nodes[at].held.get_mut(&part) {
                    held.retain(|key| !keys.contains(key));
                }
                self.check_turns(at, &part)?;
            }
            Effect::ReportIdle { part, epoch, to, keys } => {
                for key in keys {
                    let (ends, heir) = (self.random.between(0, 500), self.index(&to));
                    self.after(ends, Event::Idle { old: at, heir, part: part.clone(), epoch, key });
                }
            }
            Effect::Leave { part, epoch, heir, cause } => {
                self.leave(at, part, epoch, heir.map(|heir| self.index(&heir)), cause);
            }
            Effect::Rewatch => {
                self.nodes[at].cursor = None;
                let later = self.latency();
                self.after(later, Event::Snapshot(at, self.nodes[at].link));
            }
            Effect::Drained => {
                if !self.nodes[at].admitting.is_empty() || self.nodes[at].leaving > 0 {
                    return Err(format!("{me} says it is drained, and it admits turns or has some"));
                }
                self.end(at);
            }
            Effect::Retire { reason } => {
                self.stop(at);
                if reason == RetireReason::MetaMismatch {
                    return Err(format!("{me} retired for {reason:?}"));
                }
                let again = self.random.between(50, 1_000);
                if !self.nodes[at].told_to_drain {
                    self.after(again, Event::Start(self.nodes[at].slot));
                }
            }
            Effect::Join { part, .. } => drop(self.nodes[at].joined.insert(part)),
            Effect::Fence
            | Effect::Unfence
            | Effect::Moved { .. }
            | Effect::NodeLost { .. }
            | Effect::Reconnected { .. } => {}
        }
        Ok(())
    }

    fn leave(&mut self, at: usize, part: Part, epoch: u64, heir: Option<usize>, cause: LeaveCause) {
        self.nodes[at].admitting.remove(&part);
        self.nodes[at].held.remove(&part);
        self.nodes[at].joined.remove(&part);
        let quiet = self.random.between(1, 3_000);
        let still = self.random.between(0, quiet);
        self.after(still, Event::Tell(at, Input::Stilled { part: part.clone(), epoch }));
        self.after(quiet, Event::Tell(at, Input::Quiesced { part: part.clone(), epoch }));
        self.nodes[at].leaving += 1;
        self.nodes[at].loud.insert((part.clone(), epoch));
        let busy = self.nodes[at].busy.remove(&part).unwrap_or_default();
        if cause == LeaveCause::Released {
            self.nodes[at].running.insert(part.clone(), BTreeSet::from(["k0".to_owned()]));
        }
        if let (LeaveCause::HandedOver, Some(heir)) = (cause, heir) {
            for key in busy {
                let ends = self.random.between(0, still.max(1));
                self.after(ends, Event::Idle { old: at, heir, part: part.clone(), epoch: epoch + 1, key });
            }
        }
    }

    /// What has come to an end when a node tells its machine so.
    pub(super) fn ended(&mut self, at: usize, input: &Input) {
        let node = &mut self.nodes[at];
        if let Input::Stilled { part, epoch } | Input::Quiesced { part, epoch } = input {
            node.running.remove(part);
            node.loud.remove(&(part.clone(), *epoch));
        }
        node.leaving -= u32::from(matches!(input, Input::Quiesced { .. }));
    }

    pub(super) fn tell_idle(&mut self, old: usize, heir: usize, part: Part, epoch: u64, key: String) {
        if let Some(running) = self.nodes[old].running.get_mut(&part) {
            running.remove(&key);
        }
        let alive = self.nodes[old].life == Life::Up && self.nodes[heir].life == Life::Up;
        if alive && !self.nodes[heir].machine.settled(&part, epoch, &key) {
            self.message(&self.nodes[heir].id.clone(), Input::Idle { part: part.clone(), epoch, key: key.clone() });
            self.after(1_000, Event::Idle { old, heir, part, epoch, key });
        }
    }

    /// The node is no more, and leaves its records to others.
    fn stop(&mut self, at: usize) {
        self.end_own(at);
        let node = &mut self.nodes[at];
        node.life = Life::Ended;
        node.admitting.clear();
        node.joined.clear();
    }

    /// The node is no more; its driver removes its records, however long the broker takes.
    fn end(&mut self, at: usize) {
        self.stop(at);
        let id = self.nodes[at].id.clone();
        self.after(5, Event::Write(at, Write::Purge(Key::Lease(id.clone())), Fate::Unheard));
        self.after(10, Event::Write(at, Write::Purge(Key::Member(id.clone())), Fate::Unheard));
        self.after(15, Event::Write(at, Write::Purge(Key::Beat(id)), Fate::Unheard));
    }

    /// A message from node to node.
    fn message(&mut self, to: &crate::ownership::record::NodeId, input: Input) {
        let lost = (self.faulty && self.random.chance(self.plan.losses)) || self.now < self.silent_until;
        let to = self.index(to);
        if !lost && self.nodes[to].own {
            let later = self.latency();
            self.after(later, Event::Tell(to, input));
        }
    }

    /// A write on its way; what its driver cannot hear of is `Unknown` to it, and may yet happen.
    fn send(&mut self, at: usize, write: Write) {
        let trouble = !self.nodes[at].linked || (self.faulty && self.random.chance(self.plan.losses));
        if !trouble {
            let later = self.latency();
            return self.after(later, Event::Write(at, write, Fate::Answered));
        }
        self.after(ANSWER_MS, Event::Tell(at, answer(&write, CasResult::Unknown)));
        if self.random.chance(60) {
            let later = if self.random.chance(50) { self.latency() } else { self.random.between(500, 15_000) };
            self.after(later, Event::Write(at, write, Fate::Unheard));
        }
    }

    /// A write has come to the broker.
    pub(super) fn arrive(&mut self, at: usize, write: Write, fate: Fate) -> Result<(), String> {
        if !self.broker.up {
            if let Write::Purge(_) = write {
                self.after(1_000, Event::Write(at, write, fate));
            } else if fate == Fate::Answered {
                self.after(ANSWER_MS, Event::Tell(at, answer(&write, CasResult::Unknown)));
            }
            return Ok(());
        }
        self.broker.expire(self.now);
        let by = self.nodes[at].id.clone();
        let stored = match write.clone() {
            Write::Renew(entry, _) => {
                let before = self.broker.revision_of(&entry.key());
                self.after(TTL_MS, Event::Expire);
                self.broker.put(&by, entry, before, Some(self.now + TTL_MS))?
            }
            Write::Put(entry, expect, _) => {
                let member = matches!(entry, Entry::Member(..));
                let lease = matches!(&entry, Entry::Lease(id, _) if *id == by);
                let stored = self.broker.put(&by, entry.clone(), expect, None)?;
                if stored.is_some() {
                    self.check_tombstone(&entry)?;
                    self.check_claim(&entry)?;
                }
                self.nodes[at].enrolled |= member && stored.is_some();
                self.nodes[at].leased |= lease && stored.is_some();
                stored
            }
            Write::Delete(key, expect, _) => self.broker.delete(&key, Some(expect), self.now),
            Write::Purge(key) => self.broker.delete(&key, None, self.now),
        };
        self.show_all();
        if fate == Fate::Answered {
            let later = self.latency();
            let result = stored.map_or(CasResult::Conflict, CasResult::Ok);
            self.after(later, Event::Tell(at, answer(&write, result)));
        }
        Ok(())
    }

    pub(super) fn show_all(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].life == Life::Up && self.nodes[at].linked {
                let later = self.latency();
                self.after(later, Event::Show(at, self.nodes[at].link, self.broker.revision));
                let later = self.latency();
                self.after(later, Event::ShowBeats(at, self.nodes[at].link, self.broker.revision));
            }
        }
    }

    /// Shows heartbeats, each by the watch of those.
    pub(super) fn show_beats(&mut self, at: usize, link: u64, until: u64) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some(cursor) = node.beats_cursor.filter(|cursor| *cursor < until) else { return Ok(()) };
        if !node.linked || node.link != link || self.lags(at) {
            return Ok(());
        }
        self.nodes[at].beats_cursor = Some(until);
        self.tell_beats(at, cursor, until)
    }

    pub(super) fn beats(&mut self, at: usize, link: u64, asked: u64) -> Result<(), String> {
        let node = &self.nodes[at];
        if !node.linked || node.link != link || node.life != Life::Up || node.asked != asked {
            return Ok(());
        }
        let newest = self.replica(at).revision;
        self.nodes[at].beats_cursor = Some(newest);
        self.tell(at, Input::BeatsBegun)?;
        self.tell_beats(at, 0, newest)?;
        // Whatever it was told may have made it ask for others.
        if self.nodes[at].asked == asked { self.tell(at, Input::BeatsShown) } else { Ok(()) }
    }

    fn tell_beats(&mut self, at: usize, after: u64, until: u64) -> Result<(), String> {
        let asked = self.nodes[at].asked;
        for Shown { key, revision, value } in self.replica(at).shown(after, until) {
            if let Key::Beat(id) = key
                && self.nodes[at].beats.contains(&id)
                && self.nodes[at].asked == asked
            {
                self.tell(at, Input::Beat { id, revision, beating: value.is_ok() })?;
            }
        }
        Ok(())
    }

    pub(super) fn show(&mut self, at: usize, link: u64, until: u64) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some(cursor) = node.cursor.filter(|cursor| *cursor < until) else { return Ok(()) };
        if !node.linked || node.link != link || self.lags(at) {
            return Ok(());
        }
        self.nodes[at].cursor = Some(until);
        self.tell_shown(at, cursor, until)
    }

    pub(super) fn snapshot(&mut self, at: usize, link: u64) -> Result<(), String> {
        if !self.nodes[at].linked || self.nodes[at].link != link || self.nodes[at].life != Life::Up {
            return Ok(());
        }
        let newest = self.replica(at).revision;
        self.nodes[at].cursor = Some(newest);
        self.nodes[at].snapshots += 1;
        self.tell(at, Input::SnapshotBegun)?;
        self.tell_shown(at, 0, newest)?;
        self.tell(at, Input::SnapshotDone)
    }

    /// Everything but others' heartbeats.
    fn tell_shown(&mut self, at: usize, after: u64, until: u64) -> Result<(), String> {
        let id = self.nodes[at].id.clone();
        let is_for = |shown: &Shown| !matches!(&shown.key, Key::Beat(of) if *of != id);
        let shown = self.replica(at).shown(after, until).into_iter().filter(is_for);
        shown.into_iter().try_for_each(|shown| self.tell(at, input(shown)))
    }

    fn index(&self, id: &crate::ownership::record::NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).unwrap_or(0)
    }
}

fn answer(write: &Write, result: CasResult) -> Input {
    match write {
        Write::Renew(_, sent_at) => Input::RenewDone { sent_at: *sent_at, result },
        Write::Put(_, _, id) | Write::Delete(_, _, id) => Input::CasDone { id: *id, result },
        Write::Purge(_) => Input::Tick,
    }
}

fn input(shown: Shown) -> Input {
    let Shown { key, revision, value } = shown;
    match value {
        Ok(entry) => Input::Record { revision, entry },
        Err(reason) => Input::Deleted { revision, key, reason },
    }
}

/// What is worth counting.
fn name(effect: &Effect) -> Option<&'static str> {
    Some(match effect {
        Effect::Cas { entry: Entry::Claim(_, claim), expect, .. } => match (&claim.node, expect) {
            (None, _) => "release",
            (_, 0) => "first claim",
            _ => "claim or write anew",
        },
        Effect::Delete { .. } => "tidy",
        Effect::Transfer { .. } => "transfer",
        Effect::Decline { .. } => "decline",
        Effect::Admit { .. } => "admit",
        Effect::Leave { cause: LeaveCause::HandedOver, .. } => "handed over",
        Effect::Leave { cause: LeaveCause::NotNeeded, .. } => "not needed",
        Effect::Leave { cause: LeaveCause::Superseded, .. } => "superseded",
        Effect::Fence => "fence",
        Effect::Unfence => "unfence",
        Effect::Moved { planned: false, .. } => "unplanned move",
        Effect::NodeLost { .. } => "node lost",
        Effect::Reconnected { .. } => "reconnected",
        Effect::ReportIdle { .. } => "report idle",
        Effect::Rewatch => "rewatch",
        Effect::Drained => "drained",
        Effect::Retire { reason: RetireReason::ClaimTaken } => "retire: claim taken",
        Effect::Retire { reason: RetireReason::Tombstoned } => "retire: tombstoned",
        effect => return super::links::name(effect),
    })
}
