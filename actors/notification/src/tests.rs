use std::time::Duration;

use greenroom::Node;
use greenroom::prelude::*;
use greenroom::transport::MemoryBroker;
use serde::{Deserialize, Serialize};
use shop_contract::notification::{Inbox, InboxView, Note, Notification, Notify};
use shop_contract::order::{
    Cancel, CancelRefused, Get, NoSuchOrder, Order, OrderEvent, OrderView, Place, PlaceRefused, Placed, Status,
};
use shop_contract::payment::ChargeRefused;

use crate::NotificationActor;

async fn inbox(node: &Node, user: &str) -> InboxView {
    node.actor::<Notification>(user).ask(Inbox {}).await.expect("an inbox is always there")
}

async fn notify(node: &Node, user: &str, text: String) {
    node.actor::<Notification>(user).tell(Notify { text }).await.expect("told");
}

#[tokio::test]
async fn an_inbox_keeps_the_newest_twenty_and_counts_all() {
    let node = Node::local("shop").host::<NotificationActor>().start().await.expect("a local node starts");
    assert_eq!(inbox(&node, "u-1").await, InboxView { count: 0, latest: Vec::new() });
    for n in 1..=25 {
        notify(&node, "u-1", format!("message {n}")).await;
    }
    let latest = (6..=25).map(|number| Note { number, text: format!("message {number}") }).collect();
    assert_eq!(inbox(&node, "u-1").await, InboxView { count: 25, latest });
    assert_eq!(inbox(&node, "u-2").await.count, 0);
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let node = Node::local("shop").host::<NotificationActor>().start().await.expect("a local node starts");
    notify(&node, "u-1", "ß".repeat(10_000)).await;
    assert_eq!(inbox(&node, "u-1").await.latest[0].text, "ß".repeat(500));
}

/// Stands in for the orders: emits the events that its key and message ask for.
struct Orders {
    events: Durable<Emitted>,
}

#[derive(Default, Serialize, Deserialize)]
struct Emitted;

impl State for Emitted {
    type Event = OrderEvent;

    fn apply(&mut self, _: &OrderEvent) {}
}

#[actor(Order, state = events, durable)]
impl Orders {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { events: ctx.durable().await? })
    }

    #[ask]
    fn place(&mut self, msg: Place, ctx: &mut Context<'_, Self>) -> Result<Placed, PlaceRefused> {
        let Place { user, lines, card } = msg;
        self.events.emit(OrderEvent::Placed { attempt: 1, user: user.clone(), lines: lines.clone() });
        let refused = match card.as_str() {
            "declined" => Some(PlaceRefused::CardRefused { reason: ChargeRefused::CardDeclined }),
            "away" => Some(PlaceRefused::Unavailable { message: "payment".into(), undone: true }),
            _ => None,
        };
        match refused {
            Some(reason) => self.events.emit(OrderEvent::Rejected { user, reason }),
            None => {
                self.events.emit(OrderEvent::Confirmed { user: user.clone(), lines, total_cents: 1205 });
                self.events.emit(OrderEvent::Shipped { user });
            }
        }
        Ok(Placed { order: ctx.key().as_str().to_owned(), total_cents: 0, status: Status::Confirmed })
    }

    #[read]
    fn get(&self, _: Get, ctx: &mut Context<'_, Self>) -> Result<OrderView, NoSuchOrder> {
        Err(NoSuchOrder { order: ctx.key().as_str().to_owned() })
    }

    #[ask]
    fn cancel(&mut self, _: Cancel) -> Result<OrderView, CancelRefused> {
        self.events.emit(OrderEvent::Cancelling { user: "u-1".into() });
        self.events.emit(OrderEvent::Cancelled { user: "u-1".into(), refunded_cents: 1205 });
        Ok(OrderView {
            order: "o-1".into(),
            status: Status::Cancelled,
            user: "u-1".into(),
            lines: Vec::new(),
            total_cents: 1205,
            shipped: true,
            refused: None,
        })
    }
}

/// Waits until an inbox has that many messages.
async fn texts(node: &Node, user: &str, count: u64) -> Vec<String> {
    for _ in 0..500 {
        let view = inbox(node, user).await;
        if view.count >= count {
            return view.latest.into_iter().map(|note| note.text).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{user} never got {count} messages: {:?}", inbox(node, user).await);
}

#[tokio::test]
async fn e4_users_are_told_what_becomes_of_their_orders_and_nobody_else_is() {
    let broker = MemoryBroker::new();
    let orders = Node::builder("shop").memory(&broker).host::<Orders>().start().await.expect("a node starts");
    let place = |user: &str, card: &str| Place { user: user.into(), lines: Vec::new(), card: card.into() };
    // Nobody has an inbox yet when the first order is placed.
    orders.actor::<Order>("o-0").ask(place("early", "ok")).await.expect("placed");
    let node = Node::builder("shop").memory(&broker).host::<NotificationActor>().start().await.expect("a node starts");
    let expected = ["Your order o-0 is confirmed: 12.05.", "Your order o-0 is on its way."];
    assert_eq!(texts(&node, "early", 2).await, expected);

    node.actor::<Order>("o-1").ask(place("u-1", "ok")).await.expect("placed");
    let expected = ["Your order o-1 is confirmed: 12.05.", "Your order o-1 is on its way."];
    assert_eq!(texts(&node, "u-1", 2).await, expected);

    node.actor::<Order>("o-2").ask(place("u-2", "declined")).await.expect("placed");
    let expected = ["Your order o-2 was not accepted: not paid: the card was declined."];
    assert_eq!(texts(&node, "u-2", 1).await, expected);

    node.actor::<Order>("o-3").ask(place("u-3", "away")).await.expect("placed");
    let expected = ["Your order o-3 could not be placed just now. Please place it again."];
    assert_eq!(texts(&node, "u-3", 1).await, expected);

    node.actor::<Order>("o-1").ask(Cancel {}).await.expect("cancelled");
    assert_eq!(texts(&node, "u-1", 3).await[2], "Your order o-1 is cancelled: 12.05 come back.");
    assert_eq!(inbox(&node, "u-2").await.count, 1);

    // An order of somebody who can have no inbox holds up nobody.
    node.actor::<Order>("o-4").ask(place("", "declined")).await.expect("placed");
    node.actor::<Order>("o-5").ask(place("u-5", "ok")).await.expect("placed");
    texts(&node, "u-5", 2).await;
    assert!(node.dead_letters().next(None, 1).await.expect("an answer").is_none());
}
