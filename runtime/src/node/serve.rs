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
use crate::contract::Mode;
use crate::error::{Error, ErrorBody, ErrorKind};
use crate::key::Key;
use crate::reference::Target;
use crate::routes::{WireAnswer, WireCall, WireOutcome};
use crate::subject::{Call as Asked, PROBE_VERB, Subject, Subjects};
use crate::transport::{Inbound, Outbound};
use crate::wire::{
    Answer, AnswerHead, AnswerKind, Frame, Manner, OutsideCall, Question, TIMEOUT, aged_headers, error_headers,
    reply_headers,
};

/// How long before the end of its time a call is given up that waits, at most.
const IN_ADVANCE: Duration = Duration::from_millis(300);

/// Serves a frame of another node. One that may be `old` is answered *moved*: its sender asks again, if it still waits.
pub(super) fn frame(around: &Arc<Surroundings>, message: Inbound, old: bool) {
    let Some(reply) = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply)) else {
        tracing::warn!(subject = message.subject, "a frame names no reply subject of a node; it is dropped");
        return;
    };
    let Ok(reply) = Subject::parse(reply) else { return };
    match Frame::read(&message.body) {
        Ok(Frame::Questions(questions)) => {
            for asked in questions {
                question(around, asked, &reply, old);
            }
        }
        Ok(Frame::Answers(_)) => tracing::warn!(subject = message.subject, "answers arrived where questions are asked"),
        Err(error) => tracing::warn!(%error, "a frame cannot be read; it is dropped"),
    }
}

fn question(around: &Arc<Surroundings>, asked: Question, reply: &Subject, old: bool) {
    let (number, codec) = (asked.head.number, asked.head.codec);
    let answer = {
        let (around, reply, actor) = (around.clone(), reply.clone(), asked.head.actor.clone());
        let partition = Key::new(&asked.head.key).map_or(0, |key| around.partition_of(&key));
        WireAnswer::new(move |outcome| {
            let epoch = around.hosted(&actor).map_or(0, |hosted| hosted.gate.epoch(partition));
            let send = |outcome| {
                let (kind, body) = match outcome {
                    WireOutcome::Reply(body) | WireOutcome::Aged { body, .. } => (AnswerKind::Reply, body),
                    WireOutcome::Refusal { body, .. } => (AnswerKind::Refusal, body),
                    WireOutcome::Failure(error) if error.kind() == ErrorKind::Moved => {
                        (AnswerKind::Moved, Bytes::new())
                    }
                    WireOutcome::Failure(error) => (AnswerKind::Failure, error_body(&ErrorBody::from(&error))),
                };
                let answer = Answer { head: AnswerHead::new(number, kind, codec, epoch), body };
                around.answer(Outbound::new(reply.clone(), Frame::answers(vec![answer])?))
            };
            let sent = send_or_say_why(&around, outcome, send);
            if let Err(error) = sent {
                tracing::debug!(%error, "an answer could not be sent; its caller learns of it at its deadline");
            }
        })
    };
    if old {
        let why = "this node stood still, or was cut off, when this came";
        return answer.send(WireOutcome::Failure(Error::new(ErrorKind::Moved, why)));
    }
    if let Err((error, answer)) = deliver_question(around, asked, answer) {
        answer.send(WireOutcome::Failure(error));
    }
}

fn deliver_question(
    around: &Arc<Surroundings>,
    asked: Question,
    answer: WireAnswer,
) -> Result<(), (Error, WireAnswer)> {
    let Question { head, body } = asked;
    let checked = (|| {
        let hosted = around.hosted(&head.actor).ok_or_else(|| not_here(around, &head.actor))?;
        let key = Key::new(&head.key)?;
        let call = head.call()?;
        let verb = hosted.verb(&head.verb)?;
        if head.codec == Codec::Bincode && (head.schema.is_none() || head.schema != verb.fingerprint) {
            let why = format!("{}.{} has another form on this node; send JSON", head.actor, head.verb);
            return Err(Error::new(ErrorKind::CodecMismatch, why));
        }
        check_mode(verb.contract.mode, head.mode, &head.verb)?;
        let target = Target { partition: around.partition_of(&key), key };
        // Sent under another claim: what its sender sent before it may have come while that claim was another node's,
        // and be on its way here again.
        if hosted.gate.epoch(target.partition) != head.epoch {
            return Err(Error::new(ErrorKind::Moved, "the partition has changed hands"));
        }
        Ok((verb.wire.clone(), target, call))
    })();
    match checked {
        Ok((wire, target, call)) => {
            wire.deliver(
                &target,
                WireCall {
                    call,
                    codec: head.codec,
                    body,
                    by_hand: false,
                    told: head.mode == Manner::Tell,
                    answer,
                    started: None,
                },
            );
            Ok(())
        }
        Err(error) => Err((error, answer)),
    }
}

/// A message may be told whatever its verb is; a verb that has no reply cannot be asked. What its
/// sender takes for a read is sent again when its answer is lost, so it must be one here too.
fn check_mode(has: Mode, asked: Manner, verb: &str) -> Result<(), Error> {
    if has == Mode::Tell && !matches!(asked, Manner::Tell | Manner::Stored) {
        return Err(Error::new(ErrorKind::BadRequest, format!("{verb} is a tell: it has no reply to wait for")));
    }
    if asked == Manner::Read && has != Mode::Read {
        let why = format!("{verb} is a turn on this node, and its sender takes it for a read: their contracts differ");
        return Err(Error::new(ErrorKind::BadRequest, why));
    }
    Ok(())
}

fn not_here(around: &Surroundings, actor: &str) -> Error {
    Error::new(ErrorKind::Moved, format!("the node {} does not host {actor}", around.id))
}

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
        answer,
        started,
    };
    wire.deliver(&target, call);
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

type Checked = (Target, OutsideCall, Arc<dyn crate::routes::WireRoute>);

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
fn send_or_say_why(
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

fn error_body(error: &ErrorBody) -> Bytes {
    serde_json::to_vec(error).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_turn_is_not_asked_as_a_read() {
        let kind = |has, asked| check_mode(has, asked, "add").map_err(|error| error.kind());
        // A read is sent again when its answer is lost, so what is none must not be taken for one.
        assert_eq!(kind(Mode::Ask, Manner::Read), Err(ErrorKind::BadRequest));
        assert_eq!(kind(Mode::Tell, Manner::Read), Err(ErrorKind::BadRequest));
        assert_eq!(kind(Mode::Tell, Manner::Ask), Err(ErrorKind::BadRequest));
        for (has, asked) in [(Mode::Read, Manner::Read), (Mode::Read, Manner::Ask), (Mode::Ask, Manner::Ask)] {
            assert_eq!(kind(has, asked), Ok(()));
        }
        for has in [Mode::Read, Mode::Ask, Mode::Tell] {
            for told in [Manner::Tell, Manner::Stored] {
                assert_eq!(kind(has, told), Ok(()), "whatever its verb is, a message may be told");
            }
        }
    }
}
