//! The driver: connects the pure ownership machine to the bucket, the clock and the node.
//!
//! Runs on a thread of its own with a connection of its own, so that neither a handler that spins
//! nor bulk traffic keeps a lease from being renewed.

mod sight;
mod watching;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::sight::Sight;
use self::writing::result_of;
use super::keeper::Job;
use super::notice;
use super::surroundings::Surroundings;
use crate::error::Error;
use crate::ownership::{Effect, Input, Key, Machine, NodeId, Part, RetireReason, STANDS_DURABLE_MS};
use crate::pauses::reached;
use crate::subject::Subject;
use crate::transport::{Bucket, Inbound, Outbound, Status, Subscription, Transport};

/// How often the machine is told that time has passed.
const TICK: Duration = Duration::from_millis(250);
/// How soon after the broker's word the machine looks again: it waits so long where all is durable.
const LOOK_SOON: Duration = Duration::from_millis(STANDS_DURABLE_MS);
/// So many such looks are pending at once; beyond them, the next tick is one.
const LOOKS_MAX: usize = 64;
/// How long a drained node's records stay, at most, for its last answers to go out.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the end of a node waits for its records to be deleted.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to watch the bucket.
const WATCH_PAUSE_MAX: Duration = Duration::from_secs(2);
/// For how long the bucket must be away before it is taken for gone.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// After so long without another, the deaths of nodes of one name are forgotten.
const QUIET_WHILE: Duration = Duration::from_secs(300);
/// Inputs taken together before the view is published.
const BATCH: usize = 256;

/// Why a node's part in the cluster is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Drained,
    Retired(RetireReason),
    /// The node was dropped or gave up waiting.
    Cut,
}

/// The way to tell the machine something. Bounded: whoever tells waits for room.
#[derive(Clone, Debug)]
pub(super) struct Feed(mpsc::Sender<Fed>);

/// What the machine is told by the node.
#[derive(Debug)]
pub(super) enum Fed {
    Input(Input),
    /// The old owner of a partition says that a key is free; it is answered once that has settled,
    /// and says it again until then.
    Idle {
        part: Part,
        epoch: u64,
        key: String,
        answer: Option<Subject>,
    },
}

impl Feed {
    pub(super) fn channel() -> (Self, mpsc::Receiver<Fed>) {
        let (sender, receiver) = mpsc::channel(1_024);
        (Self(sender), receiver)
    }

    pub(super) async fn tell(&self, input: Input) {
        self.hear(Fed::Input(input)).await;
    }

    pub(super) async fn hear(&self, fed: Fed) {
        // A driver that has ended needs no telling.
        drop(self.0.send(fed).await);
    }
}

/// What a driver works with.
pub(super) struct Driver {
    pub(super) around: Arc<Surroundings>,
    pub(super) machine: Machine,
    pub(super) bucket: Arc<dyn Bucket>,
    /// The connection whose loss is the node's loss.
    pub(super) own: watch::Receiver<Status>,
    /// The driver's own connection.
    pub(super) lease: watch::Receiver<Status>,
    /// What the broker says of connections that have ended, if it says so.
    pub(super) notices: Option<Subscription>,
    pub(super) inputs: mpsc::Receiver<Fed>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) over: watch::Sender<Option<Over>>,
    /// Cancelled when the node has answered everything and its records may go.
    pub(super) gone: CancellationToken,
    pub(super) lease_ttl: Duration,
}

/// What the driver does while its machine decides.
struct Running {
    driver: Driver,
    origin: Instant,
    writes: FuturesUnordered<BoxFuture<'static, Input>>,
    backlog: VecDeque<Job>,
    /// The watch of everything but others' heartbeats, and that of a few heartbeats.
    all: Sight,
    beats: Sight,
    /// When the machine wants to know the time before the next tick, soonest first.
    soon: VecDeque<Instant>,
    /// When the bucket was made, and a look whether that is still so.
    made: Option<String>,
    looking: Option<BoxFuture<'static, Result<Option<String>, Error>>>,
    /// Set when the watch must begin anew.
    rewatch: bool,
    current: bool,
    /// Whether the view has changed since callers were shown it.
    unpublished: bool,
    /// The version of the view that callers were shown last, and whether it was current.
    published: Option<(u64, bool)>,
    /// Claims that were taken from their holders since then, with their epochs now.
    taken: Vec<(Part, u64)>,
    /// The keys that ran when a partition's transfer began.
    busy: HashMap<Part, Vec<crate::key::Key>>,
    over: Option<Over>,
}

impl Driver {
    fn me(&self) -> NodeId {
        NodeId::new(self.around.id.as_str())
    }

    /// Runs until the node is drained or retired, or everybody who feeds the machine has gone.
    pub(super) async fn run(self) {
        let all = Sight::of_records((!self.machine.is_client()).then(|| self.me()));
        let mut running = Running {
            driver: self,
            origin: Instant::now(),
            writes: FuturesUnordered::new(),
            backlog: VecDeque::new(),
            all,
            beats: Sight::default(),
            soon: VecDeque::new(),
            made: None,
            looking: None,
            rewatch: true,
            current: false,
            unpublished: false,
            published: None,
            taken: Vec::new(),
            busy: HashMap::new(),
            over: None,
        };
        running.step(Input::Started);
        running.own_status();
        running.run().await;
    }
}

impl Running {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        let jobs = self.driver.jobs.clone();
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.over.is_none() {
            if std::mem::take(&mut self.rewatch) {
                self.all.open(&self.driver.bucket, Duration::ZERO);
            }
            tokio::select! {
                // What keeps the lease goes before what others can send any amount of.
                biased;
                // The node was dropped without a drain.
                () = self.driver.gone.cancelled() => self.over = Some(Over::Cut),
                Some(answer) = self.writes.next(), if !self.writes.is_empty() => self.step(answer),
                _ = tick.tick() => {
                    self.unpublished |= self.driver.machine.is_client();
                    self.step(Input::Tick);
                    // A lease that cannot be proved although the broker answers: is there anything to prove it by?
                    let fenced = self.driver.machine.is_fenced() && !self.driver.machine.is_client();
                    if fenced && self.driver.lease.borrow().is_connected() {
                        self.look_for_bucket();
                    }
                }
                () = reached(self.soon.front().copied()) => {
                    self.soon.pop_front();
                    self.step(Input::Tick);
                }
                Ok(()) = self.driver.own.changed() => self.own_status(),
                Ok(()) = self.driver.lease.changed() => {
                    if self.driver.lease.borrow_and_update().is_connected() {
                        self.rewatch = true;
                        self.beats.open(&self.driver.bucket, Duration::ZERO);
                    }
                }
                made = or_never(&mut self.looking) => self.looked(made),
                room = jobs.reserve(), if !self.backlog.is_empty() => match room {
                    Ok(room) => {
                        if let Some(job) = self.backlog.pop_front() {
                            room.send(job);
                        }
                    }
                    Err(_) => self.over = Some(Over::Cut),
                },
                notice = next_notice(&mut self.driver.notices) => match notice {
                    Some(notice) => self.noticed(&notice),
                    None => self.driver.notices = None,
                },
                seen = self.beats.next() => self.saw_beat(seen),
                seen = self.all.next() => self.saw(seen),
                input = self.driver.inputs.recv() => match input {
                    Some(Fed::Input(input)) => self.step(input),
                    Some(Fed::Idle { part, epoch, key, answer }) => self.idle(part, epoch, key, answer),
                    None => self.over = Some(Over::Cut),
                },
            }
            self.take_what_waits();
            if std::mem::take(&mut self.unpublished) && self.is_news() {
                self.driver.around.cluster.publish(self.driver.machine.view(), self.current);
            }
            for (part, epoch) in self.taken.drain(..) {
                self.driver.around.claim_taken(&part.actor, part.number, epoch);
            }
        }
        self.farewell().await;
    }

    /// True if callers have not been shown what is known now. The own
    /// heartbeat is much of what a watch shows, and none of it.
    fn is_news(&mut self) -> bool {
        let newest = Some((self.driver.machine.view().version(), self.current));
        std::mem::replace(&mut self.published, newest) != newest
    }

    fn idle(&mut self, part: Part, epoch: u64, key: String, answer: Option<Subject>) {
        self.step(Input::Idle { part: part.clone(), epoch, key: key.clone() });
        if let Some(answer) = answer.filter(|_| self.driver.machine.settled(&part, epoch, &key))
            && let Err(error) = self.driver.around.transport.publish(Outbound::new(answer, "settled"))
        {
            // The old owner says it again.
            tracing::debug!(%error, "an answer about a free key was not sent");
        }
    }

    fn noticed(&mut self, notice: &Inbound) {
        match notice::read(&notice.body) {
            Ok(Some(gone)) => {
                self.step(gone);
                // From after the step, which reads the clock: a look before its time would be in vain.
                if self.soon.len() < LOOKS_MAX {
                    self.soon.push_back(Instant::now() + LOOK_SOON);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "what the broker says of a connection cannot be read"),
        }
    }

    fn own_status(&mut self) {
        let status = self.driver.own.borrow_and_update().clone();
        self.step(match status {
            Status::Connected { server, client } => Input::Connected { server, client },
            Status::Disconnected | Status::Closed => Input::Disconnected,
        });
    }

    fn step(&mut self, input: Input) {
        // Before the time that the machine counts from.
        let reading = self.driver.around.proof.reading();
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut effects = Vec::new();
        tracing::trace!(node = self.driver.around.id, ?input, "ownership input");
        self.driver.machine.step(input, now, &mut effects);
        for effect in effects {
            tracing::trace!(node = self.driver.around.id, ?effect, "ownership effect");
            self.carry_out(effect);
        }
        if self.over.is_none() && !self.driver.machine.is_fenced() {
            self.driver.around.proof.extend(reading, self.driver.machine.serves_until().saturating_sub(now));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Renew { sent_at } => self.renew(sent_at),
            Effect::WatchBeats { of } => self.watch_beats(&of),
            Effect::RoundTrip { id, server, client } => self.round_trip(id, Status::Connected { server, client }),
            Effect::Cas { id, entry, expect } => self.write(id, &entry, expect),
            Effect::Delete { id, key, expect } => {
                let (bucket, key) = (self.driver.bucket.clone(), key.to_string());
                self.writes.push(Box::pin(async move {
                    let result = result_of(bucket.delete(&key, expect).await);
                    Input::CasDone { id, result }
                }));
            }
            Effect::Transfer { id, part, claim, expect } => self.transfer(id, part, claim, expect),
            Effect::Fence => self.fence(),
            // The proof is given anew after every step while the machine is not fenced.
            Effect::Unfence => {
                tracing::info!(node = self.driver.around.id, "the lease is proved");
                self.driver.around.duties.suspend(&self.driver.around, false);
            }
            Effect::NodeLost { id } => {
                let how = self.driver.machine.view().departure(&id);
                self.driver.around.cluster.note_departed(&id, how);
                // Those who watch look at the next view.
                self.unpublished = true;
                self.driver.around.node_lost(id.as_str());
            }
            Effect::Reconnected { id } => self.driver.around.node_reconnected(id.as_str()),
            // Callers are told once the view is published: they look there for the new holder.
            Effect::Moved { part, epoch, planned: false, .. } => self.taken.push((part, epoch)),
            Effect::Moved { .. } => {}
            Effect::Rewatch => self.rewatch = true,
            Effect::Drained => self.over = Some(Over::Drained),
            Effect::Retire { reason } => {
                tracing::error!(node = self.driver.around.id, ?reason, "this node cannot go on under its id");
                self.fence();
                self.over = Some(Over::Retired(reason));
            }
            effect @ (Effect::Offer { .. }
            | Effect::Decline { .. }
            | Effect::Join { .. }
            | Effect::Admit { .. }
            | Effect::ReportIdle { .. }) => self.backlog.push_back(Job::Effect(effect)),
            effect @ Effect::Serve { .. } => {
                if let Effect::Serve { part, .. } = &effect {
                    self.busy.remove(part);
                }
                self.backlog.push_back(Job::Effect(effect));
            }
            Effect::Leave { part, epoch, heir, cause } => {
                let busy = self.busy.remove(&part).unwrap_or_default();
                self.backlog.push_back(Job::Leave { part, epoch, heir, cause, busy });
            }
        }
    }

    /// Takes the node's records away, so that the others need not wait for its heartbeat to stop.
    async fn farewell(self) {
        let Running { driver, over, writes, .. } = self;
        drop(writes);
        driver.over.send_replace(over);
        if matches!(over, Some(Over::Drained)) && driver.lease.borrow().is_connected() {
            // Calls to a node whose lease is gone count as lost: so the last answers go first.
            drop(tokio::time::timeout(LAST_ANSWERS, driver.gone.cancelled()).await);
            let me = driver.me();
            let keys = [Key::Lease(me.clone()), Key::Member(me.clone()), Key::Beat(me)].map(|key| key.to_string());
            let delete = async {
                for key in &keys {
                    if let Ok(Some(record)) = driver.bucket.get(key).await
                        && record.value.is_ok()
                        && let Err(error) = driver.bucket.delete(key, record.revision).await
                    {
                        tracing::debug!(
                            key,
                            ?error,
                            "a record of this node was not deleted; others will when the heartbeat has stopped"
                        );
                    }
                }
            };
            if tokio::time::timeout(FAREWELL, delete).await.is_err() {
                tracing::debug!(
                    "the records of this node were not deleted in time; others will when the heartbeat has stopped"
                );
            }
        }
    }
}

async fn or_never<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn next_notice(notices: &mut Option<Subscription>) -> Option<Inbound> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

/// Closes the driver's own connection when its thread ends.
pub(super) async fn run_and_close(driver: Driver, transport: Arc<dyn Transport>) {
    driver.run().await;
    transport.close().await;
}
