//! The ledger: what an activation knows of its journal, and how it adds to it.

use std::sync::Arc;

use super::draft::Draft;
use super::log::{Log, NotAppended, Sealed};
use super::outbox::Outbox;
use super::record::{FORM, Record, Snapshot, StoredEvent};
use super::reminders::Reminders;
use super::window::{Fate, Known, Window};
use crate::call::wall_ms;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::{Audiences, Surroundings};
use crate::reminder;
use crate::state::{Cell, Committed};
use crate::subject::Subject;

/// A snapshot of at most so many bytes goes into every record: then one read brings the actor back.
const SMALL_BYTES: usize = 512;
/// Otherwise one is written when the records since the last are so many times its size, and at least so large: then
/// snapshots are a third of what is written at most.
const GROWTH: u64 = 2;
const GROWN_BYTES: u64 = 4_096;
/// An actor that leaves memory leaves one behind already when it is worth so much, and its own size: it is read next.
const PAYS_BYTES: u64 = 1_024;

/// The journal of one activation.
pub struct Ledger {
    log: Arc<Log>,
    /// Its actor: type and key.
    whose: (&'static str, Key),
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
    /// A snapshot that did not fit into a record is not tried again before the records since the last are so large.
    hold_off: u64,
    /// The claim's epoch.
    epoch: u64,
    pub(crate) window: Window,
    /// As the turns so far leave them, and as they are kept.
    pub(crate) reminders: Reminders,
    kept_reminders: Reminders,
    /// Who listens to its events.
    audiences: Audiences,
}

/// A command on its way through a turn.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) id: crate::call::TurnId,
    pub(crate) born: u64,
    pub(crate) verb: &'static str,
    pub(crate) digest: u64,
    /// Whether it is a durable tell.
    pub(crate) stored: bool,
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
    pub(crate) async fn open(
        log: Arc<Log>,
        whose: (&'static str, Key),
        subject: Subject,
        epoch: u64,
        planned: bool,
        remembers: usize,
    ) -> Result<Opened, Error> {
        let mut ledger = Self {
            log: log.clone(),
            whose,
            subject: subject.clone(),
            sequence: 0,
            next_event: 1,
            base: 0,
            since: 0,
            state_bytes: 0,
            hold_off: 0,
            epoch,
            window: Window::default().of(remembers),
            reminders: Reminders::default(),
            kept_reminders: Reminders::default(),
            audiences: Audiences::default(),
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
            // If those since the snapshot are like the last.
            let about = ledger.since / (bytes as u64).max(1) + u64::from(last.base > 0);
            log.read(&subject, last.base.max(1), sequence, about).await?
        };
        let mut snapshot = None;
        if ledger.base > 0 {
            // The record's own events and command are in its snapshot already.
            snapshot = records.remove(0).snapshot;
            let Some(found) = &snapshot else {
                let why = format!("{subject} has no snapshot at {}, where its newest record says", ledger.base);
                return Err(Error::new(ErrorKind::Internal, why));
            };
            ledger.window = found.window()?.of(remembers);
            ledger.reminders = found.reminders.clone();
            ledger.state_bytes = found.state.get().len();
        }
        for command in records.iter().flat_map(|record| &record.commands) {
            ledger.window.remember(command);
        }
        for change in records.iter().flat_map(|record| &record.reminders) {
            ledger.reminders.apply(change);
        }
        ledger.kept_reminders = ledger.reminders.clone();
        Ok(Opened { ledger, snapshot, records, contested })
    }

    /// Whether nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.sequence == 0
    }

    /// The reminders, for a turn that may change them.
    pub(crate) fn draft(&self) -> reminder::Draft {
        reminder::Draft::new(self.reminders.clone(), self.epoch)
    }

    /// What the actor takes in memory, about: its state as it was last written down, and the commands it remembers.
    pub(crate) fn bytes(&self) -> usize {
        self.held_bytes() + self.window.bytes()
    }

    /// Whether the next activation would read so much more than the state that a snapshot is worth its record.
    pub(crate) fn snapshot_pays(&self) -> bool {
        self.since >= PAYS_BYTES.max(self.held_bytes() as u64)
    }

    /// What is known of a command.
    pub(crate) fn look(&mut self, mark: &Mark) -> Known<'_> {
        match self.window.look(mark.id, mark.born, mark.verb, mark.digest, wall_ms()) {
            // What the broker keeps may be as old as it likes: one comes after the other, and is not forgotten before
            // the broker has forgotten it.
            Known::Expired(_) | Known::Full | Known::Ahead if mark.stored => Known::New,
            known => known,
        }
    }
}

/// Whether a record may hold the state as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Embed {
    /// It holds more than the record leaves.
    Not,
    IfDue,
    Always,
}

/// Makes what a turn emitted permanent, with what it sends, the command that it was for and what became of it. What
/// wakes its actor for the reminders that it arms is stored before.
///
/// # Errors
/// See [`NotAppended`]. The cell is then not to be used any more: its state holds what was not kept.
pub(crate) async fn commit(
    around: &Arc<Surroundings>,
    cell: &mut dyn Cell,
    command: Option<(&Mark, Fate)>,
    write: Write,
    outbox: Outbox,
) -> Result<Vec<Committed>, NotAppended> {
    let embed = match write {
        Write::Turn => Embed::IfDue,
        Write::Refusal => Embed::Not,
        Write::Activated => Embed::Always,
    };
    let draft = Draft::of(cell, command, matches!(write, Write::Turn), outbox).map_err(NotAppended::NotStored)?;
    // Should the append fail, the window and the reminders go with the cell.
    ledger_of(cell)?.remember(&draft);
    let append = prepared(around, cell, draft, embed)?;
    let kept = append.send(around.clone()).await?;
    cell.kept();
    Ok(ledger_of(cell)?.took(around, kept))
}

/// Makes a record of what several turns leave. `whole`: nothing was emitted since that it does not hold.
///
/// # Errors
/// `NotStored` if it cannot be written, or is too large.
pub(crate) fn prepare(
    around: &Arc<Surroundings>,
    cell: &mut dyn Cell,
    draft: Draft,
    whole: bool,
) -> Result<Append, NotAppended> {
    prepared(around, cell, draft, if whole { Embed::IfDue } else { Embed::Not })
}

fn prepared(
    around: &Arc<Surroundings>,
    cell: &mut dyn Cell,
    draft: Draft,
    embed: Embed,
) -> Result<Append, NotAppended> {
    let wanted = match embed {
        Embed::Not => false,
        Embed::IfDue => ledger_of(cell)?.may_be_due(),
        Embed::Always => true,
    };
    let state = if wanted { Some(cell.state().map_err(NotAppended::NotStored)?) } else { None };
    let ledger = ledger_of(cell)?;
    ledger.state_bytes = state.as_ref().map_or(ledger.state_bytes, |state| state.get().len());
    let state = state.filter(|_| embed == Embed::Always || ledger.is_due());
    let Draft { events, commands, outbox, bytes } = draft;
    let reminders = ledger.kept_reminders.with(&outbox.reminders);
    let snapshot = state.map(|state| Snapshot::of(state, &ledger.window, reminders.clone())).transpose();
    let wakes = (!outbox.reminders.is_empty()).then(|| (ledger.kept_reminders.clone(), reminders.clone()));
    let mut record = Record {
        form: FORM,
        id: ledger.log.append_id(),
        epoch: ledger.epoch,
        first: ledger.next_event,
        events,
        commands,
        tells: outbox.tells,
        reminders: outbox.reminders,
        base: ledger.base,
        since: ledger.since,
        snapshot: snapshot.map_err(NotAppended::NotStored)?,
    };
    let about = bytes + record.snapshot.as_ref().map_or(0, Snapshot::bytes);
    let mut body = record.write(about).map_err(NotAppended::NotStored)?;
    if record.snapshot.is_some() && around.check_payload(body.len()).is_err() {
        // It can do without: what came since the last one is there.
        ledger.hold_off = ledger.since.saturating_mul(2).max(body.len() as u64);
        record.snapshot = None;
        body = record.write(bytes).map_err(NotAppended::NotStored)?;
    }
    around.check_payload(body.len()).map_err(NotAppended::NotStored)?;
    let (is_snapshot, sends) = (record.snapshot.is_some(), record.sends() > 0);
    let (sealed, events) = Sealed::of(record, body);
    Ok(Append {
        log: ledger.log.clone(),
        subject: ledger.subject.clone(),
        expect: ledger.sequence,
        is_snapshot,
        sends,
        sealed,
        events,
        whose: ledger.whose.clone(),
        wakes,
    })
}

fn ledger_of(cell: &mut dyn Cell) -> Result<&mut Ledger, NotAppended> {
    cell.ledger()
        .ok_or_else(|| NotAppended::NotStored(Error::new(ErrorKind::Internal, "a volatile cell goes to no stream")))
}

/// A record on its way: it has all that it needs, so that the actor may run on beside it.
pub(crate) struct Append {
    log: Arc<Log>,
    subject: Subject,
    expect: u64,
    is_snapshot: bool,
    /// Whether it has anything to send.
    sends: bool,
    sealed: Sealed,
    events: Vec<StoredEvent>,
    whose: (&'static str, Key),
    /// The reminders before and after it, if it changes them.
    wakes: Option<(Reminders, Reminders)>,
}

/// A record that is stored.
pub(crate) struct Kept {
    sequence: u64,
    bytes: u64,
    is_snapshot: bool,
    events: Vec<StoredEvent>,
    reminders: Option<Reminders>,
}

impl Append {
    /// Ends when the record's fate is known.
    ///
    /// # Errors
    /// See [`NotAppended`].
    pub(crate) async fn send(self, around: Arc<Surroundings>) -> Result<Kept, NotAppended> {
        // What is rare is boxed, and what it has stays where it is: every append pays for the size of this.
        let (actor, key) = &self.whose;
        if self.sends {
            Box::pin(self.log.announce(&around)).await.map_err(NotAppended::NotStored)?;
        }
        if let Some((before, after)) = &self.wakes {
            let woken = Box::pin(around.wakes.store(&around, actor, key, before, after)).await;
            woken.map_err(NotAppended::NotStored)?;
        }
        let sequence = self.log.append(&around, &self.subject, self.expect, &self.sealed).await?;
        if let Some((before, after)) = &self.wakes {
            around.wakes.remove(&around, actor, key, before, after);
        }
        // Its answer may have come to a node that was frozen meanwhile, and is no owner any more.
        if !around.proof.holds() {
            Box::pin(around.permit()).await.map_err(NotAppended::Unknown)?;
        }
        let (bytes, is_snapshot) = (self.sealed.bytes() as u64, self.is_snapshot);
        Ok(Kept { sequence, bytes, is_snapshot, events: self.events, reminders: self.wakes.map(|(_, after)| after) })
    }
}

impl Ledger {
    /// What a turn leaves counts from here on, for whoever comes next; it is not kept yet.
    pub(crate) fn remember(&mut self, draft: &Draft) {
        draft.commands.iter().for_each(|command| self.window.remember(command));
        draft.outbox.reminders.iter().for_each(|change| self.reminders.apply(change));
    }

    /// Takes in that a record is stored; gives those of its events that somebody may hear, with their places.
    pub(crate) fn took(&mut self, around: &Surroundings, kept: Kept) -> Vec<Committed> {
        let Kept { sequence, bytes, is_snapshot, events, reminders } = kept;
        if let Some(reminders) = reminders {
            self.kept_reminders = reminders;
        }
        self.sequence = sequence;
        self.since += bytes;
        if is_snapshot {
            (self.base, self.since, self.hold_off) = (sequence, 0, 0);
        }
        let first = self.next_event;
        self.next_event += events.len() as u64;
        let whose = self.whose.0;
        let events = events.into_iter().enumerate();
        self.audiences.select(&around.rush, events.map(|(index, event)| event.committed(whose, first + index as u64)))
    }
}

impl Ledger {
    /// Whether the next record might hold the state, by what is known of its size: writing it down only to look costs
    /// as much as a snapshot.
    fn may_be_due(&self) -> bool {
        // The window goes with it, which is why the state alone being small is not enough.
        self.has_grown() || (self.held_bytes() <= SMALL_BYTES && self.window.is_small())
    }

    /// Whether it should, by the size it has now.
    fn is_due(&self) -> bool {
        self.has_grown() || self.held_bytes() <= SMALL_BYTES
    }

    fn has_grown(&self) -> bool {
        let snapshot = (self.held_bytes() + self.window.bytes()) as u64;
        self.since >= GROWN_BYTES.max(GROWTH * snapshot).max(self.hold_off)
    }

    /// The size of the state when it was last written down, and of the reminders, which go with it.
    fn held_bytes(&self) -> usize {
        self.state_bytes + self.reminders.bytes()
    }
}
