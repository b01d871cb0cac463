//! State cells: the one way in which an actor holds state that belongs to its turns.
//!
//! [`Durable<S>`] gives its state to read and to nobody to write: its only mutator is
//! [`emit`](Durable::emit), which applies an event and adds it to the turn. A turn that returns Ok
//! commits its events; a refusal or a panic leaves no trace of those emitted since the last commit.
//!
//! Behind a cell stands a journal. The volatile one ([`Context::volatile`](crate::Context::volatile))
//! lives in the node's memory: it outlives a panic of its actor, but ends with the node, and when the
//! actor moves to another node, as when one joins.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::event::Event;

/// State that changes by events alone. Put `#[data]` on it, or derive serde's traits.
pub trait State: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What happens to it.
    type Event: Event;

    /// Takes one event in. Must be pure: rebuilding the state runs it again.
    fn apply(&mut self, event: &Self::Event);
}

/// A cell that holds a [`State`]: read through `Deref`, changed by [`emit`](Durable::emit) only.
///
/// There is no `DerefMut`, so a handler cannot change the state past its events:
///
/// ```compile_fail
/// # use greenroom::state::{Durable, State};
/// # use greenroom::contract::NoEvent;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Ledger { cents: u64 }
/// # impl State for Ledger { type Event = NoEvent; fn apply(&mut self, _: &NoEvent) {} }
/// fn cheat(ledger: &mut Durable<Ledger>) {
///     ledger.cents += 1; // cannot assign through a `Deref`
/// }
/// ```
pub struct Durable<S: State> {
    state: S,
    pending: Vec<S::Event>,
    journal: Arc<VolatileJournal<S>>,
}

impl<S: State> Durable<S> {
    /// Applies an event to the state in memory and adds it to the turn. It becomes visible to
    /// others when the turn commits, and is undone if the turn is refused or panics.
    pub fn emit(&mut self, event: S::Event) {
        self.state.apply(&event);
        self.pending.push(event);
    }

    pub(crate) fn open(journal: Arc<VolatileJournal<S>>) -> Result<Self, Error> {
        let state = journal.rebuild()?;
        Ok(Self { state, pending: Vec::new(), journal })
    }
}

impl<S: State> Deref for Durable<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S: State + fmt::Debug> fmt::Debug for Durable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable")
            .field("state", &self.state)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// A committed event, ready to be told to whoever watches.
#[derive(Clone, Debug)]
pub struct Committed {
    pub(crate) actor: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    /// Its place in the actor's journal, from 1.
    pub(crate) sequence: u64,
    pub(crate) body: Vec<u8>,
}

/// What the runtime does with a state cell. Implemented by [`Durable`] only.
pub trait Cell: sealed::Sealed + Send {
    /// Whether the turn emitted anything that is not committed.
    fn is_dirty(&self) -> bool;

    /// Makes what was emitted permanent and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the state or an event cannot be written as JSON; the cell is then
    /// as it was before the turn.
    fn commit(&mut self) -> Result<Vec<Committed>, Error>;

    /// Undoes what was emitted since the last commit.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the state cannot be rebuilt from its journal.
    fn roll_back(&mut self) -> Result<(), Error>;
}

impl<S: State> Cell for Durable<S> {
    fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    fn commit(&mut self) -> Result<Vec<Committed>, Error> {
        let events = std::mem::take(&mut self.pending);
        match self.journal.append(events, &self.state) {
            Ok(committed) => Ok(committed),
            Err(error) => {
                self.state = self.journal.rebuild()?;
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        if self.is_dirty() {
            self.pending.clear();
            self.state = self.journal.rebuild()?;
        }
        Ok(())
    }
}

/// How many events a volatile journal holds before it folds them into a snapshot: with 64, the
/// snapshot's cost is spread thin and a rebuild replays little.
const FOLD_AFTER: usize = 64;

/// The journal of a cell that needs no durability: a snapshot and the events since.
///
/// No code of the state or its events runs under its lock: both are taken out first.
pub(crate) struct VolatileJournal<S: State>(Mutex<Volatile<S::Event>>);

struct Volatile<E> {
    snapshot: Option<Arc<[u8]>>,
    events: Vec<Arc<E>>,
    sequence: u64,
}

impl<S: State> VolatileJournal<S> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Volatile { snapshot: None, events: Vec::new(), sequence: 0 }))
    }

    /// `state` is what the journal's state becomes with these events. An actor has one cell, and
    /// its turns follow each other, so nothing is appended in between.
    fn append(&self, events: Vec<S::Event>, state: &S) -> Result<Vec<Committed>, Error> {
        let held = self.0.lock().events.len();
        let snapshot = if held + events.len() > FOLD_AFTER { Some(to_json(state, "the state")?.into()) } else { None };
        let mut committed = Vec::with_capacity(events.len());
        for event in &events {
            committed.push(Committed {
                actor: S::Event::ACTOR,
                name: event.name(),
                version: S::Event::VERSION,
                sequence: 0,
                body: to_json(event, "the event")?,
            });
        }
        let mut events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let mut journal = self.0.lock();
        for event in &mut committed {
            journal.sequence += 1;
            event.sequence = journal.sequence;
        }
        if snapshot.is_some() {
            journal.snapshot = snapshot;
            events.append(&mut journal.events);
        } else {
            journal.events.append(&mut events);
        }
        drop(journal);
        // What the snapshot holds is dropped here, behind the lock.
        drop(events);
        Ok(committed)
    }

    fn rebuild(&self) -> Result<S, Error> {
        let (snapshot, events) = {
            let journal = self.0.lock();
            (journal.snapshot.clone(), journal.events.clone())
        };
        let mut state = match snapshot {
            None => S::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let what = "the state's snapshot does not read back; serialize and deserialize must agree";
                Error::new(ErrorKind::Internal, what).with_source(error)
            })?,
        };
        for event in &events {
            state.apply(event);
        }
        Ok(state)
    }
}

fn to_json(value: &impl Serialize, what: &str) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("{what} cannot be written as JSON")).with_source(error)
    })
}

/// Where an engine keeps an actor's journal, whatever its state's type.
pub(crate) type JournalBox = Arc<dyn Any + Send + Sync>;

mod sealed {
    pub trait Sealed {}
    impl<S: super::State> Sealed for super::Durable<S> {}
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    static JOURNAL: OnceLock<Arc<VolatileJournal<Count>>> = OnceLock::new();

    /// For user code: fails if the journal that runs it is locked.
    fn check() {
        assert!(JOURNAL.get().is_none_or(|journal| !journal.0.is_locked()), "user code runs under the lock");
    }

    #[derive(Default, Debug, PartialEq)]
    struct Count(u64);

    impl Serialize for Count {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            check();
            self.0.serialize(to)
        }
    }

    impl<'de> Deserialize<'de> for Count {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            check();
            u64::deserialize(from).map(Count)
        }
    }

    #[derive(Serialize, Deserialize, schemars::JsonSchema)]
    struct More(u64);

    impl Drop for More {
        fn drop(&mut self) {
            check();
        }
    }

    impl Event for More {
        const ACTOR: &'static str = "count";
        const NAMES: &'static [&'static str] = &["more"];
        fn name(&self) -> &'static str {
            check();
            "more"
        }
    }

    impl State for Count {
        type Event = More;
        fn apply(&mut self, event: &More) {
            check();
            self.0 += event.0;
        }
    }

    #[test]
    fn no_code_of_a_state_runs_under_the_lock_of_its_journal() {
        let journal = JOURNAL.get_or_init(|| Arc::new(VolatileJournal::new())).clone();
        let mut cell = Durable::open(journal.clone()).expect("it is empty");
        for round in 1..=200 {
            cell.emit(More(round));
            let committed = cell.commit().expect("it is written");
            assert_eq!(committed[0].sequence, round);
            cell.emit(More(1_000_000));
            cell.roll_back().expect("it is rebuilt");
            assert_eq!(*cell, Count(round * (round + 1) / 2));
        }
        assert_eq!(*Durable::open(journal).expect("it is rebuilt"), Count(20_100));
    }
}
