//! Routes: from a verb to its handler, for callers on this node and for messages from the wire.

mod decode;
mod ready;
mod verbs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::decode::decode;
pub(crate) use self::verbs::Verb;
pub use self::verbs::Verbs;
use self::verbs::{MakeJob, RunReady};
use crate::actor::Actor;
use crate::call::{Call, Deadline};
use crate::codec::Codec;
use crate::contract::{Contract, IsMode, Message, Mode, Refusal};
use crate::engine::{Host, Job, Outcome, ReplyTo, Started as StartedFlag};
use crate::error::{AskError, Error, ErrorBody, ErrorKind, REFUSED};
use crate::node::{FrameAnswer, Runner, Surroundings};
use crate::pool::Pool;
use crate::reference::Target;
use crate::stats::VerbStats;

/// What runs an actor type on this node.
pub(crate) enum Engine<A: Actor> {
    Keyed(Arc<Host<A>>),
    Pool(Arc<Pool<A>>),
}

impl<A: Actor> Clone for Engine<A> {
    fn clone(&self) -> Self {
        match self {
            Engine::Keyed(host) => Engine::Keyed(host.clone()),
            Engine::Pool(pool) => Engine::Pool(pool.clone()),
        }
    }
}

impl<A: Actor> Engine<A> {
    fn around(&self) -> &Arc<Surroundings> {
        match self {
            Engine::Keyed(host) => &host.around,
            Engine::Pool(pool) => &pool.around,
        }
    }

    fn admit(
        &self,
        to: &Target,
        call: &Call,
        how: (bool, bool),
        make: impl FnOnce() -> Option<Box<dyn Job<A>>>,
    ) -> Result<(), Error> {
        match self {
            Engine::Keyed(host) => host.admit(to, call, how, make),
            Engine::Pool(pool) => pool.admit(call, make),
        }
    }
}

/// How a call from this node began.
pub(crate) enum Started<M: Message> {
    /// It is over already.
    Done(Outcome<M>),
    /// It runs or waits for its turn.
    Waiting(Waiting<M>),
    /// Another node owns the actor; the message is untouched.
    Elsewhere,
}

/// A call whose outcome comes later.
pub(crate) struct Waiting<M: Message> {
    pub(crate) outcome: oneshot::Receiver<Outcome<M>>,
    pub(crate) deadline: tokio::time::Instant,
    /// Set by whoever comes first: the turn that starts, or the caller that gives up.
    pub(crate) started: StartedFlag,
    /// Its place among the calls on their way.
    pub(crate) place: OwnedSemaphorePermit,
}

/// The way to a handler on the same node: typed, without codec or broker.
pub(crate) trait LocalRoute<M: Message>: Send + Sync {
    fn start(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Started<M>;

    /// Sends without waiting for an outcome. `Ok(false)`: another node owns the actor.
    fn tell(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Result<bool, Error>;
}

/// What a wire call is answered with.
pub(crate) enum WireOutcome {
    Reply(Bytes),
    /// A reply that may be as old as this.
    Aged {
        body: Bytes,
        age: Duration,
    },
    Refusal {
        body: Bytes,
        code: u16,
        message: String,
        json: serde_json::Value,
    },
    Failure(Error),
}

impl WireOutcome {
    /// The body of an error answer for outsiders; `None` if it is a reply.
    pub(crate) fn error_body(&self) -> Option<ErrorBody> {
        match self {
            WireOutcome::Reply(_) | WireOutcome::Aged { .. } => None,
            WireOutcome::Refusal { code, message, json, .. } => Some(ErrorBody {
                code: *code,
                kind: REFUSED.to_owned(),
                message: message.clone(),
                retryable: false,
                details: Some(json.clone()),
            }),
            WireOutcome::Failure(error) => Some(error.into()),
        }
    }
}

/// A call from the wire, still encoded.
pub(crate) struct WireCall {
    pub(crate) call: Call,
    pub(crate) codec: Codec,
    pub(crate) body: Bytes,
    pub(crate) received: Instant,
    /// Whether fields that nobody knows are refused.
    pub(crate) by_hand: bool,
    /// Whether it is answered when it is admitted, whatever its verb.
    pub(crate) told: bool,
    pub(crate) answer: WireAnswer,
    /// Set by whoever comes first: the turn that starts, or whoever gives up for the sender.
    pub(crate) started: Option<StartedFlag>,
}

/// Writes the answer of a wire call; answers `Interrupted` if it is dropped without one.
pub(crate) struct WireAnswer(Option<Writer>);

enum Writer {
    Any(Box<dyn FnOnce(WireOutcome) + Send>),
    Frame(FrameAnswer),
}

impl Writer {
    fn write(self, outcome: WireOutcome) {
        match self {
            Self::Any(write) => write(outcome),
            Self::Frame(answer) => answer.send(outcome),
        }
    }
}

impl WireAnswer {
    pub(crate) fn new(write: impl FnOnce(WireOutcome) + Send + 'static) -> Self {
        Self(Some(Writer::Any(Box::new(write))))
    }

    /// To another node.
    pub(crate) fn to_frame(answer: FrameAnswer) -> Self {
        Self(Some(Writer::Frame(answer)))
    }

    pub(crate) fn send(mut self, outcome: WireOutcome) {
        if let Some(writer) = self.0.take() {
            writer.write(outcome);
        }
    }
}

impl Drop for WireAnswer {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            let why = "the node stopped before the turn ended; it may have run in part";
            let error = Error::new(ErrorKind::Interrupted, why).with_details(serde_json::json!({ "stopped": true }));
            writer.write(WireOutcome::Failure(error));
        }
    }
}

/// The way from the wire to a handler. The order of calls is the order of turns for one key.
pub(crate) trait WireRoute: Send + Sync {
    /// With a runner, the turn may begin on the caller's stack; it is told before.
    fn deliver(&self, to: &Target, call: WireCall, on: Option<&Runner>);
}

struct Route<A: Actor, M: Message> {
    engine: Engine<A>,
    job: MakeJob<A, M>,
    ready: Option<RunReady<A, M>>,
    /// Whether it is content with what the node has, also while the lease is not proved.
    stale: bool,
    stats: Arc<VerbStats>,
}

impl<A, M> LocalRoute<M> for Route<A, M>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    fn start(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Started<M> {
        if let (Engine::Keyed(host), Some(ready)) = (&self.engine, self.ready) {
            match ready(host, to, message, call, &|| {}) {
                Ok(Some(outcome)) => {
                    self.stats.local.fetch_add(1, Ordering::Relaxed);
                    self.stats.ended(outcome.as_ref().err());
                    return Started::Done(outcome);
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Moved => return Started::Elsewhere,
                Err(error) => return self.not_admitted(error),
            }
        }
        let place = match self.engine.around().in_flight() {
            Ok(place) => place,
            Err(error) => return self.not_admitted(error),
        };
        let (reply, outcome) = oneshot::channel();
        let deadline = call.deadline.at();
        let started: StartedFlag = Arc::new(AtomicBool::new(false));
        let flag = started.clone();
        let admitted = self.engine.admit(to, call, (true, self.stale), || {
            let call = Call { deadline: Deadline::At(deadline), ..call.clone() };
            message.take().map(|message| (self.job)(message, call, ReplyTo::Local(reply, flag), self.stats.clone()))
        });
        match admitted {
            Ok(()) => {
                self.stats.local.fetch_add(1, Ordering::Relaxed);
                Started::Waiting(Waiting { outcome, deadline, started, place })
            }
            Err(error) if error.kind() == ErrorKind::Moved => Started::Elsewhere,
            Err(error) => self.not_admitted(error),
        }
    }

    fn tell(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Result<bool, Error> {
        match self.tell_now(to, message, call) {
            Ok(()) => {
                self.stats.local.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Moved => Ok(false),
            Err(error) => {
                self.stats.failed(&error);
                Err(error)
            }
        }
    }
}

impl<A, M> Route<A, M>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    fn tell_now(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Result<(), Error> {
        if let (Engine::Keyed(host), Some(ready)) = (&self.engine, self.ready)
            && let Some(outcome) = ready(host, to, message, call, &|| {})?
        {
            self.stats.ended(outcome.as_ref().err());
            return Ok(());
        }
        let deadline = call.deadline.fixed();
        self.engine.admit(to, call, (true, self.stale), || {
            let call = Call { deadline, ..call.clone() };
            message.take().map(|message| (self.job)(message, call, ReplyTo::Nobody, self.stats.clone()))
        })
    }

    fn turned_away(&self, answer: WireAnswer, error: Error) {
        if error.kind() != ErrorKind::Moved {
            self.stats.failed(&error);
        }
        answer.send(WireOutcome::Failure(error));
    }

    fn not_admitted(&self, error: Error) -> Started<M> {
        self.stats.failed(&error);
        Started::Done(Err(AskError::Failed(error)))
    }
}

impl<A, M> WireRoute for Route<A, M>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    fn deliver(&self, to: &Target, call: WireCall, on: Option<&Runner>) {
        let received = call.received;
        let message: M = match decode(&call) {
            Ok(message) => message,
            Err(error) => {
                self.stats.failed(&error);
                return call.answer.send(WireOutcome::Failure(error));
            }
        };
        let is_tell = !call.call.stored && (call.told || <M::Mode as IsMode>::MODE == Mode::Tell);
        let (codec, stats) = (call.codec, self.stats.clone());
        let mut message = Some(message);
        if let (Engine::Keyed(host), Some(ready), Some(runner)) = (&self.engine, self.ready, on) {
            match ready(host, to, &mut message, &call.call, &|| runner.begin()) {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    self.stats.ended(outcome.as_ref().err());
                    self.stats.timed(received);
                    let outcome =
                        if is_tell { WireOutcome::Reply(taken_in()) } else { encode_outcome::<M>(codec, outcome) };
                    return call.answer.send(outcome);
                }
                Err(error) => return self.turned_away(call.answer, error),
            }
        }
        // The answer moves into the job when there is one, and comes back when there is none.
        let mut answer = Some(call.answer);
        let admitted = self.engine.admit(to, &call.call, (on.is_some(), self.stale), || {
            on.into_iter().for_each(Runner::begin);
            let reply = if is_tell {
                // Somebody has said already that it is not run.
                if call.started.as_ref().is_some_and(|started| started.swap(true, Ordering::AcqRel)) {
                    return None;
                }
                ReplyTo::Nobody
            } else {
                let answer = answer.take()?;
                let around = self.stale.then(|| self.engine.around().clone());
                let write = move |outcome| {
                    stats.timed(received);
                    answer.send(match (encode_outcome::<M>(codec, outcome), around) {
                        (WireOutcome::Reply(body), Some(around)) => WireOutcome::Aged { body, age: around.age() },
                        (outcome, _) => outcome,
                    });
                };
                ReplyTo::Wire(Box::new(write), call.started.clone())
            };
            Some((self.job)(message.take()?, call.call.clone(), reply, self.stats.clone()))
        });
        let Some(answer) = answer else { return };
        match admitted {
            Ok(()) => answer.send(WireOutcome::Reply(taken_in())),
            Err(error) => self.turned_away(answer, error),
        }
    }
}

/// What a tell is answered once it is in the mailbox.
fn taken_in() -> Bytes {
    Bytes::from_static(b"{}")
}

fn encode_outcome<M: Message>(codec: Codec, outcome: Outcome<M>) -> WireOutcome {
    let encoded = match outcome {
        Ok(reply) => codec.encode(&reply).map(WireOutcome::Reply),
        Err(AskError::Refused(refusal)) => codec.encode(&refusal).map(|body| WireOutcome::Refusal {
            body,
            code: refusal.code(),
            message: refusal.to_string(),
            json: serde_json::to_value(&refusal).unwrap_or_default(),
        }),
        Err(AskError::Failed(error)) => Ok(WireOutcome::Failure(error)),
    };
    encoded.unwrap_or_else(|error| {
        let why = format!("the reply of {}.{} cannot be written", M::Contract::NAME, M::VERB);
        WireOutcome::Failure(Error::new(ErrorKind::Internal, why).with_source(error))
    })
}
