//! Options: how one actor type is hosted, and what of it cannot be.

use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::supervision::Restart;

/// How one actor type is hosted.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    pub(crate) pool: Option<usize>,
    pub(crate) weight: Option<u32>,
    pub(crate) restart: Restart,
    pub(crate) always_on: Vec<String>,
    pub(crate) memory: Option<usize>,
    pub(crate) tell_attempts: Option<u32>,
}

/// How often a durable tell is tried that fails, unless its host says otherwise.
pub(super) const TELL_ATTEMPTS: u32 = 10;

/// Keys of one actor type that a node may name as always on.
const ALWAYS_ON_MAX: usize = 256;
/// The smallest budget of memory.
const MEMORY_MIN: usize = 64 * 1024;

impl HostOptions {
    /// The defaults: a pool of as many instances as there are cores, weight 100, restarted one for
    /// one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The instances of a service on this node, 1 to 256. Among the nodes that host it, a node
    /// gets calls in proportion to its pool.
    #[must_use]
    pub fn pool(mut self, instances: usize) -> Self {
        self.pool = Some(instances);
        self
    }

    /// This node's share of the keyed actors, in proportion to the other nodes' weights; 1 to
    /// 10,000, 100 unless set.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Keys that are kept active, such as the one key of a singleton: the node that owns such a key activates it as soon
    /// as it serves it, after a start, a handover or a take-over, and again after a panic or a failed activation, with
    /// growing pauses. It does not leave memory for being idle, nor to make room. A durable actor that was never
    /// written to begins its journal with its first activation.
    ///
    /// What all live hosts of the type name is put together: it is enough if one of them names a key, and harmless if
    /// all do. 256 keys on a node at most. Quarantine holds for them as for others, until `Node::release`.
    ///
    /// What such an actor does without being asked begins in its `activate`:
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # use greenroom::HostOptions;
    /// # use std::time::Duration;
    /// # #[contract(messages(Tick))]
    /// # struct Clerk;
    /// # #[message(Clerk, tell)]
    /// # struct Tick;
    /// struct ClerkActor { ticks: u64 }
    ///
    /// #[actor(Clerk)]
    /// impl ClerkActor {
    ///     fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
    ///         ctx.every(Duration::from_millis(100), Tick)?;
    ///         Ok(Self { ticks: 0 })
    ///     }
    ///
    ///     #[tell]
    ///     fn tick(&mut self, _: Tick) { self.ticks += 1; }
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Error> {
    /// let node = Node::local("shop").host_with::<ClerkActor>(HostOptions::new().always_on(["main"])).start().await?;
    /// # node.drain().await
    /// # }
    /// ```
    #[must_use]
    pub fn always_on<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.always_on.extend(keys.into_iter().map(Into::into));
        self
    }

    /// How many bytes the durable actors of this type may take on this node; unbounded unless set, 64 KiB at least. When
    /// they take more, those that were used least recently leave memory, as if nobody had asked for them for long.
    ///
    /// An estimate: of each actor the size of its state when it was last written down as JSON, of the commands that it
    /// remembers, and 1 KiB. Not counted is what may not leave: what is always on, has a timer, or has just panicked.
    /// Of actors that are busy at once, as many may be in memory beyond it. Volatile actors take no notice of it.
    #[must_use]
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// How often a durable tell for a keyed actor of this type is tried that fails, 1 to 100; 10 unless set. Then it is
    /// a dead letter. The pauses between grow from 100 ms to 30 s. What was certainly not run, because the actor could
    /// not be reached, does not count; a turn that panics four times in a row ends its tell earlier.
    #[must_use]
    pub fn tell_attempts(mut self, attempts: u32) -> Self {
        self.tell_attempts = Some(attempts);
        self
    }

    /// What happens when an instance of a service cannot be activated.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }
}

/// The keys that are always on, if they can be.
pub(super) fn always_on(name: &str, keyed: bool, keys: &[String]) -> Result<Vec<Key>, Error> {
    let config = |why: String| Err(Error::new(ErrorKind::Config, why));
    if !keyed && !keys.is_empty() {
        return config(format!("{name} is a service: its instances are always on, and have no keys"));
    }
    if keys.len() > ALWAYS_ON_MAX {
        return config(format!("{name}: {} keys are always on; a node names {ALWAYS_ON_MAX} at most", keys.len()));
    }
    keys.iter().map(Key::new).collect()
}

/// How often a durable tell is tried, if that can be.
pub(super) fn tell_attempts(name: &str, attempts: Option<u32>) -> Result<u32, Error> {
    let attempts = attempts.unwrap_or(TELL_ATTEMPTS);
    if (1..=100).contains(&attempts) {
        return Ok(attempts);
    }
    Err(Error::new(ErrorKind::Config, format!("{name}: a durable tell is tried 1 to 100 times; got {attempts}")))
}

/// Whether a budget of memory can be kept.
pub(super) fn check_memory(name: &str, bytes: Option<usize>) -> Result<(), Error> {
    let Some(bytes) = bytes.filter(|bytes| *bytes < MEMORY_MIN) else { return Ok(()) };
    let why = format!("{name}: a memory budget of {bytes} bytes is too small; {MEMORY_MIN} at least");
    Err(Error::new(ErrorKind::Config, why))
}
