//! What a node hosts: one entry for each actor type, whatever its Rust type.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
#[cfg(feature = "ractor")]
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::actor::Actor;
use crate::contract::{Contract, Kind, Message};
use crate::engine::{Gate, Host, HostSettings};
use crate::error::{Error, ErrorKind};
use crate::journal::Log;
use crate::key::Key;
use crate::node::Surroundings;
use crate::pool::Pool;
use crate::routes::{Engine, LocalRoute, Verb, Verbs};
use crate::subject::Name;
use crate::supervision::{ChildSpec, Restart};

/// How one actor type is hosted.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    pub(crate) pool: Option<usize>,
    pub(crate) weight: Option<u32>,
    pub(crate) restart: Restart,
}

impl HostOptions {
    /// The defaults: a pool of as many instances as there are cores, weight 100, restarted one for
    /// one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The instances of a service on this node, 1 to 256. Among the nodes that host it, a node
    /// gets calls in proportion to its pool.
    #[must_use]
    pub fn pool(mut self, instances: usize) -> Self {
        self.pool = Some(instances);
        self
    }

    /// This node's share of the keyed actors, in proportion to the other nodes' weights; 1 to
    /// 10,000, 100 unless set.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// What happens when an instance of a service cannot be activated.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }
}

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
    pub(crate) verbs: Vec<Verb>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) control: Box<dyn Control>,
    /// Cancelled when no instance of a service will come back: its calls are for other nodes.
    pub(crate) over: CancellationToken,
    /// The stream of its actors' journals, once one of them has opened its own.
    log: OnceCell<Arc<Log>>,
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
    /// Drops the durable actors of a partition that have been idle for so long; returns how many.
    fn passivate(&self, partition: u16, idle: Duration) -> usize;
    fn quarantined(&self) -> Vec<(String, String)>;
    fn release(&self, key: &Key) -> bool;
}

impl<A: Actor> Control for Arc<Host<A>> {
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

    fn passivate(&self, partition: u16, idle: Duration) -> usize {
        Host::passivate(self, partition, idle)
    }

    fn quarantined(&self) -> Vec<(String, String)> {
        Host::quarantined(self)
    }

    fn release(&self, key: &Key) -> bool {
        Host::release(self, key)
    }
}

/// What waits for the instances of a service.
trait Instances: Send + Sync {
    fn idle(&self) -> BoxFuture<'_, ()>;
    fn close(&self);
}

impl<A: Actor> Instances for Pool<A> {
    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(Pool::idle(self))
    }

    fn close(&self) {
        Pool::close(self);
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

    fn passivate(&self, _: u16, _: Duration) -> usize {
        0
    }

    fn quarantined(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn release(&self, _: &Key) -> bool {
        false
    }
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
        if A::DURABLE && !keyed {
            let why = format!("{name} is a service, which has no key to keep a journal by: it cannot be durable");
            return Err(Error::new(ErrorKind::Config, why));
        }
        let partitions = if keyed { around.settings.partitions } else { 0 };
        let gate = Arc::new(Gate::new(partitions, around.proof.clone()));
        let mailbox = around.settings.mailbox;
        let (engine, control, children): (Engine<A>, Box<dyn Control>, _) = if keyed {
            let settings = HostSettings { mailbox, activations: around.settings.activations };
            let host = Arc::new(Host::new(name, gate.clone(), around.clone(), settings));
            (Engine::Keyed(host.clone()), Box::new(host), Vec::new())
        } else {
            let (pool, children) = Pool::new(name, &Key::new(name)?, around, pool_size, mailbox);
            let pool = Arc::new(pool);
            (Engine::Pool(pool.clone()), Box::new(Unkeyed(pool)), children)
        };
        let hosted = Hosted {
            name,
            keyed,
            durable: A::DURABLE,
            description: A::Contract::DESCRIPTION,
            contract_version: A::Contract::VERSION,
            version: A::VERSION,
            weight,
            pool: if keyed { 0 } else { pool_size },
            verbs: Verbs::<A>::of().build(&engine),
            gate,
            control,
            log: OnceCell::new(),
            over: CancellationToken::new(),
        };
        for verb in &hosted.verbs {
            Name::new(verb.contract.verb)?;
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
            verbs,
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
