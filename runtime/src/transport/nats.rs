//! The transport that speaks to a NATS server.
//!
//! One connection at a time, driven by a thread of its own, so that no user code can stop the
//! socket. What belongs to one connection is in `link`, what outlives it in `shared`.

mod bucket;
mod calls;
mod connect;
mod context;
mod follow;
mod inspect;
mod io;
mod jetstream;
mod link;
mod outlets;
mod shared;
mod source;
mod stream;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use self::bucket::NatsBucket;
use self::calls::unavailable;
pub use self::connect::{Connect, Credentials, DEFAULT_URL};
pub use self::inspect::{SERVER_FLOOR, ServerFacts};
use self::shared::Shared;
pub(super) use self::source::NatsSource;
use self::source::Slot;
use self::stream::NatsStream;
pub(super) use self::stream::{NatsConsumer, NatsReceipt};
use super::{Bucket, Outbound, Outlet, Status, Stream, StreamConfig, Subscription, Transport, check};
use crate::error::{Error, ErrorKind};
use crate::subject::Filter;

/// How long the broker may take to answer.
const ROUND_TRIP: Duration = Duration::from_secs(2);

/// A connection to a NATS server, or to a cluster of them.
///
/// When it is lost it is made again, for ever, with pauses of up to a second; until then
/// everything is refused as `Unavailable`. A message that was accepted and not yet on the socket
/// when the connection was lost is thrown away, never sent late. (What the operating system had
/// taken may still arrive.) Dropping it closes it without waiting for what is queued.
pub struct NatsTransport {
    shared: Arc<Shared>,
    thread: Mutex<Option<(JoinHandle<()>, oneshot::Receiver<()>)>>,
}

impl NatsTransport {
    /// Connects, on a thread of its own. Must be awaited in a tokio runtime with time enabled.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if there is no connection within the settings' time (five
    /// seconds by default) or the broker refuses the credentials; [`ErrorKind::Config`] if a file
    /// that the settings name cannot be used. The message says where and what to do.
    pub async fn connect(settings: Connect) -> Result<Self, Error> {
        let name = thread_name(&settings.name);
        let shared = Arc::new(Shared::new(settings));
        let (first, connected) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn({
                let shared = shared.clone();
                move || {
                    io::run(&shared, first);
                    ended.send(()).ok();
                }
            })
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "cannot start the thread of the connection").with_source(error)
            })?;
        // Made before the wait: if this future is dropped, the thread ends too.
        let transport = Self { shared, thread: Mutex::new(Some((thread, end))) };
        match connected.await {
            Ok(Ok(())) => Ok(transport),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(ErrorKind::Internal, "the thread of the connection has ended")),
        }
    }

    async fn subscribe_to(&self, filter: &Filter, queue: Option<&str>, capacity: usize) -> Result<Subscription, Error> {
        let backlog = self.shared.settings.backlog;
        if capacity > backlog {
            return Err(connect::config(format!(
                "{filter} wants {capacity} messages to wait, but the connection keeps {backlog}: see Connect::backlog"
            )));
        }
        let live = self.shared.live()?;
        let slot = Slot::new(filter.as_str(), queue);
        let subscribe = async {
            let subscriber = live.link.subscribe(filter.as_str(), queue).await?;
            live.link.watch_losses(&subscriber, &slot);
            slot.offer(live.link.clone(), subscriber);
            self.shared.keep_slot(&live.link, &slot)?;
            live.link.round_trip(ROUND_TRIP).await
        };
        tokio::time::timeout(ROUND_TRIP, subscribe)
            .await
            .unwrap_or_else(|_| Err(unavailable(format!("the broker did not answer within {ROUND_TRIP:?}"))))?;
        if live.link.was_refused(filter.as_str()) {
            return Err(unavailable(format!(
                "the broker does not let this user subscribe to {filter}: see its permissions"
            )));
        }
        Ok(Subscription::nats(NatsSource::new(self.shared.clone(), slot)))
    }

    async fn end(&self) {
        if let Some(live) = self.shared.begin_closing() {
            live.link.arrived(ROUND_TRIP).await.ok();
        }
        self.shared.stop.cancel();
        let Some((thread, end)) = self.thread.lock().take() else { return };
        if tokio::time::timeout(ROUND_TRIP, end).await.is_ok() {
            // It has nothing left to do, so this does not wait.
            thread.join().ok();
        } else {
            tracing::warn!(connection = self.shared.settings.name, "the thread of the connection does not end");
        }
    }
}

impl Transport for NatsTransport {
    fn publish(&self, message: Outbound) -> Result<(), Error> {
        self.shared.with_live(|live| {
            check::message(&message, live.max_payload)?;
            let headers = link::to_wire(&message.headers)?;
            let reply = message.reply.as_ref().map(|reply| reply.as_str());
            live.link.publish(message.subject.as_str(), reply, headers, message.body)
        })
    }

    fn collect(&self, outlet: Arc<dyn Outlet>) -> Result<(), Error> {
        self.shared.with_live(|live| {
            live.link.outlets.put(outlet);
            Ok(())
        })
    }

    fn subscribe(
        &self,
        filter: &Filter,
        queue: Option<&str>,
        capacity: usize,
    ) -> BoxFuture<'_, Result<Subscription, Error>> {
        let (filter, queue) = (filter.clone(), queue.map(str::to_owned));
        async move { self.subscribe_to(&filter, queue.as_deref(), capacity).await }.boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let live = self.shared.live()?;
            live.link.round_trip(ROUND_TRIP).await
        }
        .boxed()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    fn max_payload(&self) -> usize {
        self.shared.max_payload()
    }

    fn bucket(&self, name: &str) -> BoxFuture<'_, Result<Box<dyn Bucket>, Error>> {
        let name = name.to_owned();
        async move {
            let bucket = NatsBucket::open(self.shared.clone(), &name).await?;
            Ok(Box::new(bucket) as Box<dyn Bucket>)
        }
        .boxed()
    }

    fn stream(&self, name: &str, config: StreamConfig) -> BoxFuture<'_, Result<Box<dyn Stream>, Error>> {
        let name = name.to_owned();
        async move {
            let stream = NatsStream::open(self.shared.clone(), &name, config).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

impl Drop for NatsTransport {
    fn drop(&mut self) {
        self.shared.begin_closing();
        self.shared.stop.cancel();
    }
}

impl std::fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsTransport").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// The kernel keeps fifteen bytes of a thread's name.
fn thread_name(connection: &str) -> String {
    let mut name = format!("gr-io-{}", connection.replace('\0', ""));
    while name.len() > 15 {
        name.pop();
    }
    name
}
