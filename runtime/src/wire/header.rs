//! Headers of messages that outsiders see: what a CLI, a gateway or another language sends and gets.

use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Chain, Deadline, Hop, TurnId, wall_ms};
use crate::error::{AskError, Error, ErrorBody, ErrorKind, REFUSED};
use crate::transport::{Headers, Inbound};

pub(crate) const CONTENT_TYPE: &str = "Content-Type";
pub(crate) const JSON: &str = "application/json";
/// Says that an answer is an error, and which.
pub(crate) const ERROR: &str = "Nats-Service-Error";
pub(crate) const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The sender's id for its command.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Sent by programs: the form they take the message to have. Its absence means a person.
pub(crate) const SCHEMA: &str = "Greenroom-Schema";
/// What is left of the call's time, in ms.
pub(crate) const TIMEOUT: &str = "Greenroom-Timeout-Ms";
/// Wall time after which the call must not be started, in ms since 1970.
pub(crate) const EXPIRES: &str = "Greenroom-Expires";
/// The actors whose turns wait for the call, newest first, as JSON.
pub(crate) const CHAIN: &str = "Greenroom-Chain";
pub(crate) const ATTEMPT: &str = "Greenroom-Attempt";
/// Wall time at which the id was made, in ms since 1970.
pub(crate) const BORN: &str = "Greenroom-Born";
/// How old a reply may be, in ms.
pub(crate) const AGE_MS: &str = "Greenroom-Age-Ms";
/// The place of a live event in its actor's journal.
pub(crate) const SEQUENCE: &str = "Greenroom-Sequence";
/// On a call that one node passes on to another: the subject on which it came.
pub(crate) const SUBJECT: &str = "Greenroom-Subject";
/// On the same: where its sender waits for the answer.
pub(crate) const REPLY: &str = "Greenroom-Reply";
pub(crate) const TRACE: &str = "traceparent";
/// On a durable tell: the id of the command, where `Nats-Msg-Id` is not it.
pub(crate) const COMMAND: &str = "Greenroom-Id";
/// On a durable tell: the actor whose turn sent it, for people.
pub(crate) const FROM: &str = "Greenroom-From";
/// The longest `traceparent` that is passed on: version 00 has 55 bytes, later ones may be longer.
const TRACE_MAX: usize = 256;

/// The most time that a call on a public subject may name for itself: while it waits, it holds a place.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// An outsider's call, as its headers describe it.
#[derive(Debug)]
pub(crate) struct OutsideCall {
    pub(crate) call: Call,
    /// Whether a person wrote it: fields that nobody knows are then refused.
    pub(crate) by_hand: bool,
}

impl OutsideCall {
    /// What is left of a call's time. `budget` is what one gets that names none; one that names more
    /// than five minutes gets those, or the budget if that is more.
    pub(crate) fn time(headers: &Headers, budget: Duration) -> Result<Duration, Error> {
        let most = TIMEOUT_MAX.max(budget);
        let named = number(headers, TIMEOUT)?.map_or(budget, |ms| Duration::from_millis(ms).min(most));
        let wall = number(headers, EXPIRES)?.map(|at| Duration::from_millis(at.saturating_sub(wall_ms())));
        Ok(wall.map_or(named, |wall| wall.min(named)))
    }

    /// Reads the headers. `budget` is what a call gets that names none.
    pub(crate) fn read(headers: &Headers, budget: Duration) -> Result<Self, Error> {
        let content = headers.get(CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or(value).trim());
        if let Some(content) = content.filter(|content| !content.eq_ignore_ascii_case(JSON)) {
            return Err(Error::new(
                ErrorKind::BadRequest,
                format!("{CONTENT_TYPE} {content:?}: write {JSON}, or leave the header out"),
            ));
        }
        let left = Self::time(headers, budget)?;
        let hops: Vec<Hop> = match headers.get(CHAIN) {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Error::new(ErrorKind::BadRequest, format!("{CHAIN} cannot be read")).with_source(error)
            })?,
        };
        Ok(Self {
            call: Call {
                deadline: Deadline::After(left).fixed(),
                chain: Chain::from_hops(hops)?,
                turn: headers.get(MESSAGE_ID).map(TurnId::named),
                attempt: number(headers, ATTEMPT)?.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
                born: number(headers, BORN)?.unwrap_or(0),
                // What is no traceparent is nobody's trace.
                trace: headers.get(TRACE).filter(|text| text.len() <= TRACE_MAX).map(Arc::from),
                stored: false,
                digest: None,
            },
            by_hand: headers.get(SCHEMA).is_none(),
        })
    }

    /// The headers of a call that the runtime makes on a public subject.
    pub(crate) fn headers(call: &Call, turn: TurnId, schema: &str) -> Headers {
        let left = call.deadline.at().saturating_duration_since(tokio::time::Instant::now());
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut headers = Headers::new();
        headers.push(CONTENT_TYPE, JSON);
        headers.push(MESSAGE_ID, turn.to_string());
        headers.push(SCHEMA, schema);
        headers.push(TIMEOUT, left.to_string());
        headers.push(EXPIRES, wall_ms().saturating_add(left).to_string());
        headers.push(ATTEMPT, call.attempt.to_string());
        headers.push(BORN, call.born.to_string());
        if call.chain.len() > 0 {
            let hops: Vec<_> = call.chain.hops().collect();
            headers.push(CHAIN, serde_json::to_string(&hops).unwrap_or_default());
        }
        if let Some(trace) = &call.trace {
            headers.push(TRACE, trace.to_string());
        }
        headers
    }
}

fn number(headers: &Headers, name: &'static str) -> Result<Option<u64>, Error> {
    let Some(text) = headers.get(name) else { return Ok(None) };
    let number = text
        .trim()
        .parse()
        .map_err(|_| Error::new(ErrorKind::BadRequest, format!("{name} is {text:?}; write a whole number")))?;
    Ok(Some(number))
}

/// The headers of an answer that is a reply.
pub(crate) fn reply_headers() -> Headers {
    let mut headers = Headers::new();
    headers.push(CONTENT_TYPE, JSON);
    headers
}

/// The headers of a reply that may be as old as this.
pub(crate) fn aged_headers(age: std::time::Duration) -> Headers {
    let mut headers = reply_headers();
    headers.push(AGE_MS, age.as_millis().to_string());
    headers
}

/// The headers of an answer that is an error.
pub(crate) fn error_headers(body: &ErrorBody) -> Headers {
    let mut headers = reply_headers();
    headers.push(ERROR, body.message.clone());
    headers.push(ERROR_CODE, body.code.to_string());
    headers
}

/// Reads an answer to a call that was made on a public subject: its body, or what it failed with.
/// A refusal comes as `Refused` with its JSON.
pub(crate) fn unread_reply(answer: Inbound) -> Result<bytes::Bytes, AskError<serde_json::Value>> {
    if answer.headers.get(ERROR_CODE).is_none() && answer.headers.get(ERROR).is_none() {
        return Ok(answer.body);
    }
    let body: ErrorBody = serde_json::from_slice(&answer.body).map_err(|_| {
        let told = answer.headers.get(ERROR).unwrap_or("an error without a body");
        Error::new(ErrorKind::BadReply, format!("the answer is an error in another form: {told}"))
    })?;
    if body.kind == REFUSED {
        return Err(AskError::Refused(body.details.unwrap_or_default()));
    }
    Err(AskError::Failed(body.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_time_within_bounds() {
        let budget = Duration::from_secs(5);
        let time = |value: &str, budget| {
            let mut headers = Headers::new();
            headers.push(TIMEOUT, value);
            OutsideCall::time(&headers, budget).expect("a number")
        };
        assert_eq!(OutsideCall::time(&Headers::new(), budget).expect("none is named"), budget);
        assert_eq!(time("250", budget), Duration::from_millis(250));
        assert_eq!(time("300001", budget), Duration::from_secs(300));
        assert_eq!(time("18446744073709551615", budget), Duration::from_secs(300));
        let long = Duration::from_secs(3_600);
        assert_eq!(time("18446744073709551615", long), long, "never less than what one gets that names none");
    }
}
