//! What a watch of a bucket makes of the bucket's stream.

use async_nats::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::value;
use crate::subject::Filter;
use crate::transport::nats::follow::{Place, Reader};
use crate::transport::replay::{Dropped, Replay};
use crate::transport::{Change, Entry};

/// A watch of a bucket.
pub(super) struct WatchReader {
    bucket: String,
    subjects: Vec<String>,
    replay: Replay,
    /// How many records there were when the consumer began.
    pending: u64,
}

impl WatchReader {
    pub(super) fn new(bucket: &str, filters: &[Filter]) -> Self {
        let mut subjects: Vec<String> = filters.iter().map(|filter| format!("$KV.{bucket}.{filter}")).collect();
        if subjects.is_empty() {
            subjects.push(format!("$KV.{bucket}.>"));
        }
        Self { bucket: bucket.to_owned(), subjects, replay: Replay::default(), pending: 0 }
    }

    fn entry(&self, revision: u64, message: Message) -> Option<Entry> {
        let key = message.subject.strip_prefix("$KV.")?.strip_prefix(&self.bucket)?.strip_prefix('.')?.to_owned();
        Some(Entry { key, revision, value: value(message.headers.as_ref(), message.payload) })
    }
}

impl Reader for WatchReader {
    type Item = Change;

    fn what(&self) -> String {
        format!("the bucket {}", self.bucket)
    }

    fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    fn wanted(&self) -> Value {
        json!({ "deliver_policy": "last_per_subject", "filter_subjects": self.subjects })
    }

    fn gone(&self) -> Option<Change> {
        Some(Change::Gone)
    }

    async fn begin(&mut self, pending: u64, to: &mpsc::Sender<Change>) -> Result<(), Dropped> {
        self.replay.begin();
        self.pending = pending;
        if pending == 0 { self.replay.finish(to).await } else { Ok(()) }
    }

    async fn take(&mut self, place: Place, message: Message, to: &mpsc::Sender<Change>) -> Result<(), Dropped> {
        if let Some(entry) = self.entry(place.stream, message) {
            self.replay.give(to, entry).await?;
        }
        // All that were there at the start, even if more are written than can be read.
        if self.replay.is_reading() && (place.pending == 0 || place.consumer >= self.pending) {
            self.replay.finish(to).await?;
        }
        Ok(())
    }

    async fn idle(&mut self, to: &mpsc::Sender<Change>) -> Result<(), Dropped> {
        self.replay.finish(to).await
    }
}
