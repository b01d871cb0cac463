//! The contracts of the shop: what callers depend on, and all that they depend on.
//!
//! One module for each actor, with its address type, its messages with their replies and refusals,
//! and its events. Nothing here runs, and no service depends on another service's crate:
//!
//! - [`order`] places orders: it asks the other four and undoes what it did when one says no.
//! - [`user`] knows who may order.
//! - [`inventory`] holds the stock of one product.
//! - [`payment`] charges an order's card and refunds it.
//! - [`notification`] is a user's inbox.
//!
//! All money is in integer cents. Every message can be sent with the stock `nats` CLI, as JSON:
//!
//! ```text
//! nats req shop.inventory.tea-01.restock '{"qty":100}'
//! nats req shop.user.u-1.register '{"name":"Ada","email":"ada@example.org"}'
//! nats req shop.order.o-1.place '{"user":"u-1","lines":[{"sku":"tea-01","qty":2}],"card":"tok_ok"}'
//! nats req shop.order.o-1.get ''
//! nats sub 'shop.on.order.>'
//! ```
//!
//! # Attempts
//!
//! A request whose answer was lost may still arrive later, when its sender has long undone it. So
//! `reserve`, `release`, `charge` and `refund` carry the number of the order's attempt, counted
//! from 1, and undoing an attempt closes it: whatever of it comes later is refused. People who send
//! by hand leave the number out.

pub mod order;

pub mod user;

pub mod inventory;

pub mod payment;

pub mod notification;

/// The attempt meant by a message that names none: the first.
fn first_attempt() -> u32 {
    1
}
