//! JetStream's own interface: streams are found or made, asked for their messages, written to.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::ROUND_TRIP;
use super::calls::{CallError, unavailable};
use super::link::Link;
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::transport::WriteError;

const STREAM_NOT_FOUND: u64 = 10_059;
const STREAM_NAME_IN_USE: u64 = 10_058;
const NO_MESSAGE: u64 = 10_037;
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The same, found while another write to the subject was on its way through the cluster.
const WRONG_LAST_SEQUENCE_RACE: u64 = 10_164;
/// Storing failed, on at least one of the stream's servers.
const STORE_FAILED: u64 = 10_077;
pub(super) const CONSUMER_NOT_FOUND: u64 = 10_014;

/// What JetStream said instead of yes.
pub(super) struct JsError {
    pub(super) number: u64,
    pub(super) text: String,
}

pub(super) enum ApiError {
    Call(CallError),
    Js(JsError),
}

impl ApiError {
    /// As one error, whoever is to blame.
    pub(super) fn into_error(self, what: &str) -> Error {
        match self {
            ApiError::Call(error) => error.into_error(),
            ApiError::Js(error) => unavailable(format!("{what}: {}", error.text)),
        }
    }
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
    /// When a stream was made, as the broker writes it; `None` if it is not there.
    pub(super) async fn made(&self, api_prefix: &str, stream: &str) -> Result<Option<String>, ApiError> {
        match self.api(&format!("{api_prefix}.STREAM.INFO.{stream}"), &json!({})).await {
            Ok(answer) => Ok(Some(answer["created"].as_str().unwrap_or_default().to_owned())),
            Err(ApiError::Js(error)) if error.number == STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Binds a stream, creating it if there is none. One that is there is used as it is, with a
/// warning about those of `fields` that are not as wanted.
pub(super) async fn open(shared: &Shared, what: &str, wanted: &Value, fields: &[&str]) -> Result<(), Error> {
    let live = shared.live()?;
    let prefix = &shared.settings.api_prefix;
    let name = wanted["name"].as_str().unwrap_or_default();
    let info = format!("{prefix}.STREAM.INFO.{name}");
    let answer = match live.link.api(&info, &json!({})).await {
        Err(ApiError::Js(error)) if error.number == STREAM_NOT_FOUND => {
            match live.link.api(&format!("{prefix}.STREAM.CREATE.{name}"), wanted).await {
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
                "{what} cannot be opened: JetStream does not answer ({}); is it enabled, and has it a leader?",
                error.message()
            ))
        }
        ApiError::Js(error) => unavailable(format!("{what} cannot be opened: {}", error.text)),
    })?;
    warn_of_differences(what, wanted, &answer["config"], fields);
    let in_cluster = live.link.client()?.server_info().cluster.is_some_and(|name| !name.is_empty());
    if in_cluster && answer["config"]["num_replicas"] == json!(1) {
        tracing::warn!(
            stream = name,
            "{what} has one replica in a cluster: if that server's disk is lost, so is all of it; \
             `nats stream edit {name} --replicas 3` mends that"
        );
    }
    Ok(())
}

/// What was there already is used as it is, but what differs may surprise.
fn warn_of_differences(what: &str, wanted: &Value, found: &Value, fields: &[&str]) {
    // The broker leaves out what is false or empty.
    let is_unset = |value: &Value| value.is_null() || *value == json!(false);
    let differ: Vec<String> = fields
        .iter()
        .filter(|field| wanted[*field] != found[*field] && !(is_unset(&wanted[*field]) && is_unset(&found[*field])))
        .map(|field| format!("{field} is {}, not {}", found[field], wanted[field]))
        .collect();
    if !differ.is_empty() {
        tracing::warn!(differences = differ.join("; "), "{what} exists with other settings and is used as it is");
    }
}

/// Reads one message at the stream's leader, as `request` chooses it.
pub(super) async fn message(
    shared: &Shared,
    stream: &str,
    request: &Value,
    what: &str,
) -> Result<Option<StreamMessage>, Error> {
    let live = shared.live()?;
    let api = format!("{}.STREAM.MSG.GET.{stream}", shared.settings.api_prefix);
    let mut answer = match live.link.api(&api, request).await {
        Ok(answer) => answer,
        Err(ApiError::Js(error)) if error.number == NO_MESSAGE => return Ok(None),
        Err(error) => return Err(error.into_error(&format!("{what} cannot be read"))),
    };
    let damaged = |why: String| Error::new(ErrorKind::Internal, format!("{what} cannot be read: {why}"));
    let raw: RawMessage =
        serde_json::from_value(answer["message"].take()).map_err(|error| damaged(error.to_string()))?;
    StreamMessage::try_from(raw).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Writes to a stream and waits for its answer. Never sits in a queue: what cannot be handed to
/// the connection at once was not sent.
pub(super) async fn write(
    shared: &Shared,
    subject: &str,
    headers: Option<HeaderMap>,
    body: Bytes,
    what: &str,
) -> Result<u64, WriteError> {
    let live = shared.live().map_err(WriteError::NotSent)?;
    match live.link.call(subject, headers, body, ROUND_TRIP).await {
        Ok(ack) => acknowledged(&ack, what),
        Err(CallError::NotSent(error)) => Err(WriteError::NotSent(error)),
        Err(CallError::Unknown(error)) => Err(WriteError::Unknown(error)),
    }
}

/// Reads the stream's answer to a write.
fn acknowledged(ack: &Message, what: &str) -> Result<u64, WriteError> {
    let unreadable = || {
        WriteError::Unknown(Error::new(ErrorKind::Unknown, format!("the answer to the write of {what} cannot be read")))
    };
    // Most are this; anything else is read as it comes.
    if let Ok(Ack { seq, error: None }) = serde_json::from_slice(&ack.payload) {
        return Ok(seq);
    }
    let answer: Value = serde_json::from_slice(&ack.payload).map_err(|_| unreadable())?;
    let Some(error) = js_error(&answer) else { return Err(unreadable()) };
    Err(match error.number {
        WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_RACE => WriteError::Conflict,
        STORE_FAILED => WriteError::Unknown(Error::new(ErrorKind::Unknown, error.text)),
        _ => WriteError::NotSent(unavailable(format!("the broker refuses the write of {what}: {}", error.text))),
    })
}

/// The answer to a write that went well, as far as it matters.
#[derive(Deserialize)]
struct Ack {
    seq: u64,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

fn js_error(answer: &Value) -> Option<JsError> {
    let error = answer.get("error")?;
    let number = error["err_code"].as_u64().unwrap_or_default();
    let text = error["description"].as_str().unwrap_or("an error without description");
    Some(JsError { number, text: format!("{text} (JetStream error {number})") })
}
