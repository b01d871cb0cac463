//! Drafts: what turns want kept, before it is a record.

use super::ledger::Mark;
use super::outbox::Outbox;
use super::record::StoredEvent;
use super::window::{Fate, Remembered};
use crate::call::wall_ms;
use crate::error::Error;
use crate::state::Cell;

/// What a record has around its events and commands, as JSON; more than it ever is.
const FRAME_BYTES: usize = 512;
/// What an event has around its name and its body, likewise.
const EVENT_BYTES: usize = 48;

/// What one turn, or several in a row, emitted, and the commands that they were for.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) events: Vec<StoredEvent>,
    /// The window remembers them before they are kept.
    pub(super) commands: Vec<Remembered>,
    /// What they send, and change about their actor's reminders.
    pub(super) outbox: Outbox,
    pub(super) bytes: usize,
}

impl Draft {
    /// What a turn is to leave: its events, if `emitted` are to be kept, and its command.
    ///
    /// # Errors
    /// `Internal` if an event cannot be written as JSON.
    pub(crate) fn of(
        cell: &dyn Cell,
        command: Option<(&Mark, Fate)>,
        emitted: bool,
        outbox: Outbox,
    ) -> Result<Self, Error> {
        let events = if emitted { cell.written()? } else { Vec::new() };
        let command = command.map(|(mark, fate)| Remembered {
            id: mark.id,
            born: mark.born,
            at: wall_ms(),
            verb: mark.verb.into(),
            digest: mark.digest,
            stored: mark.stored,
            fate,
        });
        // Each name stands in a header too.
        let of_event = |event: &StoredEvent| EVENT_BYTES + 2 * event.name.len() + event.body.get().len();
        let events_bytes = events.iter().map(of_event).sum::<usize>();
        let bytes = FRAME_BYTES + events_bytes + command.as_ref().map_or(0, Remembered::bytes) + outbox.bytes();
        Ok(Self { events, commands: command.into_iter().collect(), outbox, bytes })
    }

    /// How large its record will be without the state, at most, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in what a later turn leaves.
    pub(crate) fn join(&mut self, later: Self) {
        self.events.extend(later.events);
        self.commands.extend(later.commands);
        self.outbox.join(later.outbox);
        self.bytes += later.bytes - FRAME_BYTES;
    }
}
