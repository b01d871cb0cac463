//! State cells: the one way in which an actor holds state that belongs to its turns.
//!
//! [`Durable<S>`] gives its state to read and to nobody to write: its only mutator is
//! [`emit`](Durable::emit), which applies an event and adds it to the turn. A turn that returns Ok
//! commits its events; a refusal or a panic leaves no trace of those emitted since the last commit.
//!
//! Behind a cell stands a journal. The volatile one ([`Context::volatile`](crate::Context::volatile))
//! lives in the node's memory: it outlives a panic of its actor, but ends with the node, and when the
//! actor moves to another node, as when one joins. The durable one
//! ([`Context::durable`](crate::Context::durable)) is a stream at the broker: what was acknowledged
//! to a caller is kept, wherever the actor lives next.

mod volatile;

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub(crate) use self::volatile::VolatileJournal;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::journal::{self, Ledger, Opened, StoredEvent};
use crate::node::Question;

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
    journal: Journal<S>,
}

/// Where what was emitted goes when its turn commits.
enum Journal<S: State> {
    Volatile(Arc<VolatileJournal<S>>),
    Stream(Box<Ledger>),
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
        Ok(Self { state, pending: Vec::new(), journal: Journal::Volatile(journal) })
    }

    /// The state that a journal leaves.
    pub(crate) fn replay(opened: Opened) -> Result<Self, Error> {
        let mut state = match &opened.snapshot {
            None => S::default(),
            Some(snapshot) => read_state(snapshot.state.get().as_bytes())?,
        };
        for event in opened.records.iter().flat_map(|record| &record.events) {
            state.apply(&read_event(&event.name, event.version, &event.body)?);
        }
        Ok(Self { state, pending: Vec::new(), journal: Journal::Stream(Box::new(opened.ledger)) })
    }
}

/// A state from a snapshot of it.
fn read_state<S: State>(json: &[u8]) -> Result<S, Error> {
    serde_json::from_slice(json).map_err(|error| {
        let what = "the state's snapshot does not read back; serialize and deserialize must agree";
        Error::new(ErrorKind::Internal, what).with_source(error)
    })
}

/// An event from a journal, brought up to the present form.
pub(crate) fn read_event<E: Event>(name: &str, version: u32, body: &RawValue) -> Result<E, Error> {
    let unread = |error: serde_json::Error| {
        let why = format!("the event {name} of {}, version {version}, cannot be read: {error}", E::ACTOR);
        Error::new(ErrorKind::Internal, why).with_source(error)
    };
    if version == E::VERSION {
        return serde_json::from_str(body.get()).map_err(unread);
    }
    let body = serde_json::from_str(body.get()).map_err(unread)?;
    serde_json::from_value(E::upcast(name, version, body)?).map_err(unread)
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
    pub(crate) name: Cow<'static, str>,
    pub(crate) version: u32,
    /// Its place in the actor's journal, from 1.
    pub(crate) sequence: u64,
    pub(crate) body: Vec<u8>,
    /// Whether the broker is to say that nobody hears it.
    pub(crate) question: Option<Question>,
}

impl Committed {
    /// An event with its JSON; its place is not known yet.
    fn of<E: Event>(event: &E, body: Vec<u8>) -> Self {
        let (name, version) = (Cow::Borrowed(event.name()), E::VERSION);
        Self { actor: E::ACTOR, name, version, sequence: 0, body, question: None }
    }
}

/// What the runtime does with a state cell. Implemented by [`Durable`] only.
pub trait Cell: sealed::Journaled + Send {
    /// Whether the turn emitted anything that is not committed.
    fn is_dirty(&self) -> bool;

    /// Makes what was emitted permanent and returns it. For a volatile cell.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the state or an event cannot be written as JSON; the cell is then
    /// as it was before the turn.
    fn commit(&mut self) -> Result<Vec<Committed>, Error>;

    /// Undoes what was emitted since the last commit. For a volatile cell.
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
        let Journal::Volatile(journal) = &self.journal else {
            return Err(Error::new(ErrorKind::Internal, "a durable cell was committed to memory"));
        };
        let events = std::mem::take(&mut self.pending);
        match journal.append(events, &self.state) {
            Ok(committed) => Ok(committed),
            Err(error) => {
                self.state = journal.rebuild()?;
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        if let (true, Journal::Volatile(journal)) = (self.is_dirty(), &self.journal) {
            self.pending.clear();
            self.state = journal.rebuild()?;
        }
        Ok(())
    }
}

impl<S: State> sealed::Journaled for Durable<S> {
    fn ledger(&mut self) -> Option<&mut Ledger> {
        match &mut self.journal {
            Journal::Volatile(_) => None,
            Journal::Stream(ledger) => Some(ledger),
        }
    }

    fn written(&self) -> Result<Vec<StoredEvent>, Error> {
        let stored = |event: &S::Event| {
            let body = journal::raw(event, "the event")?;
            Ok(StoredEvent { name: Cow::Borrowed(event.name()), version: S::Event::VERSION, body })
        };
        self.pending.iter().map(stored).collect()
    }

    fn state(&self) -> Result<Box<RawValue>, Error> {
        journal::raw(&self.state, "the state")
    }

    fn kept(&mut self) {
        self.pending.clear();
    }
}

/// Where an engine keeps an actor's journal, whatever its state's type.
pub(crate) type JournalBox = Arc<dyn Any + Send + Sync>;

mod sealed {
    use serde_json::value::RawValue;

    use crate::error::Error;
    use crate::journal::{Ledger, StoredEvent};

    /// What a cell's journal needs of it.
    pub trait Journaled {
        /// The journal behind a durable cell.
        fn ledger(&mut self) -> Option<&mut Ledger>;

        /// What was emitted, as it is stored.
        fn written(&self) -> Result<Vec<StoredEvent>, Error>;

        /// The state as it is stored.
        fn state(&self) -> Result<Box<RawValue>, Error>;

        /// What was emitted is kept.
        fn kept(&mut self);
    }
}
