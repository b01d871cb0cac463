//! Lines: what keeps the calls of this node to one actor in order while its partition changes hands.
//!
//! As long as a partition stays where it is, calls go straight to its owner, one behind the other on one connection,
//! and nothing is noted here but the epoch of the claim. When a call comes back untaken, or the claim changes, the
//! calls to that partition stand in line, one line for each key, in the order in which they were made. A call leaves
//! when those before it have gone to the same owner, and all that went to another one are settled. The first that goes
//! to a new owner goes alone: its answer shows that the owner takes calls. Then everything goes straight again.
//!
//! Nobody is waited for that does nothing: a call that is not polled loses its place after a second. What is held up
//! ends at its own deadline. A line is as long as the calls of the node on their way, which are bounded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::frames::Outgoing;
use crate::key::Key;
use crate::node::{Located, Surroundings};
use crate::pending::Pending;

/// How long a call is waited for that could go on and does not, and an owner that has said nothing yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon an owner is looked up again that was somebody else a moment ago.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The ways from this node to the partitions that it calls. As many as there are partitions, at most.
pub(crate) struct Lines {
    ways: DashMap<&'static str, Ways, ahash::RandomState>,
    partitions: u16,
    /// How many ways have a line: usually none, and then nobody looks for one.
    lined: Arc<AtomicUsize>,
}

/// The ways to the partitions of one actor type, made when they are needed.
type Ways = Arc<[OnceLock<Arc<Way>>]>;

/// The way to one partition of one actor type.
pub(crate) struct Way {
    /// The epoch of the claim whose holder is called without further ado; 0 while calls stand in line.
    straight: AtomicU64,
    queue: Mutex<Queue>,
    lined: Arc<AtomicUsize>,
    shortcut: RwLock<Option<Arc<Shortcut>>>,
}

/// Where calls go, as long as nothing changes in the cluster: looked up once for all of them.
pub(super) struct Shortcut {
    version: u64,
    pub(super) node: Arc<str>,
    pub(super) epoch: u64,
    /// Whether its actors remember their commands.
    pub(super) durable: bool,
    pub(super) outgoing: Arc<Outgoing>,
}

#[derive(Default)]
struct Queue {
    lines: HashMap<Key, BTreeMap<u64, Spot>>,
    /// The newest epoch under which something was to be sent.
    epoch: u64,
    /// Whether its holder has taken a call.
    proven: bool,
    /// Whether this node is to be the holder after it: then what went there comes before what begins here.
    ours_next: bool,
    /// Keys whose last turn may run at the holder before: each has to prove by itself that it is taken.
    busy: HashSet<Key>,
    /// Claims below this epoch were taken from their holders: nothing is sent under them any more.
    floor: u64,
    /// Calls that are to be sent.
    due: usize,
    /// Calls that went to an earlier holder.
    stale: usize,
    /// Whether the way is counted among those with a line.
    counted: bool,
}

/// Where a call of a line is.
enum Spot {
    /// Sent under this epoch, and not answered yet.
    Out { epoch: u64, since: Instant, until: Instant },
    /// To be sent. It loses its place then, unless it is polled before.
    Due { until: Instant, wake: Option<oneshot::Sender<()>> },
}

/// Where a call would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heading {
    /// To a node that holds the claim of this epoch.
    Owner(u64),
    /// To this very node, or nowhere just now.
    Nobody,
}

/// What a call of a line waits for, at most until then.
pub(super) struct Wait {
    pub(super) woken: oneshot::Receiver<()>,
    pub(super) until: Instant,
}

impl Lines {
    pub(crate) fn new(partitions: u16) -> Self {
        Self { ways: DashMap::with_hasher(ahash::RandomState::new()), partitions, lined: Arc::default() }
    }

    pub(super) fn way(&self, actor: &'static str, partition: u16) -> Arc<Way> {
        let make = || {
            let (straight, queue) = (AtomicU64::new(0), Mutex::default());
            Arc::new(Way { straight, queue, lined: self.lined.clone(), shortcut: RwLock::default() })
        };
        let ways = self.ways.get(actor).map(|ways| ways.clone()).unwrap_or_else(|| {
            let none = || (0..self.partitions.max(1)).map(|_| OnceLock::new()).collect();
            self.ways.entry(actor).or_insert_with(none).clone()
        });
        match ways.get(usize::from(partition)) {
            Some(way) => way.get_or_init(make).clone(),
            // A partition is the remainder of a division by their number, so there is none above.
            None => make(),
        }
    }

    /// Whether calls to this key stand in line, so that another one must stand behind them.
    pub(crate) fn holds(&self, actor: &str, partition: u16, key: &Key) -> bool {
        self.lined.load(Ordering::SeqCst) != 0
            && self.known(actor, partition).is_some_and(|way| way.queue.lock().lines.contains_key(key))
    }

    /// Takes in that the claim was taken from its holder: calls go to the new one, those on their way too.
    pub(crate) fn taken(&self, pending: &Pending, actor: &str, partition: u16, epoch: u64) -> Option<Arc<Way>> {
        let way = self.known(actor, partition)?;
        let mut queue = way.queue.lock();
        queue.floor = queue.floor.max(epoch);
        Way::stop(&way, &mut queue, pending);
        drop(queue);
        Some(way)
    }

    /// Takes in that this node is about to own a partition. What it has sent to the holder before comes first.
    pub(crate) fn opening(&self, pending: &Pending, actor: &str, partition: u16) {
        if let Some(way) = self.known(actor, partition) {
            let mut queue = way.queue.lock();
            Way::stop(&way, &mut queue, pending);
            queue.ours_next = true;
        }
    }

    fn known(&self, actor: &str, partition: u16) -> Option<Arc<Way>> {
        self.ways.get(actor)?.get(usize::from(partition))?.get().cloned()
    }
}

impl Way {
    /// Whether calls under this epoch go without further ado. Asked after the call is among the pending ones: either
    /// it sees that calls stand in line, or whoever made them do so has seen it.
    pub(crate) fn is_straight(&self, epoch: u64) -> bool {
        self.straight.load(Ordering::SeqCst) == epoch && epoch != 0
    }

    /// Where calls go now, if another node owns the partition. Under an epoch that is not the straight one they may not.
    pub(super) fn shortcut(&self, around: &Surroundings, actor: &str, partition: u16) -> Option<Arc<Shortcut>> {
        // Read before the view: what changes after that makes another one.
        let version = around.cluster.version();
        if let Some(known) = self.shortcut.read().as_ref().filter(|known| known.version == version) {
            return Some(known.clone());
        }
        let Located::Node { id: node, epoch, durable } = around.cluster.locate(actor, partition) else { return None };
        let outgoing = around.frames.questions_to(&node);
        let found = Arc::new(Shortcut { version, node, epoch, durable, outgoing });
        *self.shortcut.write() = Some(found.clone());
        Some(found)
    }

    /// Whether calls stand in line here, or would.
    pub(crate) fn is_lined(&self) -> bool {
        self.straight.load(Ordering::SeqCst) == 0
    }

    /// Puts a call into the line, or back into it, at the place that its number gives it.
    pub(super) fn line_up(self: &Arc<Self>, pending: &Pending, key: &Key, number: u64) {
        let mut queue = self.queue.lock();
        Self::stop(self, &mut queue, pending);
        queue.remove(key, number);
        queue.due += 1;
        let until = Instant::now() + PATIENCE;
        queue.lines.entry(key.clone()).or_default().insert(number, Spot::Due { until, wake: None });
        self.count(&mut queue);
    }

    /// Whether the call may go there now. If not, what it waits for.
    pub(super) fn may_go(&self, key: &Key, number: u64, to: Heading, busy: impl FnOnce() -> Vec<Key>) -> Option<Wait> {
        let mut queue = self.queue.lock();
        let now = Instant::now();
        let mut blocked = None;
        if let Heading::Owner(epoch) = to {
            if epoch < queue.epoch.max(queue.floor) {
                // Looked up before the claim changed.
                blocked = Some(now + LOOK_AGAIN);
            } else if epoch > queue.epoch {
                queue.turn_to(epoch, busy());
                queue.wake_all();
            }
        }
        let blocked = blocked.or_else(|| queue.blocked(key, number, to, now));
        let own = queue.lines.get_mut(key).and_then(|line| line.get_mut(&number));
        let Some(Spot::Due { until, wake }) = own else { return None };
        let Some(blocked) = blocked else {
            *until = now + PATIENCE;
            return None;
        };
        let again = blocked.min(now + PATIENCE);
        let (waker, woken) = oneshot::channel();
        (*until, *wake) = (again + PATIENCE, Some(waker));
        Some(Wait { woken, until: again })
    }

    /// Whether nobody has taken the claim of that epoch from its holder.
    pub(super) fn stands(&self, epoch: u64) -> bool {
        epoch >= self.queue.lock().floor
    }

    /// Notes that a call of the line was sent.
    pub(super) fn sent(&self, key: &Key, number: u64, epoch: u64, until: Instant) {
        let mut queue = self.queue.lock();
        queue.remove(key, number);
        queue.stale += usize::from(epoch != queue.epoch);
        let spot = Spot::Out { epoch, since: Instant::now(), until };
        queue.lines.entry(key.clone()).or_default().insert(number, spot);
        queue.wake_next(key);
        self.straighten(&mut queue);
    }

    /// Notes that the holder of that epoch takes calls for this key.
    pub(super) fn proved(&self, key: &Key, epoch: u64) {
        if !self.is_lined() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.epoch != epoch {
            return;
        }
        queue.busy.remove(key);
        if std::mem::replace(&mut queue.proven, true) {
            queue.wake_next(key);
        } else {
            queue.wake_all();
        }
        self.straighten(&mut queue);
    }

    /// An answer has arrived: whoever waits for it takes that in soon, or is not waited for.
    pub(crate) fn answered(&self, key: &Key, number: u64) {
        let mut queue = self.queue.lock();
        if let Some(Spot::Out { until, .. }) = queue.lines.get_mut(key).and_then(|line| line.get_mut(&number)) {
            *until = (*until).min(Instant::now() + PATIENCE);
            queue.wake_next(key);
        }
    }

    /// Takes a call out of the line.
    pub(super) fn leave(&self, key: &Key, number: u64) {
        if !self.is_lined() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.remove(key, number);
        queue.wake_next(key);
        self.count(&mut queue);
        self.straighten(&mut queue);
    }

    /// Lets no call go straight any more. Those that did are noted.
    fn stop(way: &Arc<Self>, queue: &mut Queue, pending: &Pending) {
        let epoch = way.straight.swap(0, Ordering::SeqCst);
        if epoch == 0 {
            return;
        }
        (queue.epoch, queue.proven) = (epoch, true);
        let since = Instant::now();
        pending.on_way(way, |key, number, epoch, until| {
            queue.stale += usize::from(epoch != queue.epoch);
            queue.lines.entry(key.clone()).or_default().insert(number, Spot::Out { epoch, since, until });
        });
        way.count(queue);
    }

    /// Lets calls go straight again, if all that is on its way went to the present holder, and is taken there.
    fn straighten(&self, queue: &mut Queue) {
        let settled = queue.due == 0 && queue.stale == 0 && queue.proven && queue.busy.is_empty();
        let settled = settled && (queue.lines.is_empty() || !queue.ours_next);
        if settled && queue.epoch >= queue.floor && self.is_lined() {
            queue.lines.clear();
            queue.ours_next = false;
            self.count(queue);
            self.straight.store(queue.epoch, Ordering::SeqCst);
        }
    }

    /// Counts this way among those with a line, or no more.
    fn count(&self, queue: &mut Queue) {
        let lined = !queue.lines.is_empty();
        if std::mem::replace(&mut queue.counted, lined) != lined {
            if lined {
                self.lined.fetch_add(1, Ordering::SeqCst);
            } else {
                self.lined.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

impl Queue {
    /// Calls go to another holder from now on. What went to the one before is stale.
    fn turn_to(&mut self, epoch: u64, busy: Vec<Key>) {
        (self.epoch, self.proven, self.ours_next) = (epoch, false, false);
        self.busy = busy.into_iter().collect();
        let spots = self.lines.values().flat_map(BTreeMap::values);
        self.stale = spots.filter(|spot| matches!(spot, Spot::Out { epoch: under, .. } if *under != epoch)).count();
    }

    /// Until when a call must wait for those before it, at most.
    fn blocked(&self, key: &Key, number: u64, to: Heading, now: Instant) -> Option<Instant> {
        let proven = self.proven && !self.busy.contains(key);
        let before = self.lines.get(key)?.range(..number).filter_map(|(_, spot)| match spot {
            Spot::Due { until, .. } => Some(*until),
            // What goes the same way arrives behind it.
            Spot::Out { epoch, .. } if to == Heading::Owner(*epoch) && proven => None,
            Spot::Out { epoch, since, until } if to == Heading::Owner(*epoch) => Some((*since + PATIENCE).min(*until)),
            Spot::Out { until, .. } => Some(*until),
        });
        before.filter(|until| *until > now).min()
    }

    fn remove(&mut self, key: &Key, number: u64) {
        let Some(line) = self.lines.get_mut(key) else { return };
        match line.remove(&number) {
            Some(Spot::Due { .. }) => self.due -= 1,
            Some(Spot::Out { epoch, .. }) => self.stale -= usize::from(epoch != self.epoch),
            None => {}
        }
        if line.is_empty() {
            self.lines.remove(key);
        }
    }

    /// Wakes the first that is to be sent: it may be its turn.
    fn wake_next(&mut self, key: &Key) {
        if let Some(line) = self.lines.get_mut(key) {
            wake_first(line);
        }
    }

    fn wake_all(&mut self) {
        self.lines.values_mut().for_each(wake_first);
    }
}

fn wake_first(line: &mut BTreeMap<u64, Spot>) {
    let due = line.values_mut().find_map(|spot| match spot {
        Spot::Due { until, wake } => Some((until, wake)),
        Spot::Out { .. } => None,
    });
    if let Some((until, wake)) = due
        && let Some(waker) = wake.take()
    {
        *until = Instant::now() + PATIENCE;
        // A call that has just been given up leaves by itself.
        let _gone = waker.send(());
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
