//! A bucket: a stream that keeps the last message of each subject, as the `nats kv` commands know
//! it. Written by plain publishes, since the library's own helpers lose the time to live.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::ROUND_TRIP;
use super::calls::{CallError, unavailable};
use super::follow::{self, Follow};
use super::link::Link;
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::transport::{Bucket, Entry, Gone, Watch, WriteError, check};

/// How long the marker of a deleted or expired record stays.
const MARKER_TTL: Duration = Duration::from_secs(10);
/// How many changes may wait for the one who watches, besides those that the connection keeps.
const WATCH_CAPACITY: usize = 256;

const STREAM_NOT_FOUND: u64 = 10_059;
const STREAM_NAME_IN_USE: u64 = 10_058;
const NO_MESSAGE: u64 = 10_037;
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The same, found while another write to the subject was on its way through the cluster.
const WRONG_LAST_SEQUENCE_RACE: u64 = 10_164;
/// Storing failed, on at least one of the stream's servers.
const STORE_FAILED: u64 = 10_077;

/// A bucket on JetStream.
pub(super) struct NatsBucket {
    shared: Arc<Shared>,
    name: String,
}

impl NatsBucket {
    /// Binds the bucket, creating its stream if there is none.
    pub(super) async fn open(shared: Arc<Shared>, name: &str) -> Result<Self, Error> {
        check::bucket_name(name)?;
        let live = shared.live()?;
        let wanted = stream_config(name, shared.settings.replicas);
        let prefix = &shared.settings.api_prefix;
        let info = format!("{prefix}.STREAM.INFO.KV_{name}");
        let answer = match live.link.api(&info, &json!({})).await {
            Err(ApiError::Js(error)) if error.number == STREAM_NOT_FOUND => {
                match live.link.api(&format!("{prefix}.STREAM.CREATE.KV_{name}"), &wanted).await {
                    // Somebody else has created it meanwhile, with other settings.
                    Err(ApiError::Js(error)) if error.number == STREAM_NAME_IN_USE => {
                        live.link.api(&info, &json!({})).await
                    }
                    other => other,
                }
            }
            other => other,
        };
        let answer = answer.map_err(|error| match error {
            ApiError::Call(error) => {
                let error = error.into_error();
                unavailable(format!(
                    "the bucket {name} cannot be opened: JetStream does not answer ({}); is it enabled, and has it a leader?",
                    error.message()
                ))
            }
            ApiError::Js(error) => unavailable(format!("the bucket {name} cannot be opened: {}", error.text)),
        })?;
        warn_of_differences(name, &wanted, &answer["config"]);
        Ok(Self { shared, name: name.to_owned() })
    }

    fn subject(&self, key: &str) -> Result<String, Error> {
        check::key(key)?;
        Ok(format!("$KV.{}.{key}", self.name))
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        let subject = self.subject(key)?;
        let live = self.shared.live()?;
        let api = format!("{}.STREAM.MSG.GET.KV_{}", self.shared.settings.api_prefix, self.name);
        let mut answer = match live.link.api(&api, &json!({ "last_by_subj": subject })).await {
            Ok(answer) => answer,
            Err(ApiError::Js(error)) if error.number == NO_MESSAGE => return Ok(None),
            Err(ApiError::Js(error)) => {
                return Err(unavailable(format!("{key} of the bucket {} cannot be read: {}", self.name, error.text)));
            }
            Err(ApiError::Call(error)) => return Err(error.into_error()),
        };
        let damaged = |why: String| {
            Error::new(ErrorKind::Internal, format!("{key} of the bucket {} cannot be read: {why}", self.name))
        };
        let raw: RawMessage =
            serde_json::from_value(answer["message"].take()).map_err(|error| damaged(error.to_string()))?;
        let message = StreamMessage::try_from(raw).map_err(|error| damaged(error.to_string()))?;
        let value = value(Some(&message.headers), message.payload);
        Ok(Some(Entry { key: key.to_owned(), revision: message.sequence, value }))
    }

    async fn put(&self, key: &str, value: Bytes, expect: u64, headers: HeaderMap) -> Result<u64, WriteError> {
        let subject = self.subject(key).map_err(WriteError::NotSent)?;
        let live = self.shared.live().map_err(WriteError::NotSent)?;
        let mut headers = headers;
        headers.insert("Nats-Expected-Last-Subject-Sequence", expect.to_string());
        match live.link.call(&subject, Some(headers), value, ROUND_TRIP).await {
            Ok(ack) => acknowledged(&ack, key),
            Err(CallError::NotSent(error)) => Err(WriteError::NotSent(error)),
            Err(CallError::Unknown(error)) => Err(WriteError::Unknown(error)),
        }
    }

    async fn follow(&self) -> Result<Watch, Error> {
        let live = self.shared.live()?;
        let (sender, changes) = mpsc::channel(WATCH_CAPACITY);
        let (started, ready) = oneshot::channel();
        let follow = Arc::new(Follow::new(&self.name, sender, started));
        self.shared.keep_follow(&live.link, &follow)?;
        live.runtime.spawn(follow::run(live.clone(), self.shared.clone(), follow));
        match tokio::time::timeout(ROUND_TRIP, ready).await {
            Ok(Ok(Ok(()))) => Ok(Watch::new(changes)),
            Ok(Ok(Err(error))) => Err(error),
            _ => {
                Err(unavailable(format!("the bucket {} cannot be watched: no answer within {ROUND_TRIP:?}", self.name)))
            }
        }
    }
}

impl Bucket for NatsBucket {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let key = key.to_owned();
        async move { self.read(&key).await }.boxed()
    }

    fn write(
        &self,
        key: &str,
        value: Bytes,
        expect: u64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        async move {
            let mut headers = HeaderMap::new();
            if let Some(ttl) = ttl {
                let seconds = check::ttl(ttl).map_err(WriteError::NotSent)?;
                headers.insert("Nats-TTL", format!("{seconds}s"));
            }
            self.put(&key, value, expect, headers).await
        }
        .boxed()
    }

    fn delete(&self, key: &str, expect: u64) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("KV-Operation", "PURGE");
            headers.insert("Nats-Rollup", "sub");
            headers.insert("Nats-TTL", format!("{}s", MARKER_TTL.as_secs()));
            self.put(&key, Bytes::new(), expect, headers).await
        }
        .boxed()
    }

    fn made(&self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        async move {
            let live = self.shared.live()?;
            live.link.made(&self.shared.settings.api_prefix, &self.name).await.map_err(|error| match error {
                ApiError::Js(error) => unavailable(error.text),
                ApiError::Call(error) => error.into_error(),
            })
        }
        .boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<Watch, Error>> {
        self.follow().boxed()
    }
}

/// What JetStream said instead of yes.
pub(super) struct JsError {
    pub(super) number: u64,
    pub(super) text: String,
}

pub(super) enum ApiError {
    Call(CallError),
    Js(JsError),
}

impl Link {
    /// A request to JetStream's own interface.
    pub(super) async fn api(&self, subject: &str, body: &Value) -> Result<Value, ApiError> {
        let answer = self.call(subject, None, body.to_string().into(), ROUND_TRIP).await.map_err(ApiError::Call)?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| {
            ApiError::Js(JsError { number: 0, text: format!("the answer to {subject} cannot be read: {error}") })
        })?;
        match js_error(&answer) {
            Some(error) => Err(ApiError::Js(error)),
            None => Ok(answer),
        }
    }
}

impl Link {
    /// When the stream of a bucket was made; `None` if it is not there.
    pub(super) async fn made(&self, api_prefix: &str, bucket: &str) -> Result<Option<String>, ApiError> {
        match self.api(&format!("{api_prefix}.STREAM.INFO.KV_{bucket}"), &json!({})).await {
            Ok(answer) => Ok(Some(answer["created"].as_str().unwrap_or_default().to_owned())),
            Err(ApiError::Js(error)) if error.number == STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn js_error(answer: &Value) -> Option<JsError> {
    let error = answer.get("error")?;
    let number = error["err_code"].as_u64().unwrap_or_default();
    let text = error["description"].as_str().unwrap_or("an error without description");
    Some(JsError { number, text: format!("{text} (JetStream error {number})") })
}

/// Reads the stream's answer to a write.
fn acknowledged(ack: &Message, key: &str) -> Result<u64, WriteError> {
    let unreadable = || {
        WriteError::Unknown(Error::new(ErrorKind::Unknown, format!("the answer to the write of {key} cannot be read")))
    };
    let answer: Value = serde_json::from_slice(&ack.payload).map_err(|_| unreadable())?;
    match js_error(&answer) {
        None => answer["seq"].as_u64().ok_or_else(unreadable),
        Some(error) => Err(match error.number {
            WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_RACE => WriteError::Conflict,
            STORE_FAILED => WriteError::Unknown(Error::new(ErrorKind::Unknown, error.text)),
            _ => WriteError::NotSent(unavailable(format!("the broker refuses the write of {key}: {}", error.text))),
        }),
    }
}

/// A record's value from a message of its stream.
pub(super) fn value(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Bytes, Gone> {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    if header("Nats-Marker-Reason") == Some("MaxAge") {
        return Err(Gone::Expired);
    }
    if header("Nats-Marker-Reason").is_some() || matches!(header("KV-Operation"), Some("DEL" | "PURGE")) {
        return Err(Gone::Deleted);
    }
    Ok(payload)
}

fn stream_config(name: &str, replicas: usize) -> Value {
    json!({
        "name": format!("KV_{name}"),
        "subjects": [format!("$KV.{name}.>")],
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": false,
        "allow_msg_ttl": true,
        "subject_delete_marker_ttl": MARKER_TTL.as_nanos() as u64,
    })
}

/// A stream that was there already is used as it is, but what differs may surprise.
fn warn_of_differences(name: &str, wanted: &Value, found: &Value) {
    let differ: Vec<String> = [
        "storage",
        "num_replicas",
        "max_msgs_per_subject",
        "discard",
        "allow_rollup_hdrs",
        "allow_msg_ttl",
        "subject_delete_marker_ttl",
    ]
    .into_iter()
    .filter(|field| wanted[field] != found[field])
    .map(|field| format!("{field} is {}, not {}", found[field], wanted[field]))
    .collect();
    if !differ.is_empty() {
        tracing::warn!(
            bucket = name,
            differences = differ.join("; "),
            "the bucket exists with other settings and is used as it is"
        );
    }
}
