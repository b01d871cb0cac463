//! What this node knows of the others: for callers, who owns what.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::changes::{Changes, SeenChanges};
use crate::ownership::{Owner, View};

/// The newest [`View`] of the ownership machine, published by its driver.
pub(crate) struct Cluster {
    me: String,
    seen: RwLock<Seen>,
    changes: Changes,
}

#[derive(Clone)]
struct Seen {
    view: Arc<View>,
    /// Whether the view holds everything there was when the node started.
    current: bool,
}

/// Where a partition is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Located {
    Here,
    Node {
        id: String,
        epoch: u64,
        /// Whether its actors of that type remember their commands.
        durable: bool,
    },
    /// There are hosts, and no live claim just now.
    Vacant,
    NoHosts,
}

impl Cluster {
    pub(crate) fn new(me: String) -> Self {
        let seen = Seen { view: Arc::new(View::new()), current: false };
        Self { me, seen: RwLock::new(seen), changes: Changes::default() }
    }

    /// Makes a view the one that callers see.
    pub(crate) fn publish(&self, view: &View, current: bool) {
        *self.seen.write() = Seen { view: Arc::new(view.clone()), current };
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
            Owner::Node { id, .. } if id.as_str() == self.me => Located::Here,
            Owner::Node { id, epoch } => {
                Located::Node { durable: view.is_durable(&id, actor), id: id.as_str().to_owned(), epoch }
            }
            Owner::Vacant => Located::Vacant,
            Owner::NoHosts => Located::NoHosts,
        }
    }

    /// Changes with the view.
    pub(crate) fn versions(&self) -> SeenChanges {
        self.changes.seen()
    }
}
