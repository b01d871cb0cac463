//! Carrying: what stands in the journals of an actor type, on its way into the command stream.
//!
//! Follows the journals from where the last one stopped, and sends what their records give: that of one journal
//! strictly in its order, one thing at a time, and that of different journals side by side. How far everything before
//! has been sent is written down after a second, or before more than a few records have gone beyond it: whoever comes
//! next sends again what came after that, under the same ids, and receivers remember only so many. (The stream knows ids
//! too, but not those of what was acknowledged before its server was restarted.) What is in a record, and whom it is
//! for, is the [`Load`]'s affair.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::command::{self, Told};
use super::cursor::Cursor;
use super::dead;
use crate::error::{Error, ErrorKind};
use crate::journal::STORED_MAX;
use crate::node::duty::Post;
use crate::pauses::Pauses;
use crate::transport::{Follow, Record, WriteError};

/// Journals whose things are on their way at once.
const SIDE_BY_SIDE: usize = 64;
/// Records that have been seen and are not sent yet, and bytes of them. Above that no more is read.
const OPEN_MAX: usize = 1_024;
const OPEN_BYTES: usize = 16 << 20;
/// Records that may have been sent beyond what is written down. Of what is sent again because of it, receivers must know
/// everything: also one that is told all of it, and of several types.
const AHEAD_MAX: usize = 256;
const _: () = assert!(4 * AHEAD_MAX <= STORED_MAX);
/// How often the place is written down, if anything was sent.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Records after which it is written down although nothing was sent: they need not be read again.
const SAVE_AFTER: u64 = 4_096;
/// How long what is on its way may take once the duty is another's.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What is carried.
pub(super) trait Load: Send + Sync + 'static {
    /// Whether a record may have something to send.
    fn concerns(&self, record: &Record) -> bool;

    /// Sends what a record has to send, in its order.
    ///
    /// # Errors
    /// If that is left to whoever has the duty next.
    fn send(self: Arc<Self>, post: Post, record: Record) -> BoxFuture<'static, Result<(), Error>>;
}

pub(super) struct Carrying<L> {
    post: Post,
    load: Arc<L>,
    place: Place,
    cursor: Cursor,
    /// Whether anything was sent since the place was written down.
    sent: bool,
    /// What has begun to be sent, beyond the place that is written down.
    ahead: BTreeSet<u64>,
    /// Records that wait, by the subject of their journal; the first is on its way, or ready.
    sources: HashMap<String, VecDeque<Record>>,
    /// Journals whose first record may go, by its sequence: the oldest goes first, or what was sent beyond it could
    /// grow to its bound, and wait for it.
    ready: BTreeMap<u64, String>,
    running: FuturesUnordered<BoxFuture<'static, Result<Sent, Error>>>,
}

/// The journal and the sequence of a record that has been sent, and its bytes.
type Sent = (String, u64, usize);

/// How far it is.
#[derive(Debug)]
struct Place {
    /// Everything up to here has been sent.
    at: u64,
    seen: u64,
    /// What has been seen and not been sent.
    open: BTreeSet<u64>,
    /// Bytes of that.
    bytes: usize,
}

impl Place {
    fn has_room(&self) -> bool {
        self.open.len() < OPEN_MAX && self.bytes < OPEN_BYTES
    }

    fn settle(&mut self) {
        self.at = self.open.first().map_or(self.seen, |first| first - 1);
    }
}

impl<L: Load> Carrying<L> {
    pub(super) fn new(post: Post, load: Arc<L>, cursor: Cursor) -> Self {
        let place = Place { at: cursor.at, seen: cursor.at, open: BTreeSet::new(), bytes: 0 };
        let (sources, ready, running) = (HashMap::new(), BTreeMap::new(), FuturesUnordered::new());
        Self { post, load, place, cursor, sent: false, ahead: BTreeSet::new(), sources, ready, running }
    }

    /// Carries until the duty is another's. `follow` begins behind the cursor, and has every record.
    pub(super) async fn run(mut self, mut follow: Follow) -> Result<(), Error> {
        let mut save = tokio::time::interval(SAVE_EVERY);
        let stop = self.post.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.running.next(), if !self.running.is_empty() => self.has_sent(done?),
                _ = save.tick() => self.save().await?,
                record = follow.next(), if self.place.has_room() => match record {
                    Some(record) => self.see(record),
                    None => return Ok(()),
                },
            }
            if self.ahead.len() >= AHEAD_MAX / 2 && self.is_beyond() {
                self.save().await?;
            }
            self.start();
        }
        // What is on its way is waited for: then the next one need not send it again.
        let finish = async {
            while let Some(done) = self.running.next().await {
                match done {
                    Ok(sent) => self.has_sent(sent),
                    Err(error) => return tracing::debug!(%error, "left to whoever has the duty next"),
                }
            }
        };
        drop(tokio::time::timeout(FINISH_WITHIN, finish).await);
        self.sent = true;
        self.save().await
    }

    fn see(&mut self, record: Record) {
        let (expected, found) = (self.place.seen + 1, record.sequence);
        if found > expected {
            let duty = self.cursor.key();
            tracing::warn!(duty, from = expected, to = found - 1, "records are gone from the journals; passed over");
        }
        self.place.seen = record.sequence;
        if self.load.concerns(&record) {
            self.place.open.insert(record.sequence);
            self.place.bytes += record.body.len();
            let (sequence, subject) = (record.sequence, record.subject.clone());
            let waiting = self.sources.entry(subject.clone()).or_default();
            waiting.push_back(record);
            if waiting.len() == 1 {
                self.ready.insert(sequence, subject);
            }
        }
        self.place.settle();
    }

    fn start(&mut self) {
        while self.running.len() < SIDE_BY_SIDE && self.ahead.len() < AHEAD_MAX {
            let Some((sequence, source)) = self.ready.pop_first() else { return };
            let Some(record) = self.sources.get(&source).and_then(|waiting| waiting.front().cloned()) else {
                continue;
            };
            let bytes = record.body.len();
            self.ahead.insert(sequence);
            let sending = self.load.clone().send(self.post.clone(), record);
            self.running.push(Box::pin(async move {
                sending.await?;
                Ok((source, sequence, bytes))
            }));
        }
    }

    fn has_sent(&mut self, (source, sequence, bytes): Sent) {
        self.sent = true;
        self.place.open.remove(&sequence);
        self.place.bytes -= bytes;
        self.place.settle();
        if let Some(waiting) = self.sources.get_mut(&source) {
            waiting.pop_front();
            match waiting.front().map(|next| next.sequence) {
                Some(next) => _ = self.ready.insert(next, source),
                None => _ = self.sources.remove(&source),
            }
        }
    }

    /// Whether anything that counts as ahead is to be written down.
    fn is_beyond(&self) -> bool {
        self.ahead.first().is_some_and(|first| *first <= self.place.at)
    }

    async fn save(&mut self) -> Result<(), Error> {
        let passed = self.place.at.saturating_sub(self.cursor.at);
        if passed > 0 && (self.sent || passed >= SAVE_AFTER) {
            self.cursor.save(self.place.at).await?;
            self.ahead = self.ahead.split_off(&(self.place.at + 1));
            self.sent = !self.place.open.is_empty();
        }
        Ok(())
    }
}

/// Sends one, until the stream has it. What it will never take becomes a dead letter.
///
/// # Errors
/// If the duty is another's before that.
pub(super) async fn send(post: &Post, told: Told) -> Result<(), Error> {
    let around = &post.around;
    let mut pauses = Pauses::new(AGAIN_FIRST, AGAIN_MAX);
    loop {
        let error = match command::send_once(around, &told).await {
            Ok(()) => return Ok(()),
            Err(WriteError::NotSent(error)) if !error.is_retryable() => {
                return dead::unsent(around, &told, &error).await;
            }
            Err(WriteError::NotSent(error) | WriteError::Unknown(error)) => error,
            Err(WriteError::Conflict) => return Err(Error::new(ErrorKind::Internal, "nothing was expected")),
        };
        let pause = pauses.next();
        tracing::debug!(actor = told.actor, key = %told.key, %error, "a durable tell is sent again in {pause:?}");
        if post.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Err(error);
        }
    }
}

/// The actor whose journal it is, for people.
pub(super) fn sender(actor: &str, source: &str) -> String {
    let token = source.rsplit('.').next().unwrap_or_default();
    format!("{actor}/{token}")
}
