//! One client of the memory broker, and what waits for each of its subscriptions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::broker::Broker;
use super::routes::SubscriptionId;
use crate::error::{Error, ErrorKind};
use crate::transport::{Inbound, Status};

/// A client of the broker: what a [`MemoryTransport`](super::MemoryTransport) is to it.
pub(super) struct Client {
    pub(super) broker: Arc<Broker>,
    pub(super) name: String,
    pub(super) status: watch::Sender<Status>,
    held: AtomicBool,
}

impl Client {
    pub(super) fn new(broker: Arc<Broker>, name: &str) -> Self {
        let status = watch::Sender::new(Status::Disconnected);
        Self { broker, name: name.to_owned(), status, held: AtomicBool::new(false) }
    }

    /// Refuses unless the client is connected.
    pub(super) fn check(&self) -> Result<(), Error> {
        match *self.status.borrow() {
            Status::Connected { .. } => Ok(()),
            Status::Disconnected => {
                Err(Error::new(ErrorKind::Unavailable, format!("{} is not connected to the memory broker", self.name)))
            }
            Status::Closed => Err(Error::new(
                ErrorKind::Stopped,
                format!("{}'s connection to the memory broker was closed", self.name),
            )),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.status.borrow().is_connected()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }
}

/// Where the broker puts the messages of one subscription.
pub(super) struct Inbox {
    id: SubscriptionId,
    client: Weak<Client>,
    filter: String,
    /// `None` once it has ended.
    messages: Mutex<Option<mpsc::Sender<Inbound>>>,
    dropped: AtomicU64,
}

impl Inbox {
    pub(super) fn new(
        id: SubscriptionId,
        client: &Arc<Client>,
        filter: &str,
        capacity: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Inbound>) {
        let (sender, messages) = mpsc::channel(capacity.max(1));
        let inbox = Self {
            id,
            client: Arc::downgrade(client),
            filter: filter.to_owned(),
            messages: Mutex::new(Some(sender)),
            dropped: AtomicU64::new(0),
        };
        (Arc::new(inbox), messages)
    }

    pub(super) fn id(&self) -> SubscriptionId {
        self.id
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn belongs_to(&self, client: &Client) -> bool {
        std::ptr::eq(self.client.as_ptr(), client)
    }

    /// Whether the broker can send to the client just now.
    pub(super) fn is_reachable(&self) -> bool {
        self.client.upgrade().is_some_and(|client| client.is_connected())
    }

    /// Puts a message in, or throws it away if too many wait already.
    pub(super) fn put(&self, message: Inbound) {
        let sent = self.messages.lock().as_ref().map(|sender| sender.try_send(message));
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = sent {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(filter = self.filter, dropped, "a subscription is too slow and loses messages");
            }
        }
    }

    pub(super) fn close(&self) {
        self.messages.lock().take();
    }
}

/// Where a subscription on the memory broker gets its messages from.
pub(in crate::transport) struct MemorySource {
    broker: Arc<Broker>,
    inbox: Arc<Inbox>,
    messages: mpsc::Receiver<Inbound>,
}

impl MemorySource {
    pub(super) fn new(broker: Arc<Broker>, inbox: Arc<Inbox>, messages: mpsc::Receiver<Inbound>) -> Self {
        Self { broker, inbox, messages }
    }

    pub(in crate::transport) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        self.messages.poll_recv(cx)
    }

    /// What was delivered stays to be received; nothing is ever in flight here.
    pub(in crate::transport) fn leave(&mut self) {
        self.broker.unsubscribe(&self.inbox);
    }

    pub(in crate::transport) fn dropped(&self) -> u64 {
        self.inbox.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.broker.unsubscribe(&self.inbox);
    }
}
