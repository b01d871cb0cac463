//! Reading a stream without gaps: an ephemeral consumer, made again whenever it is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::ROUND_TRIP;
use super::calls::{fresh_inbox, unavailable};
use super::shared::{Live, Resume, Shared};
use crate::error::Error;
use crate::transport::replay::Dropped;

/// The broker speaks at least this often where nothing happens.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// After so long a silence the consumer is taken for lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
pub(super) const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A consumer waits for a sign that its messages are being received.
const STALLED: &str = "Nats-Consumer-Stalled";

/// What a stream is read for, and how far the reading has come.
///
/// What a reader notes and what it hands over change in one step, so that a connection may be
/// lost at any point.
pub(super) trait Reader: Send + 'static {
    type Item: Send + 'static;

    /// What is read, for people.
    fn what(&self) -> String;

    /// The stream.
    fn stream(&self) -> String;

    /// Which of its messages: the part of the consumer's settings that says so.
    fn wanted(&self) -> Value;

    /// What is handed over when the stream is not there any more, or was made again, with other messages. `None`: it is
    /// looked for until somebody makes it.
    fn gone(&self) -> Option<Self::Item> {
        None
    }

    /// A consumer begins, with so many messages to deliver. Safe to cancel.
    fn begin(
        &mut self,
        pending: u64,
        to: &mpsc::Sender<Self::Item>,
    ) -> impl Future<Output = Result<(), Dropped>> + Send;

    /// The next message. Safe to cancel.
    fn take(
        &mut self,
        place: Place,
        message: Message,
        to: &mpsc::Sender<Self::Item>,
    ) -> impl Future<Output = Result<(), Dropped>> + Send;

    /// Everything was delivered just now. Safe to cancel.
    fn idle(&mut self, to: &mpsc::Sender<Self::Item>) -> impl Future<Output = Result<(), Dropped>> + Send;
}

/// A reading, over all connections.
struct Follow<R: Reader> {
    items: mpsc::Sender<R::Item>,
    /// Held by the task of the current connection, all along.
    reader: Mutex<R>,
    /// When the stream was made.
    made: parking_lot::Mutex<Option<String>>,
    /// Who waits for the first consumer.
    started: parking_lot::Mutex<Option<oneshot::Sender<Result<(), Error>>>>,
}

/// Why a consumer is given up.
enum End {
    /// Nobody reads any more.
    Dropped,
    /// The stream is not there, or not the same.
    Gone(String),
    /// It has to be made again.
    Lost(String),
}

impl From<Dropped> for End {
    fn from(_: Dropped) -> Self {
        End::Dropped
    }
}

impl From<String> for End {
    fn from(why: String) -> Self {
        End::Lost(why)
    }
}

/// Begins to read; at most `capacity` items wait for the one who takes them, besides those that
/// the connection keeps.
pub(super) async fn start<R: Reader>(
    shared: &Arc<Shared>,
    reader: R,
    capacity: usize,
) -> Result<mpsc::Receiver<R::Item>, Error> {
    let live = shared.live()?;
    let what = reader.what();
    let (items, receiver) = mpsc::channel(capacity);
    let (started, ready) = oneshot::channel();
    let follow = Arc::new(Follow {
        items,
        reader: Mutex::new(reader),
        made: parking_lot::Mutex::new(None),
        started: parking_lot::Mutex::new(Some(started)),
    });
    shared.keep_follow(&live.link, follow.clone())?;
    live.runtime.spawn(follow.run(live.clone(), shared.clone()));
    match tokio::time::timeout(ROUND_TRIP, ready).await {
        Ok(Ok(Ok(()))) => Ok(receiver),
        Ok(Ok(Err(error))) => Err(error),
        _ => Err(unavailable(format!("{what} cannot be followed: no answer within {ROUND_TRIP:?}"))),
    }
}

impl<R: Reader> Resume for Follow<R> {
    fn is_wanted(&self) -> bool {
        !self.items.is_closed()
    }

    /// Reads on one connection. Ends when nobody reads any more; with the connection, the task is
    /// dropped.
    fn run(self: Arc<Self>, live: Live, shared: Arc<Shared>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut pause = BACK_OFF_MIN;
            let mut reader = self.reader.lock().await;
            loop {
                let mut came = false;
                let Err(end) = self.consume(&live, &shared, &mut reader, &mut came).await;
                match end {
                    End::Dropped => return,
                    End::Gone(why) => {
                        let what = reader.what();
                        tracing::debug!(what, why, "what was read is gone");
                        self.report(Err(unavailable(format!("{what} is not there: {why}"))));
                        if let Some(last) = reader.gone() {
                            drop(self.items.send(last).await);
                            return;
                        }
                    }
                    End::Lost(why) => {
                        let what = reader.what();
                        tracing::debug!(what, why, "a reading begins again");
                        self.report(Err(unavailable(format!("{what} cannot be followed: {why}"))));
                    }
                }
                tokio::select! {
                    () = self.items.closed() => return,
                    // One that delivered is no failure, however soon it was lost.
                    () = tokio::time::sleep(if came { BACK_OFF_MIN } else { pause }) => {
                        pause = if came { BACK_OFF_MIN } else { (pause * 2).min(BACK_OFF_MAX) };
                    }
                }
            }
        })
    }
}

impl<R: Reader> Follow<R> {
    fn report(&self, outcome: Result<(), Error>) {
        if let Some(started) = self.started.lock().take() {
            started.send(outcome).ok();
        }
    }

    /// A stream that was made again has other messages, and its sequences begin anew.
    async fn check_made(&self, live: &Live, shared: &Shared, stream: &str) -> Result<(), End> {
        let made = live.link.made(&shared.settings.api_prefix, stream).await;
        let made = made.map_err(|error| End::Lost(error.into_error("the broker does not say").message().to_owned()))?;
        let made = made.ok_or_else(|| End::Gone("somebody has deleted it, or the broker lost its store".to_owned()))?;
        let before = self.made.lock().get_or_insert_with(|| made.clone()).clone();
        if before == made {
            return Ok(());
        }
        Err(End::Gone(format!("it was made at {before}, and again at {made}")))
    }

    /// Reads through one consumer until it is lost; notes whether anything came.
    async fn consume(&self, live: &Live, shared: &Shared, reader: &mut R, came: &mut bool) -> Result<Infallible, End> {
        self.check_made(live, shared, &reader.stream()).await?;
        let (mut consumer, pending) = Ordered::create(live, shared, &reader.stream(), reader.wanted()).await?;
        self.report(Ok(()));
        reader.begin(pending, &self.items).await?;
        loop {
            let sign = tokio::select! {
                () = self.items.closed() => return Err(End::Dropped),
                sign = consumer.next(live) => sign?,
            };
            match sign {
                Some((place, message)) => {
                    reader.take(place, message, &self.items).await?;
                    *came = true;
                }
                None => reader.idle(&self.items).await?,
            }
        }
    }
}

/// An ephemeral consumer of which no delivery may be missing.
pub(super) struct Ordered {
    messages: Subscriber,
    /// Its name at the broker.
    pub(super) name: String,
    /// Counts the deliveries; a gap is a message that was thrown away.
    delivered: u64,
}

impl Ordered {
    /// Makes one, for the messages that `wanted` chooses; gives how many it has to deliver first.
    pub(super) async fn create(
        live: &Live,
        shared: &Shared,
        stream: &str,
        wanted: Value,
    ) -> Result<(Self, u64), String> {
        let inbox = fresh_inbox(&shared.settings.inbox_prefix);
        let messages = live.link.subscribe(&inbox, None).await.map_err(|error| error.to_string())?;
        let mut config = json!({
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
        });
        if let (Value::Object(config), Value::Object(wanted)) = (&mut config, wanted) {
            config.extend(wanted);
        }
        let api = format!("{}.CONSUMER.CREATE.{stream}", shared.settings.api_prefix);
        let request = json!({ "stream_name": stream, "config": config });
        match live.link.api(&api, &request).await {
            Ok(answer) => {
                let name = answer["name"].as_str().unwrap_or_default().to_owned();
                Ok((Self { messages, name, delivered: 0 }, answer["num_pending"].as_u64().unwrap_or_default()))
            }
            Err(error) => Err(error.into_error("the broker makes no consumer").message().to_owned()),
        }
    }

    /// The next message, or `None` if everything was delivered just now. Safe to cancel.
    ///
    /// # Errors
    /// Says why it is lost.
    pub(super) async fn next(&mut self, live: &Live) -> Result<Option<(Place, Message)>, String> {
        loop {
            let message = match tokio::time::timeout(SILENCE_MAX, self.messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err("the subscription has ended".to_owned()),
                Err(_) => return Err(format!("no sign of life for {SILENCE_MAX:?}")),
            };
            if message.status.is_none() {
                let place = Place::of(&message).ok_or("a message without its place")?;
                if place.consumer != self.delivered + 1 {
                    return Err(format!("deliveries {} to {} are missing", self.delivered, place.consumer));
                }
                self.delivered = place.consumer;
                return Ok(Some((place, message)));
            }
            beat(live, &message, self.delivered)?;
            // Nothing more to deliver, although fewer came than were announced: some have gone.
            if header(&message, "Nats-Last-Consumer").is_some() && header(&message, STALLED).is_none() {
                return Ok(None);
            }
        }
    }
}

/// Answers the broker's own messages: heartbeats, flow control, the end of the consumer.
fn beat(live: &Live, message: &Message, delivered: u64) -> Result<(), String> {
    if message.status != Some(StatusCode::IDLE_HEARTBEAT) {
        return Err(message.description.clone().unwrap_or_else(|| format!("status {:?}", message.status)));
    }
    // Flow control is asked for by a reply subject or, if that was lost, by a heartbeat's header.
    if let Some(subject) = message.reply.as_ref().map(|reply| reply.as_str()).or_else(|| header(message, STALLED)) {
        live.link.publish(subject, None, None, Bytes::new()).map_err(|error| error.to_string())?;
    }
    match header(message, "Nats-Last-Consumer").and_then(|last| last.parse::<u64>().ok()) {
        Some(last) if last != delivered => Err(format!("deliveries {delivered} to {last} are missing")),
        _ => Ok(()),
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// Where a message stands, as its reply subject says:
/// `$JS.ACK.[domain.account.]stream.consumer.tries.stream_seq.consumer_seq.time.pending[.random]`.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub(super) tries: u64,
    pub(super) stream: u64,
    pub(super) consumer: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) pending: u64,
}

impl Place {
    pub(super) fn of(message: &Message) -> Option<Self> {
        Self::parse(message.reply.as_ref()?.as_str())
    }

    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let first = match tokens.len() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let number = |at: usize| tokens.get(first + at)?.parse().ok();
        Some(Self {
            tries: number(0)?,
            stream: number(1)?,
            consumer: number(2)?,
            time: number(3)?,
            pending: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_tell_the_place() {
        let place = Some(Place { tries: 1, stream: 12, consumer: 3, time: 1_700_000_000, pending: 9 });
        assert_eq!(Place::parse("$JS.ACK.KV_own.c1.1.12.3.1700000000.9"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.acc.KV_own.c1.1.12.3.1700000000.9"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.acc.KV_own.c1.1.12.3.1700000000.9.rnd"), place);
        assert_eq!(Place::parse("$JS.ACK.KV_own"), None);
        assert_eq!(Place::parse("_INBOX.x"), None);
    }
}
