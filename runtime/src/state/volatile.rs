//! The journal of a cell that needs no durability, in the node's memory.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::{Committed, State, read_state};
use crate::error::{Error, ErrorKind};

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
    pub(super) fn append(&self, events: Vec<S::Event>, state: &S) -> Result<Vec<Committed>, Error> {
        let held = self.0.lock().events.len();
        let snapshot = if held + events.len() > FOLD_AFTER { Some(to_json(state, "the state")?.into()) } else { None };
        let mut committed = Vec::with_capacity(events.len());
        for event in &events {
            committed.push(Committed::of(event, to_json(event, "the event")?));
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

    pub(super) fn rebuild(&self) -> Result<S, Error> {
        let (snapshot, events) = {
            let journal = self.0.lock();
            (journal.snapshot.clone(), journal.events.clone())
        };
        let mut state = match snapshot {
            None => S::default(),
            Some(bytes) => read_state(&bytes)?,
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

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::{Cell, Durable};
    use super::*;
    use crate::event::Event;

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
