//! The table of a node: which of its actors are watched, by whom, and how their last activations ended.
//!
//! Owns what the node knows of its own activations; it asks nobody. Bounded: so many watched actors, so many watchers
//! of each, and so many ends. A watcher that has not asked for a while is forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Reason, Watched};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// Actors of a node that are watched at once.
const WATCHED_MAX: usize = 65_536;
/// Watchers of one actor.
const WATCHERS_MAX: usize = 4_096;
/// Ends that are remembered of one actor.
const ENDS_MAX: usize = 16;
/// After so long without a question a watcher is forgotten. Questions wait for less.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(40);

/// See the module's head.
#[derive(Default)]
pub(crate) struct Table {
    watched: DashMap<Watched, Entry, ahash::RandomState>,
    count: AtomicUsize,
    /// Numbers activations and watches of this node.
    last: AtomicU64,
    /// Where partitions went that this node served before.
    given: Mutex<HashMap<(String, u16), Reason>>,
}

#[derive(Default)]
struct Entry {
    partition: u16,
    live: Option<Live>,
    ends: VecDeque<End>,
    /// The number of the newest end that is not remembered any more.
    dropped: u64,
    watchers: HashMap<(String, u64), Instant>,
    pulse: Arc<Notify>,
}

/// An activation that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
}

/// One that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    live: Live,
    why: Ending,
}

/// How an activation ended, for its own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    For(Reason),
    /// Its partition is being given away: where to is not settled yet.
    GivenAway,
}

/// Who asks for what has happened to an actor.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) node: String,
    pub(super) id: u64,
}

/// What has happened to an actor since its watcher last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) live: Option<Live>,
    pub(super) ends: Vec<(Live, Reason)>,
    /// The number of the newest end there was, told or not.
    pub(super) upto: u64,
    /// Whether more has ended than is remembered.
    pub(super) missed: bool,
}

impl Table {
    /// A number that nothing else of this node has.
    pub(super) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that an activation has begun.
    pub(crate) fn began(&self, actor: &str, key: &Key, epoch: u64) {
        self.change(actor, key, |table, entry| {
            if entry.live.is_none() {
                entry.live = Some(Live { number: table.number(), epoch });
            }
        });
    }

    /// Notes that one has ended. Its slot says already that it is not live.
    pub(crate) fn ended(&self, actor: &str, key: &Key, why: &Ending) {
        self.change(actor, key, |table, entry| {
            let Some(live) = entry.live.take() else { return };
            let given = table.given.lock().get(&(actor.to_owned(), entry.partition)).cloned();
            let why = match (why, given) {
                (Ending::GivenAway, Some(reason)) => Ending::For(reason),
                (why, _) => why.clone(),
            };
            if entry.ends.len() >= ENDS_MAX {
                entry.dropped = entry.ends.pop_front().map_or(0, |end| end.live.number);
            }
            entry.ends.push_back(End { live, why });
        });
    }

    /// Settles where a partition went: the activations that ended for that ended for this reason.
    pub(crate) fn gave(&self, actor: &str, partition: u16, reason: &Reason) {
        self.given.lock().insert((actor.to_owned(), partition), reason.clone());
        self.settle(actor, partition, reason);
    }

    /// A partition is served: by a new claim, or because it was not given away after all.
    pub(crate) fn got(&self, actor: &str, partition: u16) {
        self.given.lock().remove(&(actor.to_owned(), partition));
        self.settle(actor, partition, &Reason::Undone);
    }

    fn settle(&self, actor: &str, partition: u16, reason: &Reason) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for mut watched in self.watched.iter_mut().filter(|one| one.key().actor == actor) {
            let entry = watched.value_mut();
            if entry.partition == partition {
                let open = entry.ends.iter_mut().filter(|end| end.why == Ending::GivenAway);
                open.for_each(|end| end.why = Ending::For(reason.clone()));
                entry.pulse.notify_waiters();
            }
        }
    }

    fn change(&self, actor: &str, key: &Key, change: impl FnOnce(&Self, &mut Entry)) {
        // Usually nobody watches anything.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watched = Watched { actor: actor.to_owned(), key: key.clone() };
        if let Some(mut entry) = self.watched.get_mut(&watched) {
            change(self, &mut entry);
            entry.pulse.notify_waiters();
        }
    }

    /// Notes a watcher, or that it is still there. `live` looks, after that, whether the actor is in memory.
    ///
    /// # Errors
    /// `Overloaded` if too much is watched.
    pub(super) fn register(
        &self,
        watched: &Watched,
        partition: u16,
        by: &Watcher,
        live: impl FnOnce() -> Box<dyn Fn() -> Option<u64> + Send>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let full = self.count.load(Ordering::SeqCst) >= WATCHED_MAX;
        {
            let mut entry = match self.watched.entry(watched.clone()) {
                Place::Occupied(entry) => entry.into_ref(),
                Place::Vacant(_) if full => return Err(too_many(WATCHED_MAX, "actors of this node are watched")),
                Place::Vacant(place) => {
                    self.count.fetch_add(1, Ordering::SeqCst);
                    place.insert(Entry { partition, ..Entry::default() })
                }
            };
            entry.watchers.retain(|_, until| *until > now);
            let known = entry.watchers.contains_key(&(by.node.clone(), by.id));
            if !known && entry.watchers.len() >= WATCHERS_MAX {
                return Err(too_many(WATCHERS_MAX, "watches of one actor"));
            }
            entry.watchers.insert((by.node.clone(), by.id), now + FORGOTTEN_AFTER);
        }
        // Looked up only now: whatever begins from here on finds the entry. And looked at under the entry's lock, which
        // an end needs too: so it is either seen here as over, or noted as the end of this.
        let look = live();
        if let Some(mut entry) = self.watched.get_mut(watched)
            && entry.live.is_none()
            && let Some(epoch) = look()
        {
            entry.live = Some(Live { number: self.number(), epoch });
        }
        Ok(())
    }

    /// Forgets a watcher.
    pub(super) fn forget(&self, watched: &Watched, by: &Watcher) {
        if let Some(mut entry) = self.watched.get_mut(watched) {
            entry.watchers.remove(&(by.node.clone(), by.id));
        }
        self.drop_if_unwatched(watched);
    }

    /// Forgets the watchers of a node that is gone.
    pub(crate) fn forget_node(&self, node: &str) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let all: Vec<Watched> = self
            .watched
            .iter_mut()
            .filter_map(|mut entry| {
                let before = entry.watchers.len();
                entry.watchers.retain(|(by, _), _| by != node);
                (entry.watchers.len() < before).then(|| entry.key().clone())
            })
            .collect();
        all.iter().for_each(|watched| self.drop_if_unwatched(watched));
    }

    /// Forgets the watchers that have not asked for long.
    pub(crate) fn sweep(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let now = Instant::now();
        let all: Vec<Watched> = self.watched.iter().map(|entry| entry.key().clone()).collect();
        for watched in all {
            if let Some(mut entry) = self.watched.get_mut(&watched) {
                entry.watchers.retain(|_, until| *until > now);
            }
            self.drop_if_unwatched(&watched);
        }
    }

    /// How many actors of this node are watched.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn drop_if_unwatched(&self, watched: &Watched) {
        if self.watched.remove_if(watched, |_, entry| entry.watchers.is_empty()).is_some() {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Woken when something happens to the actor.
    pub(super) fn pulse(&self, watched: &Watched) -> Option<Arc<Notify>> {
        self.watched.get(watched).map(|entry| entry.pulse.clone())
    }

    /// What has happened after the end of that number. `None` while it is not settled why the first of it ended.
    pub(super) fn news(&self, watched: &Watched, after: u64) -> Option<News> {
        let Some(entry) = self.watched.get(watched) else { return Some(News::default()) };
        let mut news = News { live: entry.live, ends: Vec::new(), upto: after, missed: entry.dropped > after };
        for end in entry.ends.iter().filter(|end| end.live.number > after) {
            let Ending::For(reason) = &end.why else {
                // What came before it may be told.
                return (!news.ends.is_empty()).then_some(news);
            };
            news.ends.push((end.live, reason.clone()));
            news.upto = end.live.number;
        }
        Some(news)
    }

    /// The number of the newest end.
    pub(super) fn newest_end(&self, watched: &Watched) -> u64 {
        let entry = self.watched.get(watched);
        entry.and_then(|entry| entry.ends.back().map(|end| end.live.number)).unwrap_or(0)
    }
}

fn too_many(most: usize, what: &str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{most} {what}, which is the limit"))
}
