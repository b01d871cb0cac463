//! The keeper: carries out on this node what the ownership machine decides about partitions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::driver::{Fed, Feed};
use super::partition::{self, OWNERS, Order};
use super::serve::Taken;
use super::surroundings::Surroundings;
use crate::key::Key;
use crate::ownership::{Effect, Input, LeaveCause, NodeId, Part};
use crate::pending::Got;
use crate::subject::Subject;
use crate::transport::Outbound;
use crate::watch::Reason;

/// Messages that may wait for one partition's task.
const PARTITION_CAPACITY: usize = 4_096;
/// How often an old owner repeats that a key is free, until the heir has heard it.
const IDLE_AGAIN: Duration = Duration::from_millis(100);

/// How long until a partition that could not be listened for is tried again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// A word between two nodes about a partition, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Word {
    pub(super) actor: String,
    pub(super) partition: u16,
    pub(super) epoch: u64,
    pub(super) node: String,
    /// In a reply to an offer: whether it is taken.
    #[serde(default)]
    pub(super) ready: bool,
    /// Of a key that is free: its token.
    #[serde(default)]
    pub(super) key: String,
}

impl Word {
    fn part(&self) -> Part {
        Part::new(self.actor.as_str(), self.partition)
    }

    /// What the machine is told when another node says this, and where it wants an answer.
    pub(super) fn fed(&self, verb: &str, answer: Option<Subject>) -> Option<Fed> {
        if verb == "idle" {
            return Some(Fed::Idle { part: self.part(), epoch: self.epoch, key: self.key.clone(), answer });
        }
        self.input(verb).map(Fed::Input)
    }

    fn input(&self, verb: &str) -> Option<Input> {
        let (part, epoch, node) = (self.part(), self.epoch, NodeId::new(self.node.as_str()));
        match verb {
            "offer" => Some(Input::Offered { part, epoch, from: node }),
            "ready" => Some(Input::HandoverReply { part, epoch, heir: node, ready: self.ready }),
            _ => None,
        }
    }
}

/// Carries effects out, one after the other. Runs on the node's own runtime.
pub(super) struct Keeper {
    around: Arc<Surroundings>,
    feed: Feed,
    parts: HashMap<Part, Kept>,
    /// Partitions that are served and could not be listened for yet.
    deaf: BTreeSet<Part>,
    /// Cancelled when the node is cut off.
    stop: CancellationToken,
}

struct Kept {
    orders: mpsc::Sender<Order>,
    done: tokio::task::JoinHandle<()>,
}

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Job {
    Effect(Effect),
    /// Leave a partition; `busy` are the keys that its claim names as still running here.
    Leave {
        part: Part,
        epoch: u64,
        heir: Option<NodeId>,
        cause: LeaveCause,
        busy: Vec<Key>,
    },
    /// A call that another node has passed on.
    Call {
        subject: String,
        message: Taken,
    },
}

impl Keeper {
    pub(super) fn new(around: Arc<Surroundings>, feed: Feed, stop: CancellationToken) -> Self {
        Self { around, feed, parts: HashMap::new(), deaf: BTreeSet::new(), stop }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            tokio::select! {
                biased;
                job = jobs.recv() => match job {
                    Some(Job::Effect(effect)) => self.carry_out(effect).await,
                    Some(Job::Leave { part, epoch, heir, cause, busy }) => self.leave(part, epoch, heir, cause, busy),
                    Some(Job::Call { subject, message }) => self.call(subject, message).await,
                    None => break,
                },
                () = tokio::time::sleep(LISTEN_AGAIN), if !self.deaf.is_empty() => self.listen_again().await,
            }
        }
        // The tasks leave their queue groups when their orders end.
        self.parts.clear();
    }

    async fn listen_again(&mut self) {
        for part in std::mem::take(&mut self.deaf) {
            let serves = self.around.hosted(&part.actor).is_some_and(|hosted| hosted.gate.epoch(part.number) != 0);
            if serves && self.listen(&part).await {
                self.order(&part, Order::Serve).await;
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Join { part, reply_to, .. } => self.join(&part, reply_to).await,
            Effect::Serve { part, epoch, busy, from } => self.serve(&part, epoch, &busy, from.is_some()).await,
            Effect::ReportIdle { part, epoch, to, keys } => {
                for key in keys.iter().filter_map(|token| Key::from_token(token).ok()) {
                    let report = report_idle(self.around.clone(), part.clone(), epoch, to.clone(), key);
                    self.around.runtime.spawn(report);
                }
            }
            Effect::Admit { part, keys } => {
                let keys: Vec<Key> = keys.iter().filter_map(|token| Key::from_token(token).ok()).collect();
                if let Some(hosted) = self.around.hosted(&part.actor) {
                    hosted.gate.admit(&keys);
                }
                self.order(&part, Order::Admit(keys)).await;
            }
            Effect::Offer { part, epoch, to } => self.say(&to, "offer", &self.word(&part, epoch, false)),
            Effect::Decline { part, epoch, to } => self.say(&to, "ready", &self.word(&part, epoch, false)),
            // The others are the driver's.
            other => tracing::warn!(?other, "the keeper was given what is not its own"),
        }
    }

    async fn join(&mut self, part: &Part, reply_to: Option<(NodeId, u64)>) {
        if self.parts.get(part).is_none_or(|kept| kept.orders.is_closed()) && !self.listen(part).await {
            return;
        }
        if let Some((to, offered)) = reply_to {
            self.say(&to, "ready", &self.word(part, offered, true));
        }
    }

    async fn listen(&mut self, part: &Part) -> bool {
        let Some(hosted) = self.around.hosted(&part.actor) else { return false };
        let filter = self.around.subjects.owner(&part.actor, part.number);
        let subscription = match self.around.transport.subscribe(&filter, Some(OWNERS), PARTITION_CAPACITY).await {
            Ok(subscription) => subscription,
            Err(error) => {
                // Claimed all the same: calls of other nodes come by the node's own subject.
                tracing::warn!(%error, %filter, "cannot listen for a partition; trying again");
                self.deaf.insert(part.clone());
                return false;
            }
        };
        let (orders, received) = mpsc::channel(PARTITION_CAPACITY);
        let task = partition::run(self.around.clone(), hosted, part.number, subscription, received);
        let stop = self.stop.clone();
        let done = self.around.runtime.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
        self.parts.insert(part.clone(), Kept { orders, done });
        true
    }

    async fn serve(&mut self, part: &Part, epoch: u64, busy: &[String], planned: bool) {
        let Some(hosted) = self.around.hosted(&part.actor) else { return };
        hosted.gate.hold(busy.iter().filter_map(|token| Key::from_token(token).ok()));
        // What this node has asked the holder before comes first.
        self.around.lines.opening(&self.around.pending, &part.actor, part.number);
        hosted.gate.open(part.number, epoch, planned);
        self.around.duties.look(&self.around, &part.actor, Some(part.number));
        self.around.watched.got(&part.actor, part.number);
        self.around.standing.notify_one();
        if self.parts.get(part).is_none_or(|kept| kept.orders.is_closed()) {
            self.listen(part).await;
        }
        self.order(part, Order::Serve).await;
    }

    fn leave(&mut self, part: Part, epoch: u64, heir: Option<NodeId>, cause: LeaveCause, busy: Vec<Key>) {
        let Some(hosted) = self.around.hosted(&part.actor) else { return };
        hosted.gate.close(part.number);
        self.around.duties.look(&self.around, &part.actor, Some(part.number));
        self.around.watched.gave(&part.actor, part.number, &self.ended_by(cause, heir.as_ref()));
        hosted.control.evict(part.number);
        let kept = self.parts.remove(&part);
        self.deaf.remove(&part);
        let (around, feed) = (self.around.clone(), self.feed.clone());
        self.around.runtime.spawn(async move {
            let left = async {
                if let Some(kept) = kept {
                    // Full of calls: they are passed on when the channel closes.
                    drop(kept.orders.send(Order::Leave).await);
                    drop(kept.orders);
                    drop(kept.done.await);
                }
            };
            if let (LeaveCause::HandedOver, Some(heir)) = (cause, &heir) {
                for key in busy {
                    around.runtime.spawn(report_idle(around.clone(), part.clone(), epoch + 1, heir.clone(), key));
                }
            }
            let stilled = async {
                while !hosted.control.busy(part.number).is_empty() && around.check_running().is_ok() {
                    let soon = tokio::time::Instant::now() + IDLE_AGAIN;
                    around.until(soon, hosted.control.left()).await;
                }
                // Another owner may hand it back now, while the subscription still leaves.
                feed.tell(Input::Stilled { part: part.clone(), epoch }).await;
            };
            tokio::join!(left, stilled);
            feed.tell(Input::Quiesced { part, epoch }).await;
        });
    }

    /// Why the activations of a partition end that is left.
    fn ended_by(&self, cause: LeaveCause, heir: Option<&NodeId>) -> Reason {
        match (cause, heir) {
            (LeaveCause::HandedOver | LeaveCause::NotNeeded, Some(heir)) => Reason::Moved { to: heir.to_string() },
            (LeaveCause::Superseded, _) => Reason::NodeLost { node: self.around.id.clone() },
            (LeaveCause::Released | LeaveCause::HandedOver | LeaveCause::NotNeeded, _) => Reason::Drained,
        }
    }

    async fn call(&mut self, subject: String, message: Taken) {
        let Some(asked) = crate::subject::Call::keyed(&subject) else { return };
        let Some(hosted) = self.around.hosted(asked.actor) else {
            return super::serve::refuse(
                &self.around,
                &message,
                crate::error::Error::new(
                    crate::error::ErrorKind::Unavailable,
                    "the call was passed on to a node that does not host its actor",
                ),
            );
        };
        let part = Key::from_token(asked.token).map(|key| Part::new(asked.actor, self.around.partition_of(&key)));
        let kept = part.ok().and_then(|part| self.parts.get(&part));
        let order = Order::Call { subject, message };
        let not_taken = match kept {
            Some(kept) => kept.orders.send(order).await.err().map(|unsent| unsent.0),
            None => Some(order),
        };
        if let Some(Order::Call { subject, message }) = not_taken {
            super::passing::pass_on(&self.around, &hosted, &subject, message);
        }
    }

    async fn order(&self, part: &Part, order: Order) {
        if let Some(kept) = self.parts.get(part) {
            drop(kept.orders.send(order).await);
        }
    }

    fn word(&self, part: &Part, epoch: u64, ready: bool) -> Word {
        Word {
            actor: part.actor.to_string(),
            partition: part.number,
            epoch,
            node: self.around.id.clone(),
            ready,
            key: String::new(),
        }
    }

    fn say(&self, to: &NodeId, verb: &str, word: &Word) {
        say(&self.around, to.as_str(), verb, word);
    }
}

fn say(around: &Surroundings, to: &str, verb: &str, word: &Word) {
    let body = serde_json::to_vec(word).unwrap_or_default();
    if let Err(error) = around.transport.publish(Outbound::new(around.subjects.node(to, verb), body)) {
        // The machine keeps the time, and says it again.
        tracing::debug!(%error, to, verb, "a word about a partition was not sent");
    }
}

/// Tells the holder of a partition under that epoch that the last turn of a key has ended here, until it has heard it or
/// the partition has gone on.
async fn report_idle(around: Arc<Surroundings>, part: Part, epoch: u64, heir: NodeId, key: Key) {
    let Some(hosted) = around.hosted(&part.actor) else { return };
    while hosted.control.busy(part.number).contains(&key) {
        if around.check_running().is_err() {
            return;
        }
        let soon = tokio::time::Instant::now() + IDLE_AGAIN;
        around.until(soon, hosted.control.left()).await;
    }
    let word = Word {
        actor: part.actor.to_string(),
        partition: part.number,
        epoch,
        node: around.id.clone(),
        ready: true,
        key: key.token(),
    };
    loop {
        let deadline = tokio::time::Instant::now() + IDLE_AGAIN;
        let body = serde_json::to_vec(&word).unwrap_or_default();
        let told = around.exchange(Some(heir.as_str()), deadline, |reply| {
            Ok(Outbound::new(around.subjects.node(heir.as_str(), "idle"), body).reply_to(reply))
        });
        match told.await {
            Ok(Got::Answer(_)) => return,
            // One that seems dead may be back, as long as nobody else has taken what it holds.
            _ if !around.cluster.view().still_holds(&part, &heir, word.epoch) => return,
            Ok(Got::TimedOut) => {}
            Ok(Got::NoOne | Got::Lost(_)) | Err(_) => tokio::time::sleep_until(deadline).await,
        }
        if around.check_running().is_err() {
            return;
        }
    }
}
