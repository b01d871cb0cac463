//! What travels with a call besides its message: identity, deadline, and the chain it came by.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::key::KEY_BYTES_MAX;

/// The longest chain of calls.
pub(crate) const CHAIN_MAX: usize = 32;

/// Identifies one turn, over retries: a repeated call carries the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TurnId(pub(crate) u128);

/// The bits of an id that say when it was made, in ms since 1970: its highest 48, as in a UUID of version 7.
const TIME: u128 = u128::MAX << 80;

impl TurnId {
    /// The id of a turn that begins with nobody else: of 40 bits each of its node's nonce and of its number there.
    pub(crate) fn new(made: u64, nonce: u64, number: u64) -> Self {
        let of = |bits: u64| u128::from(bits & (u64::MAX >> 24));
        Self(u128::from(made) << 80 | of(nonce ^ nonce >> 40) << 40 | of(number))
    }

    /// The id of a call that a turn makes: the same again when the turn is run again, and of the same time.
    pub(crate) fn child(self, ordinal: u32, target: &str, verb: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0.to_be_bytes());
        hash.update(ordinal.to_be_bytes());
        hash.update(target.as_bytes());
        hash.update([0]);
        hash.update(verb.as_bytes());
        Self(self.0 & TIME | Self::from_digest(&hash.finalize()).0 & !TIME)
    }

    /// The id of a call whose sender gave an id of its own (`Nats-Msg-Id`).
    pub(crate) fn named(name: &str) -> Self {
        Self::from_digest(&Sha256::digest(name.as_bytes()))
    }

    /// The id as people see it elsewhere, read back.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    fn from_digest(digest: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Debug for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One actor on the way of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Hop {
    /// The actor's type.
    pub(crate) actor: String,
    /// Its key; empty for a service.
    pub(crate) key: String,
}

/// The actors whose turns wait for a call, newest first. A turn that calls nobody never makes one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    hop: Hop,
    length: usize,
    rest: Chain,
}

impl Chain {
    pub(crate) fn with(&self, actor: &str, key: &str) -> Self {
        let hop = Hop { actor: actor.to_owned(), key: key.to_owned() };
        Self(Some(Arc::new(Link { hop, length: self.len() + 1, rest: self.clone() })))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |link| link.length)
    }

    pub(crate) fn contains(&self, actor: &str, key: &str) -> bool {
        self.hops().any(|hop| hop.actor == actor && hop.key == key)
    }

    /// Newest first.
    pub(crate) fn hops(&self) -> impl Iterator<Item = &Hop> {
        let mut at = self.0.as_deref();
        std::iter::from_fn(move || {
            let link = at?;
            at = link.rest.0.as_deref();
            Some(&link.hop)
        })
    }

    /// From hops as [`hops`](Chain::hops) gives them.
    pub(crate) fn from_hops(hops: Vec<Hop>) -> Result<Self, Error> {
        if hops.len() > CHAIN_MAX {
            return Err(too_long());
        }
        if hops.iter().any(|hop| hop.actor.len() > 64 || hop.key.len() > KEY_BYTES_MAX) {
            return Err(Error::new(ErrorKind::BadRequest, "the chain of calls names an actor that cannot be"));
        }
        let chain = hops.into_iter().rev().fold(Self::default(), |chain, hop| chain.with(&hop.actor, &hop.key));
        Ok(chain)
    }

    /// Refuses a call that would wait for itself, or that came a way too long.
    pub(crate) fn admit(&self, actor: &str, key: &str) -> Result<(), Error> {
        if self.0.is_none() {
            return Ok(());
        }
        if self.contains(actor, key) {
            return Err(Error::new(
                ErrorKind::CallCycle,
                format!("{actor}/{key} is waiting for this very call: {self} -> {actor}/{key}"),
            ));
        }
        if self.len() >= CHAIN_MAX {
            return Err(too_long());
        }
        Ok(())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hops: Vec<_> = self.hops().map(|hop| format!("{}/{}", hop.actor, hop.key)).collect();
        hops.reverse();
        f.write_str(&hops.join(" -> "))
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::ChainTooLong, format!("the call came through {CHAIN_MAX} actors, which is the limit"))
}

/// What a budget is cut to that reaches past the end of the clock: thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When a call's time is over. Reading the clock costs more than a short turn, so a call that may
/// never wait carries its budget only.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    After(Duration),
    At(Instant),
}

impl Deadline {
    pub(crate) fn at(self) -> Instant {
        match self {
            Deadline::After(budget) => after(Instant::now(), budget),
            Deadline::At(at) => at,
        }
    }

    /// Fixes the moment, counting from now.
    pub(crate) fn fixed(self) -> Self {
        Deadline::At(self.at())
    }

    /// Fixes the moment, counting from this one.
    pub(crate) fn counted_from(self, now: Instant) -> Self {
        match self {
            Deadline::After(budget) => Deadline::At(after(now, budget)),
            Deadline::At(_) => self,
        }
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Deadline::After(budget) => budget.is_zero(),
            Deadline::At(at) => at <= Instant::now(),
        }
    }
}

fn after(now: Instant, budget: Duration) -> Instant {
    now.checked_add(budget).unwrap_or_else(|| now + FAR)
}

/// What both clocks say. They are read once for all that is done at one moment: a reading costs as much as a short turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// As [`wall_ms`].
    pub(crate) wall_ms: u64,
}

impl Clock {
    pub(crate) fn read() -> Self {
        Self { now: Instant::now(), wall_ms: wall_ms() }
    }
}

/// What travels with a call, on this node or between nodes.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) deadline: Deadline,
    pub(crate) chain: Chain,
    /// Given to the turn when somebody first asks for it.
    pub(crate) turn: Option<TurnId>,
    pub(crate) attempt: u32,
    /// When the id was made, in milliseconds of wall time; 0 if its maker did not say.
    pub(crate) born: u64,
    /// The `traceparent` of the caller, passed on unread.
    pub(crate) trace: Option<Arc<str>>,
    /// Whether it is a durable tell: kept at the broker until it is known that its turn has committed.
    pub(crate) stored: bool,
    /// The [`digest`] of its message, where that was written as JSON already.
    pub(crate) digest: Option<u64>,
}

impl Call {
    /// A call that starts here.
    pub(crate) fn root(budget: Duration) -> Self {
        Self {
            deadline: Deadline::After(budget),
            chain: Chain::default(),
            turn: None,
            attempt: 1,
            born: 0,
            trace: None,
            stored: false,
            digest: None,
        }
    }
}

/// Tells messages apart by their JSON, whatever codec brought them: 53 bits, which every reader of JSON can hold.
pub(crate) fn digest(json: &[u8]) -> u64 {
    let hash = Sha256::digest(json);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(bytes) >> 11
}

/// Wall time in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    #[cfg(test)]
    if let Some(now) = crate::simulation::wall_ms() {
        return now;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What a call gets whose time was over before its turn started.
pub(crate) fn not_started(actor: &str, key: &str) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!("the time for the call was over before {actor}/{key} got to it; nothing was run"),
    )
}

/// The same where its turn runs.
pub(crate) fn not_ended(actor: &str, key: &str) -> Error {
    Error::new(
        ErrorKind::Unknown,
        format!("the time for the call was over while {actor}/{key} ran it; what it did is not known"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_catches_its_own_actors_and_ends_at_its_limit() {
        let chain = Chain::default().with("order", "1").with("payment", "1");
        assert_eq!(chain.admit("order", "1").map_err(|e| e.kind()), Err(ErrorKind::CallCycle));
        assert!(chain.admit("order", "2").is_ok());
        let long = (0..CHAIN_MAX).fold(Chain::default(), |chain, n| chain.with("a", &n.to_string()));
        assert_eq!(long.admit("b", "").map_err(|e| e.kind()), Err(ErrorKind::ChainTooLong));
        let hops: Vec<_> = long.hops().cloned().collect();
        let back = Chain::from_hops(hops.clone()).expect("within the limit");
        assert_eq!(back.hops().cloned().collect::<Vec<_>>(), hops);
    }

    #[test]
    fn child_ids_depend_on_everything_that_tells_calls_apart() {
        let parent = TurnId(7);
        let child = parent.child(0, "payment/1", "charge");
        assert_eq!(child, parent.child(0, "payment/1", "charge"));
        for other in [
            parent.child(1, "payment/1", "charge"),
            parent.child(0, "payment/2", "charge"),
            parent.child(0, "payment/1", "refund"),
            TurnId(8).child(0, "payment/1", "charge"),
        ] {
            assert_ne!(child, other);
        }
        let parent = TurnId::new(1_795_000_000_000, 7, 8);
        assert_eq!(parent.child(0, "payment/1", "charge").0 >> 80, 1_795_000_000_000, "it is of its parent's time");
    }

    #[test]
    fn ids_grow_with_time_and_tell_nodes_apart() {
        let mut made = Vec::new();
        for (ms, number) in [(5, 1), (5, 2), (6, 3), (1 << 45, u64::MAX)] {
            made.extend([7, 1 << 63, u64::MAX].map(|nonce| TurnId::new(ms, nonce, number)));
        }
        let of_one: Vec<_> = made.iter().step_by(3).collect();
        assert!(of_one.is_sorted(), "{of_one:?}");
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 12);
    }
}
