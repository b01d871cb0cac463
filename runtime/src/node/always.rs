//! Actors that are always on: the node that owns one sees that it is in memory.
//!
//! By level, not by edge: whenever something may have changed it looks which keys the hosts name, which of them this
//! node serves, and wakes those that are not there. What fails is tried again after a pause that grows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use super::Inner;
use super::surroundings::Surroundings;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::ownership::Owner;
use crate::pauses::reached;

/// The pause after the first failure; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a quarantined actor is looked at: who releases it need not be on this node.
const QUARANTINE_PAUSE: Duration = Duration::from_secs(1);

/// An actor that is always on, and where it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AlwaysOn {
    /// The actor type.
    pub actor: String,
    /// The key.
    pub key: String,
    /// The node that owns it, if there is one just now.
    pub node: Option<String>,
}

/// Keeps this node's share of such actors in memory, as long as it runs.
pub(super) fn keep(inner: &Arc<Inner>) {
    let stop = inner.stop.clone();
    let keeper = Keeper { inner: Arc::downgrade(inner), waking: HashSet::new(), failed: HashMap::new() };
    let around = inner.around.clone();
    inner.around.runtime.spawn(async move {
        stop.run_until_cancelled(keeper.run(around)).await;
    });
}

/// All such actors that are known.
pub(super) fn all(around: &Surroundings) -> Vec<AlwaysOn> {
    let view = around.cluster.view();
    let types: std::collections::BTreeSet<&String> = view
        .members()
        .flat_map(|member| member.hosts.iter())
        .filter(|(_, host)| !host.always_on.is_empty())
        .map(|(actor, _)| actor)
        .collect();
    let mut all = Vec::new();
    for actor in types {
        for name in view.always_on(actor) {
            let Ok(key) = Key::new(name) else { continue };
            let node = match view.owner(actor, around.partition_of(&key)) {
                Owner::Node { id, .. } => Some(id.as_str().to_owned()),
                Owner::Vacant | Owner::NoHosts => None,
            };
            all.push(AlwaysOn { actor: actor.clone(), key: name.to_owned(), node });
        }
    }
    all
}

type Woken = ((&'static str, Key), Result<(), Error>);

struct Keeper {
    inner: Weak<Inner>,
    waking: HashSet<(&'static str, Key)>,
    /// Since when and how often in a row it has failed.
    failed: HashMap<(&'static str, Key), (Instant, u32)>,
}

impl Keeper {
    async fn run(mut self, around: Arc<Surroundings>) {
        let mut versions = around.cluster.versions();
        let mut wakes: FuturesUnordered<BoxFuture<'static, Woken>> = FuturesUnordered::new();
        loop {
            let Some(inner) = self.inner.upgrade() else { return };
            let next = self.look(&inner.around, &mut wakes);
            drop(inner);
            tokio::select! {
                biased;
                () = versions.changed() => {}
                () = around.standing.notified() => {}
                Some((who, woken)) = wakes.next(), if !wakes.is_empty() => self.woken(who, woken),
                () = reached(next) => {}
            }
        }
    }

    /// Wakes what is not there; returns when to look again at what has failed.
    fn look(
        &mut self,
        around: &Arc<Surroundings>,
        wakes: &mut FuturesUnordered<BoxFuture<'static, Woken>>,
    ) -> Option<Instant> {
        let (view, now) = (around.cluster.view(), Instant::now());
        let mut wanted: BTreeMap<&'static str, HashSet<Key>> = BTreeMap::new();
        for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
            let named = view.always_on(hosted.name).into_iter().filter_map(|key| Key::new(key).ok());
            let keys: HashSet<Key> = named.chain(hosted.always_on.iter().cloned()).collect();
            hosted.control.pin(keys.clone());
            if keys.is_empty() || !around.is_running() {
                continue;
            }
            let here: HashSet<Key> =
                keys.into_iter().filter(|key| hosted.gate.epoch(around.partition_of(key)) != 0).collect();
            for key in &here {
                let who = (hosted.name, key.clone());
                let paused = self.failed.get(&who).is_some_and(|(until, _)| *until > now);
                if paused || self.waking.contains(&who) || hosted.control.live(key)().is_some() {
                    continue;
                }
                self.waking.insert(who.clone());
                let wake = hosted.control.wake(key.clone());
                wakes.push(Box::pin(async move { (who, wake.await) }));
            }
            wanted.insert(hosted.name, here);
        }
        self.failed.retain(|(actor, key), _| wanted.get(actor).is_some_and(|keys| keys.contains(key)));
        self.failed.values().map(|(until, _)| *until).filter(|until| *until > now).min()
    }

    fn woken(&mut self, who: (&'static str, Key), woken: Result<(), Error>) {
        self.waking.remove(&who);
        let Err(error) = woken else {
            self.failed.remove(&who);
            return;
        };
        let failures = self.failed.get(&who).map_or(0, |(_, failures)| *failures);
        let asked = error.details().and_then(|details| details["retry_after_ms"].as_u64()).map(Duration::from_millis);
        let pause = match error.kind() {
            ErrorKind::Quarantined => QUARANTINE_PAUSE,
            _ => asked.unwrap_or_else(|| PAUSE_MAX.min(FIRST_PAUSE * 2u32.saturating_pow(failures.min(16)))),
        };
        if failures == 0 {
            tracing::warn!(actor = who.0, key = %who.1, %error, "an actor that is always on cannot be activated; trying again");
        }
        self.failed.insert(who, (Instant::now() + pause, failures.saturating_add(1)));
    }
}
