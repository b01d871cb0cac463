//! Watching nodes: who of the app has gone, and how.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Reason;
use crate::changes::SeenChanges;
use crate::node::Surroundings;
use crate::ownership::Departure;

/// The end of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeGone {
    /// The node's id.
    pub node: String,
    /// [`Reason::Drained`], [`Reason::NodeDied`], [`Reason::NodeLost`], or [`Reason::Unknown`] if this node was cut off
    /// meanwhile and the records are gone.
    pub reason: Reason,
}

/// A watch of all nodes that host something; [`Node::watch_nodes`](crate::Node::watch_nodes) makes one.
///
/// It compares what is with what was, so no end is missed, however late it is looked at. A node that was lost and is
/// back under the same id is watched again.
pub struct Members {
    around: Arc<Surroundings>,
    versions: SeenChanges,
    stop: CancellationToken,
    known: BTreeSet<String>,
}

impl Members {
    pub(crate) fn new(around: Arc<Surroundings>) -> Self {
        let (versions, stop) = (around.cluster.versions(), around.stop());
        let mut members = Self { around, versions, stop, known: BTreeSet::new() };
        members.meet();
        members
    }

    /// The next node that has gone; `None` once this node has stopped. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<NodeGone> {
        loop {
            self.versions.mark_unchanged();
            if let Some(gone) = self.look() {
                self.known.remove(&gone.node);
                return Some(gone);
            }
            self.meet();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = self.versions.changed() => {}
            }
        }
    }

    fn meet(&mut self) {
        let view = self.around.cluster.view();
        let live = view.members().filter(|member| view.is_live(&member.id));
        self.known.extend(live.map(|member| member.id.as_str().to_owned()));
        self.known.remove(&self.around.id);
    }

    fn look(&self) -> Option<NodeGone> {
        let view = self.around.cluster.view();
        self.known.iter().find_map(|node| {
            let id = crate::ownership::NodeId::new(node.as_str());
            if view.is_live(&id) {
                return None;
            }
            let reason = match self.around.cluster.departure(node) {
                Some(Departure::Left) => Reason::Drained,
                Some(Departure::Died) => Reason::NodeDied { node: node.clone() },
                Some(Departure::Lost) => Reason::NodeLost { node: node.clone() },
                None if view.members().any(|member| member.id == id) => return None,
                None => Reason::Unknown,
            };
            Some(NodeGone { node: node.clone(), reason })
        })
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("known", &self.known).finish_non_exhaustive()
    }
}
