//! Refs: addresses of actors and services. Making one does no I/O, and it stays valid wherever the
//! actor goes.

mod service;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use self::service::ServiceRef;
use crate::call::{Call, Chain, Deadline, Hop, TurnId, not_ended, not_started, wall_ms};
use crate::context::{Gathered, gather};
use crate::contract::{Contract, IsMode, Keyed, Message, Mode, Replies};
use crate::engine::Outcome;
use crate::error::{AskError, Error, ErrorKind};
use crate::journal::{self, Slip};
use crate::key::Key;
use crate::node::{Hosted, Surroundings};
use crate::outbound::{self, Departure};
use crate::routes::{LocalRoute, Started, Waiting};
use crate::tell::{self, Told};
use crate::waits::{Age, Wait};

/// Which actor of its type a call is for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) key: Key,
    pub(crate) partition: u16,
}

/// Where a call comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// From outside any turn.
    Root,
    /// From a turn, whose deadline and chain it inherits.
    Turn {
        parent: TurnId,
        ordinals: Arc<AtomicU32>,
        deadline: Instant,
        chain: Chain,
        born: u64,
        /// Whether the turn may have been run before: then so may its calls have been made.
        again: bool,
        trace: Option<Arc<str>>,
        /// What becomes of its durable tells.
        tells: Tells,
    },
}

/// What becomes of the durable tells of a turn's address.
#[derive(Clone, Debug)]
pub(crate) enum Tells {
    /// They are kept with the turn.
    WithTurn(Slip),
    /// They are sent as they are made.
    AtOnce,
    /// There is no turn.
    Never,
}

impl Origin {
    fn call(&self, budget: Option<Duration>, default: Duration, target: impl Fn() -> String, verb: &str) -> Call {
        match self {
            Origin::Root => Call::root(budget.unwrap_or(default)),
            Origin::Turn { parent, ordinals, deadline, chain, born, again, trace, .. } => Call {
                // A budget of one's own replaces the turn's: compensating work may outlast it.
                deadline: budget.map_or(Deadline::At(*deadline), |budget| Deadline::After(budget).fixed()),
                chain: chain.clone(),
                turn: Some(parent.child(ordinals.fetch_add(1, Ordering::Relaxed), &target(), verb)),
                // A caller that was told no must not see an earlier attempt take effect after that.
                attempt: if *again { 2 } else { 1 },
                // Also if it is not known: the same call may come again under this id.
                born: *born,
                trace: trace.clone(),
                stored: false,
                digest: None,
            },
        }
    }
}

impl Origin {
    /// Which turn waits for a call, if one does.
    fn wait(&self, actor: &str, key: &str, call: &Call) -> Option<Wait> {
        let Origin::Turn { parent, chain, born, .. } = self else { return None };
        let to = Hop { actor: actor.to_owned(), key: key.to_owned() };
        let age = Age { born: *born, turn: *parent };
        Some(Wait { age, by: chain.hops().next()?.clone(), to, call: call.turn? })
    }
}

/// The address of one keyed actor.
///
/// From outside a turn: [`Node::actor`](crate::Node::actor); inside one:
/// [`Context::actor`](crate::Context::actor), which makes the call part of the turn.
///
/// ```
/// # use greenroom::prelude::*;
/// # #[contract(messages(Hello))]
/// # struct Greeter;
/// # #[message(Greeter, ask, reply = String)]
/// # struct Hello;
/// # async fn run(node: Node) -> Result<(), AskError<greenroom::contract::Never>> {
/// let ada: Ref<Greeter> = node.actor("ada");
/// let greeting = ada.ask(Hello).await?; // waits for the reply, 5 s at most
/// ada.within(std::time::Duration::from_millis(200)).tell(Hello).await?; // only until it is admitted
/// # Ok(()) }
/// ```
pub struct Ref<C: Contract<Kind = Keyed>> {
    around: Arc<Surroundings>,
    hosted: Option<Arc<Hosted>>,
    target: Result<Target, Error>,
    origin: Origin,
    budget: Option<Duration>,
    /// The caller's own id for its command.
    own: Option<TurnId>,
    contract: PhantomData<fn(C)>,
}

/// The longest id that a caller may give its command, in bytes.
const ID_BYTES_MAX: usize = 256;

impl<C: Contract<Kind = Keyed>> Ref<C> {
    pub(crate) fn new(around: Arc<Surroundings>, key: &str, origin: Origin) -> Self {
        let target = Key::new(key).map(|key| Target { partition: around.partition_of(&key), key });
        let hosted = around.hosted(C::NAME);
        Self { around, hosted, target, origin, budget: None, own: None, contract: PhantomData }
    }

    /// The same address for calls with a budget of their own: the default is the node's, 5 s
    /// unless set, or inside a turn what is left of the turn's time.
    #[must_use]
    pub fn within(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The same address for one command under an id of the caller's own, 1 to 256 bytes: a durable actor lets the
    /// command take effect once, however often and by whomever it is sent under this id, and gives every sender the
    /// same answer. So a program that was killed between sending a command and noting its reply may send it again
    /// when it is back. To everyone else the id is known as `Nats-Msg-Id`: the same text is the same id.
    ///
    /// - An id is for one message to one actor. Another message under it fails with `IdReused`.
    /// - It is remembered for ten minutes, from when the command took effect; what is sent again later takes effect
    ///   again. An actor that is to remember more than 1,024 such commands at once, or more than 256 KiB of them, answers
    ///   `Overloaded`.
    /// - A refusal is remembered too, and costs the actor's journal a record.
    /// - Reads, and actors that are not durable, take no notice of it.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # #[contract(messages(Hello))]
    /// # struct Greeter;
    /// # #[message(Greeter, ask, reply = String)]
    /// # struct Hello;
    /// # async fn run(node: Node) -> Result<(), AskError<greenroom::contract::Never>> {
    /// let greeting = node.actor::<Greeter>("ada").id("invoice-4711").ask(Hello).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        let id = id.as_ref();
        if (1..=ID_BYTES_MAX).contains(&id.len()) {
            self.own = Some(TurnId::named(id));
        } else {
            let why = format!("a command's id has 1 to {ID_BYTES_MAX} bytes; this one has {}", id.len());
            self.target = Err(Error::new(ErrorKind::BadRequest, why));
        }
        self
    }

    /// Sends a message and waits for the reply.
    ///
    /// What one node asks and tells one actor is taken in the order in which the calls were made, which is when their
    /// futures were first polled; also while the actor moves. A call that is not polled when it could go on is passed
    /// by the others after a second.
    ///
    /// To an actor on this node the call takes neither codec nor broker, and is polled once right
    /// here. Dropping the future gives up waiting; a turn that has started is not cut.
    ///
    /// A durable actor remembers its commands, so what it is asked is sent again within the budget, under the same
    /// id, when its node is lost, or cannot serve it just now; it takes effect once. For that, the message is kept as
    /// JSON, also on the actor's own node.
    ///
    /// # Errors
    /// `Refused` if the actor says no. `Failed` if it could not be asked, or if it is not known
    /// what became of the call: within the budget, with the cause as
    /// [`ErrorKind`].
    pub async fn ask<M>(&self, message: M) -> Outcome<M>
    where
        M: Message<Contract = C>,
        M::Mode: Replies,
    {
        let target = self.target()?;
        let call = self.call::<M>(target);
        let route = route::<M>(self.hosted.as_deref())?;
        let again = route.is_some() && mode_of::<M>() != Mode::Read && self.is_durable();
        let mut message = Some(message);
        if let Some(route) = route.filter(|_| !again && !self.is_behind(target)) {
            match route.start(target, &mut message, &call) {
                Started::Done(Err(AskError::Failed(error)))
                    if message.is_some() && self.is_durable() && error.kind() == ErrorKind::Unavailable => {}
                Started::Done(outcome) => return outcome,
                Started::Waiting(waiting) => return self.wait(target, waiting, &call).await,
                Started::Elsewhere => {}
            }
        }
        let late = call.deadline.has_passed();
        let mut departure = Departure::new(&self.around, message.ok_or_else(lost_message)?, call);
        let mut failed = None;
        if let Some(route) = route.filter(|_| again && !late && !self.is_behind(target)) {
            let outcome = match departure.start_here(route, target) {
                Started::Done(outcome) => Some(outcome),
                Started::Waiting(waiting) => Some(self.wait(target, waiting, departure.call()).await),
                Started::Elsewhere => None,
            };
            match outcome {
                Some(Err(AskError::Failed(error))) => failed = Some(error),
                Some(outcome) => return outcome,
                None => {}
            }
        }
        // The long way is boxed, so that nobody else pays for its size.
        let wait = self.origin.wait(C::NAME, target.key.as_str(), departure.call());
        let outcome = Box::pin(outbound::ask(&self.around, self.hosted.as_deref(), target, departure, failed));
        self.around.watched(wait, outcome).await
    }

    /// Sends a message without waiting for its turn: at most once. Returns when the message has
    /// been admitted to the actor's mailbox, on whichever node.
    /// To a durable actor it is sent again until it is admitted, under one id, so that its turn takes effect once at
    /// the most.
    ///
    /// On the actor's own node a handler that is a plain `fn` may run right here, before this
    /// returns. A message whose budget ends while it waits in the mailbox is dropped, and nobody is
    /// told.
    ///
    /// # Errors
    /// A retryable one if it was certainly not admitted, `Unknown` if that is not known.
    pub async fn tell<M>(&self, message: M) -> Result<(), Error>
    where
        M: Message<Contract = C>,
    {
        let target = self.target()?;
        // Nobody waits for a tell, so it can be part of no circle of waiting.
        let call = Call { chain: Chain::default(), ..self.call::<M>(target) };
        let mut message = Some(message);
        if let Some(route) = route::<M>(self.hosted.as_deref())?
            && !self.is_durable()
            && !self.is_behind(target)
            && route.tell(target, &mut message, &call)?
        {
            return Ok(());
        }
        let message = message.ok_or_else(lost_message)?;
        Box::pin(outbound::tell(&self.around, self.hosted.as_deref(), target, message, call)).await
    }

    /// Sends a message that the broker keeps until its turn has committed: at least once, and to a durable actor with
    /// effect once. Nobody need host the actor now. Nothing comes back: a reply is thrown away, and what cannot be
    /// delivered (a refusal, a message that fails again and again) is kept among the
    /// [dead letters](crate::Node::dead_letters).
    ///
    /// - From outside a turn, and in turns of actors that keep no journal: returns when the broker has stored the
    ///   message, within the budget.
    /// - In a turn of a durable actor: adds the message to the turn, and returns at once. It is kept in the turn's own
    ///   record and sent when that is stored; a refusal or a panic undoes it. [`Context::tell_durably`] is the same
    ///   for a plain `fn`. An address that outlives its turn fails with `Interrupted`.
    ///
    /// Tells of one sender to one actor keep their order: those of a durable actor in any case, others if each is
    /// awaited before the next is made. With [`id`](Ref::id), what is told again under that id takes effect once.
    ///
    /// Dropping the future before it is ready leaves open whether the message was stored.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # #[contract(messages(Hello))]
    /// # struct Greeter;
    /// # #[message(Greeter, tell)]
    /// # struct Hello;
    /// # async fn run(node: Node) -> Result<(), Error> {
    /// node.actor::<Greeter>("ada").id("welcome-ada").tell_durably(Hello).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BadKey`, `PayloadTooLarge`; `Config` in a read or an activation; in a turn, `Overloaded` above 256 of them since
    /// its last commit. Otherwise `Unavailable` if it is certainly not stored, `Unknown` if that is not known: under
    /// an id of its own it may be sent again.
    ///
    /// [`Context::tell_durably`]: crate::Context::tell_durably
    pub async fn tell_durably<M>(&self, message: M) -> Result<(), Error>
    where
        M: Message<Contract = C>,
    {
        let target = self.target()?;
        let from = match &self.origin {
            Origin::Turn { tells: Tells::Never, .. } => {
                let why = "a read and an activation are no turn: they send nothing durable";
                return Err(Error::new(ErrorKind::Config, why));
            }
            Origin::Turn { tells: Tells::WithTurn(slip), parent, born, trace, .. } => {
                let origin = Gathered { parent: *parent, born: *born, trace: trace.as_deref(), own: self.own };
                return gather(&self.around, slip, origin, &target.key, &message);
            }
            Origin::Turn { tells: Tells::AtOnce, chain, .. } => {
                chain.hops().next().map(|hop| format!("{}/{}", hop.actor, hop.key))
            }
            Origin::Root => None,
        };
        let call = self.call::<M>(target);
        let body = journal::raw(&message, "the durable tell")?;
        self.around.check_payload(body.get().len())?;
        let (id, born) = self.around.identify(&call, wall_ms());
        let told = Told {
            actor: C::NAME.to_owned(),
            key: target.key.clone(),
            verb: M::VERB.to_owned(),
            body: String::from(Box::<str>::from(body)).into(),
            id,
            born,
            from,
            trace: call.trace.as_deref().map(str::to_owned),
        };
        Box::pin(tell::send(&self.around, &told, call.deadline.at())).await
    }

    /// Watches the actor; see [`Node::watch`](crate::Node::watch).
    ///
    /// # Errors
    /// See [`Node::watch`](crate::Node::watch).
    pub async fn watch(&self) -> Result<crate::Watch, Error> {
        crate::watch::begin(&self.around, C::NAME, self.target()?.key.as_str()).await
    }

    /// Waits for a turn on this node, as one that other turns may be waiting for.
    async fn wait<M: Message>(&self, target: &Target, waiting: Waiting<M>, call: &Call) -> Outcome<M> {
        let wait = self.origin.wait(C::NAME, target.key.as_str(), call);
        let outcome = pin!(self.around.wait(waiting, C::NAME, target.key.as_str()));
        self.around.watched(wait, outcome).await
    }

    fn target(&self) -> Result<&Target, Error> {
        self.around.check_running()?;
        self.target.as_ref().map_err(|error| Error::new(error.kind(), error.message()))
    }

    fn call<M: Message>(&self, target: &Target) -> Call {
        let name = || format!("{}/{}", C::NAME, target.key);
        let call = self.origin.call(self.budget, self.around.settings.budget, name, M::VERB);
        match self.own {
            None => call,
            // Nobody knows whether it is the first, nor when the id was made.
            own => Call { turn: own, born: 0, attempt: 2, ..call },
        }
    }

    /// Whether calls of this node to the actor stand in line.
    fn is_behind(&self, target: &Target) -> bool {
        self.around.lines.holds(C::NAME, target.partition, &target.key)
    }

    /// Whether this node hosts the actor, and it remembers its commands.
    fn is_durable(&self) -> bool {
        self.hosted.as_ref().is_some_and(|hosted| hosted.durable)
    }
}

fn route<M: Message>(hosted: Option<&Hosted>) -> Result<Option<&dyn LocalRoute<M>>, Error> {
    let Some(hosted) = hosted else { return Ok(None) };
    match hosted.local::<M>() {
        Some(route) => Ok(Some(route)),
        // What is exposed has no typed route: it is called over the broker, as from anywhere else.
        None if !hosted.is_typed() => Ok(None),
        None => Err(Error::new(
            ErrorKind::UnknownVerb,
            format!(
                "{} on this node has no handler for `{}` of this form; it has {:?}",
                M::Contract::NAME,
                M::VERB,
                hosted.verb_names()
            ),
        )),
    }
}

/// Whether another node may serve what the instances of this one did not take.
fn others_may(error: &Error) -> bool {
    error.is_retryable() && error.kind() != ErrorKind::DeadlineExceeded
}

fn lost_message() -> Error {
    Error::new(ErrorKind::Internal, "the message was taken and not sent")
}

impl Surroundings {
    /// Waits for a turn on this node, until the call's deadline.
    pub(crate) async fn wait<M: Message>(&self, waiting: Waiting<M>, actor: &str, key: &str) -> Outcome<M> {
        let Waiting { mut outcome, deadline, started, place: _place } = waiting;
        if let Ok(outcome) = outcome.try_recv() {
            return outcome;
        }
        match self.until(deadline, &mut outcome).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(AskError::Failed(
                Error::new(
                    ErrorKind::Interrupted,
                    format!("the node stopped while {actor}/{key} had the call; it may have run in part"),
                )
                .with_details(serde_json::json!({ "stopped": true })),
            )),
            None if !started.swap(true, Ordering::AcqRel) => Err(AskError::Failed(not_started(actor, key))),
            None => Err(AskError::Failed(not_ended(actor, key))),
        }
    }

    /// Waits for something, at most until a moment, on whichever executor polls it.
    pub(crate) async fn until<T>(&self, deadline: Instant, wait: impl Future<Output = T>) -> Option<T> {
        let sleep = {
            let _runtime = self.runtime.enter();
            tokio::time::sleep_until(deadline)
        };
        tokio::select! {
            biased;
            value = wait => Some(value),
            () = sleep => None,
        }
    }
}

impl<C: Contract<Kind = Keyed>> std::fmt::Debug for Ref<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ref").field("actor", &C::NAME).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Whether a message has a reply; a tell's is `()` and never sent.
pub(crate) fn mode_of<M: Message>() -> crate::contract::Mode {
    <M::Mode as IsMode>::MODE
}
