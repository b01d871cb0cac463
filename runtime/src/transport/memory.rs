//! A broker inside the process: for nodes without a server, for unit tests, for simulation.
//!
//! It keeps the promises of a real server and breaks what a real one breaks: delivery is at most
//! once, a slow subscription loses messages, and it can be stopped. Nothing is random.

mod broker;
mod bucket;
mod client;
mod records;
mod routes;
mod stream;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::broker::Broker;
use self::bucket::MemoryBucket;
use self::client::Client;
pub(super) use self::client::MemorySource;
use self::routes::Mapping;
use self::stream::MemoryStream;
pub use self::stream::StreamFaults;
pub(super) use self::stream::{MemoryConsumer, MemoryReceipt};
use super::{Bucket, Outbound, Outlet, Status, Stream, StreamConfig, Subscription, Transport, check};
use crate::error::Error;
use crate::subject::Filter;

/// A broker in memory. Clones are the same broker.
///
/// Streams hold what is appended to them, and nothing else: a message that is merely published on
/// a subject of theirs is not stored, and an appended one is not delivered to subscriptions.
///
/// It needs no tokio runtime; only [`Bucket::watch`] and [`Stream::follow`] do. Records expire by tokio's clock, so
/// tests may pause it.
#[derive(Clone)]
pub struct MemoryBroker {
    broker: Arc<Broker>,
}

impl MemoryBroker {
    /// A broker that runs, without messages or records.
    pub fn new() -> Self {
        Self { broker: Arc::new(Broker::new()) }
    }

    /// A new connection to it. The name is for messages to people.
    pub fn transport(&self, name: &str) -> MemoryTransport {
        let client = Arc::new(Client::new(self.broker.clone(), name));
        self.broker.join(&client);
        MemoryTransport { client, collecting: Mutex::default() }
    }

    /// Has messages to `{app}.{actor}.{token}.{verb}` go to
    /// `{app}.@.{partition}.{actor}.{token}.{verb}` instead, as a server's mapping
    /// `{{partition(n,1)}}` does. A server has one number of partitions for an actor.
    pub fn map_partitions(&self, app: &str, actor: &str, partitions: u16) {
        self.broker.map(Mapping::new(app, actor, u32::from(partitions)));
    }

    /// Sets the limit for payload and headers together: 1 MiB by default.
    pub fn set_max_payload(&self, bytes: usize) {
        self.broker.set_max_payload(bytes);
    }

    /// Has appends to a stream go wrong, as they do on a real broker. The stream need not exist
    /// yet.
    pub fn faults(&self, stream: &str) -> StreamFaults {
        StreamFaults::new(self.broker.clone(), stream)
    }

    /// Cuts one connection, until [`reconnect`](Self::reconnect). What is sent to it meanwhile is
    /// lost.
    pub fn disconnect(&self, transport: &MemoryTransport) {
        self.broker.hold(&transport.client, true);
    }

    /// Lets a connection come back; its subscriptions and watches work again.
    pub fn reconnect(&self, transport: &MemoryTransport) {
        self.broker.hold(&transport.client, false);
    }

    /// Cuts all connections, until [`start`](Self::start). Records stay, as they do in a server's
    /// files, and their time goes on.
    pub fn stop(&self) {
        self.broker.run(false);
    }

    /// Runs again, under another server id.
    pub fn start(&self) {
        self.broker.run(true);
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

/// A connection to a [`MemoryBroker`].
pub struct MemoryTransport {
    client: Arc<Client>,
    collecting: Mutex<()>,
}

impl MemoryTransport {
    fn end(&self) {
        self.client.status.send_replace(Status::Closed);
        self.client.broker.leave(&self.client);
    }
}

impl Transport for MemoryTransport {
    fn publish(&self, message: Outbound) -> Result<(), Error> {
        self.client.check()?;
        self.client.broker.publish(&self.client, message)
    }

    fn collect(&self, outlet: Arc<dyn Outlet>) -> Result<(), Error> {
        self.client.check()?;
        // What is taken first is sent first, whoever takes it.
        let _one = self.collecting.lock();
        for message in outlet.take() {
            if let Err(error) = self.publish(message) {
                tracing::warn!(%error, "what waited was not sent");
            }
        }
        Ok(())
    }

    fn subscribe(
        &self,
        filter: &Filter,
        queue: Option<&str>,
        capacity: usize,
    ) -> BoxFuture<'_, Result<Subscription, Error>> {
        let (filter, queue) = (filter.clone(), queue.map(str::to_owned));
        async move {
            self.client.check()?;
            let broker = &self.client.broker;
            let (inbox, messages) = broker.subscribe(&self.client, filter.as_str(), queue.as_deref(), capacity);
            Ok(Subscription::memory(MemorySource::new(broker.clone(), inbox, messages)))
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
        std::future::ready(self.client.check()).boxed()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.client.status.subscribe()
    }

    fn max_payload(&self) -> usize {
        self.client.broker.max_payload()
    }

    fn bucket(&self, name: &str) -> BoxFuture<'_, Result<Box<dyn Bucket>, Error>> {
        let bucket = check::bucket_name(name)
            .and_then(|()| self.client.check())
            .map(|()| Box::new(MemoryBucket::new(self.client.clone(), name)) as Box<dyn Bucket>);
        std::future::ready(bucket).boxed()
    }

    fn stream(&self, name: &str, config: StreamConfig) -> BoxFuture<'_, Result<Box<dyn Stream>, Error>> {
        let stream = MemoryStream::open(self.client.clone(), name, config);
        std::future::ready(stream.map(|stream| Box::new(stream) as Box<dyn Stream>)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end();
        std::future::ready(()).boxed()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTransport").field("name", &self.client.name).finish_non_exhaustive()
    }
}
