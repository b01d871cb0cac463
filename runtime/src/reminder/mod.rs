//! Reminders: messages that an actor sends itself later, whatever happens meanwhile.
//!
//! A reminder is state of its actor: it is armed, cancelled and moved on by records of the journal, in the same
//! append as the events of its turn. What stands at the broker is only a wake-up, written before that append, so that
//! nothing is ever armed that nobody would be woken for. A wake-up that does not fit what is armed is dropped.
//!
//! `schedule` says when a reminder is due, `draft` what a turn changes about its actor's, `wake` what stands at
//! the broker, `lane` who follows it. Which are armed is the journal's (`journal/reminders`), and their turns are
//! the engine's (`engine/firing`).

mod schedule;
mod draft;
mod wake;
mod lane;

use std::time::SystemTime;

pub use self::draft::{BODY_BYTES_MAX, NAME_BYTES_MAX, REMINDERS_MAX};
pub(crate) use self::draft::{Draft, Due, Fired};
pub(crate) use self::lane::{Lane, heard};
pub use self::schedule::{EVERY_MIN, Schedule};
pub(crate) use self::wake::Wakes;

/// A reminder that is armed, as [`Context::reminders`](crate::Context::reminders) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reminder {
    /// Its name.
    pub name: String,
    /// When it fires.
    pub schedule: Schedule,
    /// When it fires the next time.
    pub due: SystemTime,
    /// The verb of its message.
    pub verb: String,
}
