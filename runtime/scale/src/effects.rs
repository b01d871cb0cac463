//! What the machines ask for, carried out and counted.

use crate::cluster::{Cluster, Event, WAY_MS, Write};
use crate::ownership::{CasResult, Effect, Entry, Input, Key};

impl Cluster {
    pub(crate) fn carry_out(&mut self, at: usize, effect: Effect) {
        let me = self.nodes[at].id.clone();
        match effect {
            Effect::Renew { sent_at } => self.after(WAY_MS, Event::Write(at, Write::Renew(sent_at))),
            Effect::WatchBeats { of } => self.watch_beats(at, of),
            Effect::RoundTrip { id, .. } => {
                self.traffic.round_trips += 1;
                self.after(2 * WAY_MS, Event::Tell(at, Input::RoundTripDone { id, ok: true }));
            }
            Effect::Cas { id, entry, expect } => self.after(WAY_MS, Event::Write(at, Write::Put(entry, expect, id))),
            Effect::Delete { id, key, expect } => self.after(WAY_MS, Event::Write(at, Write::Delete(key, expect, id))),
            Effect::Transfer { id, part, claim, expect } => {
                self.after(WAY_MS, Event::Write(at, Write::Put(Entry::Claim(part, claim), expect, id)));
            }
            Effect::Offer { part, epoch, to } => self.word(&to, Input::Offered { part, epoch, from: me }),
            Effect::Decline { part, epoch, to } => {
                self.word(&to, Input::HandoverReply { part, epoch, heir: me, ready: false });
            }
            Effect::Join { part, reply_to: Some((to, epoch)), .. } => {
                self.word(&to, Input::HandoverReply { part, epoch, heir: me, ready: true });
            }
            Effect::Leave { part, epoch, .. } => {
                self.after(WAY_MS, Event::Tell(at, Input::Stilled { part: part.clone(), epoch }));
                self.after(2 * WAY_MS, Event::Tell(at, Input::Quiesced { part, epoch }));
            }
            Effect::Rewatch => {
                self.traffic.rewatches += 1;
                self.snapshot(at);
            }
            Effect::Drained => {
                self.nodes[at].drained = true;
                self.end(at);
            }
            Effect::Retire { .. } => self.end(at),
            Effect::Join { .. }
            | Effect::Serve { .. }
            | Effect::Admit { .. }
            | Effect::Fence
            | Effect::Unfence
            | Effect::Moved { .. }
            | Effect::NodeLost { .. }
            | Effect::Reconnected { .. }
            | Effect::ReportIdle { .. } => {}
        }
    }

    /// The node is no more; its driver removes lease and member.
    fn end(&mut self, at: usize) {
        self.nodes[at].alive = false;
        let id = self.nodes[at].id.clone();
        for key in [Key::Lease(id.clone()), Key::Member(id)] {
            self.traffic.records += u64::from(self.bucket.purge(&key));
        }
        self.show_all();
    }

    fn word(&mut self, to: &crate::ownership::NodeId, input: Input) {
        self.traffic.words += 1;
        if let Some(to) = self.index.get(to) {
            // By the broker: one way in, one way out.
            self.after(2 * WAY_MS, Event::Tell(*to, input));
        }
    }

    /// A write has come to the bucket.
    pub(crate) fn arrive(&mut self, at: usize, write: Write) {
        let (stored, answer) = match write {
            Write::Renew(sent_at) => return self.beat(at, sent_at),
            Write::Put(entry, expect, id) => {
                let stored = self.put(entry, expect);
                (stored, Input::CasDone { id, result: result(stored) })
            }
            Write::Delete(key, expect, id) => {
                let stored = self.bucket.delete(&key, expect);
                self.traffic.records += u64::from(stored.is_some());
                (stored, Input::CasDone { id, result: result(stored) })
            }
        };
        match stored {
            Some(_) => self.show_all(),
            None => self.traffic.refused += 1,
        }
        self.after(WAY_MS, Event::Tell(at, answer));
    }

    fn put(&mut self, entry: Entry, expect: u64) -> Option<u64> {
        let stands = self.bucket.known(&entry.key()) == expect;
        match &entry {
            Entry::Claim(part, claim) if stands => {
                self.traffic.claims += 1;
                self.moved(part, claim.node.as_ref());
            }
            _ if stands => self.traffic.records += 1,
            _ => {}
        }
        self.bucket.put(entry, expect)
    }

    pub(crate) fn show_all(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.alive && node.cursor.is_some() && !std::mem::replace(&mut node.showing, true) {
                self.after(WAY_MS, Event::Show(at));
            }
        }
    }

    pub(crate) fn show(&mut self, at: usize) {
        self.nodes[at].showing = false;
        let Some(cursor) = self.nodes[at].cursor else { return };
        let changes = self.bucket.since(cursor).to_vec();
        self.nodes[at].cursor = Some(self.bucket.revision());
        self.traffic.shown += changes.len() as u64;
        self.tell_all(at, changes);
    }
}

fn result(stored: Option<u64>) -> CasResult {
    stored.map_or(CasResult::Conflict, CasResult::Ok)
}
