//! **greenroom**: a lightweight actor runtime on NATS.
//!
//! Business services are actors. Each has one address, `shop.order.42.*` on the wire, that works
//! from Rust, from `nats req`, and from any language, on whichever node the actor lives.
//!
//! ```
//! use greenroom::prelude::*;
//!
//! /// Callers know the contract: an address type, and messages with their replies and refusals.
//! #[contract(messages(Withdraw))]
//! pub struct Account;
//!
//! #[message(Account, ask, reply = u64, refusal = Overdrawn)]
//! pub struct Withdraw { pub cents: u64 }
//!
//! #[refusal]
//! #[derive(thiserror::Error)]
//! #[error("short by {short} cents")]
//! pub struct Overdrawn { pub short: u64 }
//!
//! /// The implementation: one for each key, one turn at a time.
//! struct AccountActor { cents: u64 }
//!
//! #[actor(Account)]
//! impl AccountActor {
//!     fn activate() -> Result<Self, Error> { Ok(Self { cents: 500 }) }
//!
//!     #[ask]
//!     fn withdraw(&mut self, msg: Withdraw) -> Result<u64, Overdrawn> {
//!         let short = msg.cents.saturating_sub(self.cents);
//!         if short > 0 { return Err(Overdrawn { short }); }
//!         self.cents -= msg.cents;
//!         Ok(self.cents)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! // `Node::builder("bank")` would find a broker; `local` brings one in memory.
//! let node = Node::local("bank").host::<AccountActor>().start().await?;
//! let ada = node.actor::<Account>("ada"); // no I/O, and always valid
//! match ada.ask(Withdraw { cents: 900 }).await {
//!     Ok(left) => println!("{left} left"),
//!     Err(AskError::Refused(Overdrawn { short })) => assert_eq!(short, 400), // its own, typed no
//!     Err(AskError::Failed(error)) if error.is_retryable() => println!("was not run: {error}"),
//!     Err(AskError::Failed(error)) => return Err(error),
//! }
//! node.drain().await // finish turns, hand actors over, leave
//! # }
//! ```
//!
//! Features: `macros` (on unless switched off) brings the attributes, `ractor` puts existing ractor actors on subjects
//! (`NodeBuilder::expose`), `testkit` is the suite that every [`transport`] passes.
//!
//! The modules, in reading order:
//!
//! - [`contract`](mod@contract): what callers know of an actor: its address type, messages, refusals, events
//! - [`actor`](mod@actor): the kernel, `Actor`, `Handle`, `Read`; [`context`]: what a turn may do
//! - [`state`] and [`event`](mod@event): state that changes by events, inside turns
//! - [`reminder`]: messages that an actor sends itself later
//! - [`node`]: building, running and draining a node; [`reference`](mod@reference): addresses of actors
//! - [`tell`]: durable tells, and what becomes of those that cannot be delivered
//! - [`subscribe`]: events of others; [`timer`]: messages to oneself; [`watch`]: ends of others; [`supervision`]: restarts
//! - [`key`], [`subject`], [`error`]: the vocabulary on the wire
//! - [`transport`]: the seam to the broker
//!
//! Inside, and not public: `routes` (verb to handler), `engine` (keyed actors), `pool` (services),
//! `executor` (where tasks run), `call`, `codec`, `wire`, `outbound`, `pending` (calls between nodes), `ownership` (who owns
//! what, a pure state machine), `stats`.

// The attributes write paths that begin with the crate's name.
#[cfg(test)]
extern crate self as greenroom;

pub mod contract;
pub mod actor;
pub mod context;
pub mod state;
pub mod event;
pub mod reminder;
pub mod node;
pub mod reference;
pub mod tell;
pub mod subscribe;
pub mod timer;
pub mod watch;
pub mod supervision;
pub mod key;
pub mod subject;
pub mod error;
pub mod transport;

mod routes;
mod journal;
mod engine;
mod executor;
mod pool;
mod call;
mod changes;
mod codec;
mod wire;
mod outbound;
mod frames;
mod pending;
mod waits;
mod pauses;
mod ownership;
mod stats;

#[cfg(test)]
mod simulation;

#[cfg(feature = "ractor")]
mod expose;

#[doc(no_inline)]
pub use self::actor::{Actor, Handle, Read};
pub use self::call::TurnId;
#[doc(no_inline)]
pub use self::context::Context;
#[doc(no_inline)]
pub use self::error::{AskError, Error, ErrorKind};
#[doc(no_inline)]
pub use self::event::Event;
#[doc(no_inline)]
pub use self::key::Key;
#[doc(no_inline)]
pub use self::node::{Ended, HostOptions, Node, NodeBuilder, TaskGroup};
#[doc(no_inline)]
pub use self::reference::{Ref, ServiceRef};
#[doc(no_inline)]
pub use self::reminder::Schedule;
pub use self::routes::Verbs;
#[doc(no_inline)]
pub use self::state::{Durable, State};
#[doc(no_inline)]
pub use self::supervision::{Backoff, Restart, Strategy};
#[doc(no_inline)]
pub use self::timer::Timer;
#[doc(no_inline)]
pub use self::watch::{Gone, Reason, Watch};
#[cfg(feature = "macros")]
pub use greenroom_macros::{actor, contract, data, event, message, refusal, service};

/// What most files that use greenroom need.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};

    #[cfg(feature = "macros")]
    pub use greenroom_macros::{actor, contract, data, event, message, refusal, service};

    pub use crate::{Actor, AskError, Context, Durable, Error, ErrorKind, Key, Node, Ref, Schedule, ServiceRef, State};
}

/// What the attributes' code refers to.
#[doc(hidden)]
pub mod __private {
    pub use schemars;
    pub use serde;
    pub use serde_json;
}
