//! A durable consumer of JetStream, pulled from by whoever calls `next`, and by no task.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{delivered_record, set_filters};
use crate::error::{Error, ErrorKind};
use crate::transport::nats::ROUND_TRIP;
use crate::transport::nats::calls::{fresh_inbox, unavailable};
use crate::transport::nats::follow::{BACK_OFF_MAX, HEARTBEAT, Place, SILENCE_MAX};
use crate::transport::nats::jetstream::{ApiError, CONSUMER_NOT_FOUND};
use crate::transport::nats::link::Link;
use crate::transport::nats::shared::Shared;
use crate::transport::stream::Word;
use crate::transport::{ConsumerConfig, Delivery, Start, Status};

/// How long a request for records waits at the broker before it is made again.
const PULL_WITHIN: Duration = Duration::from_secs(10);
const BACK_OFF_MIN: Duration = Duration::from_millis(20);

/// A hold on a durable consumer.
pub(in crate::transport) struct NatsConsumer {
    shared: Arc<Shared>,
    stream: String,
    name: String,
    wanted: Value,
    fetch: usize,
    current: Option<Pulling>,
    /// Whether the consumer may be gone, or have no leader: it is looked for before it is asked.
    doubtful: bool,
    pause: Duration,
}

/// What one connection brings.
struct Pulling {
    link: Arc<Link>,
    /// Where records are asked for.
    api: String,
    inbox: String,
    messages: Subscriber,
    /// How many records are asked for and have not come.
    outstanding: usize,
}

/// What a message from the consumer means.
enum Sign {
    Record(Box<Delivery>),
    /// The request still waits.
    Alive,
    /// The request is over: not enough came while it waited.
    Over,
    /// There was nothing for a request that does not wait.
    Nothing,
    /// The consumer is away.
    Away(String),
}

impl NatsConsumer {
    /// Finds the consumer or makes it.
    pub(super) async fn open(
        shared: Arc<Shared>,
        stream: &str,
        name: &str,
        config: &ConsumerConfig,
    ) -> Result<Self, Error> {
        let mut consumer = Self {
            shared,
            stream: stream.to_owned(),
            name: name.to_owned(),
            wanted: consumer_config(name, config),
            fetch: config.fetch.min(config.max_ack_pending),
            current: None,
            doubtful: true,
            pause: BACK_OFF_MIN,
        };
        consumer.ensure().await?;
        Ok(consumer)
    }

    pub(in crate::transport) async fn next(&mut self) -> Option<Delivery> {
        loop {
            match self.look().await {
                Ok(Some(delivery)) => {
                    self.pause = BACK_OFF_MIN;
                    return Some(delivery);
                }
                Ok(None) => {}
                Err(error) => {
                    if error.kind() == ErrorKind::Stopped || !self.wait().await {
                        return None;
                    }
                    tracing::debug!(stream = self.stream, consumer = self.name, %error, "asking again");
                }
            }
        }
    }

    pub(in crate::transport) async fn try_next(&mut self) -> Result<Option<Delivery>, Error> {
        // What a connection that was lost has brought is still good.
        while self.current.as_ref().is_some_and(Pulling::is_lost) {
            if let Ok(Sign::Record(delivery)) = self.receive().await {
                return Ok(Some(*delivery));
            }
        }
        self.pulling().await?.pull_now()?;
        let end = Instant::now() + ROUND_TRIP;
        loop {
            let received = tokio::time::timeout_at(end, self.receive()).await;
            match received.map_err(|_| unavailable(format!("no answer within {ROUND_TRIP:?}")))?? {
                Sign::Record(delivery) => return Ok(Some(*delivery)),
                // An earlier request that waited.
                Sign::Alive | Sign::Over => {}
                Sign::Nothing => return Ok(None),
                Sign::Away(why) => return Err(self.away(&why)),
            }
        }
    }

    /// Waits for one sign. `None` if it was no record.
    async fn look(&mut self) -> Result<Option<Delivery>, Error> {
        let fetch = self.fetch;
        let pulling = self.pulling().await?;
        // On a connection that was lost, what it has brought is taken, and then the next one.
        if pulling.outstanding == 0 && !pulling.is_lost() {
            pulling.pull(fetch)?;
        }
        match tokio::time::timeout(SILENCE_MAX, self.receive()).await {
            Ok(Ok(Sign::Record(delivery))) => Ok(Some(*delivery)),
            Ok(Ok(Sign::Alive | Sign::Over | Sign::Nothing)) => Ok(None),
            Ok(Ok(Sign::Away(why))) => Err(self.away(&why)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.away(&format!("no sign of life for {SILENCE_MAX:?}"))),
        }
    }

    /// The connection's side, made anew on a new connection.
    async fn pulling(&mut self) -> Result<&mut Pulling, Error> {
        if self.doubtful {
            self.ensure().await?;
        }
        if self.current.is_none() {
            let live = self.shared.live()?;
            let inbox = fresh_inbox(&self.shared.settings.inbox_prefix);
            let messages = live.link.subscribe(&inbox, None).await?;
            let api = format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.shared.settings.api_prefix, self.stream, self.name);
            self.current = Some(Pulling { link: live.link, api, inbox, messages, outstanding: 0 });
        }
        self.current.as_mut().ok_or_else(|| unavailable("not connected to the broker"))
    }

    /// The next message, and what it means.
    async fn receive(&mut self) -> Result<Sign, Error> {
        let Some(pulling) = &mut self.current else { return Err(unavailable("not connected to the broker")) };
        let message = tokio::select! {
            biased;
            message = pulling.messages.next() => message,
            () = pulling.link.lost.cancelled() => None,
        };
        let Some(message) = message else {
            self.current = None;
            return Err(unavailable("the connection to the broker was lost"));
        };
        Ok(match message.status {
            None => {
                pulling.outstanding = pulling.outstanding.saturating_sub(1);
                match Place::of(&message) {
                    Some(place) => Sign::Record(Box::new(delivery(&self.shared, &place, message))),
                    None => Sign::Away("a message without its place".to_owned()),
                }
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Sign::Alive,
            Some(StatusCode::NOT_FOUND) => Sign::Nothing,
            Some(StatusCode::TIMEOUT) => {
                pulling.outstanding = 0;
                Sign::Over
            }
            Some(status) => {
                pulling.outstanding = 0;
                Sign::Away(message.description.clone().unwrap_or_else(|| format!("status {status}")))
            }
        })
    }

    /// The consumer does not answer: it is looked for before it is asked again.
    fn away(&mut self, why: &str) -> Error {
        self.doubtful = true;
        if let Some(pulling) = &mut self.current {
            pulling.outstanding = 0;
        }
        unavailable(format!("the consumer {} of the stream {} is away: {why}", self.name, self.stream))
    }

    /// Waits a little, or for a connection. `false` if there will be none.
    async fn wait(&mut self) -> bool {
        let mut status = self.shared.status.subscribe();
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACK_OFF_MAX);
        let back = status.wait_for(|status| *status != Status::Disconnected).await;
        back.is_ok_and(|status| status.is_connected())
    }

    /// Makes the consumer if there is none, and gives it our settings if it has others.
    async fn ensure(&mut self) -> Result<(), Error> {
        let live = self.shared.live()?;
        let prefix = &self.shared.settings.api_prefix;
        let (stream, name) = (&self.stream, &self.name);
        let what = format!("the consumer {name} of the stream {stream} cannot be opened");
        let mut wanted = self.wanted.clone();
        match live.link.api(&format!("{prefix}.CONSUMER.INFO.{stream}.{name}"), &json!({})).await {
            Err(ApiError::Js(error)) if error.number == CONSUMER_NOT_FOUND => {}
            Err(error) => return Err(error.into_error(&what)),
            // Where it began cannot be changed.
            Ok(answer) => {
                for field in ["deliver_policy", "opt_start_seq"] {
                    wanted[field] = answer["config"][field].clone();
                }
                if is_same(&wanted, &answer["config"]) {
                    self.doubtful = false;
                    return Ok(());
                }
            }
        }
        let request = json!({ "stream_name": stream, "config": wanted });
        let api = format!("{prefix}.CONSUMER.DURABLE.CREATE.{stream}.{name}");
        live.link.api(&api, &request).await.map_err(|error| error.into_error(&what))?;
        self.doubtful = false;
        Ok(())
    }
}

impl Drop for NatsConsumer {
    /// Gives back what nobody has taken, so that others need not wait for its time to be over.
    fn drop(&mut self) {
        let Some(pulling) = &mut self.current else { return };
        while let Some(Some(message)) = tokio::task::unconstrained(pulling.messages.next()).now_or_never() {
            if let (None, Some(reply)) = (message.status, &message.reply) {
                pulling.link.publish(reply.as_str(), None, None, word(&Word::Nak(Duration::ZERO))).ok();
            }
        }
    }
}

impl Pulling {
    /// Asks for records, and lets the request wait at the broker.
    fn pull(&mut self, records: usize) -> Result<(), Error> {
        let (expires, heartbeat) = (PULL_WITHIN.as_nanos() as u64, HEARTBEAT.as_nanos() as u64);
        self.ask(&json!({ "batch": records, "expires": expires, "idle_heartbeat": heartbeat }))?;
        self.outstanding = records;
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.link.lost.is_cancelled()
    }

    /// Asks for a record that is there now.
    fn pull_now(&mut self) -> Result<(), Error> {
        self.ask(&json!({ "batch": 1, "no_wait": true }))
    }

    fn ask(&self, request: &Value) -> Result<(), Error> {
        self.link.publish(&self.api, Some(&self.inbox), None, request.to_string().into())
    }
}

/// The broker leaves out what is empty, so only what we want is compared.
fn is_same(wanted: &Value, found: &Value) -> bool {
    let filters = |config: &Value| (config["filter_subject"].clone(), config["filter_subjects"].clone());
    let all = wanted.as_object().into_iter().flatten();
    all.into_iter().all(|(field, value)| found[field] == *value || (*value == json!(false) && found[field].is_null()))
        && filters(wanted) == filters(found)
}

fn consumer_config(name: &str, config: &ConsumerConfig) -> Value {
    let mut wanted = json!({
        "durable_name": name,
        "name": name,
        "ack_policy": "explicit",
        "ack_wait": config.ack_wait.as_nanos() as u64,
        "max_deliver": config.max_deliver.map_or(-1, |times| i64::try_from(times).unwrap_or(-1)),
        "max_ack_pending": config.max_ack_pending,
        "headers_only": config.headers_only,
        "replay_policy": "instant",
    });
    match config.start {
        Start::At(0 | 1) => wanted["deliver_policy"] = json!("all"),
        Start::At(sequence) => {
            wanted["deliver_policy"] = json!("by_start_sequence");
            wanted["opt_start_seq"] = json!(sequence);
        }
        Start::New => wanted["deliver_policy"] = json!("new"),
    }
    set_filters(&mut wanted, &config.filters);
    wanted
}

fn delivery(shared: &Arc<Shared>, place: &Place, message: Message) -> Delivery {
    let reply = message.reply.as_ref().map(|reply| reply.to_string()).unwrap_or_default();
    let receipt = NatsReceipt { shared: shared.clone(), reply };
    Delivery::nats(delivered_record(place, message), place.tries, receipt)
}

/// Where to say what became of a record.
pub(in crate::transport) struct NatsReceipt {
    shared: Arc<Shared>,
    reply: String,
}

impl NatsReceipt {
    pub(in crate::transport) async fn say(&self, said: Word) -> Result<(), Error> {
        let live = self.shared.live()?;
        let said = live.link.call(&self.reply, None, word(&said), ROUND_TRIP).await;
        said.map(drop).map_err(|error| error.into_error())
    }
}

fn word(word: &Word) -> Bytes {
    match word {
        Word::Ack => Bytes::from_static(b"+ACK"),
        Word::Nak(Duration::ZERO) => Bytes::from_static(b"-NAK"),
        Word::Nak(delay) => format!("-NAK {}", json!({ "delay": delay.as_nanos() as u64 })).into(),
        Word::Term(reason) => format!("+TERM {reason}").into(),
        Word::InProgress => Bytes::from_static(b"+WPI"),
    }
}
