//! Watches that lag: they stand still for a while, or are made again on a replica that is behind.

use super::broker::{Broker, Shown};
use super::world::{Event, Life, World};
use crate::ownership::machine::{Gone, Input};
use crate::ownership::record::Key;

/// What is wrong with a node's watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    until: u64,
    /// What the replica has on which they are made.
    behind: Option<Box<Broker>>,
}

impl World {
    /// A node's watches show nothing more for so long.
    pub(super) fn lag(&mut self, at: usize, lasts: u64) {
        self.nodes[at].lag.until = self.nodes[at].lag.until.max(self.now + lasts);
        self.after(lasts, Event::CaughtUp(at));
    }

    /// A node's watches are made again on a replica that is as far as the broker is now, and stays so for a while.
    pub(super) fn fall_behind(&mut self, at: usize, lasts: u64) {
        let (later, link) = (self.random.between(100, 3_000), self.nodes[at].link);
        self.after(later, Event::Behind(at, link, Box::new(self.broker.clone()), lasts));
    }

    pub(super) fn lags(&self, at: usize) -> bool {
        self.now < self.nodes[at].lag.until
    }

    /// What a new watch reads.
    pub(super) fn replica(&self, at: usize) -> &Broker {
        self.nodes[at].lag.behind.as_deref().filter(|_| self.lags(at)).unwrap_or(&self.broker)
    }

    pub(super) fn caught_up(&mut self, at: usize) -> Result<(), String> {
        if self.lags(at) {
            return Ok(());
        }
        self.nodes[at].lag.behind = None;
        let (link, newest) = (self.nodes[at].link, self.broker.revision);
        self.show(at, link, newest)?;
        self.show_beats(at, link, newest)
    }

    /// The watch of records is lost, and made again on that replica: what was shown before, and is not there, is told as
    /// expired.
    pub(super) fn read_again(&mut self, at: usize, link: u64, old: Box<Broker>, lasts: u64) -> Result<(), String> {
        let node = &self.nodes[at];
        let (Some(cursor), true) = (node.cursor, node.linked && node.link == link && node.life == Life::Up) else {
            return Ok(());
        };
        let (missing, revision) = (self.missing(&old, cursor), old.revision.min(cursor));
        self.nodes[at].lag.behind = Some(old);
        self.nodes[at].cursor = Some(revision);
        self.lag(at, lasts);
        for shown in missing {
            *self.tally.entry("left out").or_default() += 1;
            let (revision, key) = (shown.revision + 1, shown.key);
            self.tell(at, Input::Deleted { revision, key, reason: Gone::Expired })?;
        }
        self.read_beats_again(at)
    }

    /// What a watch has shown up to `cursor`, and a replica has not got.
    fn missing(&self, old: &Broker, cursor: u64) -> Vec<Shown> {
        let shown = self.broker.shown(old.revision, cursor).into_iter().filter(|shown| shown.value.is_ok());
        shown.filter(|shown| old.entry(&shown.key).is_none()).collect()
    }

    /// The same of the watch of heartbeats.
    fn read_beats_again(&mut self, at: usize) -> Result<(), String> {
        let (Some(cursor), asked) = (self.nodes[at].beats_cursor, self.nodes[at].asked) else { return Ok(()) };
        let old = self.replica(at);
        let (missing, revision) = (self.missing(old, cursor), old.revision.min(cursor));
        self.nodes[at].beats_cursor = Some(revision);
        for shown in missing {
            if let Key::Beat(id) = shown.key
                && self.nodes[at].beats.contains(&id)
                && self.nodes[at].asked == asked
            {
                self.tell(at, Input::Beat { id, revision: shown.revision + 1, beating: false })?;
            }
        }
        Ok(())
    }
}
