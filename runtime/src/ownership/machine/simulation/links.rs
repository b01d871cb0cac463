//! Connections: how they end and come back, and what the broker says of it. The owning connection can be gone while
//! the node still renews its lease; the other way round nothing is left, so that counts as a cut of both.

use super::world::{ANSWER_MS, Event, Life, World};
use crate::ownership::machine::{Effect, Input};
use crate::ownership::record::{Entry, Lease};

impl World {
    pub(super) fn cut(&mut self, at: usize) {
        self.end_own(at);
        self.nodes[at].linked = false;
        self.nodes[at].link += 1;
        self.nodes[at].cursor = None;
        self.nodes[at].beats_cursor = None;
        let notices = self.random.between(1, 1_500);
        self.after(notices, Event::Down(at, self.nodes[at].link));
    }

    pub(super) fn down(&mut self, at: usize, link: u64) -> Result<(), String> {
        let waits = !self.nodes[at].linked && self.nodes[at].link == link;
        if waits { self.tell(at, Input::Disconnected) } else { Ok(()) }
    }

    /// The node's connections are there again.
    pub(super) fn link(&mut self, at: usize, link: u64) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if node.linked || node.link != link {
            return Ok(());
        }
        if !self.broker.up {
            // The broker's return brings everybody back.
            return Ok(());
        }
        node.linked = true;
        node.link += 1;
        let link = node.link;
        self.connect_own(at)?;
        let later = self.latency();
        self.after(later, Event::Snapshot(at, link));
        if self.nodes[at].asked > 0 {
            let later = self.latency();
            self.after(later, Event::Beats(at, link, self.nodes[at].asked));
        }
        Ok(())
    }

    /// The broker's end of a node's owning connection is closed; the node may notice much later.
    pub(super) fn end_own(&mut self, at: usize) {
        if !std::mem::take(&mut self.nodes[at].own) || !self.plan.tells || !self.broker.up {
            return;
        }
        let (node, client) = (self.nodes[at].id.clone(), self.nodes[at].client);
        let word = Input::ConnectionGone { node, server: "s".to_owned(), client };
        for to in 0..self.nodes.len() {
            let late = self.faulty && self.random.chance(15);
            let after = if late { self.random.between(500, 12_000) } else { self.random.between(1, 30) };
            if !(self.faulty && self.random.chance(15)) {
                self.after(after, Event::Word(to, word.clone()));
            }
        }
    }

    pub(super) fn own_down(&mut self, at: usize, client: u64) -> Result<(), String> {
        let waits = !self.nodes[at].own && self.nodes[at].client == client;
        if waits { self.tell(at, Input::Disconnected) } else { Ok(()) }
    }

    pub(super) fn own_link(&mut self, at: usize, client: u64) -> Result<(), String> {
        let node = &self.nodes[at];
        // If nothing is connected, or the broker is away, that brings this one back too.
        let back = !node.own && node.client == client && node.linked && node.life == Life::Up && self.broker.up;
        if back { self.connect_own(at) } else { Ok(()) }
    }

    pub(super) fn hear(&mut self, at: usize, word: Input) -> Result<(), String> {
        if !self.nodes[at].linked {
            return Ok(());
        }
        *self.tally.entry("word").or_default() += 1;
        self.tell(at, word)
    }

    /// A round trip is at the broker: it goes back if its connection still stands there.
    pub(super) fn trip(&mut self, at: usize, client: u64, id: u64) {
        let ok = self.broker.up && self.nodes[at].own && self.nodes[at].client == client;
        let later = if ok { self.latency() } else { ANSWER_MS };
        self.after(later, Event::Tell(at, Input::RoundTripDone { id, ok }));
    }

    /// Nobody is declared dead by a node that was told of another connection than the lease names, or while its
    /// heartbeat lets it serve.
    pub(super) fn check_tombstone(&self, entry: &Entry) -> Result<(), String> {
        let Entry::Lease(id, Lease { client, ended_by: Some(by), lapsed, .. }) = entry else { return Ok(()) };
        let Some(node) = self.nodes.iter().find(|node| node.id == *id) else { return Ok(()) };
        if *lapsed && node.is_proved(self.now) {
            return Err(format!("at {}: {by} made a tombstone for {id}, which serves", self.now));
        }
        if !lapsed && node.own && node.client == *client {
            return Err(format!("{by} made a tombstone for {id}, whose connection {client} stands"));
        }
        Ok(())
    }

    fn connect_own(&mut self, at: usize) -> Result<(), String> {
        self.nodes[at].own = true;
        self.nodes[at].client += 1;
        let client = self.nodes[at].client;
        // A driver that comes back before it noticed says both, in order.
        self.tell(at, Input::Disconnected)?;
        self.tell(at, Input::Connected { server: "s".to_owned(), client })
    }
}

/// What is worth counting of tombstones.
pub(super) fn name(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::Cas { entry: Entry::Lease(_, lease), .. } => Some(match lease {
            Lease { ended_by: None, .. } => "lease",
            Lease { lapsed: false, .. } => "tombstone",
            Lease { lapsed: true, .. } => "tombstone of one that has lapsed",
        }),
        Effect::WatchBeats { .. } => Some("watch beats"),
        _ => None,
    }
}
