//! Notifications: a user's inbox. The key is the user's id.

use greenroom::prelude::*;

/// A user's inbox.
#[contract(name = "notification", messages(Notify, Inbox), event = NotificationEvent)]
pub struct Notification;

/// Puts a message into the inbox. A long one is cut; the oldest make room for new ones.
#[message(Notification, tell)]
pub struct Notify {
    /// What to say.
    pub text: String,
}

/// Shows the newest messages.
#[message(Notification, read, reply = InboxView)]
pub struct Inbox {}

/// An inbox as its user sees it.
#[data]
#[derive(PartialEq, Eq)]
pub struct InboxView {
    /// How many messages ever came.
    pub count: u64,
    /// The newest, oldest first.
    pub latest: Vec<Note>,
}

/// One message.
#[data]
#[derive(PartialEq, Eq)]
pub struct Note {
    /// Its number in this inbox, from 1.
    pub number: u64,
    /// What it says.
    pub text: String,
}

/// What happens to an inbox.
#[event(Notification)]
pub enum NotificationEvent {
    /// A message came.
    Notified {
        /// What it says.
        text: String,
        /// What it is about, if that is an order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<About>,
    },
}

/// What has happened that a user is told of.
#[data]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// The order.
    pub order: String,
    /// The number of the event in the order's journal.
    pub event: u64,
}
