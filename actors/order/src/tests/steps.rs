//! What an order asks of whom, and what it answers.

use greenroom::AskError;
use shop_contract::order::{
    Cancel, CancelRefused, Get, Line, NoSuchOrder, Order, OrderEvent, Place, PlaceRefused, Placed, Status,
};
use shop_contract::payment::ChargeRefused;

use super::callees::{Stage, place};

#[tokio::test]
async fn s2_a_good_order_is_reserved_charged_and_shipped() {
    let stage = Stage::new().await;
    let placed = stage.place("o-1", place("tea pot*2", "ok")).await.expect("all say yes");
    assert_eq!(placed, Placed { order: "o-1".into(), total_cents: 300, status: Status::Confirmed });
    assert_eq!(
        stage.calls(&mut 0).await,
        "user u-1, reserve pot 2 for o-1#1, reserve tea 1 for o-1#1, charge o-1#1 300 ok, \
         ship pot for o-1#1, ship tea for o-1#1"
    );
    let view = stage.order("o-1").await;
    assert_eq!((view.status, view.shipped, view.total_cents), (Status::Confirmed, true, 300));
}

#[tokio::test]
async fn lines_with_the_same_sku_count_as_one() {
    let stage = Stage::new().await;
    stage.place("o-1", place("tea*2 pot tea*3", "ok")).await.expect("all say yes");
    let lines = [("pot", 1), ("tea", 5)].map(|(sku, qty)| Line { sku: sku.into(), qty });
    assert_eq!(stage.order("o-1").await.lines, lines);
}

#[tokio::test]
async fn placing_again_is_answered_as_the_first_time_and_asks_nobody() {
    let stage = Stage::new().await;
    let mut seen = 0;
    let first = stage.place("o-1", place("tea pot", "ok")).await;
    stage.calls(&mut seen).await;
    assert_eq!(stage.place("o-1", place("pot tea", "another")).await, first);
    let taken = Err(PlaceRefused::AlreadyPlaced { status: Status::Confirmed });
    assert_eq!(stage.place("o-1", place("tea pot*2", "ok")).await, taken);
    assert_eq!(stage.place("o-1", Place { user: "u-2".into(), ..place("tea pot", "ok") }).await, taken);
    assert_eq!(stage.calls(&mut seen).await, "");
}

#[tokio::test]
async fn what_cannot_be_ordered_is_refused_and_leaves_no_trace() {
    let stage = Stage::new().await;
    let many = (0..101).map(|n| format!("sku-{n}")).collect::<Vec<_>>().join(" ");
    let long = "s".repeat(129);
    let bad = |sku: &str| PlaceRefused::BadQuantity { sku: sku.into(), max: 10_000 };
    for (lines, refused) in [
        ("", PlaceRefused::EmptyOrder),
        (many.as_str(), PlaceRefused::TooManyLines { max: 100 }),
        ("tea pot*0", bad("pot")),
        ("tea*10001", bad("tea")),
        ("tea*6000 tea*6000", bad("tea")),
        ("tea*4294967295 tea*4294967295", bad("tea")),
        (long.as_str(), PlaceRefused::UnknownProduct { sku: "s".repeat(64) }),
    ] {
        assert_eq!(stage.place("o-1", place(lines, "ok")).await, Err(refused), "{lines}");
    }
    assert_eq!(stage.calls(&mut 0).await, "");

    for user in ["nobody", "", &"u".repeat(129)] {
        let refused = stage.place("o-1", Place { user: user.into(), ..place("tea", "ok") }).await;
        assert!(matches!(refused, Err(PlaceRefused::UnknownUser { .. })), "{refused:?}");
    }
    assert_eq!(stage.calls(&mut 0).await, "user nobody");
    let absent = stage.0.actor::<Order>("o-1").ask(Get {}).await.expect_err("never placed");
    assert_eq!(absent.refusal(), Some(&NoSuchOrder { order: "o-1".into() }));
}

#[tokio::test]
async fn a_rejected_order_is_remembered_with_its_reason_and_may_be_placed_again() {
    let stage = Stage::new().await;
    let declined = PlaceRefused::CardRefused { reason: ChargeRefused::CardDeclined };
    assert_eq!(stage.place("o-1", place("tea", "declined")).await, Err(declined.clone()));
    let view = stage.order("o-1").await;
    assert_eq!((view.status, view.refused), (Status::Rejected, Some(declined)));

    let mut seen = 0;
    stage.calls(&mut seen).await;
    stage.place("o-1", place("pot", "ok")).await.expect("another card pays");
    assert_eq!(
        stage.calls(&mut seen).await,
        "user u-1, reserve pot 1 for o-1#2, charge o-1#2 100 ok, ship pot for o-1#2"
    );
    assert_eq!(stage.order("o-1").await.refused, None);
}

#[tokio::test]
async fn e1_its_events_tell_what_became_of_it() {
    let stage = Stage::new().await;
    let mut events = stage.0.subscribe::<OrderEvent>().live().await.expect("subscribed");
    stage.place("o-1", place("gone", "ok")).await.expect_err("out of stock");
    stage.place("o-1", place("tea", "ok")).await.expect("placed");
    stage.0.actor::<Order>("o-1").ask(Cancel {}).await.expect("cancelled");
    let mut names = Vec::new();
    for sequence in 1..=7 {
        let received = events.next().await.expect("one more event");
        assert_eq!((received.key.as_str(), received.sequence), ("o-1", sequence));
        names.push(greenroom::Event::name(&received.event));
    }
    let expected = ["placed", "rejected", "placed", "confirmed", "shipped", "cancelling", "cancelled"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn h6_cancelling_refunds_and_takes_the_goods_back_once() {
    let stage = Stage::new().await;
    stage.place("o-1", place("tea pot*2", "ok")).await.expect("placed");
    let mut seen = 0;
    stage.calls(&mut seen).await;
    for _ in 0..2 {
        let view = stage.0.actor::<Order>("o-1").ask(Cancel {}).await.expect("cancelled");
        assert_eq!(view.status, Status::Cancelled);
    }
    assert_eq!(stage.calls(&mut seen).await, "refund o-1#1, take_back pot 2 of o-1#1, take_back tea 1 of o-1#1");
    let taken = Err(PlaceRefused::AlreadyPlaced { status: Status::Cancelled });
    assert_eq!(stage.place("o-1", place("tea pot*2", "ok")).await, taken);
}

#[tokio::test]
async fn what_holds_nothing_is_not_cancelled() {
    let stage = Stage::new().await;
    let cancel = async |order: &str| match stage.0.actor::<Order>(order).ask(Cancel {}).await {
        Err(AskError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!(cancel("o-1").await, CancelRefused::NoSuchOrder { order: "o-1".into() });
    stage.place("o-1", place("gone", "ok")).await.expect_err("out of stock");
    assert_eq!(cancel("o-1").await, CancelRefused::NotCancellable { status: Status::Rejected });
}
