//! Nodes: a process, or a part of one, that hosts actors or only calls them.

mod always;
mod audience;
mod birth;
mod builder;
pub(crate) mod chase;
mod cluster;
pub(crate) mod depth;
mod discovery;
mod doubt;
mod drain;
mod driver;
pub(crate) mod duty;
mod hosted;
mod idle;
mod intake;
mod keeper;
mod listen;
mod notice;
mod options;
mod partition;
mod passing;
mod permit;
mod probe;
mod serve;
mod silence;
mod start;
mod surroundings;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::always::AlwaysOn;
pub(crate) use self::audience::{Audiences, DESERTED_FOR, Question};
pub(crate) use self::birth::partitions_of;
use self::builder::Broker;
pub use self::builder::{NodeBuilder, TaskGroup};
pub(crate) use self::cluster::Located;
pub use self::discovery::{ClaimInfo, ClusterInfo, NodeInfo};
use self::driver::{Feed, Over};
#[cfg(feature = "ractor")]
pub(crate) use self::hosted::Room;
pub(crate) use self::hosted::{Hosted, Takes};
pub(crate) use self::intake::{FrameAnswer, Runner};
pub use self::options::HostOptions;
pub use self::probe::{Mapping, mapping, mapping_line};
use self::surroundings::Life;
pub(crate) use self::surroundings::Surroundings;
use crate::contract::{Contract, Keyed, Service};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::key::Key;
use crate::reference::{Origin, Ref, ServiceRef};
use crate::subscribe::Subscribe;
use crate::supervision::{GroupReport, Tree};
use crate::tell::DeadLetters;
use crate::transport::{MemoryBroker, Status};
use crate::watch::{Members, Watch};

/// How long a drain waits for turns that run, unless told otherwise.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// A running node. Cheap to clone; when the last clone is dropped without [`drain`](Node::drain),
/// the node is cut off as if its process had died. Clones that the node gives to its own actors and
/// tasks do not keep it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), greenroom::Error> {
/// use greenroom::Node;
///
/// // It hosts nothing: a client.
/// let node = Node::local("shop").name("till").start().await?;
/// assert!(node.id().starts_with("till-"));
/// assert_eq!(node.info().app, "shop");
/// node.drain().await
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    _kept: Option<Arc<Kept>>,
}

/// Ends the node when nobody outside it has it any more.
struct Kept(Weak<Inner>);

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(inner) = self.0.upgrade() else { return };
        inner.cut();
        // Its tasks may hold the node: they are told, and then let it go.
        inner.around.runtime.clone().spawn(async move { inner.end().await });
    }
}

struct Inner {
    around: Arc<Surroundings>,
    tree: Tree,
    feed: Feed,
    over: watch::Receiver<Option<Over>>,
    /// Ends the tasks that take messages from the wire.
    stop: CancellationToken,
    /// Ends the subscriptions of services, in the way that loses nothing.
    leave_services: CancellationToken,
    services: TaskTracker,
    /// Ends the subscription to what other nodes say, likewise.
    leave_nodes: CancellationToken,
    nodes: TaskTracker,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// Why a node's life has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was drained.
    Drained,
    /// It was taken for dead, or its records were removed: others may serve its actors. It has left
    /// its subjects, dropped its actors and closed its connections, and its calls fail with
    /// `Stopped`; whoever wants to go on builds a new node. The text says what happened.
    Retired(String),
}

impl Node {
    /// The node as its user has it.
    fn kept(inner: &Arc<Inner>) -> Self {
        Self { inner: inner.clone(), _kept: Some(Arc::new(Kept(Arc::downgrade(inner)))) }
    }

    /// The node as its own actors and tasks have it.
    fn of(inner: Arc<Inner>) -> Self {
        Self { inner, _kept: None }
    }

    /// Begins a node of this app on NATS.
    pub fn builder(app: &str) -> NodeBuilder {
        NodeBuilder::new(app, Broker::Environment)
    }

    /// Begins a node with a broker of its own in this process: no server at all.
    pub fn local(app: &str) -> NodeBuilder {
        NodeBuilder::new(app, Broker::Memory(MemoryBroker::new()))
    }

    /// The node's id: its name, and a nonce that is fresh at every start.
    pub fn id(&self) -> &str {
        &self.inner.around.id
    }

    /// An actor's address. Makes no I/O; always valid, wherever the actor lives. A key that cannot
    /// be used fails the calls with `BadKey`.
    pub fn actor<C: Contract<Kind = Keyed>>(&self, key: impl AsRef<str>) -> Ref<C> {
        Ref::new(self.inner.around.clone(), key.as_ref(), Origin::Root)
    }

    /// A service's address. Makes no I/O.
    pub fn service<C: Contract<Kind = Service>>(&self) -> ServiceRef<C> {
        ServiceRef::new(self.inner.around.clone(), Origin::Root)
    }

    /// Begins a subscription to the events of an actor type, on whichever nodes they happen.
    pub fn subscribe<E: Event>(&self) -> Subscribe<E> {
        Subscribe::new(self.inner.around.clone())
    }

    /// The durable tells that could not be delivered: to look at, to deliver again, to throw away.
    pub fn dead_letters(&self) -> DeadLetters {
        let around = &self.inner.around;
        DeadLetters::new(around.transport.clone(), around.subjects.clone(), around.settings.partitions)
    }

    /// Watches a keyed actor: the watch tells when its activation ends, wherever that is, and why. Returns when the
    /// actor's owner knows of the watch. If the actor is not in memory then, the first thing that the watch tells is
    /// [`Reason::NotActive`](crate::watch::Reason::NotActive): watching activates nothing.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # use greenroom::watch::Reason;
    /// # #[contract(messages(Hello))]
    /// # struct Greeter;
    /// # #[message(Greeter, ask, reply = String)]
    /// # struct Hello;
    /// # async fn run(node: Node) -> Result<(), Error> {
    /// let mut watch = node.watch::<Greeter>("ada").await?;
    /// while let Some(gone) = watch.next().await {
    ///     match &gone.reason {
    ///         Reason::Moved { to } => println!("{} is at {to} now", gone.key),
    ///         Reason::NodeDied { node } => println!("{} died with {node}", gone.key),
    ///         _ => println!("{gone}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BadKey` for an unusable key, `Overloaded` if this node watches 16,384 actors already, `Unavailable` if no owner
    /// has taken the watch within the node's default budget, `Stopped` if this node has stopped.
    pub async fn watch<C: Contract<Kind = Keyed>>(&self, key: impl AsRef<str>) -> Result<Watch, Error> {
        crate::watch::begin(&self.inner.around, C::NAME, key.as_ref()).await
    }

    /// Watches the other nodes that host something: tells who has gone, and how.
    pub fn watch_nodes(&self) -> Members {
        Members::new(self.inner.around.clone())
    }

    /// What this node knows of itself and the others.
    pub fn info(&self) -> ClusterInfo {
        ClusterInfo::of(&self.inner.around)
    }

    /// The supervision tree: what runs, what was restarted and why.
    pub fn supervision(&self) -> Vec<GroupReport> {
        self.inner.tree.report()
    }

    /// How the connection to the broker stands, and every change of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.around.transport.status()
    }

    /// Lets an actor on this node run again that was quarantined after repeated panics. Returns
    /// whether it was.
    ///
    /// # Errors
    /// `BadKey` for an unusable key, `NoHost` if this node does not host the type.
    pub fn release<C: Contract<Kind = Keyed>>(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        let hosted = self.inner.around.hosted(C::NAME);
        let hosted =
            hosted.ok_or_else(|| Error::new(ErrorKind::NoHost, format!("this node does not host {}", C::NAME)))?;
        Ok(hosted.control.release(&Key::new(key.as_ref())?))
    }

    /// Leaves in order, within 30 s: takes no new work, lets the turns that run finish and answer,
    /// hands its actors over to the others, and closes its connections. Other clones of the node
    /// fail their calls with `Stopped` afterwards.
    ///
    /// # Errors
    /// `Interrupted` if turns still ran when the time was over; the node has stopped all the same.
    pub async fn drain(&self) -> Result<(), Error> {
        self.drain_within(DRAIN_WITHIN).await
    }

    /// [`drain`](Node::drain) with a bound of its own. Once begun it goes on if the future is
    /// dropped, but for closing the connections.
    ///
    /// # Errors
    /// See [`drain`](Node::drain).
    pub async fn drain_within(&self, within: Duration) -> Result<(), Error> {
        drain::drain(&self.inner, within).await
    }

    /// Waits until the node's life ends, by a drain or because it was taken for dead. A process
    /// that wants to go on after [`Ended::Retired`] builds a new node.
    pub async fn ended(&self) -> Ended {
        let mut over = self.inner.over.clone();
        loop {
            match *over.borrow_and_update() {
                Some(Over::Retired(reason)) => return Ended::Retired(format!("{reason:?}")),
                Some(Over::Drained | Over::Cut) => return Ended::Drained,
                None => {}
            }
            if over.changed().await.is_err() {
                return Ended::Drained;
            }
        }
    }
}

impl Inner {
    /// Ends everything, as it is: the node is not what the others take it for any more.
    async fn end(&self) {
        self.cut();
        self.tree.stop(start::TASK_GRACE).await;
        // What was cut is answered too.
        self.around.frames.send(&*self.around.transport);
        self.around.transport.close().await;
    }

    /// Stops everything that is left, whatever its state.
    fn cut(&self) {
        self.around.enter_life(Life::Stopped);
        self.stop.cancel();
        self.around.duties.end();
        self.around.leave_watches.cancel();
        self.around.all_hosted().values().for_each(|hosted| hosted.close());
        // Breaks the circle of the node and its hosts, and with it drops every actor.
        self.around.set_hosted(std::collections::HashMap::new());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cut();
        let transport = self.around.transport.clone();
        self.around.runtime.spawn(async move { transport.close().await });
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}
