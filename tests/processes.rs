//! Processes that die, freeze, and lose their broker, while orders flow.
//!
//! What callers are told while that lasts, and how soon all goes on. What is kept is in `keeping`.

use std::time::{Duration, Instant};

use greenroom::ErrorKind;
use serde_json::json;

use crate::harness::{
    Call, CliOutput, Duo, Info, LEASE, Load, Profile, SLACK, Server, ShopNode, TAKES_OVER, all_partitions,
    each_names_its_cause, eventually, holds, key_in, nats, place,
};

/// The budget of an order under trouble.
const BUDGET: Duration = Duration::from_secs(4);

fn confirmed_since(calls: &[Call], since: Instant) -> usize {
    calls.iter().filter(|call| call.began >= since && call.outcome.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_c5_p1_kill_9_while_orders_flow() {
    let mut duo = Duo::open().await;
    let [victim, heir] = duo.orders.each_ref().map(ShopNode::id);
    let load = Load::start(&duo.node, "kill", 8, BUDGET);
    tokio::time::sleep(Duration::from_millis(700)).await;
    duo.orders[0].kill9();
    duo.until_owned_by(&heir).await;
    let taken_over = Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let calls = load.stop().await;

    each_names_its_cause(&calls, BUDGET);
    assert!(confirmed_since(&calls, taken_over) > 8, "orders are placed again: {} calls", calls.len());
    for call in calls.iter().filter(|call| call.began > taken_over) {
        assert!(call.outcome.is_ok(), "after the take-over: {call:?}");
    }
    duo.place_everywhere("after-kill").await;
    duo.adds_up(&calls).await;
    let info = Info::of(&duo.server, &heir).await;
    assert!(info.node(&victim).is_none_or(|node| node["live"] == json!(false)), "{info:?}");
    assert_eq!(duo.rest.ids().len(), 1, "nobody else was taken for dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_frozen_node_answers_for_nothing_that_others_took() {
    let mut duo = Duo::open().await;
    let [frozen, heir] = duo.orders.each_ref().map(ShopNode::id);
    let owned = Info::of(&duo.server, &heir).await.owned_by("order", &frozen);
    let order = key_in(*owned.first().expect("it owns some"), "frozen");
    place(&duo.node, &order, BUDGET).await.expect("placed where it lives first");
    let get = format!("shop.order.{order}.get");
    let first = nats(&duo.server, &["req", &get, ""]).await.reply();
    assert_eq!(first["status"], json!("confirmed"), "{first}");

    duo.orders[0].pause();
    duo.until_owned_by(&heir).await;
    // The heir knows it, and changes it: it is cancelled there.
    // The queue group still has the frozen node's subscription: it may be that one which is drawn.
    eventually(Duration::from_secs(30), "the order is cancelled on the heir", async || {
        nats(&duo.server, &["--timeout", "1s", "req", &get.replace(".get", ".cancel"), "{}"]).await;
        let shown = nats(&duo.server, &["--timeout", "1s", "req", &get, ""]).await;
        holds(shown.stdout.contains("cancelled"), || format!("{shown:?}"))
    })
    .await;

    // Looks that wait in the frozen node's socket, or at the heir's.
    let server = &duo.server;
    let look = async || nats(server, &["--timeout", "8s", "req", &get, ""]).await;
    let looks = futures_util::future::join_all((0..12).map(|_| look()));
    let wakes = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        duo.orders[0].resume();
    };
    let (looks, ()): (Vec<CliOutput>, ()) = tokio::join!(looks, wakes);
    let answered: Vec<_> = looks.iter().filter(|look| !look.stdout.trim().is_empty()).collect();
    assert!(!answered.is_empty(), "{looks:?}");
    for look in &answered {
        assert_ne!(look.body()["status"], json!("confirmed"), "an answer from a state that is no more: {look:?}");
    }

    // It comes back as somebody new, and has a share again.
    let back = duo.orders[0].ready_again(2).await;
    assert_ne!(back, frozen);
    eventually(TAKES_OVER, "it has a share again", async || {
        let info = Info::of(&duo.server, &back).await;
        let shared = !info.owned_by("order", &back).is_empty() && info.owned("order") == all_partitions();
        holds(shared && info.node(&frozen).is_none(), || info.0.to_string())
    })
    .await;
    duo.place_everywhere("after-freeze").await;
}

/// A queue group keeps the subscriptions of a node that is frozen, until the broker misses the answers to its pings.
#[tokio::test(flavor = "multi_thread")]
async fn p1_a_frozen_node_is_sent_no_calls_once_the_broker_misses_it() {
    let mut duo = Duo::open().await;
    let [frozen, heir] = duo.orders.each_ref().map(ShopNode::id);
    let owned = Info::of(&duo.server, &heir).await.owned_by("order", &frozen);
    duo.orders[0].pause();
    duo.until_owned_by(&heir).await;
    eventually(Duration::from_secs(20), "the broker has ended its connections", async || {
        let connections = duo.server.monitor("/connz").await.to_string();
        holds(!connections.contains(&frozen), || connections)
    })
    .await;
    for partition in owned {
        let order = key_in(partition, "after-freeze");
        let shown = nats(&duo.server, &["req", &format!("shop.order.{order}.get"), ""]).await;
        assert_eq!(shown.header("Nats-Service-Error-Code").as_deref(), Some("404"), "partition {partition}: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_calls_fail_fast_while_the_broker_is_away_and_all_recovers() {
    let mut duo = Duo::open().await;
    duo.place_everywhere("before-outage").await;
    duo.server.stop().await;
    let mut status = duo.node.status();
    let noticed = tokio::time::timeout(TAKES_OVER, status.wait_for(|status| !status.is_connected())).await;
    noticed.expect("the client notices").expect("it is there");
    let stopped = Instant::now();
    let mut calls = 0;
    while stopped.elapsed() < Duration::from_secs(5) {
        calls += 1;
        let began = Instant::now();
        let failed = place(&duo.node, &format!("outage-{calls}"), TAKES_OVER).await;
        let took = began.elapsed();
        let error = failed.as_ref().expect_err("there is no broker");
        let error = error.failure().unwrap_or_else(|| panic!("{failed:?}"));
        assert!(error.kind() == ErrorKind::Unavailable && error.is_retryable(), "{}: {error}", error.kind());
        assert!(took < SLACK, "{took:?}: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(calls > 5);

    duo.server.restart().await;
    let back = Instant::now();
    duo.recovers_everywhere("after-outage").await;
    assert!(back.elapsed() < TAKES_OVER, "that took {:?}", back.elapsed());
    duo.place_everywhere("long-after-outage").await;
    let info = Info::of(&duo.server, "any").await;
    assert_eq!(info.nodes().len(), 3, "nobody who hosts is missing, and nobody is there twice: {info:?}");
    for node in duo.orders.iter_mut().chain([&mut duo.rest]) {
        assert!(node.status().is_none(), "it has ended:\n{}", node.log());
    }
}

/// Whether somebody deleted it or the broker lost its store: the nodes begin anew instead of saying for ever that they
/// cannot prove their leases.
#[tokio::test(flavor = "multi_thread")]
async fn r5_nodes_begin_anew_when_the_records_are_gone() {
    let mut duo = Duo::open().await;
    let before = [duo.orders[0].id(), duo.orders[1].id()];
    let deleted = nats(&duo.server, &["kv", "del", "shop-own", "--force"]).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let after = [duo.orders[0].ready_again(2).await, duo.orders[1].ready_again(2).await];
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?}, {after:?}");
    duo.rest.ready_again(2).await;
    duo.recovers_everywhere("after-loss").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_frozen_broker_holds_nobody_past_the_deadline() {
    let mut duo = Duo::open().await;
    let load = Load::start(&duo.node, "frozen-broker", 4, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Nobody is told anything: every connection is up, and nothing moves, for longer than any call may take.
    duo.server.pause();
    let frozen = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    duo.server.resume();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let calls = load.stop().await;
    for call in &calls {
        assert!(call.took <= Duration::from_secs(1) + SLACK, "{call:?}");
        if let Some(error) = call.failure() {
            assert!(error.is_retryable() || error.kind() == ErrorKind::Unknown, "{}: {call:?}", error.kind());
        }
    }
    assert!(calls.iter().any(|call| call.began > frozen && call.failure().is_some()), "it was not frozen: {calls:?}");
    duo.recovers_everywhere("after-frozen-broker").await;
    duo.adds_up(&calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_idle_nodes_outlive_a_restart_of_the_broker() {
    let mut server = Server::start(Profile::Shop).await;
    let mut node = ShopNode::spawn(&server, "user,notification", &["--lease", LEASE]).await;
    server.restart().await;
    eventually(TAKES_OVER, "the user is registered", async || {
        let ada = r#"{"name":"Ada","email":"ada@example.com"}"#;
        let told = nats(&server, &["--timeout", "2s", "req", "shop.user.u-1.register", ada]).await;
        holds(told.stdout.contains("\"u-1\""), || format!("{told:?}"))
    })
    .await;
    server.kill9().await;
    server.restart().await;
    eventually(TAKES_OVER, "the user is registered", async || {
        let ada = r#"{"name":"Ada","email":"ada@example.com"}"#;
        let told = nats(&server, &["--timeout", "2s", "req", "shop.user.u-1.register", ada]).await;
        holds(told.stdout.contains("\"u-1\""), || format!("{told:?}"))
    })
    .await;
    assert!(node.terminate().await.success(), "{}", node.log());
}
