//! Contracts: what callers know of an actor, and all that they depend on.
//!
//! A contract crate holds, for each actor, an address type (`Order`), the message types with their
//! verbs, replies and refusals, and the events. The attributes `#[contract]`, `#[message]`,
//! `#[refusal]` and `#[event]` write the impls; all of them can be written by hand, as here:
//!
//! ```
//! use greenroom::contract::{Contract, Keyed, Message, Mode, Never, NoEvent, mode};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! /// The address of a counter.
//! pub struct Counter;
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! pub struct Add { pub by: u64 }
//!
//! impl Contract for Counter {
//!     const NAME: &'static str = "counter";
//!     const VERSION: &'static str = "1.0.0";
//!     type Kind = Keyed;
//!     type Messages = (Add,);
//!     type Event = NoEvent;
//! }
//!
//! impl Message for Add {
//!     const VERB: &'static str = "add";
//!     type Contract = Counter;
//!     type Mode = mode::Ask;
//!     type Reply = u64;
//!     type Refusal = Never;
//! }
//! ```

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// What stands on both sides of the wire for one actor or service: its name, its messages, its
/// events. Implemented by the address type, which holds no data.
pub trait Contract: Sized + Send + Sync + 'static {
    /// The subject token: `[a-z][a-z0-9_]*`, none of the reserved names.
    const NAME: &'static str;
    /// The version of the contract, SemVer: the contract crate's version unless said otherwise.
    const VERSION: &'static str;
    /// A sentence for people, shown by `nats micro info`.
    const DESCRIPTION: &'static str = "";
    /// [`Keyed`] or [`Service`].
    type Kind: Kind;
    /// All its messages, as a tuple of up to 24 types.
    type Messages: MessageList;
    /// What its actors emit; [`NoEvent`] if they emit nothing.
    type Event: Event;
}

/// A kind of contract; only [`Keyed`] and [`Service`] are.
pub trait Kind: sealed::Sealed + Send + Sync + 'static {
    /// Whether there is one actor for each key.
    const KEYED: bool;
}

/// A virtual actor: one for each key, activated by its first message, one turn at a time.
#[derive(Debug)]
pub enum Keyed {}

/// A pool of equal instances: any of them may answer.
#[derive(Debug)]
pub enum Service {}

impl Kind for Keyed {
    const KEYED: bool = true;
}

impl Kind for Service {
    const KEYED: bool = false;
}

/// What is sent to an actor: one verb of its contract.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    note = "declare it in the contract: `#[message(Actor, ask, reply = .., refusal = ..)]`"
)]
pub trait Message: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// The last token of the subject, and the name of the handler's method.
    const VERB: &'static str;
    /// Whose message this is.
    type Contract: Contract;
    /// [`mode::Ask`], [`mode::Read`] or [`mode::Tell`].
    type Mode: IsMode;
    /// What an ask gives back; `()` for a tell.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The actor's own no; [`Never`] if it always says yes.
    type Refusal: Refusal;
}

/// How a message is sent and handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A turn that may change the actor, with a reply.
    Ask,
    /// A look at the actor, with a reply; reads of one actor may run together between turns.
    Read,
    /// A turn without a reply: at most once, acknowledged when it is admitted.
    Tell,
}

/// [`Mode`] as types, so that the compiler checks a handler's attribute against the contract.
pub mod mode {
    /// See [`Mode::Ask`](super::Mode::Ask).
    #[derive(Debug)]
    pub enum Ask {}
    /// See [`Mode::Read`](super::Mode::Read).
    #[derive(Debug)]
    pub enum Read {}
    /// See [`Mode::Tell`](super::Mode::Tell).
    #[derive(Debug)]
    pub enum Tell {}
}

/// One of the types in [`mode`].
pub trait IsMode: sealed::Sealed + Send + Sync + 'static {
    /// The same as a value.
    const MODE: Mode;
}

impl IsMode for mode::Ask {
    const MODE: Mode = Mode::Ask;
}
impl IsMode for mode::Read {
    const MODE: Mode = Mode::Read;
}
impl IsMode for mode::Tell {
    const MODE: Mode = Mode::Tell;
}

/// A mode that has a reply: [`mode::Ask`] and [`mode::Read`].
#[diagnostic::on_unimplemented(
    message = "this message is a tell: it has no reply to wait for",
    note = "send it with `.tell(..)`, or declare it as `ask` in the contract"
)]
pub trait Replies: IsMode {}
impl Replies for mode::Ask {}
impl Replies for mode::Read {}

/// An actor's own no: typed, sent to the caller as it is, and no failure.
pub trait Refusal: Serialize + DeserializeOwned + JsonSchema + fmt::Display + fmt::Debug + Send + 'static {
    /// The HTTP-like number that outsiders see: 400 to 499, 409 unless said otherwise.
    fn code(&self) -> u16 {
        409
    }
}

/// The refusal of messages that are never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl JsonSchema for Never {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Never".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        false.into()
    }
}

impl Refusal for Never {}

/// The event type of contracts whose actors emit nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoEvent {}

impl JsonSchema for NoEvent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NoEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        false.into()
    }
}

impl Event for NoEvent {
    const ACTOR: &'static str = "";
    const NAMES: &'static [&'static str] = &[];

    fn name(&self) -> &'static str {
        match *self {}
    }
}

/// One verb as the contract has it.
#[derive(Clone, Debug)]
pub struct VerbContract {
    /// The verb.
    pub verb: &'static str,
    /// How it is sent.
    pub mode: Mode,
    /// JSON schema of the request.
    pub request: Schema,
    /// JSON schema of the reply.
    pub reply: Schema,
    /// JSON schema of the refusal; `false` if there is none.
    pub refusal: Schema,
}

impl VerbContract {
    /// The verb of this message.
    pub fn of<M: Message>() -> Self {
        Self {
            verb: M::VERB,
            mode: <M::Mode as IsMode>::MODE,
            request: schemars::schema_for!(M),
            reply: schemars::schema_for!(M::Reply),
            refusal: schemars::schema_for!(M::Refusal),
        }
    }
}

/// A tuple of message types.
pub trait MessageList: sealed::List + 'static {
    /// The verbs, in the order in which the contract lists their messages.
    const VERBS: &'static [&'static str];

    /// Every verb with its schemas.
    fn verbs() -> Vec<VerbContract>;
}

/// Whether a contract's list has this verb. For the attributes' compile-time checks.
pub const fn has_verb(verbs: &[&str], verb: &str) -> bool {
    let mut at = 0;
    while at < verbs.len() {
        if same_text(verbs[at], verb) {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether all verbs of a list differ. For the attributes' compile-time checks.
pub const fn verbs_differ(verbs: &[&str]) -> bool {
    let mut at = 0;
    while at < verbs.len() {
        let mut other = at + 1;
        while other < verbs.len() {
            if same_text(verbs[at], verbs[other]) {
                return false;
            }
            other += 1;
        }
        at += 1;
    }
    true
}

/// Whether two texts are equal, at compile time.
pub const fn same_text(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Keyed {}
    impl Sealed for super::Service {}
    impl Sealed for super::mode::Ask {}
    impl Sealed for super::mode::Read {}
    impl Sealed for super::mode::Tell {}

    pub trait List {}
}

macro_rules! message_lists {
    ($($name:ident)*) => {
        impl<$($name: Message),*> sealed::List for ($($name,)*) {}
        impl<$($name: Message),*> MessageList for ($($name,)*) {
            const VERBS: &'static [&'static str] = &[$($name::VERB),*];

            fn verbs() -> Vec<VerbContract> {
                vec![$(VerbContract::of::<$name>()),*]
            }
        }
        impl<ACTOR, $($name: Message),*> crate::actor::AnswersAll<($($name,)*)> for ACTOR
        where
            ACTOR: crate::actor::Actor,
            $(ACTOR: crate::actor::Answers<$name, $name::Mode>,)*
        {}
    };
}

macro_rules! message_lists_up_to {
    ($($done:ident)*;) => { message_lists!($($done)*); };
    ($($done:ident)*; $next:ident $($rest:ident)*) => {
        message_lists!($($done)*);
        message_lists_up_to!($($done)* $next; $($rest)*);
    };
}

message_lists_up_to!(; M1 M2 M3 M4 M5 M6 M7 M8 M9 M10 M11 M12 M13 M14 M15 M16 M17 M18 M19 M20 M21 M22 M23 M24);
