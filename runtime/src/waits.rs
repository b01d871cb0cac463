//! Waits: the turns of this node that have waited for a call for long.
//!
//! A call that belongs to a turn is noted here once it has lasted 50 ms, with the turn that waits for it, so that
//! probes can go along from turn to turn: see [`chase`](crate::node::chase). Before that it costs a timer. As many are
//! noted as calls of the node are on their way, which are bounded.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::{Hop, TurnId};
use crate::node::{Surroundings, chase};

/// How long a turn waits before anybody looks whether its call waits for it. Doubles from look to look.
const LONG: Duration = Duration::from_millis(50);
/// How often that doubles: to 51 s.
const DOUBLES: u32 = 10;

/// A call that a turn waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The turn, and when its id was made; of two, the younger has the later one.
    pub(crate) age: Age,
    /// Whose turn it is.
    pub(crate) by: Hop,
    /// Whom it calls; a service has no key.
    pub(crate) to: Hop,
    /// The id of that call.
    pub(crate) call: TurnId,
}

/// Orders turns by when their ids were made; ids tell apart what was made at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) born: u64,
    pub(crate) turn: TurnId,
}

/// What is waited for on this node, by whose turn it is.
#[derive(Default)]
pub(crate) struct Waits(Mutex<HashMap<Hop, Vec<Wait>>>);

/// Takes its entry out when the wait ends.
struct Entry<'a> {
    waits: &'a Waits,
    wait: &'a Wait,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut waits = self.waits.0.lock();
        let Some(of) = waits.get_mut(&self.wait.by) else { return };
        if let Some(place) = of.iter().position(|wait| wait == self.wait) {
            of.swap_remove(place);
        }
        if of.is_empty() {
            waits.remove(&self.wait.by);
        }
    }
}

impl Waits {
    /// What the turns of an actor that run on this node wait for.
    pub(crate) fn of(&self, actor: &Hop) -> Vec<Wait> {
        self.0.lock().get(actor).cloned().unwrap_or_default()
    }

    fn enter<'a>(&'a self, wait: &'a Wait) -> Entry<'a> {
        self.0.lock().entry(wait.by.clone()).or_default().push(wait.clone());
        Entry { waits: self, wait }
    }
}

impl Surroundings {
    /// Waits for a call that belongs to a turn. If that takes long, looks whether it waits for that very turn.
    pub(crate) async fn watched<T>(self: &Arc<Self>, wait: Option<Wait>, call: impl Future<Output = T>) -> T {
        let Some(wait) = wait else { return call.await };
        let mut call = pin!(call);
        if let Some(outcome) = self.until(Instant::now() + LONG, &mut call).await {
            return outcome;
        }
        let _entry = self.waits.enter(&wait);
        let mut looks = 0;
        loop {
            chase::begin(self, &wait);
            looks = DOUBLES.min(looks + 1);
            let next = Instant::now() + LONG * (1 << looks);
            if let Some(outcome) = self.until(next, &mut call).await {
                return outcome;
            }
        }
    }
}
