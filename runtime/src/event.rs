//! Events: what happened to an actor, told to whoever watches.
//!
//! An actor emits events in its turn, through its [state cell](crate::state::Durable); they leave
//! the node after the turn has committed, on `{app}.on.{actor}.{event}.{key}`.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

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

    /// Brings the stored form of an event, of another [`VERSION`](Event::VERSION) than the present one, into the
    /// present form. Unless written, the form is taken to have grown by fields that have defaults.
    ///
    /// # Errors
    /// If there is no way from that version to this one: the actor can then not be activated.
    fn upcast(name: &str, version: u32, body: serde_json::Value) -> Result<serde_json::Value, Error> {
        let _ = (name, version);
        Ok(body)
    }
}
