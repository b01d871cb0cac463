//! The brokers that nodes of a test meet on: one in memory, or a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenroom::Node;
use greenroom::node::{ClusterInfo, NodeBuilder};
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Connect, MemoryBroker, NatsTransport, Transport};
use tokio::sync::OnceCell;

use crate::harness::{Profile, Server, eventually, holds};

/// How long anything may take that should happen soon, on a machine that is busy.
pub(super) const SOON: Duration = Duration::from_secs(15);
/// How long what is told at once may take, on a machine that is busy. Less than the five seconds that a call waits which
/// is told nothing.
pub(super) const AT_ONCE: Duration = Duration::from_secs(4);
/// How long to wait to be fairly sure that something does not happen.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// How long leases live here: as short as the broker allows without being renewed in haste.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// As few as will do: with so many, it does not happen that one of two nodes has none.
pub(super) const PARTITIONS: u16 = 32;

/// A broker with nodes of one app on it.
pub(super) struct Ground {
    app: String,
    broker: Broker,
}

enum Broker {
    Memory(MemoryBroker),
    /// A server that other tests use at the same time, each for an app of its own.
    Shared(&'static Server),
    Own(Box<Server>),
}

impl Ground {
    pub(super) fn memory() -> Self {
        Self::on(MemoryBroker::new())
    }

    pub(super) fn on(broker: MemoryBroker) -> Self {
        Self { app: "demo".to_owned(), broker: Broker::Memory(broker) }
    }

    /// A real server. It ends with the tests' process.
    pub(super) async fn nats() -> Self {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        static APPS: AtomicU64 = AtomicU64::new(0);
        let server = SHARED.get_or_init(|| Server::start(Profile::Plain)).await;
        Self { app: format!("demo_{}", APPS.fetch_add(1, Ordering::Relaxed)), broker: Broker::Shared(server) }
    }

    /// A real server for one test, which may stop it, or count what it does.
    pub(super) async fn nats_alone() -> Self {
        let server = Server::start(Profile::Plain).await;
        Self { app: "demo".to_owned(), broker: Broker::Own(Box::new(server)) }
    }

    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// Whether the broker is in memory.
    pub(super) fn is_memory(&self) -> bool {
        matches!(self.broker, Broker::Memory(_))
    }

    /// The app's subjects.
    pub(super) fn subjects(&self) -> Subjects {
        Subjects::new(Name::new(&self.app).expect("a name"))
    }

    /// A node of the app that these tests are about.
    pub(super) fn node(&self, name: &str) -> NodeBuilder {
        let builder = Node::builder(&self.app).name(name).partitions(PARTITIONS).lease(LEASE);
        match &self.broker {
            Broker::Memory(broker) => builder.memory(broker),
            Broker::Shared(server) => builder.connect(server.url()),
            Broker::Own(server) => builder.connect(server.url()),
        }
    }

    /// The server, if the test has one for itself.
    pub(super) fn server(&self) -> Option<&Server> {
        match &self.broker {
            Broker::Own(server) => Some(server),
            Broker::Memory(_) | Broker::Shared(_) => None,
        }
    }

    /// A connection beside those of the nodes.
    pub(super) async fn connect(&self, name: &str) -> Arc<dyn Transport> {
        let url = match &self.broker {
            Broker::Memory(broker) => return Arc::new(broker.transport(name)),
            Broker::Shared(server) => server.url(),
            Broker::Own(server) => server.url(),
        };
        let settings = Connect::try_from(url).expect("an address").name(name);
        Arc::new(NatsTransport::connect(settings).await.expect("a connection"))
    }

    /// Stops the broker, so that every connection is lost.
    pub(super) async fn stop(&mut self) {
        match &mut self.broker {
            Broker::Memory(broker) => broker.stop(),
            Broker::Own(server) => server.kill9().await,
            Broker::Shared(_) => panic!("others use it: this case needs a server of its own"),
        }
    }

    /// Starts it again, at the same address, with its records.
    pub(super) async fn start(&mut self) {
        match &mut self.broker {
            Broker::Memory(broker) => broker.start(),
            Broker::Own(server) => server.restart().await,
            Broker::Shared(_) => panic!("it was not stopped"),
        }
    }
}

/// Fails instead of waiting for ever.
pub(super) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, happens).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("this did not happen within {SOON:?}: {what}"),
    }
}

/// Waits until all these nodes know each other and agree about who owns which partition of
/// `actor`, and nothing has moved for a while.
pub(super) async fn settled(actor: &str, hosts: &[&Node], callers: &[&Node]) {
    let mut before = None;
    eventually(SOON, "the nodes have divided the partitions and agree about it", async || {
        let infos: Vec<ClusterInfo> = hosts.iter().chain(callers).map(|node| node.info()).collect();
        let shares = |info: &ClusterInfo| hosts.iter().map(|host| owned(info, actor, host.id())).collect::<Vec<_>>();
        let now = shares(&infos[0]);
        let complete = now.iter().map(Vec::len).sum::<usize>() == usize::from(infos[0].partitions);
        let live = |info: &ClusterInfo, host: &Node| info.nodes.iter().any(|known| known.id == host.id() && known.live);
        let all = infos.iter().all(|info| shares(info) == now && hosts.iter().all(|host| live(info, host)));
        let still = complete && all && before.as_ref() == Some(&now) && now.iter().all(|share| !share.is_empty());
        before = Some(now);
        tokio::time::sleep(QUIET / 5).await;
        holds(still, || format!("{infos:?}"))
    })
    .await;
}

/// How many partitions of an actor type a node owns.
pub(super) fn share(info: &ClusterInfo, actor: &str, node: &str) -> usize {
    owned(info, actor, node).len()
}

fn owned(info: &ClusterInfo, actor: &str, node: &str) -> Vec<u16> {
    let claims = info.claims.iter().filter(|claim| claim.actor == actor && claim.node == node);
    claims.flat_map(|claim| claim.partitions.clone()).collect()
}

/// Runs a case on a broker in memory and on a real server, each with two workers. `alone`: on a
/// server that no other case uses.
macro_rules! on_both {
    (alone: $($case:ident),+ $(,)?) => { $crate::embedded::ground::on_both!(@ nats_alone: $($case),+); };
    ($($case:ident),+ $(,)?) => { $crate::embedded::ground::on_both!(@ nats: $($case),+); };
    (@ $nats:ident: $($case:ident),+) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::embedded::ground::bounded(super::$case($crate::embedded::ground::Ground::memory())).await;
            })+
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let ground = $crate::embedded::ground::Ground::$nats().await;
                $crate::embedded::ground::bounded(super::$case(ground)).await;
            })+
        }
    };
}
pub(super) use on_both;

/// No case may take longer, whatever happens.
pub(super) async fn bounded(case: impl Future<Output = ()>) {
    // Boxed: some cases hold many futures.
    if tokio::time::timeout(Duration::from_secs(60), Box::pin(case)).await.is_err() {
        panic!("the case did not end within a minute");
    }
}
