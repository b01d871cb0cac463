//! Events: what happened to an actor, told to whoever watches.
//!
//! An actor emits events in its turn, through its [state cell](crate::state::Durable); they leave
//! the node after the turn has committed, on `{app}.on.{actor}.{event}.{key}`.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an actor emits: usually an enum with a variant for each event, declared in the contract
/// by `#[event(Order)]`.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name of the actor whose events these are.
    const ACTOR: &'static str;
    /// The names of all events, as they stand in subjects: `[a-z][a-z0-9_]*`.
    const NAMES: &'static [&'static str];
    /// The version of the events' form, stored beside each.
    const VERSION: u32 = 1;

    /// The name of this one.
    fn name(&self) -> &'static str;
}
