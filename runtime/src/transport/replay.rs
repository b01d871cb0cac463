//! What a watch must remember so that a reconnect hides nothing from the one who watches.
//!
//! After a reconnect the whole bucket is read again. A record that was deleted or expired
//! meanwhile, and whose marker is gone too, would simply be missing; it is told as expired.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;

use super::{Change, Entry, Gone};

/// Nobody watches any more.
#[derive(Debug)]
pub(super) struct Dropped;

/// The records that the watcher believes in, and how far the reading has come.
///
/// Changes are handed over and noted in one step, so that a connection may be lost at any point.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Records with a value, by key, with their revision.
    known: HashMap<String, u64>,
    /// Keys seen since the reading began; `None` once it is complete.
    seen: Option<HashSet<String>>,
    /// Whether the watcher was told that it is current.
    announced: bool,
}

impl Replay {
    /// The bucket is read from its beginning.
    pub(super) fn begin(&mut self) {
        self.seen = Some(HashSet::new());
    }

    /// Whether [`finish`](Self::finish) is still to come.
    pub(super) fn is_reading(&self) -> bool {
        self.seen.is_some()
    }

    /// Gives a record to the watcher. Safe to cancel.
    pub(super) async fn give(&mut self, changes: &mpsc::Sender<Change>, entry: Entry) -> Result<(), Dropped> {
        let room = changes.reserve().await.map_err(|_| Dropped)?;
        match entry.value {
            Ok(_) => self.known.insert(entry.key.clone(), entry.revision),
            Err(_) => self.known.remove(&entry.key),
        };
        if let Some(seen) = &mut self.seen {
            seen.insert(entry.key.clone());
        }
        room.send(Change::Entry(entry));
        Ok(())
    }

    /// The bucket has been read to its end: tells what has vanished since the last time, and the
    /// first time that the watcher is current. Safe to cancel.
    pub(super) async fn finish(&mut self, changes: &mpsc::Sender<Change>) -> Result<(), Dropped> {
        while let Some(seen) = &self.seen {
            let room = changes.reserve().await.map_err(|_| Dropped)?;
            let missed =
                self.known.iter().filter(|(key, _)| !seen.contains(*key)).min_by_key(|(_, revision)| **revision);
            if let Some((key, revision)) = missed.map(|(key, revision)| (key.clone(), *revision)) {
                self.known.remove(&key);
                // Its marker had some revision above this one, and a new record of the key will
                // have a higher one still.
                room.send(Change::Entry(Entry { key, revision: revision + 1, value: Err(Gone::Expired) }));
                continue;
            }
            self.seen = None;
            if !std::mem::replace(&mut self.announced, true) {
                room.send(Change::Current);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: u64) -> Entry {
        Entry { key: key.to_owned(), revision, value: Ok(bytes::Bytes::new()) }
    }

    #[tokio::test]
    async fn a_record_that_vanished_between_two_readings_is_told_as_expired() {
        let (changes, mut told) = mpsc::channel(16);
        let mut replay = Replay::default();
        for (reading, given) in [vec!["a", "b"], vec!["b"], vec!["b"]].into_iter().enumerate() {
            replay.begin();
            for key in given {
                replay.give(&changes, entry(key, 1)).await.expect("a watcher");
            }
            replay.finish(&changes).await.expect("a watcher");
            let mut seen = Vec::new();
            while let Ok(change) = told.try_recv() {
                seen.push(change);
            }
            let gone = Entry { key: "a".to_owned(), revision: 2, value: Err(Gone::Expired) };
            let last = match reading {
                0 => Change::Current,
                1 => Change::Entry(gone),
                _ => Change::Entry(entry("b", 1)),
            };
            assert_eq!(seen.last(), Some(&last), "reading {reading}");
        }
    }
}
