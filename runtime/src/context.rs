//! What a handler may do beside its message: its key, its deadline, calls that belong to its turn.

mod reminders;

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::actor::Actor;
use crate::call::{Call, TurnId, wall_ms};
use crate::contract::{Contract, Keyed, Kind, Message, Service};
use crate::engine::Env;
use crate::error::{Error, ErrorKind};
use crate::journal::{self, Fate, Gathering, Ledger, Mark, NotAppended, Outbox, Slip, StoredTell, Write};
use crate::key::Key;
use crate::node::{Node, Surroundings};
use crate::reference::{Origin, Ref, ServiceRef, Tells};
use crate::reminder::Draft;
use crate::state::{Cell, Durable, JournalBox, State, VolatileJournal};

/// The surroundings of one turn.
///
/// Calls made through it ([`actor`](Context::actor), [`service`](Context::service)) belong to the
/// turn: they inherit what is left of its time, and the chain of calls by which it came, so that
/// a call which would wait for itself fails at once with `CallCycle`. Turns of different roots that wait for each other
/// in a circle are found after some 50 ms: the call of the youngest fails so.
///
/// ```
/// # use greenroom::prelude::*;
/// # #[contract(messages(Hello))]
/// # struct Greeter;
/// # #[message(Greeter, ask, reply = String)]
/// # struct Hello;
/// # #[derive(Default)]
/// # struct GreeterActor;
/// #[actor(Greeter)]
/// impl GreeterActor {
///     #[ask]
///     async fn hello(&mut self, _: Hello, ctx: &mut Context<'_, Self>) -> String {
///         let friend = ctx.actor::<Greeter>("friend"); // asked with what is left of this turn's time
///         let said = if ctx.key().as_str() == "friend" { Ok("hello".to_owned()) } else { friend.ask(Hello).await };
///         format!("{}: {said:?}, with {:?} left", ctx.key(), ctx.remaining())
///     }
/// }
/// ```
pub struct Context<'a, A: Actor> {
    env: Env<'a>,
    call: &'a Call,
    turn: Option<TurnId>,
    /// When its id was made; 0 if its sender did not say.
    born: u64,
    /// Counts the calls of this turn, over all the addresses it made.
    ordinals: Option<Arc<AtomicU32>>,
    made_cell: bool,
    /// The command that the turn is for, and how many of its steps were kept.
    command: Option<Mark>,
    resumed: u32,
    steps: u32,
    /// Whether a step may have been kept, and this node does not know.
    unsure: bool,
    sends: Sends,
    /// The actor's reminders, in a turn of a durable actor.
    draft: Option<Draft>,
    actor: PhantomData<fn(A)>,
}

/// What becomes of the durable tells of a turn.
#[derive(Debug)]
enum Sends {
    /// They are kept with the turn, in its record.
    WithTurn(Gathering),
    /// There is no record: they are sent as they are made.
    AtOnce,
    /// There is no turn: a read, or an activation.
    Never,
}

/// What a turn leaves behind.
pub(crate) struct Left {
    /// How many steps of it were kept.
    pub(crate) steps: u32,
    /// Whether one more may have been, and this node does not know.
    pub(crate) unsure: bool,
    /// What is to be kept and sent with the rest.
    pub(crate) outbox: Outbox,
}

impl<'a, A: Actor> Context<'a, A> {
    pub(crate) fn new(env: Env<'a>, call: &'a Call) -> Self {
        Self {
            env,
            call,
            turn: call.turn,
            born: call.born,
            ordinals: None,
            made_cell: false,
            command: None,
            resumed: 0,
            steps: 0,
            unsure: false,
            sends: Sends::AtOnce,
            draft: None,
            actor: PhantomData,
        }
    }

    pub(crate) fn with_command(mut self, command: Option<Mark>, resumed: u32) -> Self {
        (self.command, self.resumed, self.steps) = (command, resumed, resumed);
        self.sends = Sends::WithTurn(Gathering::open(resumed, self.env.around.settings.payload));
        self
    }

    pub(crate) fn with_reminders(mut self, draft: Draft) -> Self {
        self.draft = Some(draft);
        self
    }

    /// For what is no turn: a read, or an activation.
    pub(crate) fn without_turn(mut self) -> Self {
        self.sends = Sends::Never;
        self
    }

    /// The key of this actor. A service has none: its instances are all alike, and all see the
    /// name of the service here.
    pub fn key(&self) -> &Key {
        self.env.key
    }

    /// The node that runs this turn. Calls made through it are calls of their own: they neither
    /// inherit the turn's deadline nor its chain.
    ///
    /// # Errors
    /// `Stopped` if the node is gone.
    pub fn node(&self) -> Result<Node, Error> {
        self.env.around.node()
    }

    /// An actor's address, for calls that belong to this turn. Makes no I/O.
    pub fn actor<C: Contract<Kind = Keyed>>(&mut self, key: impl AsRef<str>) -> Ref<C> {
        let origin = self.origin();
        Ref::new(self.env.around.clone(), key.as_ref(), origin)
    }

    /// A service's address, for calls that belong to this turn. Makes no I/O.
    pub fn service<C: Contract<Kind = Service>>(&mut self) -> ServiceRef<C> {
        let origin = self.origin();
        ServiceRef::new(self.env.around.clone(), origin)
    }

    /// When this turn's caller stops waiting. The turn itself is not cut then.
    pub fn deadline(&self) -> Instant {
        self.call.deadline.at()
    }

    /// How long this turn's caller still waits.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// The id of this turn: the same when the same call comes again.
    pub fn turn(&mut self) -> TurnId {
        let (around, born) = (self.env.around, &mut self.born);
        *self.turn.get_or_insert_with(|| {
            *born = wall_ms();
            around.next_turn(*born)
        })
    }

    /// Which attempt of its caller this is, from 1. What may have been sent before, by a turn that was cut or under
    /// an id of its caller's own, begins with 2.
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// How long ago it was certain that this node is the owner, and so that the state of a durable actor was the newest
    /// there is: what a `#[read(stale)]` can tell its caller of itself. In the node's life, if it never was.
    pub fn age(&self) -> Duration {
        self.env.around.age()
    }

    /// Opens the actor's state cell with a volatile journal: it outlives a panic of the actor, and
    /// ends with the node or when the actor moves to another. For use in `activate`; an actor has one cell.
    ///
    /// # Errors
    /// `Internal` if the state cannot be rebuilt, or if the actor had a cell of another type.
    pub fn volatile<S: State>(&mut self) -> Result<Durable<S>, Error> {
        self.made_cell = true;
        let mut make = || Arc::new(VolatileJournal::<S>::new()) as JournalBox;
        let journal: Arc<dyn Any + Send + Sync> = self.env.journal.keep(&mut make);
        let journal = journal.downcast::<VolatileJournal<S>>().map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                format!("{}/{} opened two cells of different types; an actor has one", self.env.actor, self.env.key),
            )
        })?;
        Durable::open(journal)
    }

    /// Opens the actor's state cell with a journal in a stream at the broker: what a turn emitted is
    /// kept there before its caller hears of it, and the next activation, on whichever node, begins
    /// with it. A message with an id that comes again takes effect once. For use in `activate`; an
    /// actor has one cell.
    ///
    /// The stream is `{app}-evt-{actor}`, made if there is none, with as many replicas as the
    /// connection's settings say. The journal is read at its leader, in most cases by one request.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer or another owner has written meanwhile, `Config`
    /// for a service, which has no key to keep a journal by, `Internal` if the journal cannot be read.
    pub async fn durable<S: State>(&mut self) -> Result<Durable<S>, Error> {
        self.made_cell = true;
        let around = self.env.around;
        let hosted = around.hosted(self.env.actor).filter(|hosted| hosted.keyed).ok_or_else(|| {
            let why = format!("{} has no key, so it cannot keep a journal; use Context::volatile", self.env.actor);
            Error::new(ErrorKind::Config, why)
        })?;
        let partition = around.partition_of(self.env.key);
        // Not whether it is served still: this turn was let in, and whoever the partition is given to waits for it.
        let epoch = hosted.gate.epoch_of_turns(partition);
        if epoch == 0 {
            let why = format!("the partition of {}/{} was never served here", self.env.actor, self.env.key);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let subject = around.subjects.journal(self.env.actor, self.env.key);
        let planned = !hosted.gate.is_contested(partition);
        let (log, whose) = (hosted.log(around).await?, (self.env.actor, self.env.key.clone()));
        let opened = Ledger::open(log, whose, subject, epoch, planned, around.settings.remembers).await?;
        let contested = opened.contested && !opened.ledger.is_new();
        let mut cell = Durable::replay(opened)?;
        if contested {
            // The owner before may have an append on its way: from here on that is refused. And if what was read is not
            // the newest, this is.
            let signed = journal::commit(around, &mut cell, None, Write::Activated, Outbox::default()).await;
            signed.map_err(|why| crate::engine::not_kept(&self.env, why))?;
        }
        Ok(cell)
    }

    /// Adds a durable tell to this turn: it is kept with the turn, in the same record, and sent when that is stored.
    /// A refusal, a panic or a lost activation undoes it like an event. From then on it is delivered at least once,
    /// and takes effect once at a durable actor, after the turn of its receiver has committed; what cannot be
    /// delivered ends as a dead letter. The tells of one actor reach each receiver in the order in which they were
    /// made.
    ///
    /// In the turn of an actor that keeps no journal use [`Ref::tell_durably`], which sends at once.
    ///
    /// # Errors
    /// `Config` if the actor keeps no journal, or if this is no turn (a read, an activation); `BadKey`;
    /// `Overloaded` above 256 of them since the last commit, `PayloadTooLarge` if their payloads together are over
    /// the app's limit. Nothing was added then.
    pub fn tell_durably<M>(&mut self, key: impl AsRef<str>, message: M) -> Result<(), Error>
    where
        M: Message,
        M::Contract: Contract<Kind = Keyed>,
    {
        let parent = self.turn();
        let why = match &mut self.sends {
            Sends::WithTurn(gathering) => {
                let key = Key::new(key.as_ref())?;
                let trace = self.call.trace.as_deref();
                let origin = Gathered { parent, born: self.born, trace, own: None };
                return gather(self.env.around, &gathering.slip(), origin, &key, &message);
            }
            Sends::AtOnce => "keeps no journal to keep a durable tell in: use ctx.actor(..).tell_durably(..).await",
            Sends::Never => "is not in a turn here: a read and an activation send nothing durable",
        };
        Err(Error::new(ErrorKind::Config, format!("{}/{} {why}", self.env.actor, self.env.key)))
    }

    /// Ends a step of a long turn: what the cell's turn emitted so far is kept, whatever becomes of
    /// the rest, and is told to whoever watches; its durable tells and what it changed about its
    /// reminders go with it.
    ///
    /// If the turn is cut after that, by the death of its node or by a panic, its message is
    /// remembered as begun: when it comes again it is answered `Interrupted`, unless its handler
    /// says [`RESUMES`](crate::Handle::RESUMES).
    ///
    /// # Errors
    /// `Internal` if an event or the state cannot be written as JSON; `Unavailable` if it is not
    /// kept, because the broker was away or another owner has written; `Unknown` if the node stops.
    pub async fn commit(&mut self, cell: &mut dyn Cell) -> Result<(), Error> {
        if !cell.is_dirty() && self.sends_nothing() {
            return Ok(());
        }
        let committed = if cell.ledger().is_none() {
            cell.commit()?
        } else {
            let step = self.steps + 1;
            let reminders = self.draft.as_ref().map(|draft| draft.step(step)).unwrap_or_default();
            let outbox = Outbox { reminders: reminders.clone(), ..self.take_outbox() };
            let command = self.command.as_ref().map(|mark| (mark, Fate::Begun(step)));
            let kept = journal::commit(self.env.around, cell, command, Write::Turn, outbox).await;
            self.unsure |= matches!(kept, Err(NotAppended::Unknown(_)));
            let committed = kept.map_err(|why| crate::engine::not_kept(&self.env, why))?;
            if let Some(draft) = &mut self.draft {
                draft.kept(&reminders);
            }
            self.steps = step;
            committed
        };
        self.env.around.echo(self.env.key, committed);
        Ok(())
    }

    /// How many steps of this very turn were kept before it was cut, 0 if it is new. Only handlers
    /// that say [`RESUMES`](crate::Handle::RESUMES) see another number.
    pub fn resumed(&self) -> u32 {
        self.resumed
    }

    fn sends_nothing(&self) -> bool {
        let reminded = self.draft.as_ref().is_some_and(|draft| draft.is_dirty());
        !reminded && !matches!(&self.sends, Sends::WithTurn(gathering) if !gathering.is_empty())
    }

    /// What the turn has to keep and to send since its last commit, now that it has ended: nothing of what it asked
    /// for if it was refused or panicked.
    pub(crate) fn end(&mut self, in_vain: bool) -> Left {
        let reminders = self.draft.as_ref().map(|draft| draft.end(in_vain)).unwrap_or_default();
        let outbox = self.take_outbox();
        let outbox = Outbox { reminders, ..if in_vain { Outbox::default() } else { outbox } };
        Left { steps: self.steps, unsure: self.unsure, outbox }
    }

    /// What the turn has to send since its last commit.
    fn take_outbox(&mut self) -> Outbox {
        match &mut self.sends {
            Sends::WithTurn(gathering) => gathering.take(),
            Sends::AtOnce | Sends::Never => Outbox::default(),
        }
    }

    pub(crate) fn around(&self) -> &'a Arc<Surroundings> {
        self.env.around
    }

    pub(crate) fn actor_name(&self) -> &'static str {
        self.env.actor
    }

    pub(crate) fn made_cell(&self) -> bool {
        self.made_cell
    }

    fn origin(&mut self) -> Origin {
        let turn = self.turn();
        let ordinals = self.ordinals.get_or_insert_with(Arc::default).clone();
        // A service's instances are all alike: it stands on the chain without a key.
        let key = if <A::Contract as Contract>::Kind::KEYED { self.env.key.as_str() } else { "" };
        Origin::Turn {
            parent: turn,
            ordinals,
            deadline: self.call.deadline.at(),
            chain: self.call.chain.with(self.env.actor, key),
            born: self.born,
            again: self.call.turn.is_some() && (self.call.attempt > 1 || self.call.born == 0),
            trace: self.call.trace.clone(),
            tells: match &mut self.sends {
                Sends::WithTurn(gathering) => Tells::WithTurn(gathering.slip()),
                Sends::AtOnce => Tells::AtOnce,
                Sends::Never => Tells::Never,
            },
        }
    }
}

impl<A: Actor> std::fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("actor", &self.env.actor)
            .field("key", self.env.key)
            .field("call", self.call)
            .finish_non_exhaustive()
    }
}

/// What a durable tell has of its turn.
pub(crate) struct Gathered<'a> {
    pub(crate) parent: TurnId,
    pub(crate) born: u64,
    pub(crate) trace: Option<&'a str>,
    /// The id that the author gave it.
    pub(crate) own: Option<TurnId>,
}

/// Adds a durable tell to the turn that an address belongs to.
pub(crate) fn gather<M: Message>(
    around: &Surroundings,
    slip: &Slip,
    origin: Gathered<'_>,
    key: &Key,
    message: &M,
) -> Result<(), Error> {
    let (actor, verb) = (M::Contract::NAME, M::VERB);
    let body = journal::raw(message, "the durable tell")?;
    around.check_payload(body.get().len())?;
    // The key counts too: a turn may name many.
    let bytes = body.get().len() + key.as_str().len();
    slip.add_tell(bytes, |step, number| StoredTell {
        // By its place in its step: a turn that goes on after a step does not make that step's tells again.
        id: origin.own.unwrap_or_else(|| origin.parent.child(number, &format!("step {step} {actor}/{key}"), verb)),
        born: origin.born,
        actor: actor.to_owned(),
        key: key.as_str().to_owned(),
        verb: verb.to_owned(),
        body,
        trace: origin.trace.map(str::to_owned),
    })
}
