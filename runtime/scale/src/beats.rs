//! Heartbeats: each is kept for the time of a lease, and shown to those who watch it.

use std::collections::{BTreeSet, HashMap};

use crate::cluster::{Cluster, Event, WAY_MS};
use crate::ownership::{CasResult, Entry, Input, NodeId};

/// The default of a node.
const LEASE_TTL_MS: u64 = 30_000;

/// The last heartbeat of each node, and who watches it.
#[derive(Default)]
pub(crate) struct Beats {
    /// By its number; `None` once it has run out.
    last: HashMap<NodeId, Option<u64>>,
    watchers: HashMap<NodeId, BTreeSet<usize>>,
    written: u64,
}

impl Cluster {
    /// A node watches these heartbeats from now on.
    pub(crate) fn watch_beats(&mut self, at: usize, of: Vec<NodeId>) {
        let me = self.nodes[at].id.clone();
        for id in std::mem::take(&mut self.nodes[at].beats) {
            self.beats.watchers.entry(id).or_default().remove(&at);
        }
        self.nodes[at].beats = of.into_iter().chain([me]).collect();
        self.nodes[at].asked += 1;
        self.traffic.beat_watches += 1;
        self.after(2 * WAY_MS, Event::Beats(at, self.nodes[at].asked));
    }

    /// The watch shows what there is, unless others have been asked for meanwhile.
    pub(crate) fn show_beats(&mut self, at: usize, asked: u64) {
        if self.nodes[at].asked != asked {
            return;
        }
        let watched = self.nodes[at].beats.clone();
        let mut shown = vec![Input::BeatsBegun];
        for id in watched {
            self.beats.watchers.entry(id.clone()).or_default().insert(at);
            if let Some(Some(revision)) = self.beats.last.get(&id).copied() {
                shown.push(Input::Beat { id, revision, beating: true });
            }
        }
        self.traffic.snapshot_records += shown.len() as u64 - 1;
        shown.push(Input::BeatsShown);
        self.tell_all(at, shown);
    }

    /// A heartbeat has come to the bucket.
    pub(crate) fn beat(&mut self, at: usize, sent_at: u64) {
        let id = self.nodes[at].id.clone();
        self.beats.written += 1;
        let revision = self.beats.written;
        self.beats.last.insert(id.clone(), Some(revision));
        self.traffic.renewals += 1;
        self.after(LEASE_TTL_MS, Event::Expire(id.clone(), revision));
        self.after(WAY_MS, Event::Tell(at, Input::RenewDone { sent_at, result: CasResult::Ok(revision) }));
        // The watch of everything else shows a node its own.
        self.traffic.shown_renewals += 1;
        self.after(WAY_MS, Event::Tell(at, Input::Record { revision, entry: Entry::Beat(id.clone()) }));
        self.tell_watchers(&id, revision, true);
    }

    /// A heartbeat has run out, unless there was another.
    pub(crate) fn expire(&mut self, id: &NodeId, revision: u64) {
        if self.beats.last.get(id) == Some(&Some(revision)) {
            self.beats.last.insert(id.clone(), None);
            self.beats.written += 1;
            self.tell_watchers(id, self.beats.written, false);
        }
    }

    fn tell_watchers(&mut self, id: &NodeId, revision: u64, beating: bool) {
        let watchers: Vec<usize> = self.beats.watchers.get(id).into_iter().flatten().copied().collect();
        for at in watchers.into_iter().filter(|at| self.nodes[*at].alive).collect::<Vec<_>>() {
            *(if beating { &mut self.traffic.shown_renewals } else { &mut self.traffic.shown }) += 1;
            self.after(WAY_MS, Event::Tell(at, Input::Beat { id: id.clone(), revision, beating }));
        }
    }
}
