//! The relay: brings what the turns of an actor type have sent from their journals into the command stream.
//!
//! One for each type, on the node that serves its partition 0. It follows the headers of the journals from where the
//! last one stopped, reads the records that have something to send, and sends that: what one actor sent strictly in
//! its order, one thing at a time, and that of different actors side by side. How far everything before has been sent
//! is written down every second at most; whoever comes next sends again what came after that, under the same ids.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::command::{self, Told};
use super::dead;
use super::marks::Mark;
use crate::error::{Error, ErrorKind};
use crate::journal::{OUTBOX, Record as Journaled};
use crate::node::duty::{Duty, Post};
use crate::node::{Hosted, Surroundings};
use crate::pauses::Pauses;
use crate::subject::Filter;
use crate::transport::{Bucket, Follow, Record, Start, Stream, StreamConfig, WriteError};

/// Actors whose things are on their way at once.
const SIDE_BY_SIDE: usize = 64;
/// Records that have been seen and are not sent yet. Above that no more is read.
const OPEN_MAX: usize = 1_024;
/// How often the place is written down, if anything was sent.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Records after which it is written down although nothing was sent: they need not be read again.
const SAVE_AFTER: u64 = 4_096;
/// How long what is on its way may take once the relay is another's.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// The duty of relaying.
pub(crate) struct Relay;

impl Duty for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn is_wanted(&self, around: &Surroundings, hosted: &Hosted, partition: u16) -> bool {
        partition == 0 && around.marks.has(Mark::Sends, hosted.name)
    }

    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(relay(post))
    }
}

async fn relay(post: Post) -> Result<(), Error> {
    let around = &post.around;
    let actor = post.hosted.name;
    let config = StreamConfig::new([around.subjects.journals(actor)]);
    let stream: Arc<dyn Stream> =
        Arc::from(around.transport.stream(&around.subjects.journal_stream(actor), config).await?);
    let Some(cursor) = Cursor::open(&post).await? else { return Ok(()) };
    let follow = stream.follow_headers(Vec::new(), Start::At(cursor.at + 1)).await?;
    tracing::debug!(node = around.id, actor, from = cursor.at + 1, "relaying");
    let place = Place { at: cursor.at, seen: cursor.at, open: BTreeSet::new() };
    let relaying = Relaying {
        post: post.clone(),
        stream,
        place,
        cursor,
        sent: false,
        sources: HashMap::new(),
        ready: VecDeque::new(),
        running: FuturesUnordered::new(),
    };
    relaying.run(follow).await
}

struct Relaying {
    post: Post,
    stream: Arc<dyn Stream>,
    place: Place,
    cursor: Cursor,
    /// Whether anything was sent since the place was written down.
    sent: bool,
    /// Records that wait, by the subject of their journal; the first is on its way, or ready.
    sources: HashMap<String, VecDeque<u64>>,
    /// Journals whose first record may go.
    ready: VecDeque<String>,
    running: FuturesUnordered<BoxFuture<'static, Result<(String, u64), Error>>>,
}

/// How far the relay is.
#[derive(Debug)]
struct Place {
    /// Everything up to here has been sent.
    at: u64,
    seen: u64,
    /// What has been seen and not been sent.
    open: BTreeSet<u64>,
}

impl Place {
    fn settle(&mut self) {
        self.at = self.open.first().map_or(self.seen, |first| first - 1);
    }
}

impl Relaying {
    async fn run(mut self, mut follow: Follow) -> Result<(), Error> {
        let mut save = tokio::time::interval(SAVE_EVERY);
        let stop = self.post.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    let (source, sequence) = done?;
                    self.has_sent(source, sequence);
                }
                _ = save.tick() => self.save().await?,
                record = follow.next(), if self.place.open.len() < OPEN_MAX => match record {
                    Some(record) => self.see(record),
                    None => return Ok(()),
                },
            }
            self.start();
        }
        // What is on its way is waited for: then the next one need not send it again.
        let finish = async {
            while let Some(done) = self.running.next().await {
                match done {
                    Ok((source, sequence)) => self.has_sent(source, sequence),
                    Err(error) => return tracing::debug!(%error, "left to the next relay"),
                }
            }
        };
        drop(tokio::time::timeout(FINISH_WITHIN, finish).await);
        self.sent = true;
        self.save().await
    }

    fn see(&mut self, record: Record) {
        self.place.seen = record.sequence;
        if record.headers.get(OUTBOX).is_some() {
            self.place.open.insert(record.sequence);
            let waiting = self.sources.entry(record.subject.clone()).or_default();
            waiting.push_back(record.sequence);
            if waiting.len() == 1 {
                self.ready.push_back(record.subject);
            }
        }
        self.place.settle();
    }

    fn start(&mut self) {
        while self.running.len() < SIDE_BY_SIDE {
            let Some(source) = self.ready.pop_front() else { return };
            let Some(sequence) = self.sources.get(&source).and_then(|waiting| waiting.front().copied()) else {
                continue;
            };
            let (post, stream) = (self.post.clone(), self.stream.clone());
            self.running.push(Box::pin(async move {
                send_all(&post, &*stream, &source, sequence).await?;
                Ok((source, sequence))
            }));
        }
    }

    fn has_sent(&mut self, source: String, sequence: u64) {
        self.sent = true;
        self.place.open.remove(&sequence);
        self.place.settle();
        if let Some(waiting) = self.sources.get_mut(&source) {
            waiting.pop_front();
            if waiting.is_empty() {
                self.sources.remove(&source);
            } else {
                self.ready.push_back(source);
            }
        }
    }

    async fn save(&mut self) -> Result<(), Error> {
        let passed = self.place.at.saturating_sub(self.cursor.at);
        if passed > 0 && (self.sent || passed >= SAVE_AFTER) {
            self.cursor.save(self.place.at).await?;
            self.sent = !self.place.open.is_empty();
        }
        Ok(())
    }
}

/// Sends what one record has to send, in its order.
async fn send_all(post: &Post, stream: &dyn Stream, source: &str, sequence: u64) -> Result<(), Error> {
    let record = stream.next(&Filter::of(source), sequence).await?;
    // One that an operator has deleted has nothing to send any more.
    let Some(record) = record.filter(|record| record.sequence == sequence) else { return Ok(()) };
    let journaled = Journaled::read(&record.body)?;
    let from = sender(post, source);
    for tell in &journaled.tells {
        match Told::of(tell, &from) {
            Ok(told) => send(post, told).await?,
            Err(error) => {
                tracing::error!(source, sequence, %error, "a durable tell names what cannot be; it is passed over")
            }
        }
    }
    Ok(())
}

/// Sends one, until the stream has it. What it will never take becomes a dead letter.
async fn send(post: &Post, told: Told) -> Result<(), Error> {
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
fn sender(post: &Post, source: &str) -> String {
    let token = source.rsplit('.').next().unwrap_or_default();
    format!("{}/{token}", post.hosted.name)
}

/// Where the relay of a type begins, kept at the broker.
struct Cursor {
    bucket: Box<dyn Bucket>,
    key: &'static str,
    epoch: u64,
    revision: u64,
    at: u64,
}

/// A cursor as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Everything up to this sequence has been sent.
    at: u64,
    /// The claim under which it was written.
    epoch: u64,
}

impl Cursor {
    /// Reads it; `None` if a later owner has written it already.
    async fn open(post: &Post) -> Result<Option<Self>, Error> {
        let around = &post.around;
        let key = post.hosted.name;
        let bucket = around.transport.bucket(&around.subjects.relay_bucket()).await?;
        let found = bucket.get(key).await?;
        let revision = found.as_ref().map_or(0, |record| record.revision);
        let kept: Option<Kept> = match found.and_then(|record| record.value.ok()) {
            None => None,
            Some(value) => Some(serde_json::from_slice(&value).map_err(|error| {
                let why = format!(
                    "how far the relay of {key} has come cannot be read; see the bucket {}",
                    around.subjects.relay_bucket()
                );
                Error::new(ErrorKind::Internal, why).with_source(error)
            })?),
        };
        if kept.as_ref().is_some_and(|kept| kept.epoch > post.epoch) {
            return Ok(None);
        }
        let begin = around.marks.begin(key).saturating_sub(1);
        let at = kept.map_or(begin, |kept| kept.at.max(begin));
        Ok(Some(Self { bucket, key, epoch: post.epoch, revision, at }))
    }

    async fn save(&mut self, at: u64) -> Result<(), Error> {
        let kept = serde_json::to_vec(&Kept { at, epoch: self.epoch });
        let kept = kept.map_err(|error| Error::new(ErrorKind::Internal, "a cursor is no JSON").with_source(error))?;
        let written = tokio::time::timeout_at(
            Instant::now() + FINISH_WITHIN,
            self.bucket.write(self.key, kept.into(), self.revision, None),
        );
        let why = match written.await {
            Ok(Ok(revision)) => {
                (self.revision, self.at) = (revision, at);
                return Ok(());
            }
            Ok(Err(WriteError::Conflict)) => "another relay has written it".to_owned(),
            Ok(Err(WriteError::NotSent(error) | WriteError::Unknown(error))) => error.to_string(),
            Err(_) => "the broker does not answer".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("how far the relay of {} has come was not written: {why}", self.key),
        ))
    }
}
