use greenroom::{Error, Node};
use shop_contract::notification::{Notification, Notify};
use shop_contract::order::{OrderEvent, PlaceRefused};

/// The queue group: however many nodes follow the orders, each event is told once.
const GROUP: &str = "notification";

/// Tells users what becomes of their orders, until the node drains.
///
/// # Errors
/// If the orders' events cannot be subscribed to. A message that cannot be delivered is logged and
/// left out, so that one user's inbox does not hold up everyone's.
pub async fn follow_orders(node: Node) -> Result<(), Error> {
    let mut events = node.subscribe::<OrderEvent>().group(GROUP).live().await?;
    while let Some(received) = events.next().await {
        let Some((user, text)) = message(received.key.as_str(), &received.event) else {
            continue;
        };
        if let Err(error) = node.actor::<Notification>(&user).tell(Notify { text }).await {
            tracing::warn!(%user, order = %received.key, %error, "the user was not notified");
        }
    }
    Ok(())
}

/// Who is told what. Nobody is told of the steps in between.
fn message(order: &str, event: &OrderEvent) -> Option<(String, String)> {
    let (user, text) = match event {
        OrderEvent::Confirmed { user, total_cents, .. } => {
            (user, format!("Your order {order} is confirmed: {}.", money(*total_cents)))
        }
        OrderEvent::Shipped { user } => (user, format!("Your order {order} is on its way.")),
        OrderEvent::Rejected { user, reason: PlaceRefused::Unavailable { .. } } => {
            (user, format!("Your order {order} could not be placed just now. Please place it again."))
        }
        OrderEvent::Rejected { user, reason } => (user, format!("Your order {order} was not accepted: {reason}.")),
        OrderEvent::Cancelled { user, refunded_cents } => {
            (user, format!("Your order {order} is cancelled: {} come back.", money(*refunded_cents)))
        }
        OrderEvent::Placed { .. } | OrderEvent::Cancelling { .. } => return None,
    };
    Some((user.clone(), text))
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
