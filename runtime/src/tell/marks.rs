//! Marks: what every node must know of an actor type before durable tells or reminders of it can go anywhere.
//!
//! Records of the ownership bucket, which every node watches anyway, written once by compare-and-set and never changed:
//! `outbox.{actor}` says that its journals have things to send, and from which sequence on; `told.{actor}` that durable
//! tells for it may stand in the command stream; `remind.{actor}` that wake-ups for its actors may stand at the broker.
//! A type without them costs nothing.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::changes::{Changes, SeenChanges};
use crate::error::{Error, ErrorKind};
use crate::node::Surroundings;
use crate::subject::Name;
use crate::transport::WriteError;

/// What a mark says of an actor type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// Its journals have things to send.
    Sends,
    /// It is told durably.
    Told,
    /// Its actors have reminders.
    Reminds,
}

/// A mark as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// The first sequence of the journals' stream that may have something to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
}

/// The marks that this node knows of.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    known: RwLock<[HashMap<String, Stored>; 3]>,
    changes: Changes,
}

impl Mark {
    fn prefix(self) -> &'static str {
        match self {
            Mark::Sends => "outbox",
            Mark::Told => "told",
            Mark::Reminds => "remind",
        }
    }
}

impl Marks {
    pub(crate) fn has(&self, mark: Mark, actor: &str) -> bool {
        self.known.read()[mark as usize].contains_key(actor)
    }

    /// From where on the journals of a type may have something to send.
    pub(crate) fn begin(&self, actor: &str) -> u64 {
        self.known.read()[Mark::Sends as usize].get(actor).and_then(|stored| stored.from).unwrap_or(1)
    }

    /// Takes in a record of the ownership bucket, or that it is gone. Gives the actor type that it is about, if it is
    /// a mark.
    pub(crate) fn learn<'a>(&self, key: &'a str, value: Option<&Bytes>) -> Option<&'a str> {
        let (prefix, actor) = key.split_once('.')?;
        let mark = [Mark::Sends, Mark::Told, Mark::Reminds].into_iter().find(|mark| mark.prefix() == prefix)?;
        // Whatever else stands there is no actor type.
        Name::new(actor).ok()?;
        {
            let mut known = self.known.write();
            match value {
                Some(value) => {
                    let stored = serde_json::from_slice(value).unwrap_or_default();
                    known[mark as usize].insert(actor.to_owned(), stored);
                }
                None => drop(known[mark as usize].remove(actor)),
            }
        }
        self.changes.note();
        Some(actor)
    }

    /// Changes with what is known.
    pub(super) fn versions(&self) -> SeenChanges {
        self.changes.seen()
    }

    /// The records are gone, and with them what they said.
    pub(crate) fn forget(&self) {
        *self.known.write() = Default::default();
    }

    /// Sees that a mark is there. `from` is asked for if it is to be made, and must not be late.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be known just now.
    pub(crate) async fn set(
        &self,
        around: &Surroundings,
        mark: Mark,
        actor: &str,
        from: impl Future<Output = Result<Option<u64>, Error>>,
    ) -> Result<(), Error> {
        if self.has(mark, actor) {
            return Ok(());
        }
        Name::new(actor)?;
        let key = format!("{}.{actor}", mark.prefix());
        let bucket = around.transport.bucket(&around.subjects.ownership_bucket()).await?;
        let before = bucket.get(&key).await?;
        let mut value = before.as_ref().and_then(|record| record.value.clone().ok());
        if value.is_none() {
            let stored = serde_json::to_vec(&Stored { from: from.await? });
            let stored = Bytes::from(stored.map_err(|error| {
                Error::new(ErrorKind::Internal, format!("the mark {key} cannot be written")).with_source(error)
            })?);
            let expect = before.map_or(0, |record| record.revision);
            value = match bucket.write(&key, stored.clone(), Some(expect), None).await {
                Ok(_) => Some(stored),
                // Somebody else was faster.
                Err(WriteError::Conflict) => bucket.get(&key).await?.and_then(|record| record.value.ok()),
                Err(WriteError::NotSent(error) | WriteError::Unknown(error)) => {
                    let why = format!("whether the mark {key} was written is not known; nothing was sent");
                    return Err(Error::new(ErrorKind::Unavailable, why).with_source(error));
                }
            };
        }
        self.learn(&key, value.as_ref());
        if value.is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the mark {key} was deleted as it was written; nothing was sent"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_learned_and_forgotten() {
        let marks = Marks::default();
        assert_eq!(marks.learn("outbox.order", Some(&Bytes::from_static(br#"{"from":7}"#))), Some("order"));
        assert_eq!(marks.learn("told.user", Some(&Bytes::from_static(b"{}"))), Some("user"));
        assert_eq!(marks.learn("remind.bell", Some(&Bytes::from_static(b"{}"))), Some("bell"));
        assert!(marks.has(Mark::Reminds, "bell") && !marks.has(Mark::Told, "bell"));
        for other in ["part.order.3", "outbox", "outbox.A", "told.a.b", "member.told.x"] {
            assert_eq!(marks.learn(other, Some(&Bytes::from_static(b"{}"))), None, "{other}");
        }
        assert!(marks.has(Mark::Sends, "order") && !marks.has(Mark::Told, "order"));
        assert_eq!((marks.begin("order"), marks.begin("user")), (7, 1));
        assert_eq!(marks.learn("outbox.order", None), Some("order"));
        assert!(!marks.has(Mark::Sends, "order"));
        marks.forget();
        assert!(!marks.has(Mark::Told, "user"));
    }
}
