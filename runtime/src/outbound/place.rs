//! The place of one call among those of its node to the same actor.

use std::sync::Arc;

use tokio::time::Instant;

use super::lines::{Heading, Shortcut, Wait, Way};
use crate::node::{Located, Surroundings};
use crate::pending::{Flight, Went};
use crate::reference::Target;

/// Given to a call when it is made, and given up when it goes.
pub(super) struct Place<'a> {
    around: &'a Arc<Surroundings>,
    actor: &'static str,
    target: &'a Target,
    /// Grows from call to call.
    number: u64,
    /// Found when it is first needed.
    way: Option<Arc<Way>>,
    /// Whether it stands in line, and is to be sent.
    lined: bool,
    /// Whether others may have found it on the way, or in line.
    noted: bool,
}

impl<'a> Place<'a> {
    pub(super) fn new(around: &'a Arc<Surroundings>, actor: &'static str, target: &'a Target, number: u64) -> Self {
        Self { around, actor, target, number, way: None, lined: false, noted: false }
    }

    /// Whether it stands in line, and is to be sent.
    pub(super) fn is_lined(&self) -> bool {
        self.lined
    }

    /// Whether calls before it stand in line, and it does not yet.
    pub(super) fn follows(&self) -> bool {
        !self.lined && self.around.lines.holds(self.actor, self.target.partition, &self.target.key)
    }

    pub(super) fn line_up(&mut self) {
        let (around, key, number) = (self.around, &self.target.key, self.number);
        self.way().line_up(&around.pending, key, number);
        (self.lined, self.noted) = (true, true);
    }

    /// What it waits for before it may go there; `None` if it may.
    pub(super) fn turn(&mut self, to: &Located) -> Option<Wait> {
        if !self.lined {
            return None;
        }
        let (around, actor, target, number) = (self.around, self.actor, self.target, self.number);
        let heading = match to {
            Located::Node { epoch, .. } => Heading::Owner(*epoch),
            Located::Here { .. } | Located::Vacant | Located::NoHosts => Heading::Nobody,
        };
        let busy = || around.cluster.busy(actor, target.partition);
        self.way().may_go(&target.key, number, heading, busy)
    }

    /// Where it goes, if another node owns its actor.
    pub(super) fn shortcut(&mut self) -> Option<Arc<Shortcut>> {
        let (around, actor, partition) = (self.around, self.actor, self.target.partition);
        self.way().shortcut(around, actor, partition)
    }

    /// Notes that it is about to be sent to the holder of that epoch.
    pub(super) fn flight(&mut self, node: &Arc<str>, epoch: u64, until: Instant, repeatable: bool) -> Flight<'a> {
        let (around, key, place) = (self.around, self.target.key.clone(), self.number);
        let way = self.way().clone();
        self.noted = true;
        around.flight(Some(node.clone()), Some(Went { way, key, place, epoch, until, repeatable }))
    }

    /// Whether it may be sent under that epoch right now. Asked once its flight is noted.
    pub(super) fn may_leave(&mut self, epoch: u64) -> bool {
        let lined = self.lined;
        let way = self.way();
        if lined { way.stands(epoch) } else { way.is_straight(epoch) }
    }

    pub(super) fn sent(&mut self, epoch: u64, until: Instant) {
        let (lined, target, number) = (std::mem::take(&mut self.lined), self.target, self.number);
        if lined {
            self.way().sent(&target.key, number, epoch, until);
        }
    }

    /// The holder of that epoch has taken it.
    pub(super) fn proved(&mut self, epoch: u64) {
        let target = self.target;
        self.way().proved(&target.key, epoch);
    }

    /// Whoever comes after it need not wait for it any more.
    pub(super) fn leave(&mut self) {
        self.lined = false;
        if let Some(way) = self.way.as_ref().filter(|_| self.noted) {
            way.leave(&self.target.key, self.number);
        }
    }

    fn way(&mut self) -> &Arc<Way> {
        let (around, actor, partition) = (self.around, self.actor, self.target.partition);
        self.way.get_or_insert_with(|| around.lines.way(actor, partition))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
