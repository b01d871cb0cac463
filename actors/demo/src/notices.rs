//! What users were told of their orders: of each that was confirmed, shipped, refused or cancelled once, and of nothing
//! else.

use std::collections::BTreeMap;

use greenroom::Key;
use shop_contract::notification::{About, NotificationEvent};
use shop_contract::order::OrderEvent;

use crate::journals::Entry;
use crate::proof::{Proof, token_of};

/// Compares the inboxes with the orders.
pub(crate) fn prove(proof: &mut Proof, orders: &[Entry<OrderEvent>], inboxes: &[Entry<NotificationEvent>]) {
    // By order and event: the inbox in which it belongs.
    let mut owed: BTreeMap<(String, u64), String> = BTreeMap::new();
    for entry in orders {
        for (number, event) in (entry.first..).zip(&entry.events) {
            if let Some(user) = told(event) {
                owed.insert((entry.token.clone(), number), user);
            }
        }
    }
    for entry in inboxes {
        for event in &entry.events {
            let NotificationEvent::Notified { about: Some(About { order, event }), .. } = event else { continue };
            let inbox = &entry.token;
            match owed.remove(&(token_of(order), *event)) {
                Some(user) if user == *inbox => proof.notices += 1,
                Some(user) => {
                    let why = format!("inbox {inbox}: it has what belongs to {user}, event {event} of order {order}");
                    proof.complaints.add(why);
                }
                None => {
                    let why = format!("inbox {inbox}: event {event} of order {order} is told twice, or never was");
                    proof.complaints.add(why);
                }
            }
        }
    }
    proof.notices_missing = owed.len();
    for ((order, event), user) in owed {
        proof.complaints.add(format!("inbox {user}: nothing is told of event {event} of order {order}"));
    }
}

/// The inbox in which an event belongs, as it stands in subjects.
fn told(event: &OrderEvent) -> Option<String> {
    match event {
        OrderEvent::Confirmed { user, .. }
        | OrderEvent::Shipped { user }
        | OrderEvent::Rejected { user, .. }
        | OrderEvent::Cancelled { user, .. } => Key::new(user).ok().map(|key| key.token()),
        OrderEvent::Placed { .. } | OrderEvent::Cancelling { .. } => None,
    }
}
