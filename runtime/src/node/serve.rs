//! Serving: messages from the wire to handlers, and answers back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::hosted::Hosted;
use super::surroundings::Surroundings;
use crate::call::{Call, Deadline, not_ended, not_started};
use crate::codec::Codec;
use crate::error::{Error, ErrorBody, ErrorKind};
use crate::key::Key;
use crate::reference::Target;
use crate::routes::{WireAnswer, WireCall, WireOutcome, WireRoute};
use crate::subject::{Call as Asked, PROBE_VERB, Subject, Subjects};
use crate::transport::{Inbound, Outbound};
use crate::wire::{OutsideCall, TIMEOUT, aged_headers, error_headers, reply_headers};

/// How long before the end of its time a call is given up that waits, at most.
const IN_ADVANCE: Duration = Duration::from_millis(300);

/// A call on a public subject that was taken from its subscription: from then on its time runs,
/// however long it is held, and to whichever task it goes.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) message: Inbound,
    /// When its time is over.
    pub(super) until: Instant,
    /// Until when it may wait to be started. A little earlier: its sender has waited for longer than this node knows,
    /// and should hear that nothing was run before it gives up.
    pub(super) start_by: Instant,
}

impl Taken {
    pub(super) fn new(around: &Surroundings, message: Inbound) -> Self {
        let budget = around.settings.budget;
        // A header that cannot be read is answered when the others are read too.
        let time = OutsideCall::time(&message.headers, budget).unwrap_or(budget);
        let until = Deadline::After(time).at();
        let start_by = until.checked_sub(IN_ADVANCE.min(time / 10)).unwrap_or(until);
        Self { message, until, start_by }
    }
}

impl std::ops::Deref for Taken {
    type Target = Inbound;

    fn deref(&self) -> &Inbound {
        &self.message
    }
}

/// Serves a call that somebody made on a public subject: a CLI, a gateway, another language.
/// `subject` is the public or the mapped one.
pub(super) fn outside(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Taken) {
    let asked = if hosted.keyed { Asked::keyed(subject) } else { Asked::service(subject) };
    let Some(asked) = asked.filter(|asked| asked.verb != PROBE_VERB) else { return };
    let reply = match message.reply.as_deref() {
        None => None,
        Some(reply) if around.subjects.may_reply_to(reply) => Subject::parse(reply).ok(),
        Some(reply) => {
            tracing::warn!(subject, reply, "the reply subject is neither an inbox nor a node's; the call is dropped");
            return;
        }
    };
    let (target, outside, wire) = match check_outside(around, hosted, &asked, &message) {
        Ok(checked) => checked,
        Err(error) => return send_outside(around, reply, WireOutcome::Failure(error)),
    };
    let outsider = reply.as_ref().is_some_and(|reply| Subjects::is_inbox(reply.as_str()));
    let write = {
        let (around, hosted, kept) = (around.clone(), hosted.clone(), message.clone());
        let subject = subject.to_owned();
        move |outcome| match outcome {
            // Between the look at the gate and the turn the partition was given away.
            WireOutcome::Failure(error) if error.kind() == ErrorKind::Moved => {
                super::passing::pass_on(&around, &hosted, &subject, kept)
            }
            outcome => send_outside(&around, reply, outcome),
        }
    };
    // A node that asked gives up by itself.
    let (answer, started) = if outsider {
        let key = if hosted.keyed { target.key.as_str() } else { "" };
        let (answer, started) = answered_in_time(around, (hosted.name, key), &message, write);
        (answer, Some(started))
    } else {
        (WireAnswer::new(write), None)
    };
    let call = WireCall {
        call: Call { deadline: Deadline::At(message.until), ..outside.call },
        codec: Codec::Json,
        body: message.message.body,
        by_hand: outside.by_hand,
        told: false,
        received: std::time::Instant::now(),
        answer,
        started,
    };
    wire.deliver(&target, call, None);
}

/// An answer that is given by the end of the call's time, whoever has the call then. What waits until then is not run
/// any more; of a turn that runs it is not known what it does.
fn answered_in_time(
    around: &Arc<Surroundings>,
    (actor, key): (&'static str, &str),
    message: &Taken,
    write: impl FnOnce(WireOutcome) + Send + 'static,
) -> (WireAnswer, Arc<AtomicBool>) {
    let started = Arc::new(AtomicBool::new(false));
    let write = Arc::new(Mutex::new(Some(write)));
    let (answered, mut answer_given) = oneshot::channel::<Infallible>();
    let late = (started.clone(), write.clone(), key.to_owned());
    let (start_by, until) = (message.start_by, message.until);
    around.runtime.spawn(async move {
        let (started, write, key) = late;
        if timeout_at(start_by, &mut answer_given).await.is_ok() {
            return;
        }
        let error = if started.swap(true, Ordering::AcqRel) {
            if timeout_at(until, answer_given).await.is_ok() {
                return;
            }
            // Callers in Rust are told so too, and have another way to ask for more.
            let error = not_ended(actor, &key);
            Error::new(error.kind(), format!("{}. One that may take longer says so in {TIMEOUT}", error.message()))
        } else {
            not_started(actor, &key)
        };
        let write = write.lock().take();
        if let Some(write) = write {
            write(WireOutcome::Failure(error));
        }
    });
    let answer = WireAnswer::new(move |outcome| {
        let _answered = answered;
        let write = write.lock().take();
        if let Some(write) = write {
            write(outcome);
        }
    });
    (answer, started)
}

type Checked = (Target, OutsideCall, Arc<dyn WireRoute>);

fn check_outside(
    around: &Surroundings,
    hosted: &Hosted,
    asked: &Asked<'_>,
    message: &Inbound,
) -> Result<Checked, Error> {
    let target = if hosted.keyed {
        let key = Key::from_token(asked.token)?;
        Target { partition: around.partition_of(&key), key }
    } else {
        around.anywhere.clone()
    };
    let verb = hosted.verb(asked.verb)?;
    around.check_payload(message.body.len())?;
    let outside = OutsideCall::read(&message.headers, around.settings.budget)?;
    Ok((target, outside, verb.wire.clone()))
}

fn send_outside(around: &Arc<Surroundings>, reply: Option<Subject>, outcome: WireOutcome) {
    let Some(reply) = reply else {
        // Its sender has no way to hear of it: whoever runs the node does.
        if let Some(error) = outcome.error_body() {
            tracing::warn!(kind = error.kind, "a message without a reply subject came to nothing: {}", error.message);
        }
        return;
    };
    let sent = send_or_say_why(around, outcome, |outcome| {
        let (headers, body) = match outcome.error_body() {
            Some(error) => (error_headers(&error), error_body(&error)),
            None => match outcome {
                WireOutcome::Reply(body) => (reply_headers(), body),
                WireOutcome::Aged { body, age } => (aged_headers(age), body),
                WireOutcome::Refusal { .. } | WireOutcome::Failure(_) => return Ok(()),
            },
        };
        around.answer(Outbound::new(reply.clone(), body).with_headers(headers))
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer could not be sent; its caller learns of it at its deadline");
    }
}

/// Sends an outcome. One that the broker does not take for its size becomes an error that says so.
pub(super) fn send_or_say_why(
    around: &Surroundings,
    outcome: WireOutcome,
    send: impl Fn(WireOutcome) -> Result<(), Error>,
) -> Result<(), Error> {
    let ran = !matches!(&outcome, WireOutcome::Failure(error) if error.is_retryable());
    match send(limited(around, outcome)) {
        Err(error) if error.kind() == ErrorKind::PayloadTooLarge => {
            let details = serde_json::json!({ "ran": ran });
            let why = format!("the answer is too large to be sent: {error}");
            send(WireOutcome::Failure(Error::new(ErrorKind::PayloadTooLarge, why).with_details(details)))
        }
        sent => sent,
    }
}

/// A reply above the app's limit becomes an error that says so: the turn has run.
fn limited(around: &Surroundings, outcome: WireOutcome) -> WireOutcome {
    let bytes = match &outcome {
        WireOutcome::Reply(body) | WireOutcome::Aged { body, .. } | WireOutcome::Refusal { body, .. } => body.len(),
        WireOutcome::Failure(_) => 0,
    };
    let most = around.settings.payload;
    if bytes <= most {
        return outcome;
    }
    let why = format!("the turn has run, and its reply has {bytes} bytes; the limit is {most}");
    WireOutcome::Failure(
        Error::new(ErrorKind::PayloadTooLarge, why)
            .with_details(serde_json::json!({ "bytes": bytes, "limit_bytes": most, "ran": true })),
    )
}

/// Answers an outsider's call with an error, where it names a reply subject that may be used.
pub(super) fn refuse(around: &Arc<Surroundings>, message: &Inbound, error: Error) {
    let reply = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
    let reply = reply.and_then(|reply| Subject::parse(reply).ok());
    send_outside(around, reply, WireOutcome::Failure(error));
}

pub(super) fn error_body(error: &ErrorBody) -> Bytes {
    serde_json::to_vec(error).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
}
