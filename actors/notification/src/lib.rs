//! The inboxes of the shop's users, and what fills them.
//!
//! It owns the newest messages of each user. An inbox subscribes to the orders' events: each that concerns its user
//! becomes one message, whatever node or broker dies meanwhile, and also if nobody hosted the inboxes when it happened.

mod inbox;

mod orders;

pub use inbox::NotificationActor;

#[cfg(test)]
mod tests;
