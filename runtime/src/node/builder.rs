//! Putting a node together.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Node;
use super::hosted::{HostOptions, Hosted, Room};
use super::start;
use super::surroundings::Surroundings;
use crate::actor::Actor;
use crate::contract::Contract;
use crate::error::{Error, ErrorKind};
use crate::executor::Executor;
use crate::subject::Name;
use crate::supervision::{ChildSpec, Restart};
#[cfg(test)]
use crate::transport::Transport;
use crate::transport::{Connect, MemoryBroker};

/// The longest lease.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The largest mailbox: a pool of 256 has a queue of so many for each instance.
const MAILBOX_MAX: usize = 1_000_000;
/// The most calls that may wait for answers.
const IN_FLIGHT_MAX: usize = 16_000_000;

/// A node that is being put together; [`Node::builder`] and [`Node::local`] make one.
///
/// Every setting has a default; [`start`](NodeBuilder::start) checks them all and says which is
/// wrong.
///
/// ```no_run
/// # use greenroom::{Actor, Error, Node};
/// # use std::time::Duration;
/// # async fn run<OrderActor: Actor>() -> Result<(), Error> {
/// let node = Node::builder("shop")
///     .connect("nats://broker:4222") // else as the `nats` CLI finds it
///     .name("north-1")
///     .host::<OrderActor>()
///     .budget(Duration::from_secs(2))
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a node runs after `.start().await`"]
pub struct NodeBuilder {
    pub(super) app: String,
    pub(super) name: Option<String>,
    pub(super) broker: Broker,
    /// Whether the broker was made for this node.
    pub(super) own_broker: bool,
    pub(super) hosts: BTreeMap<&'static str, MakeHost>,
    pub(super) twice: Option<&'static str>,
    /// A setting that could not be taken, told by `start`.
    pub(super) refused: Option<Error>,
    pub(super) groups: Vec<TaskGroup>,
    /// Verbs of services that are not actors of ours, by service, and their bounds.
    pub(super) exposed: Vec<(&'static str, Vec<crate::routes::Verb>, Vec<Room>)>,
    pub(super) partitions: Option<u16>,
    pub(super) lease_ttl: Duration,
    pub(super) renewal: Option<Duration>,
    pub(super) budget: Duration,
    pub(super) mailbox: usize,
    pub(super) in_flight: usize,
    pub(super) payload: usize,
    pub(super) activations: usize,
    pub(super) passivate_after: Duration,
    #[cfg(test)]
    rig: Option<crate::simulation::Rig>,
}

/// Which broker a node uses.
pub(super) enum Broker {
    Environment,
    Nats(Box<Connect>),
    Memory(MemoryBroker),
}

pub(super) type MakeHost =
    Box<dyn FnOnce(&Arc<Surroundings>) -> Result<(Hosted, Vec<ChildSpec>, Restart), Error> + Send + Sync>;
type MakeTask = Arc<dyn Fn(Node) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// Background tasks that are supervised together.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), greenroom::Error> {
/// use greenroom::{Node, Restart, Strategy, TaskGroup};
///
/// // The second needs what the first has made, so it starts again with it.
/// let rule = Restart { strategy: Strategy::RestForOne, intensity: 3, ..Restart::default() };
/// let feed = TaskGroup::new("feed", rule)
///     .task("source", |_node| async { Ok(()) })
///     .task("sink", |_node| std::future::pending());
/// let node = Node::local("shop").group(feed).start().await?;
/// assert_eq!(node.supervision()[0].name, "feed");
/// node.drain().await
/// # }
/// ```
pub struct TaskGroup {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) tasks: Vec<(String, MakeTask)>,
}

impl TaskGroup {
    /// A group without tasks.
    pub fn new(name: impl Into<String>, restart: Restart) -> Self {
        Self { name: name.into(), restart, tasks: Vec::new() }
    }

    /// Adds a task; tasks start in the order in which they were added. A task that returns `Ok`
    /// has finished; one that fails or panics is restarted as the group's [`Restart`] says.
    #[must_use]
    pub fn task<F, Fut>(mut self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Node) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.tasks.push((name.into(), Arc::new(move |node| Box::pin(task(node)))));
        self
    }
}

impl NodeBuilder {
    pub(super) fn new(app: &str, broker: Broker) -> Self {
        Self {
            app: app.to_owned(),
            name: None,
            own_broker: matches!(broker, Broker::Memory(_)),
            broker,
            hosts: BTreeMap::new(),
            twice: None,
            refused: None,
            groups: Vec::new(),
            exposed: Vec::new(),
            partitions: None,
            lease_ttl: Duration::from_secs(30),
            renewal: None,
            budget: Duration::from_secs(5),
            mailbox: 1_024,
            in_flight: 65_536,
            payload: 512 * 1024,
            activations: 4_000_000,
            passivate_after: Duration::from_secs(600),
            #[cfg(test)]
            rig: None,
        }
    }

    /// The broker: a URL such as `nats://127.0.0.1:4222`, or [`Connect`] with credentials. Without
    /// this, the environment decides as it does for the `nats` CLI (`NATS_URL`, `NATS_CREDS`,
    /// `NATS_CONTEXT`, …).
    pub fn connect<C>(mut self, connect: C) -> Self
    where
        C: TryInto<Connect>,
        Error: From<C::Error>,
    {
        match connect.try_into() {
            Ok(connect) => self.broker = Broker::Nats(Box::new(connect)),
            Err(error) => self.refused = Some(error.into()),
        }
        self
    }

    /// A broker in this process, shared with other nodes of it.
    pub fn memory(mut self, broker: &MemoryBroker) -> Self {
        self.broker = Broker::Memory(broker.clone());
        self.own_broker = false;
        self
    }

    /// The node's name; its id is this and a nonce. The host's name unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Hosts an actor type or a service.
    pub fn host<A: Actor>(self) -> Self {
        self.host_with::<A>(HostOptions::new())
    }

    /// Hosts an actor type or a service, otherwise than by default.
    pub fn host_with<A: Actor>(mut self, options: HostOptions) -> Self {
        let name = A::Contract::NAME;
        let make: MakeHost = Box::new(move |around| {
            let (hosted, children) = Hosted::of::<A>(around, &options)?;
            Ok((hosted, children, options.restart))
        });
        if self.hosts.insert(name, make).is_some() {
            self.twice = Some(name);
        }
        self
    }

    /// Runs a background task under the node's supervision, restarted with back-off when it fails.
    pub fn task<F, Fut>(self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Node) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let name = name.into();
        self.group(TaskGroup::new(name.clone(), Restart::default()).task(name, task))
    }

    /// Runs background tasks that are supervised together.
    pub fn group(mut self, group: TaskGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// How long the node's lease lives without being renewed: that long after a node froze or was
    /// cut off, others take its actors over. It must outlive an election of the broker's, hence
    /// 30 s unless set; whole seconds, 1 s to 24 h. Renewed three times in that time.
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// How often the lease is renewed, if not three times in its life.
    pub fn renew_every(mut self, every: Duration) -> Self {
        self.renewal = Some(every);
        self
    }

    /// Into how many partitions each actor type is divided: fixed at the birth of the app, 64
    /// unless set then. A node that says otherwise refuses to start.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The budget of calls that name none; 5 s unless set. A call on a public subject that names its
    /// own gets five minutes at most, or this if it is more.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// How many messages may wait for one actor; 1,024 unless set, 1,000,000 at most. A service has
    /// one queue on a node, from which idle instances take: so many for each instance of its pool
    /// may wait in it or be served, all together.
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages;
        self
    }

    /// How many calls of this node may wait for answers; 65,536 unless set, 16,000,000 at most.
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls;
        self
    }

    /// The largest payload, in bytes; 512 KiB unless set. At most what the broker takes, less 64 KiB
    /// for headers and for the heads of frames.
    pub fn payload_max(mut self, bytes: usize) -> Self {
        self.payload = bytes;
        self
    }

    /// How many actors of one type may be in memory; 4,000,000 unless set. At the bound a durable actor makes room by
    /// leaving memory, one that was used long ago first; volatile ones stay, and calls to further ones are `Overloaded`.
    pub fn activations(mut self, actors: usize) -> Self {
        self.activations = actors;
        self
    }

    /// After how long without a call a durable actor leaves memory; 10 min unless set, 1 s at least, give or take
    /// 10 s. The next call brings it back. Volatile actors stay as long as their node.
    pub fn passivate_after(mut self, idle: Duration) -> Self {
        self.passivate_after = idle;
        self
    }

    /// Starts the node: connects, joins the others, and returns when it serves its share.
    ///
    /// The handlers run on the tokio runtime that this is called in; the node adds threads of its
    /// own for the broker and the lease.
    ///
    /// # Errors
    /// `Config` for a setting that cannot be used, or an app that was born with others;
    /// `Unavailable` if the broker cannot be reached, or has no JetStream.
    pub async fn start(mut self) -> Result<Node, Error> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.check()?;
        start::start(self).await
    }

    /// Has the node live in a simulation.
    #[cfg(test)]
    pub(crate) fn rig(mut self, rig: crate::simulation::Rig) -> Self {
        self.rig = Some(rig);
        self
    }

    /// Where the node's tasks run.
    pub(super) fn executor(&self) -> Result<Executor, Error> {
        let executor = Executor::current()?;
        #[cfg(test)]
        let executor = executor.with_frost(self.rig.as_ref().map(|rig| rig.frost.clone()));
        Ok(executor)
    }

    /// The node's number, which no other start has; in a simulation the one that was given.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only a simulation says which"))]
    pub(super) fn seed(&self, fresh: u64) -> u64 {
        #[cfg(test)]
        if let Some(rig) = &self.rig {
            return rig.seed;
        }
        fresh
    }

    /// The connections of a simulated node.
    #[cfg(test)]
    pub(super) fn links(&self, own: &str, lease: &str) -> Option<[Arc<dyn Transport>; 2]> {
        self.rig.as_ref().map(|rig| [rig.connect(own), rig.connect(lease)])
    }

    /// Notes a setting that cannot be used; `start` tells of it.
    #[cfg(feature = "ractor")]
    pub(crate) fn refuse(mut self, error: Error) -> Self {
        self.refused = Some(error);
        self
    }

    /// Adds a verb of a service that is not an actor of ours.
    #[cfg(feature = "ractor")]
    pub(crate) fn add_exposed(&mut self, service: &'static str, verb: crate::routes::Verb, room: Room) {
        match self.exposed.iter_mut().find(|(name, ..)| *name == service) {
            Some((_, verbs, rooms)) => {
                verbs.push(verb);
                rooms.push(room);
            }
            None => self.exposed.push((service, vec![verb], vec![room])),
        }
    }

    #[cfg(feature = "ractor")]
    pub(crate) fn mailbox_of_exposed(&self) -> usize {
        self.mailbox
    }

    /// Whether it hosts nothing, on a broker that others may use.
    pub(super) fn is_guest(&self) -> bool {
        let nothing = self.hosts.is_empty() && self.exposed.is_empty();
        nothing && !(self.own_broker && matches!(self.broker, Broker::Memory(_)))
    }

    fn check(&self) -> Result<(), Error> {
        let config = |why: String| Err(Error::new(ErrorKind::Config, why));
        Name::new(&self.app)?;
        if let Some(name) = self.twice {
            return config(format!("{name} is hosted twice on this node"));
        }
        if self.lease_ttl < Duration::from_secs(1) || self.lease_ttl.subsec_nanos() != 0 {
            return config(format!(
                "the lease lives {:?}; the broker takes whole seconds, one at least",
                self.lease_ttl
            ));
        }
        if self.lease_ttl > LEASE_MAX {
            let why = format!(
                "the lease lives {:?}; that long a dead node would keep its actors; 24 h at most",
                self.lease_ttl
            );
            return config(why);
        }
        if self.renewal().is_zero() || self.renewal() > self.lease_ttl / 2 {
            return config(format!(
                "the lease is renewed every {:?} and lives {:?}; renew it at least twice in its life",
                self.renewal(),
                self.lease_ttl
            ));
        }
        if self.partitions.is_some_and(|partitions| !(1..=16_384).contains(&partitions)) {
            return config(format!("{:?} partitions; an app has 1 to 16,384", self.partitions));
        }
        let bounds = [
            ("mailbox", self.mailbox, MAILBOX_MAX, "1,000,000"),
            ("in_flight", self.in_flight, IN_FLIGHT_MAX, "16,000,000"),
            ("payload_max", self.payload, usize::MAX, ""),
            ("activations", self.activations, usize::MAX, ""),
        ];
        for (name, bound, most, told) in bounds {
            if bound == 0 {
                return config(format!("{name} is 0; nothing could be done"));
            }
            if bound > most {
                return config(format!("{name} is {bound}; it may be {told} at most"));
            }
        }
        if self.passivate_after < Duration::from_secs(1) {
            return config(format!("actors passivate after {:?}; give them 1 s at least", self.passivate_after));
        }
        if self.budget.is_zero() {
            return config("the budget is 0; no call could be made".to_owned());
        }
        Ok(())
    }

    pub(super) fn renewal(&self) -> Duration {
        self.renewal.unwrap_or(self.lease_ttl / 3)
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<_> = self.hosts.keys().collect();
        f.debug_struct("NodeBuilder")
            .field("app", &self.app)
            .field("name", &self.name)
            .field("hosts", &hosts)
            .finish_non_exhaustive()
    }
}
