//! The buckets of the memory broker: what is stored, and what time does to it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::transport::{Entry, Gone, WriteError};

/// How long the marker of an expired record stays.
const MARKER_TTL: Duration = Duration::from_secs(10);
/// How long that of a deleted one stays.
const DELETED_TTL: Duration = Duration::from_secs(600);

/// The records of one bucket.
#[derive(Debug, Default)]
pub(super) struct Records {
    last: u64,
    records: BTreeMap<String, Record>,
    /// Keys by revision: the order in which a watch sees them.
    order: BTreeMap<u64, String>,
    /// Keys by the time at which they expire.
    expiry: BTreeMap<(Instant, u64), String>,
}

#[derive(Debug)]
struct Record {
    revision: u64,
    value: Result<Bytes, Gone>,
    expires: Option<Instant>,
}

impl Records {
    pub(super) fn get(&mut self, key: &str) -> Option<Entry> {
        self.expire();
        self.records.get(key).map(|record| record.entry(key))
    }

    pub(super) fn write(
        &mut self,
        key: &str,
        value: Result<Bytes, Gone>,
        expect: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<u64, WriteError> {
        self.expire();
        let revision = self.records.get(key).map_or(0, |record| record.revision);
        if expect.is_some_and(|expect| expect != revision) {
            return Err(WriteError::Conflict);
        }
        let ttl = if value.is_err() { Some(DELETED_TTL) } else { ttl };
        Ok(self.put(key.to_owned(), value, ttl.map(|ttl| Instant::now() + ttl)))
    }

    /// The newest revision of the bucket.
    pub(super) fn last_revision(&self) -> u64 {
        self.last
    }

    /// The next record in the order of revisions, if there is one after this revision.
    pub(super) fn after(&mut self, revision: u64) -> Option<Entry> {
        self.expire();
        let (_, key) = self.order.range(revision + 1..).next()?;
        self.records.get(key).map(|record| record.entry(key))
    }

    /// When the next record expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.keys().next().map(|(when, _)| *when)
    }

    /// Lets what is overdue expire: records leave a marker, markers nothing.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.expiry.first_entry() {
            let (when, revision) = *entry.key();
            if when > now {
                return;
            }
            let key = entry.remove();
            self.order.remove(&revision);
            if self.records.remove(&key).is_some_and(|record| record.value.is_ok()) {
                self.put(key, Err(Gone::Expired), Some(when + MARKER_TTL));
            }
        }
    }

    fn put(&mut self, key: String, value: Result<Bytes, Gone>, expires: Option<Instant>) -> u64 {
        self.last += 1;
        let revision = self.last;
        if let Some(expires) = expires {
            self.expiry.insert((expires, revision), key.clone());
        }
        self.order.insert(revision, key.clone());
        if let Some(old) = self.records.insert(key, Record { revision, value, expires }) {
            self.order.remove(&old.revision);
            if let Some(expires) = old.expires {
                self.expiry.remove(&(expires, old.revision));
            }
        }
        revision
    }
}

impl Record {
    fn entry(&self, key: &str) -> Entry {
        Entry { key: key.to_owned(), revision: self.revision, value: self.value.clone() }
    }
}
