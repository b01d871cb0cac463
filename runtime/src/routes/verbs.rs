//! The verbs of an actor, and how each finds its handler.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::ready::{look_ready, run_ready};
use super::{Engine, LocalRoute, Route, WireRoute};
use crate::actor::{Actor, Handle, Read};
use crate::call::Call;
use crate::codec::Fingerprint;
use crate::contract::{Contract, Keyed, Message, VerbContract, mode};
use crate::engine::{AskJob, Host, Job, Outcome, ReadJob, ReminderTurn, ReplyTo, run_reminder, takes_stale};
use crate::error::Error;
use crate::event::Event;
use crate::reference::Target;
use crate::stats::VerbStats;
use crate::subscribe::{Follows, Happened, On};

/// The handlers of an actor, named one by one in [`Actor::verbs`].
pub struct Verbs<A: Actor> {
    makers: Vec<MakeVerb<A>>,
    follows: Vec<(&'static str, Follows)>,
}

impl<A: Actor> Verbs<A> {
    pub(crate) fn of() -> Self {
        let mut verbs = Self { makers: Vec::new(), follows: Vec::new() };
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
            None,
            false,
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
            Some(run_reminder::<A, M>),
            false,
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
            None,
            takes_stale::<A, M>(),
        );
    }

    /// The events of another actor type: a durable subscription.
    pub fn on<E>(&mut self)
    where
        E: Event,
        A: On<E>,
        A::Contract: Contract<Kind = Keyed>,
    {
        self.push::<Happened<A, E>>(
            |message, call, reply, stats| Box::new(AskJob::new(message, call, reply, stats)),
            Some(run_ready::<A, Happened<A, E>>),
            None,
            false,
        );
        self.follows.push((A::NAME, Follows::of::<A, E>()));
    }

    /// What the handlers take from journals, by the name of the subscription.
    pub(crate) fn take_follows(&mut self) -> Vec<(&'static str, Follows)> {
        std::mem::take(&mut self.follows)
    }

    pub(crate) fn build(self, engine: &Engine<A>) -> Vec<Verb> {
        self.makers.into_iter().map(|make| make(engine)).collect()
    }

    fn push<M>(
        &mut self,
        job: MakeJob<A, M>,
        ready: Option<RunReady<A, M>>,
        reminded: Option<ReminderTurn<A>>,
        stale: bool,
    ) where
        M: Message<Contract = A::Contract>,
    {
        self.makers.push(Box::new(move |engine| {
            let stats = Arc::new(VerbStats::default());
            let fingerprint = Fingerprint::of::<M>();
            let route = Arc::new(Route { engine: engine.clone(), job, ready, stale, stats: stats.clone() });
            Verb {
                contract: VerbContract::of::<M>(),
                message: TypeId::of::<M>(),
                local: Box::new(route.clone() as Arc<dyn LocalRoute<M>>),
                reminded: reminded.map(|turn| Box::new(turn) as Box<dyn Any + Send + Sync>),
                wire: route,
                stats,
                fingerprint,
            }
        }));
    }
}

type MakeVerb<A> = Box<dyn FnOnce(&Engine<A>) -> Verb>;
pub(super) type MakeJob<A, M> = fn(M, Call, ReplyTo<M>, Arc<VerbStats>) -> Box<dyn Job<A>>;
/// Runs a handler that never waits on the caller's stack; `None` if it must be queued.
pub(super) type RunReady<A, M> =
    fn(&Arc<Host<A>>, &Target, &mut Option<M>, &Call, &dyn Fn()) -> Result<Option<Outcome<M>>, Error>;

/// One verb of a hosted actor.
pub(crate) struct Verb {
    pub(crate) contract: VerbContract,
    pub(crate) message: TypeId,
    /// An `Arc<dyn LocalRoute<M>>` of the verb's message type.
    local: Box<dyn Any + Send + Sync>,
    /// Of a tell, the [`ReminderTurn`] of its actor.
    reminded: Option<Box<dyn Any + Send + Sync>>,
    pub(crate) wire: Arc<dyn WireRoute>,
    pub(crate) stats: Arc<VerbStats>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Verb {
    /// A verb that has no typed callers on its own node.
    #[cfg(feature = "ractor")]
    pub(crate) fn exposed(contract: VerbContract, wire: Arc<dyn WireRoute>, stats: Arc<VerbStats>) -> Self {
        Self {
            contract,
            message: TypeId::of::<()>(),
            local: Box::new(()),
            reminded: None,
            wire,
            stats,
            fingerprint: None,
        }
    }

    /// How a reminder runs it, if it is a tell.
    pub(crate) fn reminded<A: Actor>(&self) -> Option<ReminderTurn<A>> {
        self.reminded.as_ref()?.downcast_ref().copied()
    }

    pub(crate) fn local<M: Message>(&self) -> Option<&dyn LocalRoute<M>> {
        self.local.downcast_ref::<Arc<dyn LocalRoute<M>>>().map(|route| &**route)
    }
}
