//! Supervision: what runs on a node beside its keyed actors, and what happens when it fails.
//!
//! A node has one tree. Under its root stands one supervisor for each group (the pool of a service,
//! the consumers of a stream, the node's own background tasks), and under that the group's children.
//! A child that returns an error or panics is started again by its group's [`Restart`] rule, with a
//! growing back-off, until the rule's intensity is passed: then that group gives up, says so, and
//! the rest of the node goes on.
//!
//! Owned here: starting, stopping and restarting children, and what is known of them. Not owned
//! here: keyed actors, which are never children (one entry of a map each, with a quarantine of their
//! own), and admission, which is bounded before a job reaches a worker.
//!
//! Actors of the tree have no names of their own anywhere in the process, so two nodes can live
//! side by side.
//!
//! Read next: `supervisor.rs` (when a child is stopped and started), `child.rs` and `worker.rs` (the
//! two kinds of children), `tree.rs` (the node's root).

use std::time::{Duration, Instant};

use crate::error::ErrorKind;

mod tree;
mod supervisor;
mod slot;
mod child;
mod worker;
mod budget;

#[cfg(test)]
mod tests;

pub(crate) use child::ChildSpec;
pub(crate) use tree::{Group, Tree};
pub(crate) use worker::{Handler, Queue};

/// Which children of a group are restarted when one of them fails.
///
/// Children are started in the order in which they were given and stopped in the reverse order. A
/// child that has finished its work is left alone by all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Only the one that failed. For children that do not need each other.
    #[default]
    OneForOne,
    /// All of them: the others are stopped first. For children that are only right together.
    OneForAll,
    /// The one that failed and those after it, which are stopped first. For children that build
    /// upon those before them.
    RestForOne,
}

/// How a group treats children that fail.
///
/// The default restarts the failed child alone, up to 5 times in 30 s, with a [`Backoff`] from 50 ms
/// to 5 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Which children are restarted.
    pub strategy: Strategy,
    /// How many restarts [`within`](Restart::within) are borne, over all children of the group; one
    /// more, and the group gives up. Restarting several children for one failure counts once. Zero
    /// gives up at the first failure.
    pub intensity: u32,
    /// The sliding time in which restarts are counted. Also how long a child must have run for its
    /// next failure to be its first again. With zero, no failure is ever remembered.
    pub within: Duration,
    /// How long to wait before a restart.
    pub backoff: Backoff,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            intensity: 5,
            within: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// How long to wait before a failed child is started again: [`first`](Backoff::first), then twice as
/// long after each further failure, up to [`max`](Backoff::max). There is no jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait, also if `first` is longer.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), max: Duration::from_secs(5) }
    }
}

/// What is known of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupReport {
    /// The group's name: the hosted actor's, or what the node calls it.
    pub name: String,
    /// Set once the group has given up; its children are stopped and stay so.
    pub gave_up: Option<GaveUp>,
    /// Whether it is over: stopped or given up, and no child runs any more.
    pub ended: bool,
    /// Its children, in the order in which they are started.
    pub children: Vec<ChildReport>,
}

/// What is known of one child of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildReport {
    /// The child's name within its group.
    pub name: String,
    /// What it does just now.
    pub state: ChildState,
    /// How often it was started again, on its own account or for the sake of another child.
    pub restarts: u32,
    /// How its last failure came about, if it ever failed.
    pub last_failure: Option<String>,
}

/// What a child does just now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// Being started, or waiting until those before it have been.
    Starting,
    /// Started, and neither failed nor finished since.
    Running,
    /// Not running, and started again once the wait is over.
    BackingOff {
        /// When that is, at the earliest.
        until: Instant,
    },
    /// Asked to stop, and not through yet.
    Stopping,
    /// Stopped, for good.
    Stopped,
    /// It did what it had to do, and is not started again.
    Finished,
    /// It failed for good: its group gave up over it.
    Failed {
        /// The last failure.
        cause: String,
    },
}

/// That a group gave up: more restarts than its [`Restart`] bears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaveUp {
    /// The group.
    pub group: String,
    /// The child whose failure was one too many.
    pub child: String,
    /// What kind of failure that was.
    pub kind: ErrorKind,
    /// The failure itself, for people.
    pub cause: String,
    /// How many restarts were borne before it, within the time of the rule.
    pub restarts: u32,
}
