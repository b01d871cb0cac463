//! The inboxes of the shop's users, and what fills them.
//!
//! It owns the newest messages of each user. [`follow_orders`] watches the orders' events and
//! writes to the inbox of whoever the order belongs to. Both are at most once: a message is told
//! once or, if nobody was there to hear the event, not at all.

mod inbox;

mod orders;

pub use inbox::NotificationActor;
pub use orders::follow_orders;

#[cfg(test)]
mod tests;
