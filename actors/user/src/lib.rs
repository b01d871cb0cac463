//! The users of the shop: who may order.
//!
//! It owns what a user said of themselves at registration, and nothing else: orders, payments and
//! messages of a user live with their own services under the user's id.

mod user;

pub use user::UserActor;

#[cfg(test)]
mod tests;
