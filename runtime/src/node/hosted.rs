//! What a node hosts: one entry for each actor type, whatever its Rust type.

use std::any::{Any, TypeId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
#[cfg(feature = "ractor")]
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;

use super::options::{self, HostOptions};
use crate::actor::Actor;
use crate::call::{Deadline, TurnId};
use crate::contract::{Contract, Kind, Message};
use crate::engine::{Attachment, FireJob, Gate, Host, HostSettings, typed};
use crate::error::{Error, ErrorKind};
use crate::journal::Log;
use crate::key::Key;
use crate::node::Surroundings;
use crate::pool::Pool;
use crate::reference::Target;
use crate::reminder::{Due, Fired};
use crate::routes::{Engine, LocalRoute, Verb, Verbs};
use crate::stats::VerbStats;
use crate::subject::Name;
use crate::subscribe::Follows;
use crate::supervision::ChildSpec;

/// How long the turn of a reminder may wait until it starts.
const FIRE_WITHIN: Duration = Duration::from_secs(60);

/// One actor type on this node.
pub(crate) struct Hosted {
    pub(crate) name: &'static str,
    pub(crate) keyed: bool,
    /// Whether its actors keep journals in a stream, and so remember their commands.
    pub(crate) durable: bool,
    pub(crate) description: &'static str,
    pub(crate) contract_version: &'static str,
    pub(crate) version: &'static str,
    pub(crate) weight: u32,
    pub(crate) pool: usize,
    /// How often a durable tell is tried that fails.
    pub(crate) tell_attempts: u32,
    /// The keys that this node wants to be always on.
    pub(crate) always_on: Vec<Key>,
    pub(crate) verbs: Vec<Verb>,
    /// The events that its actors take from journals.
    pub(crate) takes: Vec<Takes>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) control: Box<dyn Control>,
    /// Cancelled when no instance of a service will come back: its calls are for other nodes.
    pub(crate) over: CancellationToken,
    /// The stream of its actors' journals, once one of them has opened its own.
    log: OnceCell<Arc<Log>>,
}

/// A subscription of an actor type.
pub(crate) struct Takes {
    /// Its name, and the verb under which events come.
    pub(crate) verb: &'static str,
    /// Where somebody works for it: at the partition of its name, so that a type's subscriptions are not all one node's.
    pub(crate) partition: u16,
    pub(crate) follows: Follows,
}

/// What a node does with the actors of one type, whatever their Rust type.
pub(crate) trait Control: Send + Sync {
    /// Drops the idle actors of a partition whose gate is closed; returns the keys that still run.
    fn evict(&self, partition: u16) -> Vec<Key>;
    /// The keys of a partition that still run.
    fn busy(&self, partition: u16) -> Vec<Key>;
    /// Waits until the last turn of some actor of a closed partition ends.
    fn left(&self) -> BoxFuture<'_, ()>;
    /// Waits until nothing waits for an instance of a service, and none works.
    fn idle(&self) -> BoxFuture<'_, ()>;
    /// Fails what waits for an instance of a service: none will come back.
    fn close(&self);
    fn resident(&self) -> usize;
    /// The bytes that its actors take, if they have a budget.
    fn held(&self) -> Option<usize>;
    /// Drops the durable actors of a partition that have been idle for so long; returns how many.
    fn passivate(&self, partition: u16, idle: Duration) -> usize;
    fn quarantined(&self) -> Vec<(String, String)>;
    fn release(&self, key: &Key) -> bool;
    /// Runs the turn of a reminder, if it is armed like that. Ends when that is kept.
    fn fire(&self, key: &Key, due: Due, born: u64) -> BoxFuture<'_, Result<Fired, Error>>;
    /// Whether a call waits in an actor's queue, or a service's, which has no key.
    fn is_queued(&self, key: Option<&Key>, call: TurnId) -> bool;
    /// Takes a call out of the queue in which it waits, and fails it.
    fn break_off(&self, key: Option<&Key>, call: TurnId, why: Error);
    /// Gives the look whether an actor is in memory, and under which epoch.
    fn live(&self, key: &Key) -> Box<dyn Fn() -> Option<u64> + Send>;
    /// Brings an actor into memory.
    fn wake(&self, key: Key) -> BoxFuture<'static, Result<(), Error>>;
    /// These keys are always on.
    fn pin(&self, keys: HashSet<Key>);
    /// Attaches a timer or a watch to the activation whose turn runs: an [`Attach`](crate::engine::Attach) of the
    /// actor's Rust type.
    fn attach(&self, key: &Key, attach: Box<dyn Any + Send>) -> Result<Arc<Attachment>, Error>;
    /// What is attached to an activation.
    fn attachments(&self, key: &Key) -> Vec<Arc<Attachment>>;
}

impl<A: Actor> Control for Arc<Host<A>> {
    fn live(&self, key: &Key) -> Box<dyn Fn() -> Option<u64> + Send> {
        Host::live(self, key)
    }

    fn wake(&self, key: Key) -> BoxFuture<'static, Result<(), Error>> {
        let host = self.clone();
        Box::pin(async move { Host::wake(&host, &key).await })
    }

    fn pin(&self, keys: HashSet<Key>) {
        Host::pin(self, keys);
    }

    fn attach(&self, key: &Key, attach: Box<dyn Any + Send>) -> Result<Arc<Attachment>, Error> {
        Host::attach(self, key, typed::<A>(attach)?)
    }

    fn attachments(&self, key: &Key) -> Vec<Arc<Attachment>> {
        Host::attachments(self, key)
    }

    fn evict(&self, partition: u16) -> Vec<Key> {
        Host::evict(self, partition)
    }

    fn busy(&self, partition: u16) -> Vec<Key> {
        Host::busy(self, partition)
    }

    fn left(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.left.notified())
    }

    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn close(&self) {}

    fn resident(&self) -> usize {
        Host::resident(self)
    }

    fn held(&self) -> Option<usize> {
        Host::held(self)
    }

    fn passivate(&self, partition: u16, idle: Duration) -> usize {
        Host::passivate(self, partition, idle)
    }

    fn quarantined(&self) -> Vec<(String, String)> {
        Host::quarantined(self)
    }

    fn release(&self, key: &Key) -> bool {
        Host::release(self, key)
    }

    fn fire(&self, key: &Key, due: Due, born: u64) -> BoxFuture<'_, Result<Fired, Error>> {
        let to = Target { key: key.clone(), partition: self.around.partition_of(key) };
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let call = FireJob::call(self.name, to.key.as_str(), &due, born, Deadline::After(FIRE_WITHIN).fixed());
            self.admit(&to, &call.clone(), (false, false), || Some(Box::new(FireJob::new(due, call, Some(answer)))))?;
            outcome.await.unwrap_or_else(|_| {
                let why = format!("the turn of a reminder of {}/{} was cut", self.name, to.key);
                Err(Error::new(ErrorKind::Interrupted, why))
            })
        })
    }

    fn is_queued(&self, key: Option<&Key>, call: TurnId) -> bool {
        key.is_some_and(|key| Host::is_queued(self, key, call))
    }

    fn break_off(&self, key: Option<&Key>, call: TurnId, why: Error) {
        if let Some(key) = key {
            Host::break_off(self, key, call, why);
        }
    }
}

/// What waits for the instances of a service.
trait Instances: Send + Sync {
    fn idle(&self) -> BoxFuture<'_, ()>;
    fn close(&self);
    fn is_queued(&self, _: TurnId) -> bool {
        false
    }
    fn break_off(&self, _: TurnId, _: Error) {}
}

impl<A: Actor> Instances for Pool<A> {
    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(Pool::idle(self))
    }

    fn close(&self) {
        Pool::close(self);
    }

    fn is_queued(&self, call: TurnId) -> bool {
        Pool::is_queued(self, call)
    }

    fn break_off(&self, call: TurnId, why: Error) {
        Pool::break_off(self, call, why);
    }
}

/// The places for calls of an exposed verb that wait for its actor.
#[derive(Clone)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    all: u32,
}

#[cfg(feature = "ractor")]
impl Room {
    pub(crate) fn new(places: usize) -> Self {
        let all = u32::try_from(places).unwrap_or(u32::MAX);
        Self { places: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// A place, if one is free.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }
}

/// The verbs of an exposed service, whose actors are not ours to close.
impl Instances for Vec<Room> {
    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for room in self {
                // Never closed; gives all places back at once when it has them.
                drop(room.places.acquire_many(room.all).await);
            }
        })
    }

    fn close(&self) {}
}

/// A service has no partitions to give away.
struct Unkeyed(Arc<dyn Instances>);

impl Control for Unkeyed {
    fn idle(&self) -> BoxFuture<'_, ()> {
        self.0.idle()
    }

    fn close(&self) {
        self.0.close();
    }

    fn evict(&self, _: u16) -> Vec<Key> {
        Vec::new()
    }

    fn busy(&self, _: u16) -> Vec<Key> {
        Vec::new()
    }

    fn left(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn resident(&self) -> usize {
        0
    }

    fn held(&self) -> Option<usize> {
        None
    }

    fn passivate(&self, _: u16, _: Duration) -> usize {
        0
    }

    fn quarantined(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn release(&self, _: &Key) -> bool {
        false
    }

    fn fire(&self, _: &Key, _: Due, _: u64) -> BoxFuture<'_, Result<Fired, Error>> {
        let why = "a service has no reminders";
        Box::pin(std::future::ready(Err(Error::new(ErrorKind::Config, why))))
    }

    fn is_queued(&self, _: Option<&Key>, call: TurnId) -> bool {
        self.0.is_queued(call)
    }

    fn break_off(&self, _: Option<&Key>, call: TurnId, why: Error) {
        self.0.break_off(call, why);
    }

    fn live(&self, _: &Key) -> Box<dyn Fn() -> Option<u64> + Send> {
        Box::new(|| None)
    }

    fn wake(&self, _: Key) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn pin(&self, _: HashSet<Key>) {}

    fn attach(&self, _: &Key, _: Box<dyn Any + Send>) -> Result<Arc<Attachment>, Error> {
        let why = "the instances of a service have no timers and no watches: use a task of the node, or a keyed actor";
        Err(Error::new(ErrorKind::Config, why))
    }

    fn attachments(&self, _: &Key) -> Vec<Arc<Attachment>> {
        Vec::new()
    }
}

/// What an actor type takes from journals, and where somebody works for that.
fn takes(around: &Surroundings, follows: Vec<(&'static str, Follows)>) -> Result<Vec<Takes>, Error> {
    let takes = follows.into_iter().map(|(verb, follows)| {
        Name::new(follows.source)?;
        Ok(Takes { verb, partition: around.partition_of(&Key::new(verb)?), follows })
    });
    takes.collect()
}

impl Hosted {
    /// Puts an actor type on a node; for a service, with the children that run its instances.
    pub(crate) fn of<A: Actor>(
        around: &Arc<Surroundings>,
        options: &HostOptions,
    ) -> Result<(Self, Vec<ChildSpec>), Error> {
        let name = A::Contract::NAME;
        Name::new(name)?;
        let keyed = <A::Contract as Contract>::Kind::KEYED;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pool_size = options.pool.unwrap_or(cores);
        let weight = options.weight.unwrap_or(100);
        if !(1..=256).contains(&pool_size) || !(1..=10_000).contains(&weight) {
            let why = format!(
                "{name}: a pool has 1 to 256 instances and a weight is 1 to 10,000; got {pool_size} and {weight}"
            );
            return Err(Error::new(ErrorKind::Config, why));
        }
        let tell_attempts = options::tell_attempts(name, options.tell_attempts)?;
        if A::DURABLE && !keyed {
            let why = format!("{name} is a service, which has no key to keep a journal by: it cannot be durable");
            return Err(Error::new(ErrorKind::Config, why));
        }
        let always_on = options::always_on(name, keyed, &options.always_on)?;
        options::check_memory(name, options.memory)?;
        let partitions = if keyed { around.settings.partitions } else { 0 };
        let gate = Arc::new(Gate::new(partitions, around.proof.clone()));
        let mailbox = around.settings.mailbox;
        let (engine, control, children): (Engine<A>, Box<dyn Control>, _) = if keyed {
            let settings = HostSettings { mailbox, activations: around.settings.activations, memory: options.memory };
            let host = Arc::new(Host::new(name, gate.clone(), around.clone(), settings));
            (Engine::Keyed(host.clone()), Box::new(host), Vec::new())
        } else {
            let (pool, children) = Pool::new(name, &Key::new(name)?, around, pool_size, mailbox);
            let pool = Arc::new(pool);
            (Engine::Pool(pool.clone()), Box::new(Unkeyed(pool)), children)
        };
        let mut verbs = Verbs::<A>::of();
        let takes = takes(around, verbs.take_follows())?;
        let hosted = Hosted {
            name,
            keyed,
            durable: A::DURABLE,
            description: A::Contract::DESCRIPTION,
            contract_version: A::Contract::VERSION,
            version: A::VERSION,
            weight,
            pool: if keyed { 0 } else { pool_size },
            tell_attempts,
            always_on,
            verbs: verbs.build(&engine),
            takes,
            gate,
            control,
            log: OnceCell::new(),
            over: CancellationToken::new(),
        };
        let mut names = HashSet::new();
        for verb in hosted.verbs.iter().map(|verb| verb.contract.verb) {
            Name::new(verb)?;
            if !names.insert(verb) {
                let why =
                    format!("{name} has two handlers called {verb}: each message, and each subscription, has its own");
                return Err(Error::new(ErrorKind::Config, why));
            }
        }
        Ok((hosted, children))
    }

    /// A service whose verbs are served by something other than an actor of ours.
    pub(crate) fn exposed(
        name: &'static str,
        verbs: Vec<Verb>,
        rooms: Vec<Room>,
        around: &Surroundings,
    ) -> Result<Self, Error> {
        Name::new(name)?;
        Ok(Self {
            name,
            keyed: false,
            durable: false,
            description: "an existing actor, put on a subject",
            contract_version: "0.0.0",
            version: "0.0.0",
            weight: 100,
            pool: 1,
            tell_attempts: options::TELL_ATTEMPTS,
            always_on: Vec::new(),
            verbs,
            takes: Vec::new(),
            gate: Arc::new(Gate::new(0, around.proof.clone())),
            control: Box::new(Unkeyed(Arc::new(rooms))),
            log: OnceCell::new(),
            over: CancellationToken::new(),
        })
    }

    /// Ends a service on this node: its instances are gone for good.
    pub(crate) fn close(&self) {
        self.over.cancel();
        self.control.close();
    }

    /// The stream of its actors' journals, opened by whoever needs it first.
    pub(crate) async fn log(&self, around: &Surroundings) -> Result<Arc<Log>, Error> {
        self.log.get_or_try_init(|| Log::open(around, self.name)).await.cloned()
    }

    /// Whether its verbs have typed callers on this node.
    pub(crate) fn is_typed(&self) -> bool {
        self.verbs.iter().all(|verb| verb.message != TypeId::of::<()>())
    }

    pub(crate) fn local<M: Message>(&self) -> Option<&dyn LocalRoute<M>> {
        let id = TypeId::of::<M>();
        self.verbs.iter().find(|verb| verb.message == id)?.local::<M>()
    }

    /// The counts of a message's verb.
    pub(crate) fn stats<M: Message>(&self) -> Option<Arc<VerbStats>> {
        let id = TypeId::of::<M>();
        self.verbs.iter().find(|verb| verb.message == id).map(|verb| verb.stats.clone())
    }

    pub(crate) fn verb(&self, name: &str) -> Result<&Verb, Error> {
        self.verbs.iter().find(|verb| verb.contract.verb == name).ok_or_else(|| {
            Error::new(
                ErrorKind::UnknownVerb,
                format!("{} has no verb {name:?}; it has {}", self.name, self.verb_names().join(", ")),
            )
            .with_details(serde_json::json!({ "verbs": self.verb_names() }))
        })
    }

    pub(crate) fn verb_names(&self) -> Vec<&'static str> {
        self.verbs.iter().map(|verb| verb.contract.verb).collect()
    }
}
