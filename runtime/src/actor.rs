//! The kernel: [`Actor`], [`Handle`] and [`Read`]. Everything that `#[actor]` writes can be
//! written by hand.
//!
//! ```
//! # use greenroom::contract::{Contract, Keyed, Message, Never, NoEvent, mode};
//! # use schemars::JsonSchema;
//! # use serde::{Deserialize, Serialize};
//! # pub struct Counter;
//! # #[derive(Serialize, Deserialize, JsonSchema)]
//! # pub struct Add { pub by: u64 }
//! # impl Contract for Counter {
//! #     const NAME: &'static str = "counter";
//! #     const VERSION: &'static str = "1.0.0";
//! #     type Kind = Keyed;
//! #     type Messages = (Add,);
//! #     type Event = NoEvent;
//! # }
//! # impl Message for Add {
//! #     const VERB: &'static str = "add";
//! #     type Contract = Counter;
//! #     type Mode = mode::Ask;
//! #     type Reply = u64;
//! #     type Refusal = Never;
//! # }
//! use greenroom::{Actor, Context, Error, Handle, Verbs};
//!
//! #[derive(Default)]
//! struct CounterActor { total: u64 }
//!
//! impl Actor for CounterActor {
//!     type Contract = Counter;
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!
//!     async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> {
//!         Ok(Self::default())
//!     }
//!
//!     fn verbs(verbs: &mut Verbs<Self>) {
//!         verbs.ask::<Add>();
//!     }
//! }
//!
//! impl Handle<Add> for CounterActor {
//!     async fn handle(&mut self, msg: Add, _: &mut Context<'_, Self>) -> Result<u64, Never> {
//!         self.total += msg.by;
//!         Ok(self.total)
//!     }
//! }
//! ```

use std::future::Future;

use crate::context::Context;
use crate::contract::{Contract, Message, mode};
use crate::error::Error;
use crate::routes::Verbs;
use crate::state::Cell;

/// What runs: the state of one keyed actor, or one instance of a service.
///
/// A turn has the actor to itself. A panic ends the turn and drops this activation, no other; the
/// next message activates the actor again.
pub trait Actor: Sized + Send + Sync + 'static {
    /// What callers know of it.
    type Contract: Contract;

    /// The version of the implementation, SemVer, shown by `nats micro info`: the version of the
    /// crate that holds it.
    const VERSION: &'static str;

    /// Whether its state cell keeps its journal in a stream ([`Context::durable`]). Callers know it
    /// before the first activation: what they ask of such an actor they send again, under the same
    /// id, when its fate is open. An activation that does otherwise than this says fails.
    const DURABLE: bool = false;

    /// Brings the actor into memory, before its first turn.
    ///
    /// # Errors
    /// What it returns fails the calls that waited for the activation.
    fn activate(ctx: &mut Context<'_, Self>) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Names the handlers: one line for each verb.
    fn verbs(verbs: &mut Verbs<Self>);

    /// The actor's state cell, if it has one. The runtime commits it after a turn that returned
    /// Ok, and takes it back after one that did not.
    fn cell(&mut self) -> Option<&mut dyn Cell> {
        None
    }
}

/// Handles one message of the contract: a turn, which has the actor to itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    label = "no handler for `{M}`, which the contract lists",
    note = "add to its `#[actor(..)] impl`: `#[ask] fn verb(&mut self, msg: {M}) -> Result<Reply, Refusal>` (or `#[tell]`)"
)]
pub trait Handle<M: Message<Contract = Self::Contract>>: Actor {
    /// Whether the handler never waits, as a plain `fn` does not: such a turn needs no allocation.
    /// A handler that says so and then waits is failed with `Internal`.
    const READY: bool = false;

    /// Whether the handler knows how to go on with a turn that was cut between its commits
    /// ([`Context::resumed`]). A message whose turn was cut, and that comes again, is answered
    /// `Interrupted` otherwise.
    const RESUMES: bool = false;

    /// Runs the turn.
    ///
    /// # Errors
    /// A refusal goes to the caller as it is, and undoes what the turn emitted since its last
    /// commit.
    fn handle(
        &mut self,
        msg: M,
        ctx: &mut Context<'_, Self>,
    ) -> impl Future<Output = Result<M::Reply, M::Refusal>> + Send;
}

/// How sure a read of a durable actor must be that nobody else has written since. Others have no second owner to fear,
/// and take no notice of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// The node proves first that it still is the owner: that costs at most one round trip to the broker for all reads
    /// of 5 ms, and holds if clocks run as ARCHITECTURE.md says.
    #[default]
    Proved,
    /// What the node has in memory, whoever may have written since. Costs nothing, and is answered also while the node
    /// cannot prove its lease, if the actor is in memory. How old it may be is told: [`Context::age`], and for outsiders
    /// the header `Greenroom-Age-Ms`.
    Stale,
    /// An empty record is appended first, so that no clock is trusted: as slow as a turn, one at a time, and the
    /// journal grows. An actor that never was is read at the stream's leader, and gets no record.
    Strict,
}

/// Handles one message that only looks: reads of one actor may run together between turns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not read `{M}`",
    label = "no handler for `{M}`, which the contract lists as a read",
    note = "add to its `#[actor(..)] impl`: `#[read] fn verb(&self, msg: {M}) -> Result<Reply, Refusal>`"
)]
pub trait Read<M: Message<Contract = Self::Contract>>: Actor {
    /// See [`Handle::READY`].
    const READY: bool = false;

    /// What it must be sure of, if the actor is durable.
    const FRESHNESS: Freshness = Freshness::Proved;

    /// Looks at the actor.
    ///
    /// # Errors
    /// A refusal goes to the caller as it is.
    fn read(&self, msg: M, ctx: &mut Context<'_, Self>) -> impl Future<Output = Result<M::Reply, M::Refusal>> + Send;
}

/// [`Handle`] or [`Read`], as the message's mode asks. Never implemented by hand.
pub trait Answers<M: Message, Mode>: Actor {}

impl<A, M> Answers<M, mode::Ask> for A
where
    M: Message<Contract = A::Contract>,
    A: Handle<M>,
{
}

impl<A, M> Answers<M, mode::Tell> for A
where
    M: Message<Contract = A::Contract>,
    A: Handle<M>,
{
}

impl<A, M> Answers<M, mode::Read> for A
where
    M: Message<Contract = A::Contract>,
    A: Read<M>,
{
}

/// Answers every message of a list: what `#[actor]` asks of its type. Never implemented by hand.
pub trait AnswersAll<List>: Actor {}
