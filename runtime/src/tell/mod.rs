//! Durable tells: messages that the broker keeps until the turn of their receiver has committed.
//!
//! A turn of a durable actor keeps what it sends in its own record. The *relay* of the actor type, on one node at a
//! time, reads the journals and publishes each tell into the command stream, where anybody may publish too. From there
//! the *lanes* of the receiving type deliver them: the tells of one key one after the other, each until it has been
//! committed or is a *dead letter*. What is sent twice on the way has one id, by which it takes effect once.
//!
//! `marks` is how nodes know which types send and are told, `bell` how they notice that somebody else has told one,
//! `command` the stream of tells. `carry` is the way from journals into that stream, and `cursor` how far along it is;
//! `relay` carries what turns have sent, `follow` the events that other actors have asked for. `lane` is the way out,
//! `delivery` one attempt, `dead` what is left of those that could not be delivered.

mod marks;
mod bell;
mod command;
mod cursor;
mod carry;
mod relay;
mod follow;
mod lane;
mod delivery;
mod dead;

pub(crate) use self::bell::listen;
pub(crate) use self::command::{Told, send};
pub use self::dead::{DeadLetter, DeadLetters};
pub(crate) use self::follow::Following;
pub(crate) use self::lane::{Lanes, open};
pub(crate) use self::marks::{Mark, Marks};
pub(crate) use self::relay::Relay;
