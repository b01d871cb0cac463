//! What stands around every turn on a node: its settings, its way to the broker, its knowledge of
//! the others.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Inner;
use super::audience::Rush;
use super::cluster::Cluster;
use super::duty::{self, Duties};
use super::hosted::Hosted;
use super::permit::Permits;
use crate::call::{Call, Deadline, TurnId};
use crate::codec::Fingerprint;
use crate::contract::Message;
use crate::engine::{Proof, Settlers};
use crate::error::{Error, ErrorKind};
use crate::executor::Executor;
use crate::frames::{Frames, Outgoing};
use crate::key::Key;
use crate::node::Node;
use crate::outbound::Lines;
use crate::pending::Pending;
use crate::reference::Target;
use crate::reminder::Wakes;
use crate::subject::Subjects;
use crate::tell::Marks;
use crate::transport::{Outbound, Status, Stream, Transport};
use crate::waits::Waits;
use crate::watch::Table;
use crate::wire::AnswerHead;

/// How long the last answers of a node may be behind the news that it is gone.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Watches of one node.
const WATCHES_MAX: usize = 16_384;

/// With so many calls on their way, what is sent goes to the broker in bundles anyway.
const QUIET: usize = 8;

/// How long until an answer is sent again that met a full queue.
const SEND_AGAIN: Duration = Duration::from_millis(2);

/// A node's bounds and defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What a call gets that names no budget.
    pub(crate) budget: Duration,
    /// Messages that may wait for one actor, or for one instance of a service.
    pub(crate) mailbox: usize,
    /// Calls of this node that may be on their way at once.
    pub(crate) in_flight: usize,
    /// The largest payload, in bytes.
    pub(crate) payload: usize,
    /// Actors of one type in memory.
    pub(crate) activations: usize,
    pub(crate) passivate_after: Duration,
    /// Commands with a birth that a durable actor remembers.
    pub(crate) remembers: usize,
    pub(crate) partitions: u16,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Life {
    Running = 0,
    Draining = 1,
    Stopped = 2,
}

/// Everything that calls and turns need of their node.
pub(crate) struct Surroundings {
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) subjects: Subjects,
    pub(crate) runtime: Executor,
    /// Where turns of durable actors go on when they are kept.
    pub(crate) settlers: Settlers,
    pub(crate) transport: Arc<dyn Transport>,
    connection: watch::Receiver<Status>,
    pub(crate) cluster: Cluster,
    pub(crate) pending: Pending,
    /// What waits for other nodes.
    pub(crate) frames: Frames,
    /// How much is told to whoever listens.
    pub(crate) rush: Rush,
    /// What keeps calls in order while partitions change hands.
    pub(crate) lines: Lines,
    /// The turns that have waited for long.
    pub(crate) waits: Waits,
    /// What shows that this node was the owner a moment ago.
    pub(super) permits: Permits,
    /// What wakes actors that are to be reminded.
    pub(crate) wakes: Wakes,
    /// Until when keyed actors may be served.
    pub(crate) proof: Arc<Proof>,
    /// Which actor types send, and are told durably.
    pub(crate) marks: Marks,
    /// The stream of durable tells, once somebody has needed it.
    pub(crate) commands: OnceCell<Arc<dyn Stream>>,
    /// What this node does for whole actor types, where it is the one to do it.
    pub(crate) duties: Duties,
    /// Calls that are being passed on to their owners.
    pub(crate) passing: TaskTracker,
    /// Which of this node's actors are watched.
    pub(crate) watched: Table,
    watches: Arc<Semaphore>,
    /// The tasks of this node's own watches, and what ends them.
    pub(crate) followers: TaskTracker,
    pub(crate) leave_watches: CancellationToken,
    /// Notified when an actor that is always on may have to be activated.
    pub(crate) standing: Notify,
    /// Where calls to a service go: it has no keys.
    pub(crate) anywhere: Target,
    /// How often this node was in doubt of what it reads.
    pub(super) doubts: AtomicU64,
    life: AtomicU8,
    flights: Arc<Semaphore>,
    turns: AtomicU64,
    seed: u64,
    hosted: RwLock<Arc<HashMap<&'static str, Arc<Hosted>>>>,
    forms: DashMap<TypeId, Option<Fingerprint>, ahash::RandomState>,
    /// Verbs whose form at a node is not ours.
    json_only: DashMap<(String, &'static str, &'static str), (), ahash::RandomState>,
    /// Whether there was ever one.
    any_json_only: AtomicBool,
    pub(super) node: OnceLock<Weak<Inner>>,
}

impl Surroundings {
    pub(super) fn new(
        id: String,
        seed: u64,
        settings: Settings,
        subjects: Subjects,
        runtime: Executor,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, Error> {
        Ok(Self {
            cluster: Cluster::new(id.clone()),
            frames: Frames::new(subjects.clone(), id.clone()),
            id,
            flights: Arc::new(Semaphore::new(settings.in_flight)),
            lines: Lines::new(settings.partitions),
            settings,
            subjects,
            settlers: Settlers::new(&runtime),
            runtime,
            connection: transport.status(),
            transport,
            pending: Pending::default(),
            rush: Rush::default(),
            waits: Waits::default(),
            permits: Permits::new(),
            wakes: Wakes::default(),
            proof: Arc::new(Proof::new()),
            marks: Marks::default(),
            commands: OnceCell::new(),
            duties: Duties::default(),
            passing: TaskTracker::new(),
            watched: Table::default(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            followers: TaskTracker::new(),
            leave_watches: CancellationToken::new(),
            standing: Notify::new(),
            anywhere: Target { key: Key::new("-")?, partition: 0 },
            doubts: AtomicU64::new(0),
            life: AtomicU8::new(Life::Running as u8),
            turns: AtomicU64::new(0),
            seed,
            hosted: RwLock::default(),
            forms: DashMap::with_hasher(hasher(seed)),
            json_only: DashMap::with_hasher(hasher(seed)),
            any_json_only: AtomicBool::new(false),
            node: OnceLock::new(),
        })
    }

    /// How maps of this node are hashed: like no other node's, and the same again under the same seed.
    pub(crate) fn hasher(&self) -> ahash::RandomState {
        hasher(self.seed)
    }

    pub(crate) fn node(&self) -> Result<Node, Error> {
        let inner = self.node.get().and_then(Weak::upgrade);
        inner.map(Node::of).ok_or_else(|| self.stopped())
    }

    /// Cancelled when the node is cut off; already, if it is gone.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.node.get().and_then(Weak::upgrade).map_or_else(
            || {
                let over = CancellationToken::new();
                over.cancel();
                over
            },
            |inner| inner.stop.clone(),
        )
    }

    /// A place among the watches of this node.
    pub(crate) fn watching(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.watches.clone().try_acquire_owned().map_err(|_| {
            let why = format!("this node watches {WATCHES_MAX} actors, which is the limit; drop some watches");
            Error::new(ErrorKind::Overloaded, why)
        })
    }

    pub(crate) fn hosted(&self, actor: &str) -> Option<Arc<Hosted>> {
        self.hosted.read().get(actor).cloned()
    }

    pub(crate) fn all_hosted(&self) -> Arc<HashMap<&'static str, Arc<Hosted>>> {
        self.hosted.read().clone()
    }

    pub(super) fn set_hosted(&self, hosted: HashMap<&'static str, Arc<Hosted>>) {
        // Dropped when the lock is not held any more: calls that waited there are answered, and look at this map.
        let before = std::mem::replace(&mut *self.hosted.write(), Arc::new(hosted));
        drop(before);
    }

    pub(crate) fn partition_of(&self, key: &Key) -> u16 {
        // Both fit: the remainder is below a u16.
        (key.token_hash() % u32::from(self.settings.partitions.max(1))) as u16
    }

    /// The lane of a key.
    pub(crate) fn lane_of(&self, key: &Key) -> u16 {
        (key.token_hash() % u32::from(duty::lanes(self.settings.partitions))) as u16
    }

    /// The id of a call, and when that was made: both made now if nobody has given it one yet.
    pub(crate) fn identify(&self, call: &Call, now: u64) -> (TurnId, u64) {
        let born = if call.turn.is_none() { now } else { call.born };
        (call.turn.unwrap_or_else(|| self.next_turn(born)), born)
    }

    /// The id of a turn that starts here, made now: no other has it, and those that are made later are above it, as
    /// long as the clock is not put back (what an actor remembers is found faster so; nothing else rests on it).
    pub(crate) fn next_turn(&self, now: u64) -> TurnId {
        TurnId::new(now, self.seed, self.turns.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn check_running(&self) -> Result<(), Error> {
        // A draining node still serves the turns that run, and the calls they make.
        if self.life.load(Ordering::Acquire) == Life::Stopped as u8 { Err(self.stopped()) } else { Ok(()) }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life.load(Ordering::Acquire) == Life::Running as u8
    }

    /// Goes on to a later stage of life. Returns whether it was not there before.
    pub(super) fn enter_life(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::AcqRel) < life as u8
    }

    pub(crate) fn stopped(&self) -> Error {
        Error::new(ErrorKind::Stopped, format!("the node {} has stopped", self.id))
    }

    /// The number of the connection at the broker, if there is one now.
    pub(crate) fn client(&self) -> Option<u64> {
        match &*self.connection.borrow() {
            Status::Connected { client, .. } => Some(*client),
            Status::Disconnected | Status::Closed => None,
        }
    }

    /// A place among the calls on their way.
    pub(crate) fn in_flight(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.flights.clone().try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                format!("{} calls of this node wait for answers, which is the limit", self.settings.in_flight),
            )
        })
    }

    /// Whether so few calls are on their way that each waits for what is sent before it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.settings.in_flight.saturating_sub(self.flights.available_permits()) <= QUIET
    }

    pub(crate) fn check_payload(&self, bytes: usize) -> Result<(), Error> {
        let most = self.settings.payload;
        if bytes <= most {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PayloadTooLarge, format!("the payload has {bytes} bytes; the limit is {most}"))
            .with_details(serde_json::json!({ "bytes": bytes, "limit_bytes": most })))
    }

    /// The fingerprint of a message type; `None` if it travels as JSON only.
    pub(crate) fn form<M: Message>(&self) -> Option<Fingerprint> {
        let id = TypeId::of::<M>();
        if let Some(form) = self.forms.get(&id) {
            return *form.value();
        }
        let form = Fingerprint::of::<M>();
        self.forms.insert(id, form);
        form
    }

    pub(crate) fn reads_json_only(&self, node: &str, actor: &'static str, verb: &'static str) -> bool {
        self.any_json_only.load(Ordering::Relaxed) && self.json_only.contains_key(&(node.to_owned(), actor, verb))
    }

    pub(crate) fn note_json_only(&self, node: &str, actor: &'static str, verb: &'static str) {
        self.json_only.insert((node.to_owned(), actor, verb), ());
        self.any_json_only.store(true, Ordering::Relaxed);
    }

    /// Forgets a node that is gone, and fails the calls that wait for it.
    pub(crate) fn node_lost(self: &Arc<Self>, node: &str) {
        self.json_only.retain(|(id, _, _), ()| id != node);
        self.watched.forget_node(node);
        self.frames.forget(node);
        let numbers = self.pending.of_node(node);
        if numbers.is_empty() {
            return;
        }
        self.fail_after_last_answers(numbers, "that node went away");
    }

    /// Has those calls made again that may have been lost with a node's connection, though it has another one by now.
    /// Only what takes effect once however often it is asked: whether it was lost is not known.
    pub(crate) fn node_reconnected(self: &Arc<Self>, node: &str) {
        let numbers = self.pending.repeatable_of(node);
        if !numbers.is_empty() {
            self.fail_after_last_answers(numbers, "the connection of that node broke");
        }
    }

    /// The last answers of a node came by another connection than the news of what became of it.
    fn fail_after_last_answers(self: &Arc<Self>, numbers: Vec<u64>, why: &'static str) {
        let around = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(LAST_ANSWERS).await;
            around.pending.fail(numbers, why);
        });
    }

    /// Fails what was asked under claims that were taken from their holders: whatever may be asked again goes to the
    /// new ones at once.
    pub(crate) fn claim_taken(&self, actor: &str, partition: u16, epoch: u64) {
        if let Some(way) = self.lines.taken(&self.pending, actor, partition, epoch) {
            self.pending.claim_taken(&way, epoch);
        }
    }

    /// Sends an answer. A queue to the broker that is full for a moment does not cost its caller
    /// the answer: it is sent again until the default budget is over.
    pub(crate) fn answer(self: &Arc<Self>, message: Outbound) -> Result<(), Error> {
        self.answer_by(message, |around, message| around.transport.publish(message))
    }

    /// The same, to a question that came in a frame.
    pub(crate) fn answer_in_frame(
        self: &Arc<Self>,
        to: &Arc<Outgoing>,
        head: AnswerHead,
        body: Bytes,
    ) -> Result<(), Error> {
        match to.answer(self, &head, &body) {
            Err(error) if error.kind() == ErrorKind::Overloaded => {}
            sent => return sent,
        }
        let to = to.clone();
        self.answer_by((head, body), move |around, (head, body)| to.answer(around, &head, &body))
    }

    fn answer_by<T: Clone + Send + 'static>(
        self: &Arc<Self>,
        answer: T,
        send: impl Fn(&Self, T) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        match send(self, answer.clone()) {
            Err(error) if error.kind() == ErrorKind::Overloaded => {}
            sent => return sent,
        }
        let place = self.in_flight()?;
        let around = self.clone();
        self.runtime.spawn(async move {
            let _place = place;
            let deadline = Deadline::After(around.settings.budget).at();
            while Instant::now() < deadline {
                tokio::time::sleep(SEND_AGAIN).await;
                match send(&around, answer.clone()) {
                    Err(error) if error.kind() == ErrorKind::Overloaded => {}
                    Ok(()) => return,
                    Err(error) => return tracing::debug!(%error, "an answer was not sent"),
                }
            }
            tracing::warn!("an answer was not sent: the queue to the broker stays full");
        });
        Ok(())
    }
}

fn hasher(seed: u64) -> ahash::RandomState {
    ahash::RandomState::with_seeds(seed, seed.rotate_left(16), seed.rotate_left(32), seed.rotate_left(48))
}
