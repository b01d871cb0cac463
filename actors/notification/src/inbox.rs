use std::collections::VecDeque;

use greenroom::prelude::*;
use serde::{Deserialize, Serialize};
use shop_contract::notification::{Inbox, InboxView, Note, Notification, NotificationEvent, Notify};

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
            NotificationEvent::Notified { text } => {
                self.count += 1;
                self.latest.push_back(Note { number: self.count, text: text.clone() });
                if self.latest.len() > LATEST_MAX {
                    self.latest.pop_front();
                }
            }
        }
    }
}

#[actor(Notification, state = messages)]
impl NotificationActor {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { messages: ctx.volatile()? })
    }

    #[tell]
    fn notify(&mut self, msg: Notify) {
        // A tell has nobody to refuse to, so what is too long is cut.
        let text = msg.text.chars().take(TEXT_CHARS_MAX).collect();
        self.messages.emit(NotificationEvent::Notified { text });
    }

    #[read]
    fn inbox(&self, _: Inbox) -> InboxView {
        InboxView { count: self.messages.count, latest: self.messages.latest.iter().cloned().collect() }
    }
}
