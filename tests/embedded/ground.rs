//! The brokers that nodes of a test meet on: one in memory, or a real server.

use std::sync::Arc;
use std::time::Duration;

use greenroom::Node;
use greenroom::node::{ClusterInfo, NodeBuilder};
use greenroom::transport::{Connect, MemoryBroker, NatsTransport, Transport};

use crate::harness::{Profile, Server, eventually, holds};

/// How long anything may take that should happen soon, on a machine that is busy.
pub(super) const SOON: Duration = Duration::from_secs(15);
/// How long to wait to be fairly sure that something does not happen.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// How long leases live here: as short as the broker allows without being renewed in haste.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// A broker with nodes of one app on it.
pub(super) enum Ground {
    Memory(MemoryBroker),
    Nats(Box<Server>),
}

impl Ground {
    pub(super) fn memory() -> Self {
        Ground::Memory(MemoryBroker::new())
    }

    pub(super) async fn nats() -> Self {
        Ground::Nats(Box::new(Server::start(Profile::Plain).await))
    }

    /// A node of the app that these tests are about, with as few partitions as will do.
    pub(super) fn node(&self, name: &str) -> NodeBuilder {
        let builder = Node::builder("demo").name(name).partitions(8).lease(LEASE);
        match self {
            Ground::Memory(broker) => builder.memory(broker),
            Ground::Nats(server) => builder.connect(server.url()),
        }
    }

    /// A connection beside those of the nodes.
    pub(super) async fn connect(&self, name: &str) -> Arc<dyn Transport> {
        match self {
            Ground::Memory(broker) => Arc::new(broker.transport(name)),
            Ground::Nats(server) => {
                let settings = Connect::try_from(server.url()).expect("an address").name(name);
                Arc::new(NatsTransport::connect(settings).await.expect("a connection"))
            }
        }
    }

    /// Stops the broker, so that every connection is lost.
    pub(super) async fn stop(&mut self) {
        match self {
            Ground::Memory(broker) => broker.stop(),
            Ground::Nats(server) => server.kill9().await,
        }
    }

    /// Starts it again, at the same address, with its records.
    pub(super) async fn start(&mut self) {
        match self {
            Ground::Memory(broker) => broker.start(),
            Ground::Nats(server) => server.restart().await,
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

/// Waits until all these nodes know each other, and every partition of `actor` has an owner.
pub(super) async fn settled(actor: &str, hosts: &[&Node], callers: &[&Node]) {
    for node in hosts.iter().chain(callers) {
        eventually(SOON, "the nodes have divided the partitions", async || {
            let info = node.info();
            let live = |host: &Node| info.nodes.iter().any(|known| known.id == host.id() && known.live);
            let shares: Vec<usize> = hosts.iter().map(|host| share(&info, actor, host.id())).collect();
            let all = hosts.iter().all(|host| live(host)) && shares.iter().all(|share| *share > 0);
            holds(all && shares.iter().sum::<usize>() == usize::from(info.partitions), || format!("{info:?}"))
        })
        .await;
    }
}

/// How many partitions of an actor type a node owns.
pub(super) fn share(info: &ClusterInfo, actor: &str, node: &str) -> usize {
    let claims = info.claims.iter().filter(|claim| claim.actor == actor && claim.node == node);
    claims.map(|claim| claim.partitions.len()).sum()
}

/// Runs a case on a broker in memory and on a real server, each with two workers.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::super::ground::bounded(super::$case($crate::embedded::ground::Ground::memory())).await;
            })+
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let ground = $crate::embedded::ground::Ground::nats().await;
                super::super::ground::bounded(super::$case(ground)).await;
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
