//! What the connection's thread and its users share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::calls::unavailable;
use super::connect::Connect;
use super::link::Link;
use super::source::Slot;
use crate::error::{Error, ErrorKind};
use crate::transport::Status;

/// The state of a transport over all its connections.
pub(super) struct Shared {
    pub(super) settings: Connect,
    pub(super) status: watch::Sender<Status>,
    /// Cancelled when the transport is closed.
    pub(super) stop: CancellationToken,
    /// Set when closing begins.
    closing: AtomicBool,
    max_payload: AtomicUsize,
    live: RwLock<Option<Live>>,
    registry: Mutex<Registry>,
}

/// The connection that can be used now.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) link: Arc<Link>,
    /// The runtime of the connection's thread; goes with the connection.
    pub(super) runtime: Handle,
    pub(super) max_payload: usize,
}

/// Something that goes on with each new connection.
pub(super) trait Resume: Send + Sync {
    /// Whether somebody still wants it.
    fn is_wanted(&self) -> bool;

    /// Its task on one connection.
    fn run(self: Arc<Self>, live: Live, shared: Arc<Shared>) -> BoxFuture<'static, ()>;
}

/// What each new connection has to take up again.
#[derive(Default)]
struct Registry {
    epoch: u64,
    closed: bool,
    slots: Vec<Weak<Slot>>,
    follows: Vec<Arc<dyn Resume>>,
}

impl Shared {
    pub(super) fn new(settings: Connect) -> Self {
        Self {
            settings,
            status: watch::Sender::new(Status::Disconnected),
            stop: CancellationToken::new(),
            closing: AtomicBool::new(false),
            max_payload: AtomicUsize::new(1 << 20),
            live: RwLock::new(None),
            registry: Mutex::new(Registry::default()),
        }
    }

    /// Does something with the connection, without waiting.
    pub(super) fn with_live<T>(&self, act: impl FnOnce(&Live) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.live.read() {
            Some(live) => act(live),
            None => Err(self.away()),
        }
    }

    /// The connection, if there is one now.
    pub(super) fn live(&self) -> Result<Live, Error> {
        self.with_live(|live| Ok(live.clone()))
    }

    /// Lets nobody use the connection any more; gives it to the one who closes.
    pub(super) fn begin_closing(&self) -> Option<Live> {
        self.closing.store(true, Ordering::SeqCst);
        self.live.write().take()
    }

    /// The broker's limit for a payload, as of the last connection.
    pub(super) fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    /// A new connection is being made: what it has to take up.
    pub(super) fn begin(&self) -> (u64, Vec<Arc<Slot>>, Vec<Arc<dyn Resume>>) {
        let mut registry = self.registry.lock();
        registry.epoch += 1;
        registry.prune();
        let slots = registry.slots.iter().filter_map(Weak::upgrade).filter(|slot| slot.is_wanted()).collect();
        (registry.epoch, slots, registry.follows.clone())
    }

    /// The connection can be used from now on.
    pub(super) fn connected(&self, live: Live, server: String, client: u64) {
        self.max_payload.store(live.max_payload, Ordering::Relaxed);
        let mut slot = self.live.write();
        if !self.closing.load(Ordering::SeqCst) {
            *slot = Some(live);
            self.status.send_replace(Status::Connected { server, client });
        }
    }

    /// The connection cannot be used any more.
    pub(super) fn disconnected(&self) {
        *self.live.write() = None;
        self.status.send_if_modified(|status| {
            let changed = status.is_connected();
            if changed {
                *status = Status::Disconnected;
            }
            changed
        });
    }

    /// There will be no further connection: ends what is waiting for one.
    pub(super) fn closed(&self) {
        *self.live.write() = None;
        let mut registry = self.registry.lock();
        registry.closed = true;
        for slot in registry.slots.drain(..).filter_map(|slot| slot.upgrade()) {
            slot.close();
        }
        registry.follows.clear();
        self.status.send_replace(Status::Closed);
    }

    /// Has later connections subscribe again.
    pub(super) fn keep_slot(&self, link: &Link, slot: &Arc<Slot>) -> Result<(), Error> {
        self.keep(link, |registry| registry.slots.push(Arc::downgrade(slot)))
    }

    /// Has later connections go on with it.
    pub(super) fn keep_follow(&self, link: &Link, follow: Arc<dyn Resume>) -> Result<(), Error> {
        self.keep(link, |registry| registry.follows.push(follow))
    }

    fn keep(&self, link: &Link, add: impl FnOnce(&mut Registry)) -> Result<(), Error> {
        let mut registry = self.registry.lock();
        // The next connection may have asked already what it has to take up.
        if registry.closed || registry.epoch != link.epoch {
            return Err(self.away());
        }
        registry.prune();
        add(&mut registry);
        Ok(())
    }

    fn away(&self) -> Error {
        if self.closing.load(Ordering::SeqCst) {
            return Error::new(ErrorKind::Stopped, "the connection to the broker was closed");
        }
        unavailable(format!("not connected to the broker at {}; still trying", self.settings.servers_text()))
    }
}

impl Registry {
    fn prune(&mut self) {
        // Keeps registering cheap: the whole list is gone through only when it may have doubled.
        if self.slots.len().is_power_of_two() {
            self.slots.retain(|slot| slot.strong_count() > 0);
        }
        self.follows.retain(|follow| follow.is_wanted());
    }
}
