//! How an order takes back what it did, when somebody says no or nobody answers.

use std::time::Duration;

use shop_contract::order::{Cancel, Order, PlaceRefused, Status};
use shop_contract::payment::ChargeRefused;

use super::callees::{SLOW, Stage, place};

fn undone(refused: &PlaceRefused) -> Option<bool> {
    match refused {
        PlaceRefused::Unavailable { undone, .. } => Some(*undone),
        _ => None,
    }
}

#[tokio::test]
async fn h6_a_refused_card_releases_every_line_the_last_first() {
    let stage = Stage::new().await;
    let refused = stage.place("o-1", place("a b c", "declined")).await.expect_err("declined");
    assert_eq!(refused, PlaceRefused::CardRefused { reason: ChargeRefused::CardDeclined });
    assert_eq!(
        stage.calls(&mut 0).await,
        "user u-1, reserve a 1 for o-1#1, reserve b 1 for o-1#1, reserve c 1 for o-1#1, \
         charge o-1#1 300 declined, \
         release c for o-1#1, release b for o-1#1, release a for o-1#1"
    );
}

#[tokio::test]
async fn h6_a_line_that_is_refused_releases_those_before_it_and_charges_nothing() {
    for (sku, expected) in [
        ("gone", PlaceRefused::OutOfStock { sku: "gone".into(), short: 1 }),
        ("unknown", PlaceRefused::UnknownProduct { sku: "unknown".into() }),
    ] {
        let stage = Stage::new().await;
        let refused = stage.place("o-1", place(&format!("a b {sku} z"), "ok")).await;
        assert_eq!(refused, Err(expected));
        assert_eq!(
            stage.calls(&mut 0).await,
            format!(
                "user u-1, reserve a 1 for o-1#1, reserve b 1 for o-1#1, reserve {sku} 1 for o-1#1, \
                 release b for o-1#1, release a for o-1#1"
            )
        );
    }
}

#[tokio::test]
async fn a_line_of_which_nothing_is_known_is_released_too() {
    let stage = Stage::new().await;
    let refused = stage.place("o-1", place("a broken", "ok")).await.expect_err("it panics");
    assert_eq!(undone(&refused), Some(true), "{refused}");
    assert_eq!(
        stage.calls(&mut 0).await,
        "user u-1, reserve a 1 for o-1#1, reserve broken 1 for o-1#1, \
         release broken for o-1#1, release a for o-1#1"
    );
    assert_eq!(stage.order("o-1").await.status, Status::Rejected);
}

#[tokio::test]
async fn a_charge_of_which_nothing_is_known_is_refunded() {
    let stage = Stage::new().await;
    let refused = stage.place("o-1", place("a", "broken")).await.expect_err("it panics");
    assert_eq!(undone(&refused), Some(true), "{refused}");
    let mut seen = 0;
    assert_eq!(
        stage.calls(&mut seen).await,
        "user u-1, reserve a 1 for o-1#1, charge o-1#1 100 broken, refund o-1#1, release a for o-1#1"
    );
    // The next attempt has a number of its own, so nothing late of the first can touch it.
    stage.place("o-1", place("a", "ok")).await.expect("placed");
    assert_eq!(stage.calls(&mut seen).await, "user u-1, reserve a 1 for o-1#2, charge o-1#2 100 ok, ship a for o-1#2");
}

#[tokio::test]
async fn a_product_that_is_too_busy_is_no_refusal_of_the_order() {
    let stage = Stage::new().await;
    let refused = stage.place("o-1", place("a busy", "ok")).await.expect_err("busy");
    assert_eq!(undone(&refused), Some(true), "{refused}");
}

#[tokio::test]
async fn r5_undoing_outlasts_the_callers_deadline() {
    let stage = Stage::new().await;
    let order = stage.0.actor::<Order>("o-1");
    let answer = order.within(SLOW / 3).ask(place("a slow", "ok")).await;
    assert!(answer.is_err_and(|error| error.failure().is_some()), "the caller waited too briefly");
    // A read of the order waits for the turn that still undoes.
    assert_eq!(stage.order("o-1").await.status, Status::Rejected);
    let calls = stage.calls(&mut 0).await;
    assert!(calls.ends_with("release slow for o-1#1, release a for o-1#1"), "{calls}");
    assert!(!calls.contains("charge"), "{calls}");
}

#[tokio::test]
async fn what_could_not_be_undone_is_undone_before_the_next_attempt() {
    let stage = Stage::new().await;
    let refused = stage.place("o-1", place("a stuck", "declined")).await.expect_err("declined");
    assert_eq!(undone(&refused), Some(false), "{refused}");
    assert_eq!(stage.order("o-1").await.status, Status::Placing);
    let mut seen = 0;
    let calls = stage.calls(&mut seen).await;
    assert!(calls.ends_with("release stuck for o-1#1, release a for o-1#1"), "{calls}");

    // How far the attempt came is no longer known, so everything is given back.
    stage.place("o-1", place("b", "ok")).await.expect("placed");
    assert_eq!(
        stage.calls(&mut seen).await,
        "refund o-1#1, release stuck for o-1#1, release a for o-1#1, \
         user u-1, reserve b 1 for o-1#2, charge o-1#2 100 ok, ship b for o-1#2"
    );
}

#[tokio::test]
async fn what_could_not_be_undone_can_be_cancelled() {
    let stage = Stage::new().await;
    stage.place("o-1", place("a stuck", "declined")).await.expect_err("declined");
    let mut seen = 0;
    stage.calls(&mut seen).await;
    let view = stage.0.actor::<Order>("o-1").ask(Cancel {}).await.expect("cancelled");
    assert_eq!(view.status, Status::Cancelled);
    assert_eq!(stage.calls(&mut seen).await, "refund o-1#1, release stuck for o-1#1, release a for o-1#1");
}

#[tokio::test]
async fn what_could_not_be_shipped_is_confirmed_and_shipped_later() {
    let stage = Stage::new().await;
    let first = stage.place("o-1", place("a unshippable", "ok")).await.expect("it is paid for");
    assert_eq!(first.status, Status::Confirmed);
    assert!(!stage.order("o-1").await.shipped);
    assert_eq!(stage.place("o-1", place("a unshippable", "ok")).await, Ok(first));
    assert!(stage.order("o-1").await.shipped);
}

#[tokio::test]
async fn an_order_that_is_not_shipped_is_released_when_it_is_cancelled() {
    let stage = Stage::new().await;
    stage.place("o-1", place("a unshippable", "ok")).await.expect("it is paid for");
    let mut seen = 0;
    stage.calls(&mut seen).await;
    stage.0.actor::<Order>("o-1").ask(Cancel {}).await.expect("cancelled");
    assert_eq!(stage.calls(&mut seen).await, "refund o-1#1, release a for o-1#1, release unshippable for o-1#1");
}

#[tokio::test]
async fn cancelling_goes_on_where_it_stopped() {
    let stage = Stage::new().await;
    stage.place("o-poor", place("a", "ok")).await.expect("placed");
    stage.0.actor::<Order>("o-poor").ask(Cancel {}).await.expect_err("the refund is stuck");
    assert_eq!(stage.order("o-poor").await.status, Status::Cancelling);
    let again = stage.place("o-poor", place("a", "ok")).await;
    assert_eq!(again, Err(PlaceRefused::AlreadyPlaced { status: Status::Cancelling }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.0.actor::<Order>("o-poor").ask(Cancel {}).await.expect("cancelled");
    assert_eq!(stage.order("o-poor").await.status, Status::Cancelled);
}
