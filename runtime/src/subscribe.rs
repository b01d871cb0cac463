//! Subscriptions: typed events of other actors, as they happen.

mod on;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub use self::on::{Beginning, On};
pub(crate) use self::on::{Follows, Happened, Happening};
use crate::codec::Codec;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::executor::Executor;
use crate::journal::Record;
use crate::key::Key;
use crate::node::{DESERTED_FOR, Surroundings};
use crate::subject::Filter;
use crate::transport::{Consumer, ConsumerConfig, Delivery, StreamConfig, Subscription};
use crate::wire::SEQUENCE;

/// Events that may wait to be received; further ones are dropped, and the gap shows in
/// [`Received::sequence`].
const CAPACITY: usize = 8_192;

/// A subscription that is being put together; see [`Node::subscribe`](crate::Node::subscribe).
///
/// ```
/// # use greenroom::prelude::*;
/// # #[contract(messages(Open), event = DoorEvent)]
/// # struct Door;
/// # #[message(Door, tell)]
/// # struct Open;
/// #[event(Door)]
/// #[derive(Debug)]
/// enum DoorEvent {
///     Opened,
/// }
///
/// # async fn run(node: Node) -> Result<(), Error> {
/// let mut opened = node.subscribe::<DoorEvent>().name("opened").key("front").live().await?;
/// while let Some(happened) = opened.next().await {
///     println!("{} #{}: {:?}", happened.key, happened.sequence, happened.event);
/// }
/// # Ok(()) }
/// ```
pub struct Subscribe<E: Event> {
    around: Arc<Surroundings>,
    name: Option<String>,
    key: Option<Result<Key, Error>>,
    group: Option<String>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> Subscribe<E> {
    pub(crate) fn new(around: Arc<Surroundings>) -> Self {
        Self { around, name: None, key: None, group: None, event: PhantomData }
    }

    /// Only the events of this name, such as `placed`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only the events of the actor with this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        self.key = Some(Key::new(key.as_ref()));
        self
    }

    /// Shares the events with every other subscriber of this group: each goes to one of them.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Listens to the live echo: each event at most once, after its turn has committed. It hears
    /// what happens from when this returns, which takes a quarter of a second: for so long a node that
    /// tells thousands of events a second may believe that nobody listens, and tell none. What
    /// happens while nobody listens, or while the connection is down, is missed; a gap in
    /// [`Received::sequence`] shows it.
    ///
    /// # Errors
    /// `BadKey` for an unusable key, `BadRequest` for a name that is none of the contract's
    /// events, `Unavailable` while the broker is away.
    pub async fn live(self) -> Result<Events<E>, Error> {
        self.check()?;
        let key = self.key.transpose()?;
        let filter: Filter = self.around.subjects.lives(E::ACTOR, self.name.as_deref(), key.as_ref());
        let subscription = self.around.transport.subscribe(&filter, self.group.as_deref(), CAPACITY).await?;
        tokio::time::sleep(DESERTED_FOR).await;
        Ok(Events { subscription, event: PhantomData })
    }

    /// Reads the journals of durable actors: every event that was ever kept, then each as it is kept,
    /// at least once, in the order in which they were kept, of one actor and of all. `reader` names a place at the
    /// broker that is remembered: whoever subscribes under the same name goes on behind the last event that was dealt
    /// with, after a restart too.
    ///
    /// A name is for one reader at a time. The broker gives nobody a record before the one before it was dealt with, so
    /// several readers of one name take turns and the order holds, but none of them is faster for the others. That
    /// costs two round trips for each record; where an actor is to act on events, `#[on]` follows many journals side by
    /// side. Settings of [`group`](Subscribe::group) do not count here.
    ///
    /// # Errors
    /// `BadKey`, `BadRequest` as for [`live`](Subscribe::live), `Config` for a name that the broker
    /// cannot have (spaces, dots), `Unavailable` if it does not answer.
    pub async fn journal(self, reader: &str) -> Result<JournalEvents<E>, Error> {
        self.check()?;
        let subjects = &self.around.subjects;
        let filter = match self.key.transpose()? {
            Some(key) => subjects.journal(E::ACTOR, &key).to_filter(),
            None => subjects.journals(E::ACTOR),
        };
        let config = StreamConfig::new([subjects.journals(E::ACTOR)]);
        let stream = self.around.transport.stream(&subjects.journal_stream(E::ACTOR), config).await?;
        // One record at a time: if its reader dies, nobody gets what comes behind it first.
        let wanted = ConsumerConfig::new([filter]).fetch(1).max_ack_pending(1);
        let consumer = stream.consumer(reader, wanted).await?;
        Ok(JournalEvents {
            runtime: self.around.runtime.clone(),
            consumer,
            name: self.name,
            current: None,
            waiting: VecDeque::new(),
        })
    }

    fn check(&self) -> Result<(), Error> {
        self.around.check_running()?;
        if let Some(name) = &self.name
            && !E::NAMES.contains(&name.as_str())
        {
            let why = format!("{} has no event {name:?}; it has {}", E::ACTOR, E::NAMES.join(", "));
            return Err(Error::new(ErrorKind::BadRequest, why));
        }
        Ok(())
    }
}

/// A reading of journals; dropping it ends it. See [`Subscribe::journal`].
pub struct JournalEvents<E: Event> {
    runtime: Executor,
    consumer: Consumer,
    name: Option<String>,
    /// The record whose events are being given.
    current: Option<Delivery>,
    waiting: VecDeque<Received<E>>,
}

impl<E: Event> JournalEvents<E> {
    /// The next event; `None` when the node has stopped. Asking for it says that all before were
    /// dealt with. What was not is given again to another reader of this name, before anything that comes behind it: at
    /// once if this one is dropped, after 30 s if its process died. So an event is to be dealt with in that time.
    ///
    /// Cancel safe: an event that was not returned is not lost by dropping the future.
    pub async fn next(&mut self) -> Option<Received<E>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if let Some(done) = &self.current {
                // If the broker does not hear of it, it gives the record again.
                if let Err(error) = done.ack().await {
                    tracing::debug!(%error, "a record of a journal was not acknowledged; it will come again");
                }
                self.current = None;
            }
            let delivery = self.consumer.next().await?;
            self.waiting = self.events_of(&delivery);
            self.current = Some(delivery);
        }
    }

    fn events_of(&self, delivery: &Delivery) -> VecDeque<Received<E>> {
        let subject = &delivery.record.subject;
        let unread = |error: Error| {
            tracing::warn!(subject, %error, "what stands in a journal cannot be read; it is passed over");
            VecDeque::new()
        };
        let token = subject.rsplit('.').next().unwrap_or_default();
        let read = Key::from_token(token).and_then(|key| Ok((key, Record::read(&delivery.record.body)?)));
        let (key, record) = match read {
            Ok(read) => read,
            Err(error) => return unread(error),
        };
        let wanted = |name: &str| self.name.as_deref().is_none_or(|wanted| wanted == name);
        let numbered = (record.first..).zip(&record.events).filter(|(_, stored)| wanted(&stored.name));
        let events = numbered.map(|(sequence, stored)| {
            let event = crate::state::read_event(&stored.name, stored.version, &stored.body)?;
            Ok(Received { key: key.clone(), event, sequence })
        });
        events.collect::<Result<_, Error>>().unwrap_or_else(unread)
    }
}

impl<E: Event> Drop for JournalEvents<E> {
    fn drop(&mut self) {
        // One that was dealt with may come again: nobody has said so.
        if let Some(open) = self.current.take() {
            self.runtime.spawn(async move { drop(open.nak(Duration::ZERO).await) });
        }
    }
}

impl<E: Event> std::fmt::Debug for JournalEvents<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalEvents").field("actor", &E::ACTOR).finish_non_exhaustive()
    }
}

/// A running subscription; dropping it ends it.
pub struct Events<E: Event> {
    subscription: Subscription,
    event: PhantomData<fn() -> E>,
}

/// An event that has arrived.
#[derive(Clone, Debug)]
pub struct Received<E> {
    /// The key of the actor to which it happened.
    pub key: Key,
    /// What happened.
    pub event: E,
    /// Its place in the actor's journal, from 1. Events of one actor that are not next to each
    /// other have others between them, which this subscriber has missed or did not ask for.
    pub sequence: u64,
}

impl<E: Event> Events<E> {
    /// The next event; `None` when the node has stopped. Cancel safe: an event that was not
    /// returned is not lost by dropping the future.
    pub async fn next(&mut self) -> Option<Received<E>> {
        loop {
            let message = self.subscription.next().await?;
            let token = message.subject.rsplit('.').next().unwrap_or_default();
            let key = match Key::from_token(token) {
                Ok(key) => key,
                Err(error) => {
                    tracing::warn!(subject = message.subject, %error, "not an event of this app; it is passed over");
                    continue;
                }
            };
            match Codec::Json.decode(&message.body) {
                Ok(event) => {
                    let sequence = message.headers.get(SEQUENCE).and_then(|text| text.parse().ok()).unwrap_or(0);
                    return Some(Received { key, event, sequence });
                }
                // A newer node may emit events that this build does not know.
                Err(error) => {
                    tracing::warn!(subject = message.subject, error, "an event cannot be read; it is passed over")
                }
            }
        }
    }
}

impl<E: Event> std::fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("actor", &E::ACTOR).finish_non_exhaustive()
    }
}

impl<E: Event> std::fmt::Debug for Subscribe<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe").field("actor", &E::ACTOR).finish_non_exhaustive()
    }
}
