//! Journals: what durable actors have done, kept in streams.
//!
//! A turn is a transaction: what it emitted, and the command that it was for, are part of one record, appended by
//! compare-and-set on the actor's own subject before anything of the turn leaves the actor. Whoever writes from a state
//! that is not the newest is refused, so two activations of one actor never both commit from the same state, whatever
//! clocks and leases say.
//!
//! [`record`] is what one append holds, [`outbox`] what a turn sends with it, [`window`] the commands that an actor
//! remembers, [`log`] the stream of one actor type, [`draft`] what the next append is to hold, [`ledger`] what an
//! activation knows of its journal. [`json`] writes what is written with every command.

mod draft;
mod json;
mod ledger;
mod log;
mod outbox;
mod record;
mod reminders;
mod window;

pub(crate) use self::draft::Draft;
pub(crate) use self::ledger::{Append, Kept, Ledger, Mark, Opened, Write, commit, prepare};
pub(crate) use self::log::{EVENTS, Log, NotAppended, OUTBOX};
pub(crate) use self::outbox::{Gathering, Outbox, Slip, StoredTell};
pub(crate) use self::record::{Record, StoredEvent, raw};
pub(crate) use self::reminders::{Armed, Change, Next, Reminders};
pub(crate) use self::window::{Answer, BORN_MAX, Fate, Known, STORED_MAX};
