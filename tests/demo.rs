//! A thousand orders of the demo's data, and what must add up afterwards.

use serde_json::json;

use crate::harness::{Demo, LEASE, Profile, Server, Shop, ShopNode};

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_thousand_orders_add_up() {
    let shop = Shop::open().await;
    let demo = Demo::run(&shop.server, &["--cli-sample", "10"]).await;
    assert!(demo.status.success(), "{demo:?}");
    let figures = &demo.figures;
    assert_eq!((&figures["orders"], &figures["cli_orders"]), (&json!(1000), &json!(10)), "{demo:?}");
    assert_eq!(figures["failed"], json!(0), "{demo:?}");
    for holds in ["stock_adds_up", "money_adds_up", "answers_hold"] {
        assert_eq!(figures[holds], json!(true), "{holds}: {demo:?}");
    }
    let refused = figures["refused"].as_object().expect("by reason");
    for reason in ["out_of_stock", "card_declined"] {
        assert!(refused.get(reason).and_then(|count| count.as_u64()) > Some(0), "{reason}: {demo:?}");
    }
    let all: u64 = refused.values().filter_map(|count| count.as_u64()).sum();
    assert_eq!(figures["confirmed"].as_u64().map(|confirmed| confirmed + all), Some(1000), "{demo:?}");
    // The same for people.
    assert!(demo.stdout.contains("failed     0"), "{demo:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_the_demo_says_when_orders_fail() {
    let server = Server::start(Profile::Shop).await;
    // Nobody charges cards.
    let _shop = ShopNode::spawn(&server, "user,order,inventory,notification", &["--lease", LEASE]).await;
    let demo = Demo::run(&server, &["--count", "20", "--cli-sample", "1"]).await;
    assert_eq!(demo.status.code(), Some(1), "{demo:?}");
    assert!(format!("{}{}", demo.stdout, demo.stderr).contains("payment"), "it names what is missing: {demo:?}");
}
