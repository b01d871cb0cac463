use std::collections::VecDeque;

use greenroom::prelude::*;
use greenroom::subscribe::Received;
use serde::{Deserialize, Serialize};
use shop_contract::notification::{About, Inbox, InboxView, Note, Notification, NotificationEvent, Notify};
use shop_contract::order::OrderEvent;

use crate::orders;

/// How many messages an inbox keeps.
const LATEST_MAX: usize = 20;

/// The longest message, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// One user's inbox.
pub struct NotificationActor {
    messages: Durable<Messages>,
}

#[derive(Default, Serialize, Deserialize)]
struct Messages {
    count: u64,
    latest: VecDeque<Note>,
}

impl State for Messages {
    type Event = NotificationEvent;

    fn apply(&mut self, event: &NotificationEvent) {
        match event {
            NotificationEvent::Notified { text, .. } => {
                self.count += 1;
                self.latest.push_back(Note { number: self.count, text: text.clone() });
                if self.latest.len() > LATEST_MAX {
                    self.latest.pop_front();
                }
            }
        }
    }
}

#[actor(Notification, state = messages, durable)]
impl NotificationActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { messages: ctx.durable().await? })
    }

    /// Tells users what becomes of their orders.
    #[on(key = orders::user_to_tell)]
    fn order_moved(&mut self, happened: Received<OrderEvent>) {
        let Received { key, event, sequence, .. } = happened;
        let order = key.as_str().to_owned();
        if let Some(text) = orders::message(&order, &event) {
            self.put(text, Some(About { order, event: sequence }));
        }
    }

    #[tell]
    fn notify(&mut self, msg: Notify) {
        self.put(msg.text, None);
    }

    #[read]
    fn inbox(&self, _: Inbox) -> InboxView {
        InboxView { count: self.messages.count, latest: self.messages.latest.iter().cloned().collect() }
    }

    fn put(&mut self, text: String, about: Option<About>) {
        // Nobody waits who could be refused, so what is too long is cut.
        let text = text.chars().take(TEXT_CHARS_MAX).collect();
        self.messages.emit(NotificationEvent::Notified { text, about });
    }
}
