use greenroom::Key;
use greenroom::subscribe::Received;
use shop_contract::order::{OrderEvent, PlaceRefused};

/// In whose inbox an event belongs. Nobody is told of the steps in between.
pub(crate) fn user_to_tell(happened: &Received<OrderEvent>) -> Option<String> {
    let user = match &happened.event {
        OrderEvent::Confirmed { user, .. }
        | OrderEvent::Shipped { user }
        | OrderEvent::Rejected { user, .. }
        | OrderEvent::Cancelled { user, .. } => user,
        OrderEvent::Placed { .. } | OrderEvent::Cancelling { .. } => return None,
    };
    // Orders are refused whose user cannot be; there is no inbox for such a one.
    Key::new(user).is_ok().then(|| user.clone())
}

/// What its user is told of an event.
pub(crate) fn message(order: &str, event: &OrderEvent) -> Option<String> {
    Some(match event {
        OrderEvent::Confirmed { total_cents, .. } => {
            format!("Your order {order} is confirmed: {}.", money(*total_cents))
        }
        OrderEvent::Shipped { .. } => format!("Your order {order} is on its way."),
        OrderEvent::Rejected { reason: PlaceRefused::Unavailable { .. }, .. } => {
            format!("Your order {order} could not be placed just now. Please place it again.")
        }
        OrderEvent::Rejected { reason, .. } => format!("Your order {order} was not accepted: {reason}."),
        OrderEvent::Cancelled { refunded_cents, .. } => {
            format!("Your order {order} is cancelled: {} come back.", money(*refunded_cents))
        }
        OrderEvent::Placed { .. } | OrderEvent::Cancelling { .. } => return None,
    })
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
