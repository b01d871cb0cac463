//! The attributes of greenroom: what they take, what they write, what they refuse.
//!
//! Use them through the `greenroom` crate (`use greenroom::prelude::*`), whose paths they write.
//! None of them does what could not be written by hand: each section below shows what it writes.
//!
//! On the contract's side stand [`macro@contract`], [`macro@message`], [`macro@data`],
//! [`macro@refusal`] and [`macro@event`]; on the actor's [`macro@actor`] and [`macro@service`].
//!
//! Put these attributes above `#[derive(..)]`: they leave out the derives that they see below them,
//! and cannot see those above.
//!
//! The crate is split by attribute. `attr` reads arguments, `check` holds what all of them check;
//! a mistake is collected, not thrown, and the item is written even so, that one mistake may show
//! as one error.

// In reading order.
mod attr;
mod check;
mod derive;

mod contract;
mod event;
mod message;
mod refusal;

mod actor;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Makes a struct without fields the address of an actor or a service.
///
/// - `service`: a pool of equal instances, instead of one actor for each key.
/// - `name = ".."`: its token in subjects; the struct's name in snake case if left out.
/// - `version = ".."`: the contract's version, SemVer; the crate's if left out.
/// - `messages(A, B)`: all its messages, at most 24.
/// - `event = E`: what its actors emit; nothing if left out.
///
/// The first sentence of its documentation is what `nats micro info` shows.
///
/// ```ignore
/// /// An order of the shop.
/// #[contract(messages(Place, Get), event = OrderEvent)]
/// pub struct Order;
/// ```
///
/// writes
///
/// ```ignore
/// impl Contract for Order {
///     const NAME: &'static str = "order";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     const DESCRIPTION: &'static str = "An order of the shop.";
///     type Kind = Keyed;
///     type Messages = (Place, Get);
///     type Event = OrderEvent;
/// }
/// ```
///
/// and asserts that each of the messages and the event is this contract's own, and that no two of
/// the messages have the same verb.
#[proc_macro_attribute]
pub fn contract(args: TokenStream, item: TokenStream) -> TokenStream {
    contract::expand(args.into(), item.into()).into()
}

/// Makes a struct or an enum one verb of a contract.
///
/// - the contract;
/// - `ask`, a turn with a reply; `read`, a look with a reply; or `tell`, a turn without one;
/// - `reply = T`: `()` if left out;
/// - `refusal = T`: `Never` if left out;
/// - `verb = ".."`: the type's name in snake case if left out.
///
/// ```ignore
/// #[message(Order, ask, reply = Placed, refusal = PlaceRefused)]
/// pub struct Place {
///     pub user: String,
/// }
/// ```
///
/// writes, besides what [`macro@data`] writes,
///
/// ```ignore
/// impl Message for Place {
///     const VERB: &'static str = "place";
///     type Contract = Order;
///     type Mode = mode::Ask;
///     type Reply = Placed;
///     type Refusal = PlaceRefused;
/// }
/// ```
///
/// and asserts that `Order` lists `Place` among its messages.
#[proc_macro_attribute]
pub fn message(args: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(args.into(), item.into()).into()
}

/// Makes a struct or an enum fit to be part of a message, a reply or an event.
///
/// ```ignore
/// #[data]
/// pub enum Status {
///     InTransit,
/// }
/// ```
///
/// writes
///
/// ```ignore
/// #[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
/// #[serde(rename_all = "snake_case")] // on an enum, unless it has a rename_all of its own
/// pub enum Status {
///     InTransit,
/// }
/// ```
///
/// without the derives that the item has already. The crate needs no serde or schemars of its own
/// for it; their attributes, as in `#[serde(default)]`, work as ever.
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    derive::expand(args.into(), item.into()).into()
}

/// Makes an enum or a struct an actor's typed no.
///
/// Its text for people is its `Display`, from `thiserror` or written by hand. Its number for
/// outsiders is 409, unless `#[code(n)]` on a variant, or `#[refusal(code = n)]` for the whole, say
/// otherwise: 400 to 499.
///
/// ```ignore
/// #[refusal]
/// #[derive(thiserror::Error)]
/// pub enum PlaceRefused {
///     #[error("no such user")]
///     #[code(404)]
///     NoSuchUser,
///     #[error("{sku} is short by {short}")]
///     OutOfStock { sku: String, short: u32 },
/// }
/// ```
///
/// writes, besides what [`macro@data`] writes,
///
/// ```ignore
/// impl Refusal for PlaceRefused {
///     fn code(&self) -> u16 {
///         match self {
///             Self::NoSuchUser { .. } => 404,
///             _ => 409,
///         }
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn refusal(args: TokenStream, item: TokenStream) -> TokenStream {
    refusal::expand(args.into(), item.into()).into()
}

/// Makes an enum the events of a contract, one variant for each.
///
/// `version = n` counts the changes of their form, 1 if left out. An event is called as its variant
/// in snake case, or as `#[serde(rename = "..")]` says: in subjects as in JSON.
///
/// ```ignore
/// #[event(Order)]
/// pub enum OrderEvent {
///     Placed { lines: Vec<Line> },
///     CalledOff,
/// }
/// ```
///
/// writes, besides what [`macro@data`] writes,
///
/// ```ignore
/// impl Event for OrderEvent {
///     const ACTOR: &'static str = <Order as Contract>::NAME;
///     const NAMES: &'static [&'static str] = &["placed", "called_off"];
///
///     fn name(&self) -> &'static str {
///         match self {
///             Self::Placed { .. } => "placed",
///             Self::CalledOff { .. } => "called_off",
///         }
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn event(args: TokenStream, item: TokenStream) -> TokenStream {
    event::expand(args.into(), item.into()).into()
}

/// Makes the methods of an impl block the handlers of a keyed contract.
///
/// - the contract;
/// - `state = field`: the field that holds the actor's `Durable` state, if it has any;
/// - `durable`: its journal is in a stream (`Context::durable`). Callers are told, and send what they
///   ask again where its fate is open; an activation that opens a volatile cell fails.
///
/// A handler is called as its verb and marked as the contract has it: `#[ask]` or `#[tell]` with
/// `&mut self`, `#[read]` with `&self`. It takes its message and, if it needs it, the context; it
/// may be `fn` or `async fn`. It returns a `Result` of the reply and the refusal (`Result` by that
/// name, no alias), or for a message that is never refused the reply alone; a tell returns nothing.
/// Prefer `fn` where nothing is waited for: such a turn needs no allocation.
///
/// `#[ask(resumes)]` (or `#[tell(resumes)]`) says that an `async fn` which commits on its way knows how to go on with
/// a turn that was cut between two commits. Otherwise a message whose turn was cut is answered `Interrupted` when it
/// comes again.
///
/// A `#[read]` of a durable actor is answered with the newest that was committed. `#[read(stale)]` is content with what
/// the node has, also while it cannot prove its lease; `#[read(strict)]` appends a record first. See `Freshness`.
///
/// `#[on]` marks a method that takes the events of another actor type, from their journals, each with effect once if this
/// actor is durable: `fn order_moved(&mut self, happened: Received<OrderEvent>)`, and the context if it needs it. It
/// returns nothing. `#[on(key = function)]` names the function that says whom an event is for, of the form
/// `fn(&Received<OrderEvent>) -> Option<String>`; without it the event is for the actor of the same key. `from = now` leaves
/// out what happened before the subscription was there; `resumes` is as above. The method's name is that of the
/// subscription, under which its place is remembered. See `subscribe::On`.
///
/// `activate` brings the actor into memory. Without it the actor is activated as its `Default`.
/// All other methods are left as they are, and handlers stay ordinary methods that others may call.
///
/// ```ignore
/// #[actor(Order, state = order)]
/// impl OrderActor {
///     async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
///         Ok(Self { order: ctx.durable().await? })
///     }
///
///     #[ask]
///     async fn place(&mut self, msg: Place, ctx: &mut Context<'_, Self>) -> Result<Placed, PlaceRefused> {
///         ..
///     }
///
///     #[read]
///     fn get(&self, _: Get) -> Result<OrderView, NoSuchOrder> {
///         ..
///     }
/// }
/// ```
///
/// writes, below the block itself,
///
/// ```ignore
/// impl Actor for OrderActor {
///     type Contract = Order;
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn activate(ctx: &mut Context<'_, Self>) -> impl Future<Output = Result<Self, Error>> + Send {
///         Self::activate(ctx) // the block's own
///     }
///
///     fn verbs(verbs: &mut Verbs<Self>) {
///         verbs.ask::<Place>();
///         verbs.read::<Get>();
///     }
///
///     fn cell(&mut self) -> Option<&mut dyn Cell> {
///         Some(&mut self.order)
///     }
/// }
///
/// impl Handle<Place> for OrderActor {
///     const READY: bool = false;
///
///     fn handle(
///         &mut self,
///         msg: Place,
///         ctx: &mut Context<'_, Self>,
///     ) -> impl Future<Output = Result<Placed, PlaceRefused>> + Send {
///         Self::place(self, msg, ctx)
///     }
/// }
///
/// impl Read<Get> for OrderActor {
///     const READY: bool = true;
///
///     fn read(
///         &self,
///         msg: Get,
///         _: &mut Context<'_, Self>,
///     ) -> impl Future<Output = Result<OrderView, NoSuchOrder>> + Send {
///         std::future::ready(Self::get(self, msg))
///     }
/// }
/// ```
///
/// and asserts that the contract is keyed, that each method has the name and the mode of its verb,
/// and that every message of the contract has its handler.
#[proc_macro_attribute]
pub fn actor(args: TokenStream, item: TokenStream) -> TokenStream {
    actor::expand(actor::Kind::Actor, args.into(), item.into()).into()
}

/// Makes the methods of an impl block the handlers of a service's contract.
///
/// The same as [`macro@actor`], for a contract that says `service`. A service has no key and no
/// `state`: any of its instances may answer.
///
/// ```ignore
/// #[service(Pricing)]
/// impl PricingService {
///     #[read]
///     fn quote(&self, msg: Quote) -> Result<Price, UnknownSku> {
///         ..
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn service(args: TokenStream, item: TokenStream) -> TokenStream {
    actor::expand(actor::Kind::Service, args.into(), item.into()).into()
}
