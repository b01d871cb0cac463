//! The engine of one node: slots of keyed actors, turns, and what bounds them.
//!
//! An idle keyed actor is an entry in a map: no task, no channel. A call to it is polled once
//! inside the caller's own future; what is not ready then is spawned at once, so a caller that
//! stops polling or is dropped holds nobody. Messages that arrive during a turn queue, bounded,
//! and are taken by one spawned task when the turn ends. What durable actors are asked meanwhile may share an append
//! ([`group`]). Where a turn goes on that was alone when it began: [`settling`].

mod activation;
mod attached;
mod budget;
mod command;
mod drain;
mod faults;
mod firing;
mod gate;
mod group;
mod host;
mod job;
mod passivation;
mod pinned;
mod proof;
mod registry;
mod settling;
mod slot;
mod turn;
mod wake;

pub(crate) use self::attached::{Attach, Attachment, Sender, typed};
pub(crate) use self::command::not_kept;
pub(crate) use self::firing::{FireJob, ReminderTurn, run_reminder};
pub(crate) use self::gate::Gate;
pub(crate) use self::host::{Entered, Host, HostSettings};
pub(crate) use self::job::{AskJob, Job, Outcome, ReadJob, ReplyTo, Started, takes_stale};
pub(crate) use self::proof::Proof;
pub(crate) use self::settling::Settlers;
pub(crate) use self::turn::{Ended, Env, WAITED, cause_of, conclude, run_once, settle, turn_of};
