//! Who owns which partition of which actor.
//!
//! Owns the records of the bucket `{app}-own`, the knowledge a node has of them, and the decisions: when to claim, hand
//! over, stop, and give up an id. It is pure: inputs in, effects out. It does no I/O, reads no clock and draws no
//! random number, so that a thousand crash orders can be tried in a second; the driver that carries the effects out is
//! elsewhere, and so is everything about keys, activations and messages.
//!
//! Read on in [`record`] (what is written), [`rendezvous`] (who should own), [`view`] (what is known), [`roster`] (who
//! may be chosen), [`machine`] (what is done about it).

pub(crate) mod record;
pub(crate) mod rendezvous;
pub(crate) mod view;
mod roster;
pub(crate) mod machine;

pub(crate) use self::machine::{CasResult, Config, Effect, Gone, Input, LeaveCause, Machine, RetireReason};
pub(crate) use self::machine::{PERMIT_MS, STANDS_DURABLE_MS};
pub(crate) use self::record::{Claim, Entry, HostInfo, Key, Meta, NodeId, Part, WIRE};
pub(crate) use self::rendezvous::partition_of;
pub(crate) use self::roster::Candidates;
pub(crate) use self::view::{Departure, Owner, View};
