//! A watch of a bucket: an ephemeral consumer of its stream, made again whenever it is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::bucket::{ApiError, value};
use super::calls::{fresh_inbox, unavailable};
use super::shared::{Live, Shared};
use crate::error::Error;
use crate::transport::replay::{Dropped, Replay};
use crate::transport::{Change, Entry};

/// The broker speaks at least this often on a watch where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After so long a silence the consumer is taken for lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A consumer waits for a sign that its messages are being received.
const STALLED: &str = "Nats-Consumer-Stalled";

type Started = oneshot::Sender<Result<(), Error>>;

/// A watch, over all connections.
pub(super) struct Follow {
    bucket: String,
    changes: mpsc::Sender<Change>,
    /// Held by the task of the current connection, all along.
    replay: Mutex<Replay>,
    /// When the bucket was made: one that was made again has other records, and its revisions begin anew.
    made: parking_lot::Mutex<Option<String>>,
    /// Who waits for the first consumer.
    started: parking_lot::Mutex<Option<Started>>,
}

/// Why a consumer is given up.
enum End {
    /// Nobody watches any more.
    Dropped,
    /// The bucket is not there.
    Gone(String),
    /// It has to be made again.
    Lost(String),
}

impl Follow {
    pub(super) fn new(bucket: &str, changes: mpsc::Sender<Change>, started: Started) -> Self {
        Self {
            bucket: bucket.to_owned(),
            changes,
            replay: Mutex::new(Replay::default()),
            made: parking_lot::Mutex::new(None),
            started: parking_lot::Mutex::new(Some(started)),
        }
    }

    /// Whether somebody still watches.
    pub(super) fn is_wanted(&self) -> bool {
        !self.changes.is_closed()
    }

    fn report(&self, outcome: Result<(), Error>) {
        if let Some(started) = self.started.lock().take() {
            started.send(outcome).ok();
        }
    }
}

impl From<Dropped> for End {
    fn from(_: Dropped) -> Self {
        End::Dropped
    }
}

/// Follows on one connection. Ends when nobody watches any more; with the connection, the task
/// is dropped.
pub(super) async fn run(live: Live, shared: Arc<Shared>, follow: Arc<Follow>) {
    let mut pause = Duration::from_millis(50);
    let mut replay = follow.replay.lock().await;
    loop {
        let Err(end) = consume(&live, &shared, &follow, &mut replay).await;
        match end {
            End::Dropped => return,
            End::Gone(why) => {
                follow.report(Err(unavailable(format!("the bucket {} is not there: {why}", follow.bucket))));
                drop(follow.changes.send(Change::Gone).await);
                return;
            }
            End::Lost(why) => {
                tracing::debug!(bucket = follow.bucket, why, "a watch is made again");
                follow.report(Err(unavailable(format!("the bucket {} cannot be watched: {why}", follow.bucket))));
            }
        }
        tokio::select! {
            () = follow.changes.closed() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACK_OFF_MAX),
        }
    }
}

/// Reads through one consumer until it is lost.
async fn consume(live: &Live, shared: &Shared, follow: &Follow, replay: &mut Replay) -> Result<Infallible, End> {
    check_made(live, shared, follow).await?;
    let inbox = fresh_inbox(&shared.settings.inbox_prefix);
    let mut messages = live.link.subscribe(&inbox, None).await.map_err(|error| End::Lost(error.to_string()))?;
    let pending = create(live, shared, follow, &inbox).await?;
    replay.begin();
    follow.report(Ok(()));
    if pending == 0 {
        replay.finish(&follow.changes).await?;
    }
    // Counts the deliveries of this consumer; a gap is a message that was thrown away.
    let mut delivered = 0;
    loop {
        let message = tokio::select! {
            () = follow.changes.closed() => return Err(End::Dropped),
            message = tokio::time::timeout(SILENCE_MAX, messages.next()) => match message {
                Ok(Some(message)) => message,
                Ok(None) => return Err(End::Lost("the subscription has ended".to_owned())),
                Err(_) => return Err(End::Lost(format!("no sign of life for {SILENCE_MAX:?}"))),
            },
        };
        if message.status.is_some() {
            beat(live, &message, delivered)?;
            // Nothing more to deliver, although fewer came than were announced: some have gone.
            if header(&message, "Nats-Last-Consumer").is_some() && header(&message, STALLED).is_none() {
                replay.finish(&follow.changes).await?;
            }
            continue;
        }
        let place = Place::of(&message).ok_or_else(|| End::Lost("a message without its place".to_owned()))?;
        if place.consumer != delivered + 1 {
            return Err(End::Lost(format!("deliveries {delivered} to {} are missing", place.consumer)));
        }
        delivered = place.consumer;
        if let Some(entry) = entry(&follow.bucket, place.stream, message) {
            replay.give(&follow.changes, entry).await?;
        }
        // All that were there at the start, even if more are written than can be read.
        if replay.is_reading() && (place.pending == 0 || delivered >= pending) {
            replay.finish(&follow.changes).await?;
        }
    }
}

async fn check_made(live: &Live, shared: &Shared, follow: &Follow) -> Result<(), End> {
    let made = live.link.made(&shared.settings.api_prefix, &follow.bucket).await.map_err(lost)?;
    let made = made.ok_or_else(|| End::Gone("somebody has deleted it, or the broker lost its store".to_owned()))?;
    let before = follow.made.lock().get_or_insert_with(|| made.clone()).clone();
    if before == made {
        return Ok(());
    }
    Err(End::Gone(format!("it was made at {before}, and again at {made}")))
}

fn lost(error: ApiError) -> End {
    End::Lost(match error {
        ApiError::Js(error) => error.text,
        ApiError::Call(error) => error.into_error().message().to_owned(),
    })
}

/// Makes the consumer; gives how many records it has to deliver first.
async fn create(live: &Live, shared: &Shared, follow: &Follow, inbox: &str) -> Result<u64, End> {
    let stream = format!("KV_{}", follow.bucket);
    let request = json!({
        "stream_name": stream,
        "config": {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": format!("$KV.{}.>", follow.bucket),
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
        },
    });
    let api = format!("{}.CONSUMER.CREATE.{stream}", shared.settings.api_prefix);
    let answer = live.link.api(&api, &request).await.map_err(lost)?;
    Ok(answer["num_pending"].as_u64().unwrap_or_default())
}

/// Answers the broker's own messages: heartbeats, flow control, the end of the consumer.
fn beat(live: &Live, message: &Message, delivered: u64) -> Result<(), End> {
    if message.status != Some(StatusCode::IDLE_HEARTBEAT) {
        return Err(End::Lost(message.description.clone().unwrap_or_else(|| format!("status {:?}", message.status))));
    }
    // Flow control is asked for by a reply subject or, if that was lost, by a heartbeat's header.
    if let Some(subject) = message.reply.as_ref().map(|reply| reply.as_str()).or_else(|| header(message, STALLED)) {
        live.link.publish(subject, None, None, Bytes::new()).map_err(|error| End::Lost(error.to_string()))?;
    }
    match header(message, "Nats-Last-Consumer").and_then(|last| last.parse::<u64>().ok()) {
        Some(last) if last != delivered => Err(End::Lost(format!("deliveries {delivered} to {last} are missing"))),
        _ => Ok(()),
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

fn entry(bucket: &str, revision: u64, message: Message) -> Option<Entry> {
    let key = message.subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')?.to_owned();
    Some(Entry { key, revision, value: value(message.headers.as_ref(), message.payload) })
}

/// Where a message stands, as its reply subject says:
/// `$JS.ACK.[domain.account.]stream.consumer.tries.stream_seq.consumer_seq.time.pending[.random]`.
#[derive(Debug, PartialEq)]
struct Place {
    stream: u64,
    consumer: u64,
    pending: u64,
}

impl Place {
    fn of(message: &Message) -> Option<Self> {
        Self::parse(message.reply.as_ref()?.as_str())
    }

    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let first = match tokens.len() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let number = |at: usize| tokens.get(at)?.parse().ok();
        Some(Self { stream: number(first)?, consumer: number(first + 1)?, pending: number(first + 3)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_tell_the_place() {
        let place = Some(Place { stream: 12, consumer: 3, pending: 9 });
        assert_eq!(Place::parse("$JS.ACK.KV_own.c1.1.12.3.1700000000.9"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.acc.KV_own.c1.1.12.3.1700000000.9"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.acc.KV_own.c1.1.12.3.1700000000.9.rnd"), place);
        assert_eq!(Place::parse("$JS.ACK.KV_own"), None);
        assert_eq!(Place::parse("_INBOX.x"), None);
    }
}
