//! What this node knows of the others: for callers, who owns what.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::changes::{Changes, SeenChanges};
use crate::key::Key;
use crate::ownership::{Departure, NodeId, Owner, View};

/// The newest [`View`] of the ownership machine, published by its driver.
pub(crate) struct Cluster {
    me: String,
    seen: RwLock<Seen>,
    changes: Changes,
    /// The nodes that were last seen to go, and how.
    departed: Mutex<VecDeque<(NodeId, Departure)>>,
}

/// How many of those are remembered.
const DEPARTED_MAX: usize = 1_024;

#[derive(Clone)]
struct Seen {
    view: Arc<View>,
    /// Whether the view holds everything there was when the node started.
    current: bool,
}

/// Where a partition is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Located {
    Here {
        epoch: u64,
    },
    Node {
        id: Arc<str>,
        epoch: u64,
        /// Whether its actors of that type remember their commands.
        durable: bool,
    },
    /// There are hosts, and no live claim just now.
    Vacant,
    NoHosts,
}

impl Located {
    /// The epoch of the claim, 0 if there is none.
    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Located::Here { epoch } | Located::Node { epoch, .. } => *epoch,
            Located::Vacant | Located::NoHosts => 0,
        }
    }
}

impl Cluster {
    pub(crate) fn new(me: String) -> Self {
        let seen = Seen { view: Arc::new(View::new()), current: false };
        Self { me, seen: RwLock::new(seen), changes: Changes::default(), departed: Mutex::default() }
    }

    /// Makes a view the one that callers see. Costs little: what has not changed is shared.
    pub(crate) fn publish(&self, view: &View, current: bool) {
        *self.seen.write() = Seen { view: Arc::new(view.shown()), current };
        self.changes.note();
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.seen.read().view.clone()
    }

    pub(crate) fn is_current(&self) -> bool {
        self.seen.read().current
    }

    pub(crate) fn locate(&self, actor: &str, partition: u16) -> Located {
        let view = self.view();
        match view.owner(actor, partition) {
            Owner::Node { id, epoch } if id.as_str() == self.me => Located::Here { epoch },
            Owner::Node { id, epoch } => Located::Node { durable: view.is_durable(&id, actor), id: id.shared(), epoch },
            Owner::Vacant => Located::Vacant,
            Owner::NoHosts => Located::NoHosts,
        }
    }

    /// The keys whose last turn may still run at the node that handed the partition over.
    pub(crate) fn busy(&self, actor: &str, partition: u16) -> Vec<Key> {
        let view = self.view();
        view.busy(actor, partition).iter().filter_map(|token| Key::from_token(token).ok()).collect()
    }

    /// Notes that a node has gone. Those who wait for it look when the next view is published.
    pub(super) fn note_departed(&self, id: &NodeId, how: Departure) {
        let mut departed = self.departed.lock();
        departed.retain(|(known, _)| known != id);
        if departed.len() >= DEPARTED_MAX {
            departed.pop_front();
        }
        departed.push_back((id.clone(), how));
    }

    /// How a node went, if it has gone and is not back.
    pub(crate) fn departure(&self, id: &str) -> Option<Departure> {
        if self.view().is_live(&NodeId::new(id)) {
            return None;
        }
        let departed = self.departed.lock();
        departed.iter().rev().find(|(known, _)| known.as_str() == id).map(|(_, how)| *how)
    }

    /// Counts the views. As long as it stays the same, whatever was located is where it was.
    pub(crate) fn version(&self) -> u64 {
        self.changes.count()
    }

    /// Changes with the view.
    pub(crate) fn versions(&self) -> SeenChanges {
        self.changes.seen()
    }
}
