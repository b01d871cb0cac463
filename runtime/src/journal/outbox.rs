//! The outbox: what a turn sends when it commits, kept in the very record that makes the turn permanent.
//!
//! Gathered while the handler runs, taken by the append, dropped with a turn that was refused or cut. Whoever carries
//! it out afterwards reads it from the journal, so what was saved is announced, and nothing else is.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reminders::Change;
use super::window::{read_id, write_id};
use crate::call::TurnId;
use crate::error::{Error, ErrorKind};

/// How many things one step of a turn may send.
pub(crate) const OUTBOX_MAX: usize = 256;

/// What a tell has around its names and its body, as JSON; more than it ever is.
const TELL_BYTES: usize = 160;

/// A durable tell at rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredTell {
    /// The id of the command that it will be.
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub(crate) id: TurnId,
    /// When the id was made, in ms since 1970; 0 if nobody knows.
    #[serde(default)]
    pub(crate) born: u64,
    pub(crate) actor: String,
    /// The key itself, not its token.
    pub(crate) key: String,
    pub(crate) verb: String,
    pub(crate) body: Box<RawValue>,
    /// The `traceparent` of the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
}

/// What one record has to send, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) tells: Vec<StoredTell>,
    /// Changes of the actor's reminders: nobody has to send them, their wake-ups stand before the record does.
    pub(crate) reminders: Vec<Change>,
}

impl Outbox {
    /// How many things it has to send, of every kind.
    pub(crate) fn len(&self) -> usize {
        self.tells.len()
    }

    /// Takes in what a later turn sends.
    pub(super) fn join(&mut self, later: Self) {
        self.tells.extend(later.tells);
        self.reminders.extend(later.reminders);
    }

    /// What it adds to a record, at most, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let of_tell = |tell: &StoredTell| {
            let names = tell.actor.len() + tell.verb.len() + 6 * tell.key.len();
            TELL_BYTES + names + tell.body.get().len() + tell.trace.as_ref().map_or(0, String::len)
        };
        self.tells.iter().map(of_tell).sum::<usize>() + self.reminders.iter().map(Change::bytes).sum::<usize>()
    }

    /// Whether there is nothing to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0 && self.reminders.is_empty()
    }
}

/// The outbox of a turn that runs. It closes when the turn ends, and takes nothing any more. Most turns send nothing:
/// then it is never made.
#[derive(Debug)]
pub(crate) struct Gathering {
    slip: Option<Slip>,
    /// How many steps of the turn were kept before it was made.
    step: u32,
    bytes_max: usize,
}

/// A way into the outbox of a turn, for whoever may outlive the turn.
#[derive(Clone, Debug)]
pub(crate) struct Slip(Arc<Mutex<Gathered>>);

#[derive(Debug)]
struct Gathered {
    outbox: Outbox,
    bytes: usize,
    /// How many steps of the turn were kept, and how many things this one has sent so far.
    step: u32,
    sent: u32,
    closed: bool,
    bytes_max: usize,
}

impl Gathering {
    /// An open outbox, for a turn of which so many steps were kept before. It takes so many bytes a step.
    pub(crate) fn open(step: u32, bytes_max: usize) -> Self {
        Self { slip: None, step, bytes_max }
    }

    pub(crate) fn slip(&mut self) -> Slip {
        let &mut Self { step, bytes_max, .. } = self;
        let make = || {
            let gathered = Gathered { outbox: Outbox::default(), bytes: 0, step, sent: 0, closed: false, bytes_max };
            Slip(Arc::new(Mutex::new(gathered)))
        };
        self.slip.get_or_insert_with(make).clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slip.as_ref().is_none_or(|slip| slip.0.lock().outbox.is_empty())
    }

    /// Takes what the step that ends here has gathered.
    pub(crate) fn take(&mut self) -> Outbox {
        let Some(slip) = &self.slip else {
            self.step += 1;
            return Outbox::default();
        };
        let mut gathered = slip.0.lock();
        gathered.step += 1;
        (gathered.bytes, gathered.sent) = (0, 0);
        std::mem::take(&mut gathered.outbox)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if let Some(slip) = &self.slip {
            slip.0.lock().closed = true;
        }
    }
}

impl Slip {
    /// Adds a tell to the turn. `make` is given its place in the turn, which is the same when the turn is run again:
    /// the steps that were kept before it, and its number in the step.
    ///
    /// # Errors
    /// `Interrupted` if the turn has ended, `Overloaded` above 256 things a step, `PayloadTooLarge` if they have too
    /// many bytes together.
    pub(crate) fn add_tell(&self, bytes: usize, make: impl FnOnce(u32, u32) -> StoredTell) -> Result<(), Error> {
        let mut gathered = self.0.lock();
        gathered.check(bytes)?;
        let tell = make(gathered.step, gathered.sent);
        gathered.outbox.tells.push(tell);
        gathered.bytes += bytes;
        gathered.sent += 1;
        Ok(())
    }
}

impl Gathered {
    fn check(&self, bytes: usize) -> Result<(), Error> {
        if self.closed {
            let why = "the turn that this address belongs to has ended: what it sends must be sent while it runs";
            return Err(Error::new(ErrorKind::Interrupted, why));
        }
        if self.outbox.len() >= OUTBOX_MAX {
            let why = format!(
                "the turn has sent {OUTBOX_MAX} durable messages since its last commit, which is the limit; commit in between"
            );
            return Err(Error::new(ErrorKind::Overloaded, why));
        }
        let (all, most) = (self.bytes + bytes, self.bytes_max);
        if all > most {
            let why = format!(
                "the durable messages of the turn have {all} bytes since its last commit; the limit is {most}; commit in between"
            );
            let details = serde_json::json!({ "bytes": all, "limit_bytes": most });
            return Err(Error::new(ErrorKind::PayloadTooLarge, why).with_details(details));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(slip: &Slip, bytes: usize) -> Result<(), ErrorKind> {
        let made = slip.add_tell(bytes, |step, number| StoredTell {
            id: TurnId(u128::from(step) << 32 | u128::from(number)),
            born: 0,
            actor: "a".into(),
            key: "k".into(),
            verb: "v".into(),
            body: super::super::raw(&1, "").expect("json"),
            trace: None,
        });
        made.map_err(|error| error.kind())
    }

    #[test]
    fn e1_an_outbox_is_bounded_and_closes_with_its_turn() {
        let mut turn = Gathering::open(0, 1_000);
        let slip = turn.slip();
        for _ in 0..OUTBOX_MAX {
            add(&slip, 1).expect("within the bounds");
        }
        assert_eq!(add(&slip, 1), Err(ErrorKind::Overloaded));
        let taken = turn.take();
        assert_eq!(taken.tells.last().map(|tell| tell.id), Some(TurnId(255)));
        // The next step counts anew, and its places are others.
        assert_eq!(add(&slip, 1_001), Err(ErrorKind::PayloadTooLarge));
        add(&slip, 600).expect("within the bounds");
        assert_eq!(add(&slip, 401), Err(ErrorKind::PayloadTooLarge));
        assert_eq!(turn.take().tells[0].id, TurnId(1 << 32));
        drop(turn);
        assert_eq!(add(&slip, 1), Err(ErrorKind::Interrupted));
        // One that nobody asked for until its second step.
        let mut turn = Gathering::open(4, 1_000);
        assert!(turn.is_empty() && turn.take().is_empty());
        add(&turn.slip(), 1).expect("within the bounds");
        assert!(!turn.is_empty());
        assert_eq!(turn.take().tells[0].id, TurnId(5 << 32));
    }
}
