//! One durable tell on its way to its receiver, until its turn has committed or nothing can come of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::command::Stored;
use crate::call::{Call, Chain, Clock, Deadline};
use crate::codec::Codec;
use crate::contract::Mode;
use crate::error::{Error, ErrorBody, ErrorKind, REFUSED};
use crate::key::Key;
use crate::node::duty::Post;
use crate::node::{Located, Surroundings};
use crate::pauses::Pauses;
use crate::pending::Got;
use crate::reference::Target;
use crate::routes::{WireAnswer, WireCall, WireOutcome};
use crate::wire::{AnswerKind, QuestionHead, TRACE};

/// How long one attempt may wait for its turn to start; on another node, for its end.
const ATTEMPT: Duration = Duration::from_secs(60);
/// The pauses after attempts that failed.
const FAILED_FIRST: Duration = Duration::from_millis(100);
const FAILED_MAX: Duration = Duration::from_secs(30);
/// The pauses while nobody can be reached, at the most; a change among the nodes ends them.
const AWAY_FIRST: Duration = Duration::from_millis(20);
const AWAY_MAX: Duration = Duration::from_secs(1);
/// A turn that panicked so often in a row ends its tell: one panic more would put its actor into quarantine.
const PANICS_MAX: u32 = 4;

/// How a tell ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its turn has committed.
    Done,
    /// It cannot be delivered.
    Dead(Death),
    /// The lane is another's now.
    Left,
}

/// Why a tell cannot be delivered.
#[derive(Debug)]
pub(super) struct Death {
    /// The kind of the last error, or `refused`.
    pub(super) kind: String,
    pub(super) cause: String,
    pub(super) attempts: u32,
}

/// What one attempt came to.
enum Came {
    Done,
    /// It certainly was not run, and nobody is to blame.
    NotRun(Error),
    Failed(Error),
    /// No attempt will do better.
    Never {
        kind: String,
        cause: String,
    },
}

/// Delivers a tell, as often as its host allows.
pub(super) async fn deliver(post: &Post, tell: &Stored) -> Ended {
    let mut failed = Pauses::new(FAILED_FIRST, FAILED_MAX);
    let mut away = Pauses::new(AWAY_FIRST, AWAY_MAX);
    let (mut attempts, mut panics) = (0, 0);
    loop {
        if !post.is_current() {
            return Ended::Left;
        }
        let mut versions = post.around.cluster.versions();
        // A turn that has begun is waited for, also when the lane has gone: then it need not be told twice.
        let error = match Box::pin(attempt(post, tell)).await {
            Came::Done => return Ended::Done,
            Came::Never { kind, cause } => return Ended::Dead(Death { kind, cause, attempts: attempts + 1 }),
            Came::NotRun(error) => {
                tracing::trace!(subject = tell.record.subject, %error, "a durable tell waits");
                let nap = Instant::now() + away.next();
                let wait = post.around.until(nap, versions.changed());
                post.stop.run_until_cancelled(wait).await;
                continue;
            }
            Came::Failed(error) => error,
        };
        away.begin_anew();
        attempts += 1;
        panics = if error.kind() == ErrorKind::Panicked { panics + 1 } else { 0 };
        if attempts >= post.hosted.tell_attempts || panics >= PANICS_MAX {
            return Ended::Dead(Death { kind: error.kind().name(), cause: error.message().to_owned(), attempts });
        }
        let pause = failed.next();
        tracing::debug!(subject = tell.record.subject, attempts, %error, "a durable tell is tried again in {pause:?}");
        post.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

async fn attempt(post: &Post, tell: &Stored) -> Came {
    let around = &post.around;
    if !post.holds() {
        return Came::NotRun(Error::new(ErrorKind::Unavailable, "the lease of this node cannot be proved just now"));
    }
    let never = |error: &Error| Came::Never { kind: error.kind().name(), cause: error.message().to_owned() };
    let Some(asked) = tell.asked() else {
        return never(&Error::new(ErrorKind::BadRequest, "its subject is none of a durable tell"));
    };
    let key = match Key::from_token(asked.token) {
        Ok(key) => key,
        Err(error) => return never(&error),
    };
    if let Err(error) = around.check_payload(tell.record.body.len()) {
        return never(&error);
    }
    if tell.has_expired() {
        return never(&Error::new(
            ErrorKind::DeadlineExceeded,
            "the time that it names was over before its turn started",
        ));
    }
    let target = Target { partition: around.partition_of(&key), key };
    let call = Call {
        deadline: Deadline::After(ATTEMPT).fixed(),
        // Nobody waits for it, so it can be part of no circle of waiting.
        chain: Chain::default(),
        turn: Some(tell.id),
        attempt: 1,
        born: tell.born,
        trace: tell.record.headers.get(TRACE).filter(|text| text.len() <= 256).map(Arc::from),
        stored: true,
        digest: None,
    };
    let came = match around.cluster.locate(post.hosted.name, target.partition) {
        Located::Here { .. } => here(post, tell, asked.verb, &target, call).await,
        Located::Node { id, epoch, .. } => there(around, tell, (&id, epoch), (asked.verb, &target), &call).await,
        Located::Vacant => Err(Error::new(ErrorKind::Unavailable, "its partition has no owner just now")),
        Located::NoHosts => Err(Error::new(ErrorKind::NoHost, format!("no node hosts {}", post.hosted.name))),
    };
    came.map_or_else(judged, outcome_of)
}

/// To the actor on this node.
async fn here(post: &Post, tell: &Stored, verb: &str, target: &Target, call: Call) -> Result<WireOutcome, Error> {
    let wire = post.hosted.verb(verb)?.wire.clone();
    let (answer, outcome) = oneshot::channel();
    let answer = WireAnswer::new(move |outcome| drop(answer.send(outcome)));
    let body = tell.record.body.clone();
    let by_hand = tell.by_hand;
    let received = std::time::Instant::now();
    let call = WireCall { call, codec: Codec::Json, body, received, by_hand, told: false, answer, started: None };
    wire.deliver(target, call, None);
    outcome.await.map_err(|_| Error::new(ErrorKind::Unknown, "its turn ended without an answer"))
}

/// To the actor on another node.
async fn there(
    around: &Arc<Surroundings>,
    tell: &Stored,
    (node, epoch): (&Arc<str>, u64),
    (verb, target): (&str, &Target),
    call: &Call,
) -> Result<WireOutcome, Error> {
    let actor = tell.asked().map_or("", |asked| asked.actor);
    let form = (Codec::Json, None);
    let mut flight = around.flight(Some(node.clone()), None);
    let head = QuestionHead::new(
        flight.number(),
        actor,
        target.key.as_str(),
        verb,
        Mode::Tell,
        form,
        call,
        call.turn.unwrap_or(tell.id),
        epoch,
        Clock::read(),
    );
    around.frames.questions_to(node).ask(around, &head, &tell.record.body)?;
    match flight.wait(around, call.deadline.at()).await.of_envelope() {
        Got::Answer(answer) => Ok(match answer.head.kind {
            AnswerKind::Reply => WireOutcome::Reply(answer.body),
            AnswerKind::Refusal => refusal(&answer.body),
            AnswerKind::Moved => WireOutcome::Failure(Error::new(ErrorKind::Moved, "its partition changes hands")),
            AnswerKind::Failure => WireOutcome::Failure(failure(&answer.body)),
        }),
        Got::NoOne => Err(Error::new(ErrorKind::Unavailable, format!("its owner {node} is not there"))),
        Got::Lost(why) => Err(Error::new(ErrorKind::Unknown, format!("it was sent to {node}, and {why}"))),
        Got::TimedOut => Err(Error::new(ErrorKind::Unknown, format!("{node} did not answer within {ATTEMPT:?}"))),
    }
}

fn refusal(body: &Bytes) -> WireOutcome {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    WireOutcome::Refusal { body: body.clone(), code: 409, message: String::new(), json }
}

fn failure(body: &Bytes) -> Error {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.into(),
        Err(error) => Error::new(ErrorKind::BadReply, "the error that was answered cannot be read").with_source(error),
    }
}

fn outcome_of(outcome: WireOutcome) -> Came {
    match outcome {
        WireOutcome::Reply(_) | WireOutcome::Aged { .. } => Came::Done,
        // Its actor said no, and nobody waits to hear of it.
        WireOutcome::Refusal { message, json, .. } => {
            Came::Never { kind: REFUSED.to_owned(), cause: format!("{message} {json}").trim_start().to_owned() }
        }
        WireOutcome::Failure(error) => judged(error),
    }
}

/// Whether another attempt may do better, and whether this one counts.
fn judged(error: Error) -> Came {
    let details = |name: &str| error.details().is_some_and(|details| details[name] == true);
    match error.kind() {
        // The turn has run and is kept; only its reply, which nobody wants, could not be sent or read.
        ErrorKind::PayloadTooLarge if details("ran") => Came::Done,
        ErrorKind::BadReply => Came::Done,
        ErrorKind::Unavailable
        | ErrorKind::NoHost
        | ErrorKind::Stopped
        | ErrorKind::Moved
        | ErrorKind::Overloaded
        | ErrorKind::DeadlineExceeded => Came::NotRun(error),
        ErrorKind::Interrupted if details("stopped") => Came::NotRun(error),
        ErrorKind::BadRequest
        | ErrorKind::BadKey
        | ErrorKind::UnknownVerb
        | ErrorKind::Expired
        | ErrorKind::PayloadTooLarge
        | ErrorKind::IdReused
        | ErrorKind::CallCycle
        | ErrorKind::ChainTooLong
        // Some of its steps were kept, and every attempt is answered so.
        | ErrorKind::Interrupted => Came::Never { kind: error.kind().name(), cause: error.message().to_owned() },
        _ => Came::Failed(error),
    }
}
