//! Subscriptions that drive actors: which events an actor type wants, and how one becomes a turn of one of its actors.
//!
//! An event on its way to an actor is a durable tell like any other; who carries it there is not known here.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::Received;
use crate::actor::{Actor, Handle};
use crate::context::Context;
use crate::contract::{Contract, Keyed, Message, Refusal, mode};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::journal::StoredEvent;
use crate::key::Key;

/// Where a subscription begins that was never there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// With the first event that the journals hold.
    #[default]
    First,
    /// With the first that is kept after some node has begun to work for the subscription.
    Now,
}

/// Takes the events of another actor type: a durable subscription, which `#[on]` writes.
///
/// Each event in the journals of `E`'s actors goes to the actor whose [`key`](On::key) it has, as a durable tell: in
/// the order in which one actor of `E` emitted its events, at least once, and with effect once if this actor is durable
/// too. It outlasts nodes and brokers: what happens while nobody hosts this type comes later. What fails is tried again
/// as [`HostOptions::tell_attempts`](crate::HostOptions::tell_attempts) says, and is a dead letter then; the events
/// behind it go on. Volatile actors keep no journal: of their events nothing comes.
///
/// By hand:
///
/// ```
/// use greenroom::prelude::*;
/// use greenroom::subscribe::{On, Received};
/// # #[contract(messages(Open), event = DoorEvent)]
/// # struct Door;
/// # #[message(Door, tell)]
/// # struct Open;
/// # #[event(Door)]
/// # enum DoorEvent { Opened }
/// # #[contract(messages(Count))]
/// # struct Counter;
/// # #[message(Counter, read, reply = u64)]
/// # struct Count;
/// # #[derive(Default)]
/// # struct CounterActor { opened: u64 }
/// # impl greenroom::Read<Count> for CounterActor {
/// #     async fn read(&self, _: Count, _: &mut Context<'_, Self>) -> Result<u64, greenroom::contract::Never> {
/// #         Ok(self.opened)
/// #     }
/// # }
///
/// impl Actor for CounterActor {
///     // …
/// #     type Contract = Counter;
/// #     const VERSION: &'static str = "1.0.0";
/// #     async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> { Ok(Self::default()) }
///     fn verbs(verbs: &mut greenroom::Verbs<Self>) {
///         verbs.read::<Count>();
///         verbs.on::<DoorEvent>();
///     }
/// }
///
/// impl On<DoorEvent> for CounterActor {
///     const NAME: &'static str = "door_moved";
///
///     async fn on(&mut self, _: Received<DoorEvent>, _: &mut Context<'_, Self>) {
///         self.opened += 1;
///     }
/// }
/// ```
pub trait On<E: Event>: Actor {
    /// The name of the subscription, and the verb under which its events come: a token like a verb's, and none of the
    /// contract's verbs. How far it has come is remembered under it, so another name is another subscription, which
    /// begins anew.
    const NAME: &'static str;

    /// Where it begins when it is new.
    const FROM: Beginning = Beginning::First;

    /// See [`Handle::READY`].
    const READY: bool = false;

    /// See [`Handle::RESUMES`].
    const RESUMES: bool = false;

    /// Whom an event is for: the key of one actor, `None` if it is for nobody. The key of the actor that emitted it,
    /// unless written. It must be the same each time it is asked about the same event.
    fn key(happened: &Received<E>) -> Option<String> {
        Some(happened.key.as_str().to_owned())
    }

    /// Runs the turn of an event.
    fn on(&mut self, happened: Received<E>, ctx: &mut Context<'_, Self>) -> impl Future<Output = ()> + Send;
}

/// A subscription, whatever the types.
#[derive(Clone, Copy)]
pub(crate) struct Follows {
    /// The actor type whose journals are read.
    pub(crate) source: &'static str,
    pub(crate) from: Beginning,
    /// Whom an event is for.
    ///
    /// # Errors
    /// If it cannot be read, or its key cannot be.
    pub(crate) receiver: fn(&Happening) -> Result<Option<Key>, Error>,
}

impl Follows {
    pub(crate) fn of<A: On<E>, E: Event>() -> Self {
        Self { source: E::ACTOR, from: A::FROM, receiver: receiver::<A, E> }
    }
}

fn receiver<A: On<E>, E: Event>(happening: &Happening) -> Result<Option<Key>, Error> {
    // Both are the author's code.
    let found = catch_unwind(AssertUnwindSafe(|| happening.read::<E>().map(|happened| A::key(&happened))));
    let found = found.map_err(|panic| {
        let why = format!("whom an event is for is not known: {}", crate::engine::cause_of(&*panic));
        Error::new(ErrorKind::Panicked, why)
    })?;
    found?.map(Key::new).transpose()
}

/// An event on its way, as it is written: with the form in which the journal has it, so that it is the same each time
/// it is sent, and can be brought up to date where it arrives.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Happening {
    /// The key itself of the actor to which it happened.
    key: String,
    /// Its place in that actor's life, from 1.
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    name: String,
    /// Of the event's form; the present one if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    event: Box<RawValue>,
}

impl Happening {
    pub(crate) fn of(key: &Key, sequence: u64, stored: &StoredEvent) -> Self {
        Self {
            key: key.as_str().to_owned(),
            sequence,
            name: stored.name.clone().into_owned(),
            version: Some(stored.version),
            event: stored.body.clone(),
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never with these types; the signature is serde's.
    pub(crate) fn body(&self) -> Result<Bytes, Error> {
        crate::codec::Codec::Json.encode(self)
    }

    fn read<E: Event>(&self) -> Result<Received<E>, Error> {
        let version = self.version.unwrap_or(E::VERSION);
        let event = crate::state::read_event(&self.name, version, &self.event)?;
        Ok(Received { key: Key::new(&self.key)?, event, sequence: self.sequence })
    }
}

/// An event as a message to an actor that has asked for it.
pub(crate) struct Happened<A, E> {
    written: Happening,
    happened: Received<E>,
    actor: PhantomData<fn() -> A>,
}

impl<A, E> Serialize for Happened<A, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de, A, E: Event> Deserialize<'de> for Happened<A, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Happening::deserialize(deserializer)?;
        let happened = written.read().map_err(de::Error::custom)?;
        Ok(Self { written, happened, actor: PhantomData })
    }
}

/// What a [`Happening`] looks like to people.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "its schema is used")]
struct Form<E> {
    /// The key of the actor to which it happened.
    key: String,
    /// Its place in that actor's life, from 1.
    #[schemars(default)]
    sequence: u64,
    /// Its name.
    #[schemars(default)]
    name: String,
    /// The version of its form.
    version: Option<u32>,
    /// What happened.
    event: E,
}

impl<A, E: Event> JsonSchema for Happened<A, E> {
    fn schema_name() -> Cow<'static, str> {
        Form::<E>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Form::<E>::json_schema(generator)
    }
}

/// Why an event that came to the wrong actor could not go on to the right one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Misplaced {
    why: String,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Refusal for Misplaced {}

impl<A: On<E>, E: Event> Message for Happened<A, E> {
    const VERB: &'static str = A::NAME;
    type Contract = A::Contract;
    type Mode = mode::Tell;
    type Reply = ();
    type Refusal = Misplaced;
}

impl<A: On<E>, E: Event> Handle<Happened<A, E>> for A
where
    A::Contract: Contract<Kind = Keyed>,
{
    // A volatile actor waits where it passes an event on.
    const READY: bool = A::READY && A::DURABLE;
    const RESUMES: bool = A::RESUMES;

    async fn handle(&mut self, msg: Happened<A, E>, ctx: &mut Context<'_, Self>) -> Result<(), Misplaced> {
        match A::key(&msg.happened) {
            Some(key) if key == ctx.key().as_str() => self.on(msg.happened, ctx).await,
            // A dead letter that could not be addressed, and now can be; or an event that somebody else has published.
            Some(key) => {
                let sent = match A::DURABLE {
                    true => ctx.tell_durably(key, msg),
                    false => ctx.actor::<A::Contract>(key).tell_durably(msg).await,
                };
                sent.map_err(|error| Misplaced { why: error.to_string() })?;
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "on_tests.rs"]
mod tests;
