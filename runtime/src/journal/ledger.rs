//! The ledger: what an activation knows of its journal, and how it adds to it.

use std::sync::Arc;

use super::log::{Log, NotAppended};
use super::record::{FORM, Record, Snapshot};
use super::window::{Fate, Known, Remembered, Window};
use crate::call::wall_ms;
use crate::error::{Error, ErrorKind};
use crate::node::Surroundings;
use crate::state::{Cell, Committed};
use crate::subject::Subject;

/// A snapshot of at most so many bytes goes into every record: then one read brings the actor back.
const SMALL_BYTES: usize = 512;
/// Otherwise one is written when the records since the last are so many times its size, and at least so large: then
/// snapshots cost a fraction of what they save.
const GROWTH: u64 = 2;
const GROWN_BYTES: u64 = 4_096;

/// The journal of one activation.
pub struct Ledger {
    log: Arc<Log>,
    subject: Subject,
    /// The sequence of the newest record, 0 if there is none: what the next append expects.
    sequence: u64,
    /// The number of the next event.
    next_event: u64,
    /// See [`Record`].
    base: u64,
    since: u64,
    /// The size of the state when it was last written down.
    state_bytes: usize,
    /// The claim's epoch.
    epoch: u64,
    pub(crate) window: Window,
}

/// A command on its way through a turn.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) id: crate::call::TurnId,
    pub(crate) born: u64,
    pub(crate) verb: &'static str,
    pub(crate) digest: u64,
}

/// What a record is written for.
pub(crate) enum Write {
    /// What the turn emitted, or a step of it.
    Turn,
    /// A refusal that must be remembered; what the turn emitted is not kept.
    Refusal,
    /// The sign of a new owner, with the state: what an owner before had on its way is refused from here on.
    Activated,
}

/// Where a journal stands when its actor is activated: the state to begin with, and what happened since.
pub(crate) struct Opened {
    pub(crate) ledger: Ledger,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) records: Vec<Record>,
    /// Whether there may be more than was read: an earlier owner may still have something on its way, or the leader
    /// that was asked may have been deposed.
    pub(crate) contested: bool,
}

impl Ledger {
    /// Reads a journal: its newest record at the leader, and what that one needs to be understood.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer, or if a later owner has written already.
    pub(crate) async fn open(log: Arc<Log>, subject: Subject, epoch: u64, planned: bool) -> Result<Opened, Error> {
        let mut ledger = Self {
            log: log.clone(),
            subject: subject.clone(),
            sequence: 0,
            next_event: 1,
            base: 0,
            since: 0,
            state_bytes: 0,
            epoch,
            window: Window::default(),
        };
        let Some((sequence, bytes, last)) = log.last(&subject).await? else {
            return Ok(Opened { ledger, snapshot: None, records: Vec::new(), contested: !planned });
        };
        if last.epoch > epoch {
            let why = format!("{subject} was written under epoch {}, and this node serves {epoch}", last.epoch);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let contested = (!planned && last.epoch < epoch) || log.is_unsettled();
        ledger.sequence = sequence;
        ledger.next_event = last.first + last.events.len() as u64;
        let mut records = if last.snapshot.is_some() {
            ledger.base = sequence;
            vec![last]
        } else {
            ledger.base = last.base;
            ledger.since = last.since + bytes as u64;
            log.read(&subject, last.base.max(1), sequence).await?
        };
        let mut snapshot = None;
        if ledger.base > 0 {
            // The record's own events and command are in its snapshot already.
            snapshot = records.remove(0).snapshot;
            let Some(found) = &snapshot else {
                let why = format!("{subject} has no snapshot at {}, where its newest record says", ledger.base);
                return Err(Error::new(ErrorKind::Internal, why));
            };
            ledger.window = found.window.clone();
            ledger.state_bytes = found.state.get().len();
        }
        for command in records.iter().filter_map(|record| record.command.clone()) {
            ledger.window.remember(command);
        }
        Ok(Opened { ledger, snapshot, records, contested })
    }

    /// Whether nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.sequence == 0
    }

    /// What is known of a command.
    pub(crate) fn look(&self, mark: &Mark) -> Known<'_> {
        self.window.look(mark.id, mark.born, mark.verb, mark.digest, wall_ms())
    }
}

/// Makes what a turn emitted permanent, with the command that it was for and what became of it.
///
/// # Errors
/// See [`NotAppended`]. The cell is then not to be used any more: its state holds what was not kept.
pub(crate) async fn commit(
    around: &Arc<Surroundings>,
    cell: &mut dyn Cell,
    command: Option<(&Mark, Fate)>,
    write: Write,
) -> Result<Vec<Committed>, NotAppended> {
    let (events, committed) = match write {
        Write::Turn => cell.written().map_err(NotAppended::NotStored)?,
        Write::Refusal | Write::Activated => Default::default(),
    };
    let command = command.map(|(mark, fate)| Remembered {
        id: mark.id,
        born: mark.born,
        at: wall_ms(),
        verb: mark.verb.to_owned(),
        digest: mark.digest,
        fate,
    });
    let volatile = || NotAppended::NotStored(Error::new(ErrorKind::Internal, "a volatile cell goes to no stream"));
    let wanted = match write {
        Write::Refusal => false,
        Write::Turn => cell.ledger().ok_or_else(volatile)?.may_be_due(),
        Write::Activated => true,
    };
    let state = if wanted { Some(cell.state().map_err(NotAppended::NotStored)?) } else { None };
    let ledger = cell.ledger().ok_or_else(volatile)?;
    ledger.state_bytes = state.as_ref().map_or(ledger.state_bytes, |state| state.get().len());
    let embed = matches!(write, Write::Activated) || ledger.is_due();
    let snapshot = state.filter(|_| embed).map(|state| {
        let mut window = ledger.window.clone();
        command.clone().into_iter().for_each(|command| window.remember(command));
        Snapshot { state, window }
    });
    let record = Record {
        form: FORM,
        id: ledger.log.append_id(),
        epoch: ledger.epoch,
        first: ledger.next_event,
        events,
        command,
        base: ledger.base,
        since: ledger.since,
        snapshot,
    };
    let (sequence, bytes) = ledger.log.clone().append(around, &ledger.subject, ledger.sequence, &record).await?;
    ledger.sequence = sequence;
    ledger.since += bytes as u64;
    record.command.into_iter().for_each(|command| ledger.window.remember(command));
    if record.snapshot.is_some() {
        ledger.base = sequence;
        ledger.since = 0;
    }
    let first = ledger.next_event;
    ledger.next_event += record.events.len() as u64;
    cell.kept();
    Ok((first..).zip(committed).map(|(sequence, event)| Committed { sequence, ..event }).collect())
}

impl Ledger {
    /// Whether the next record might hold the state, by what is known of its size: writing it down only to look costs
    /// as much as a snapshot.
    fn may_be_due(&self) -> bool {
        // The window goes with it, which is why the state alone being small is not enough.
        self.has_grown() || (self.state_bytes <= SMALL_BYTES && self.window.is_small())
    }

    /// Whether it should, by the size it has now.
    fn is_due(&self) -> bool {
        self.has_grown() || self.state_bytes <= SMALL_BYTES
    }

    fn has_grown(&self) -> bool {
        self.since >= GROWN_BYTES.max(GROWTH * self.state_bytes as u64)
    }
}
