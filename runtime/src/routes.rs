//! Routes: from a verb to its handler, for callers on this node and for messages from the wire.

mod ready;

use std::any::{Any, TypeId};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::ready::{look_ready, run_ready};
use crate::actor::{Actor, Handle, Read};
use crate::call::{Call, Deadline};
use crate::codec::{Codec, Fingerprint, from_person};
use crate::contract::{Contract, IsMode, Message, Mode, Refusal, VerbContract, mode};
use crate::engine::{AskJob, Host, Job, Outcome, ReadJob, ReplyTo, Started as StartedFlag, cause_of};
use crate::error::{AskError, Error, ErrorBody, ErrorKind, REFUSED};
use crate::node::Surroundings;
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
        inline: bool,
        make: impl FnOnce() -> Option<Box<dyn Job<A>>>,
    ) -> Result<(), Error> {
        match self {
            Engine::Keyed(host) => host.admit(to, call, inline, make),
            Engine::Pool(pool) => pool.admit(call, make),
        }
    }
}

/// The handlers of an actor, named one by one in [`Actor::verbs`].
pub struct Verbs<A: Actor> {
    makers: Vec<MakeVerb<A>>,
}

impl<A: Actor> Verbs<A> {
    pub(crate) fn of() -> Self {
        let mut verbs = Self { makers: Vec::new() };
        A::verbs(&mut verbs);
        verbs
    }

    /// A message that asks for a turn and gets a reply.
    pub fn ask<M>(&mut self)
    where
        M: Message<Contract = A::Contract, Mode = mode::Ask>,
        A: Handle<M>,
    {
        self.push::<M>(
            |message, call, reply, stats| Box::new(AskJob::new(message, call, reply, stats)),
            Some(run_ready::<A, M>),
        );
    }

    /// A message that asks for a turn and gets no reply.
    pub fn tell<M>(&mut self)
    where
        M: Message<Contract = A::Contract, Mode = mode::Tell>,
        A: Handle<M>,
    {
        self.push::<M>(
            |message, call, reply, stats| Box::new(AskJob::new(message, call, reply, stats)),
            Some(run_ready::<A, M>),
        );
    }

    /// A message that only looks.
    pub fn read<M>(&mut self)
    where
        M: Message<Contract = A::Contract, Mode = mode::Read>,
        A: Read<M>,
    {
        self.push::<M>(
            |message, call, reply, stats| Box::new(ReadJob::new(message, call, reply, stats)),
            Some(look_ready::<A, M>),
        );
    }

    pub(crate) fn build(self, engine: &Engine<A>) -> Vec<Verb> {
        self.makers.into_iter().map(|make| make(engine)).collect()
    }

    fn push<M>(&mut self, job: MakeJob<A, M>, ready: Option<RunReady<A, M>>)
    where
        M: Message<Contract = A::Contract>,
    {
        self.makers.push(Box::new(move |engine| {
            let stats = Arc::new(VerbStats::default());
            let fingerprint = Fingerprint::of::<M>();
            let route = Arc::new(Route { engine: engine.clone(), job, ready, stats: stats.clone() });
            Verb {
                contract: VerbContract::of::<M>(),
                message: TypeId::of::<M>(),
                local: Box::new(route.clone() as Arc<dyn LocalRoute<M>>),
                wire: route,
                stats,
                fingerprint,
            }
        }));
    }
}

type MakeVerb<A> = Box<dyn FnOnce(&Engine<A>) -> Verb>;
type MakeJob<A, M> = fn(M, Call, ReplyTo<M>, Arc<VerbStats>) -> Box<dyn Job<A>>;
/// Runs a handler that never waits on the caller's stack; `None` if it must be queued.
type RunReady<A, M> = fn(&Arc<Host<A>>, &Target, &mut Option<M>, &Call) -> Result<Option<Outcome<M>>, Error>;

/// One verb of a hosted actor.
pub(crate) struct Verb {
    pub(crate) contract: VerbContract,
    pub(crate) message: TypeId,
    /// An `Arc<dyn LocalRoute<M>>` of the verb's message type.
    local: Box<dyn Any + Send + Sync>,
    pub(crate) wire: Arc<dyn WireRoute>,
    pub(crate) stats: Arc<VerbStats>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Verb {
    /// A verb that has no typed callers on its own node.
    #[cfg(feature = "ractor")]
    pub(crate) fn exposed(contract: VerbContract, wire: Arc<dyn WireRoute>, stats: Arc<VerbStats>) -> Self {
        Self { contract, message: TypeId::of::<()>(), local: Box::new(()), wire, stats, fingerprint: None }
    }

    pub(crate) fn local<M: Message>(&self) -> Option<&dyn LocalRoute<M>> {
        self.local.downcast_ref::<Arc<dyn LocalRoute<M>>>().map(|route| &**route)
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
    Refusal { body: Bytes, code: u16, message: String, json: serde_json::Value },
    Failure(Error),
}

impl WireOutcome {
    /// The body of an error answer for outsiders; `None` if it is a reply.
    pub(crate) fn error_body(&self) -> Option<ErrorBody> {
        match self {
            WireOutcome::Reply(_) => None,
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
    /// Whether fields that nobody knows are refused.
    pub(crate) by_hand: bool,
    /// Whether it is answered when it is admitted, whatever its verb.
    pub(crate) told: bool,
    pub(crate) answer: WireAnswer,
}

/// Writes the answer of a wire call; answers `Interrupted` if it is dropped without one.
pub(crate) struct WireAnswer(Option<Box<dyn FnOnce(WireOutcome) + Send>>);

impl WireAnswer {
    pub(crate) fn new(write: impl FnOnce(WireOutcome) + Send + 'static) -> Self {
        Self(Some(Box::new(write)))
    }

    pub(crate) fn send(mut self, outcome: WireOutcome) {
        if let Some(write) = self.0.take() {
            write(outcome);
        }
    }
}

impl Drop for WireAnswer {
    fn drop(&mut self) {
        if let Some(write) = self.0.take() {
            let why = "the node stopped before the turn ended; it may have run in part";
            write(WireOutcome::Failure(Error::new(ErrorKind::Interrupted, why)));
        }
    }
}

/// The way from the wire to a handler. The order of calls is the order of turns for one key.
pub(crate) trait WireRoute: Send + Sync {
    fn deliver(&self, to: &Target, call: WireCall);
}

struct Route<A: Actor, M: Message> {
    engine: Engine<A>,
    job: MakeJob<A, M>,
    ready: Option<RunReady<A, M>>,
    stats: Arc<VerbStats>,
}

impl<A, M> LocalRoute<M> for Route<A, M>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    fn start(&self, to: &Target, message: &mut Option<M>, call: &Call) -> Started<M> {
        if let (Engine::Keyed(host), Some(ready)) = (&self.engine, self.ready) {
            match ready(host, to, message, call) {
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
        let call = Call { deadline: Deadline::At(deadline), ..call.clone() };
        let started: StartedFlag = Arc::new(AtomicBool::new(false));
        let flag = started.clone();
        let admitted = self.engine.admit(to, &call, true, || {
            message
                .take()
                .map(|message| (self.job)(message, call.clone(), ReplyTo::Local(reply, flag), self.stats.clone()))
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
            && let Some(outcome) = ready(host, to, message, call)?
        {
            self.stats.ended(outcome.as_ref().err());
            return Ok(());
        }
        let call = Call { deadline: call.deadline.fixed(), ..call.clone() };
        self.engine.admit(to, &call, true, || {
            message.take().map(|message| (self.job)(message, call.clone(), ReplyTo::Nobody, self.stats.clone()))
        })
    }

    fn not_admitted(&self, error: Error) -> Started<M> {
        self.stats.failed(&error);
        Started::Done(Err(AskError::Failed(error)))
    }

    fn decode(&self, call: &WireCall) -> Result<M, Error> {
        let contract = || {
            let schema = schemars::schema_for!(M);
            serde_json::json!({ "expected": schema })
        };
        let read = match call.codec {
            Codec::Json if call.by_hand => from_person(&call.body),
            codec => codec.decode(&call.body),
        };
        read.map_err(|why| {
            let kind = if call.codec == Codec::Bincode { ErrorKind::CodecMismatch } else { ErrorKind::BadRequest };
            Error::new(kind, format!("{}.{} takes {}: {why}", M::Contract::NAME, M::VERB, expected_text::<M>()))
                .with_details(contract())
        })
    }
}

fn undecoded<M: Message>(cause: &str) -> Error {
    let why = format!("the decoder of {}.{} panicked at this message: {cause}", M::Contract::NAME, M::VERB);
    tracing::error!(actor = M::Contract::NAME, verb = M::VERB, cause, "a message's decoder panicked");
    Error::new(ErrorKind::BadRequest, why)
}

/// The fields of a message in words, for error texts: `{user: string, lines: array, card: string}`.
fn expected_text<M: Message>() -> String {
    let schema = schemars::schema_for!(M);
    let Some(fields) = schema.get("properties").and_then(|fields| fields.as_object()) else {
        let plain = |kind: &str| schema.get("type").and_then(|named| named.as_str()) == Some(kind);
        let nothing = plain("null") || plain("object");
        return if nothing { "no fields: an empty body or {}" } else { "a message of another form" }.to_owned();
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(|names| names.as_array())
        .map(|names| names.iter().filter_map(|name| name.as_str()).collect())
        .unwrap_or_default();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, field)| {
            let optional = if required.contains(&name.as_str()) { "" } else { "?" };
            let kind = field.get("type").and_then(|kind| kind.as_str()).unwrap_or("value");
            format!("{name}{optional}: {kind}")
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}

impl<A, M> WireRoute for Route<A, M>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    fn deliver(&self, to: &Target, call: WireCall) {
        let received = Instant::now();
        // Who calls this has other messages to take: an author's decoder must not end that.
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| self.decode(&call)));
        let message = match decoded.unwrap_or_else(|panic| Err(undecoded::<M>(&cause_of(panic.as_ref())))) {
            Ok(message) => message,
            Err(error) => {
                self.stats.failed(&error);
                return call.answer.send(WireOutcome::Failure(error));
            }
        };
        let is_tell = call.told || <M::Mode as IsMode>::MODE == Mode::Tell;
        let (codec, stats) = (call.codec, self.stats.clone());
        let mut message = Some(message);
        // The answer moves into the job when there is one, and comes back when there is none.
        let mut answer = Some(call.answer);
        let admitted = self.engine.admit(to, &call.call, false, || {
            let reply = if is_tell {
                ReplyTo::Nobody
            } else {
                let answer = answer.take()?;
                ReplyTo::Wire(Box::new(move |outcome| {
                    stats.timed(received);
                    answer.send(encode_outcome::<M>(codec, outcome));
                }))
            };
            Some((self.job)(message.take()?, call.call.clone(), reply, self.stats.clone()))
        });
        let Some(answer) = answer else { return };
        match admitted {
            Ok(()) => answer.send(WireOutcome::Reply(Bytes::from_static(b"{}"))),
            Err(error) => {
                if error.kind() != ErrorKind::Moved {
                    self.stats.failed(&error);
                }
                answer.send(WireOutcome::Failure(error));
            }
        }
    }
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
