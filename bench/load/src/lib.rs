//! Callers that wait for their replies, and how long that took: the same for every system that is compared.
//!
//! A system gives a [`Client`], which makes callers on connections that are open already. [`attend`] reads one
//! [`Order`] a line from the standard input, lets so many callers ask one after the other for so long, and prints one
//! [`Spell`] a line as JSON. Who gives the orders also adds up the processor time: it sees all processes.

#![forbid(unsafe_code)]

mod callers;
mod conversation;
mod times;

pub use callers::{Caller, Client};
pub use conversation::{Order, READY, Spell, announce, attend, runtime};
