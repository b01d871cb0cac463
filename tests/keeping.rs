//! What the shop was told is kept: orders under kills, and what their journals say afterwards.

use std::time::Duration;

use serde_json::json;
use shop_contract::order::{Get, Order, Status};

use crate::harness::{
    Audit, Call, Duo, Info, Load, PRICE_CENTS, STOCK, Shop, ShopNode, TAKES_OVER, each_names_its_cause, eventually,
    holds, key_in, nats, place, story,
};

const BUDGET: Duration = Duration::from_secs(2);

/// Every order that was confirmed to its caller is confirmed, and each of the others can be: then goods and money add
/// up to the cent. `more` orders of one piece were placed beside the load's.
async fn nothing_is_lost(duo: &Duo, calls: &[Call], more: usize) {
    for call in calls.iter().filter(|call| call.outcome.is_ok()) {
        let shown = duo.node.actor::<Order>(&call.order).ask(Get {}).await.expect("it is known");
        assert_eq!((shown.status, shown.total_cents), (Status::Confirmed, PRICE_CENTS), "{call:?}: {shown:?}");
    }
    for call in calls {
        eventually(TAKES_OVER, "it can be placed again", async || place(&duo.node, &call.order, BUDGET).await).await;
    }
    let orders = calls.len() + more;
    let stock = duo.stock().await;
    assert_eq!((stock.sold, stock.reserved), (orders as u64, 0), "{stock:?}, {orders} orders");
    assert_eq!(stock.free + stock.sold, u64::from(STOCK), "{stock:?}");
    let audit = Audit::of(&duo.server).await.adds_up();
    assert_eq!(audit["confirmed"], json!(orders), "{audit}");
    assert_eq!((&audit["stuck"], &audit["refused"]), (&json!(0), &json!(0)), "{audit}");
    assert_eq!(audit["sold"], json!(orders), "{audit}");
    let net = audit["charged_cents"].as_u64().zip(audit["refunded_cents"].as_u64());
    assert_eq!(net.map(|(charged, refunded)| charged - refunded), Some(orders as u64 * PRICE_CENTS), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_kill_9_loses_nothing_that_was_confirmed() {
    let mut duo = Duo::open().await;
    let heir = duo.orders[1].id();
    let load = Load::start(&duo.node, "kept", 8, BUDGET);
    tokio::time::sleep(Duration::from_millis(700)).await;
    duo.orders[0].kill9();
    duo.until_owned_by(&heir).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = load.stop().await;
    each_names_its_cause(&calls, BUDGET);
    assert!(calls.iter().filter(|call| call.outcome.is_ok()).count() > 30, "the load was none: {}", calls.len());
    nothing_is_lost(&duo, &calls, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_broker_restart_loses_nothing_that_was_acknowledged() {
    let mut duo = Duo::open().await;
    let load = Load::start(&duo.node, "stored", 8, BUDGET);
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Without a word to anybody, and without writing what it has in memory.
    duo.server.kill9().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    duo.server.restart().await;
    duo.recovers_everywhere("restarted").await;
    let calls = load.stop().await;
    // Callers send again by themselves: what shows that it was away is that some had to wait.
    let slowest = calls.iter().map(|call| call.took).max();
    assert!(slowest > Some(Duration::from_millis(250)), "it was not away: {} calls, {slowest:?}", calls.len());
    nothing_is_lost(&duo, &calls, 64).await;
}

/// The owner dies in the middle of a placing, between the goods and the money; the same command comes again.
#[tokio::test(flavor = "multi_thread")]
async fn e1_an_order_that_was_cut_ends_in_one_state() {
    let mut shop = Shop::open().await;
    shop.register("cut-u").await;
    shop.restock("cut-tea", 5).await;
    let owned = Info::of(&shop.server, "any").await.owned_by("order", &shop.orders[0].id());
    let order = key_in(*owned.first().expect("it owns some"), "cut");
    let subject = format!("shop.order.{order}.place");
    let body = r#"{"user":"cut-u","lines":[{"sku":"cut-tea","qty":2}],"card":"tok_ok"}"#;
    let command = ["req", &subject, body, "--timeout", "5s", "-H", "Nats-Msg-Id: cut-1"];

    shop.payment.pause();
    let Shop { server, payment, orders: [owner, _], .. } = &mut shop;
    let cut = async {
        eventually(Duration::from_secs(4), "its goods are set aside", async || {
            let stock = nats(server, &["req", "shop.inventory.cut-tea.get", ""]).await.reply();
            holds(stock["reserved"] == json!(2), || stock.to_string())
        })
        .await;
        ShopNode::kill9(owner);
        payment.resume();
    };
    let (first, ()) = tokio::join!(nats(server, &command), cut);
    assert!(!first.stdout.contains("confirmed"), "it was not cut: {first:?}");

    for _ in 0..2 {
        eventually(TAKES_OVER, "the same command is answered", async || {
            let again = nats(server, &command).await;
            holds(again.stdout.contains(r#""status":"confirmed""#), || format!("{again:?}"))
        })
        .await;
    }
    let names = story(server, "order", &order).await;
    assert_eq!(names, ["placed", "confirmed", "shipped"], "it went on where it was cut");
    assert_eq!(story(server, "payment", &order).await, ["charged"]);
    assert_eq!(story(server, "inventory", "cut-tea").await, ["restocked", "reserved", "shipped"]);
    let audit = Audit::of(server).await.adds_up();
    assert_eq!((&audit["confirmed"], &audit["charged_cents"]), (&json!(1), &json!(200)), "{audit}");
}
