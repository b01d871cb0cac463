//! Death watch: who is told when an activation of a keyed actor ends, wherever it is, and why.
//!
//! A keyed actor always exists; what ends is an activation of it. The node that owns the actor keeps a table of what is
//! watched (`table`). Whoever watches asks it, over the node's own subject if it is another, for what has happened
//! since it last heard (`question`), and the question waits there until something does. So nothing rests on a message
//! that may be lost: a question without an answer is asked again, and the deaths of owners are seen in the ownership
//! records, by the watcher itself (`follow`). `members` watches nodes.

mod follow;
mod members;
mod question;
mod table;

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) use self::follow::begin;
pub use self::members::{Members, NodeGone};
pub(crate) use self::question::answer;
pub(crate) use self::table::{Ending, Table};
use crate::key::Key;

/// The end of an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gone {
    /// The actor type.
    pub actor: String,
    /// Which actor of its type.
    pub key: String,
    /// The node that it was on; empty for [`Reason::NotActive`] where no node serves it.
    pub node: String,
    /// The epoch of the claim under which that node served it.
    pub epoch: u64,
    /// Why it ended, as far as is known.
    pub reason: Reason,
}

/// Why an activation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// It was not in memory when the watch began. Said once, at once, and only then.
    NotActive,
    /// It had not been used for a while, others needed its room, or it is a durable actor to whose journal nothing was
    /// ever written. Its next message brings it back.
    Passivated,
    /// It was dropped because of a turn that is undone, or could not be kept. Its next message brings it back.
    Undone,
    /// Its partition was handed over.
    Moved {
        /// To this node.
        to: String,
    },
    /// Its node left, and handed it to nobody.
    Drained,
    /// A turn panicked. Its next message brings it back.
    Panicked {
        /// The panic's message.
        cause: String,
    },
    /// It panicked repeatedly and is kept from running, until it is released.
    Quarantined {
        /// The last panic's message.
        cause: String,
    },
    /// Its node has died: the process was killed, or its connection ended for good.
    NodeDied {
        /// The node.
        node: String,
    },
    /// Its node was frozen or cut off until its lease ran out. It may live; it serves nothing.
    NodeLost {
        /// The node.
        node: String,
    },
    /// It ended, and nobody who could say why could be asked.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotActive => f.write_str("was not active"),
            Reason::Passivated => f.write_str("left memory"),
            Reason::Undone => f.write_str("was dropped with a turn that was not kept"),
            Reason::Moved { to } => write!(f, "moved to {to}"),
            Reason::Drained => f.write_str("ended with its node, which left"),
            Reason::Panicked { cause } => write!(f, "panicked: {cause}"),
            Reason::Quarantined { cause } => write!(f, "panicked repeatedly and is quarantined: {cause}"),
            Reason::NodeDied { node } => write!(f, "ended with its node {node}, which died"),
            Reason::NodeLost { node } => write!(f, "ended with its node {node}, whose lease ran out"),
            Reason::Unknown => f.write_str("ended, and why is not known"),
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.actor, self.key, self.reason)
    }
}

/// A watch of one keyed actor, over its activations; [`Node::watch`](crate::Node::watch) and
/// [`Ref::watch`](crate::Ref::watch) make one. Dropping it ends the watch.
///
/// A watch neither activates the actor nor keeps it in memory. It goes with the actor: after an end it waits for the
/// next activation, wherever that is, and tells of its end too.
///
/// What is promised: the end of an activation that the watch has seen is told once, in order, with the reason, or with
/// [`Reason::Unknown`] if the node that knew it has gone. An activation that begins *and* ends while the watch is on its
/// way to a new owner may not be seen. Ends wait in the watch, 64 of them, and then at the owner, which keeps the last
/// 16; what is beyond that is one `Unknown`.
#[derive(Debug)]
pub struct Watch {
    ends: mpsc::Receiver<Gone>,
    task: AbortHandle,
}

impl Watch {
    /// The next end; `None` once this node has stopped. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Gone> {
        self.ends.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An actor that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Watched {
    pub(crate) actor: String,
    pub(crate) key: Key,
}
