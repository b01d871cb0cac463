//! Processes that are asked to leave: SIGTERM, with and without a broker that answers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Duo, Info, LEASE, Load, Profile, SKU, Server, Shop, ShopNode, eventually, key_in, nats, nats_many,
};

/// What a leave may take that waits for nobody's turn.
const LEAVES: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn c2_c5_a_node_that_is_asked_to_leave_fails_no_call() {
    let mut duo = Duo::open().await;
    let stays = duo.orders[1].id();
    let before = duo.stock().await.sold;
    let load = Load::start(&duo.node, "leave", 8, Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(500)).await;
    duo.orders[0].ask_to_leave();
    let left = Instant::now();
    // A person places orders meanwhile, all through the handover and after it.
    let mut by_hand = 0;
    let status = loop {
        by_hand += 1;
        let body = json!({ "user": "load-user", "lines": [{ "sku": SKU, "qty": 1 }], "card": "tok_ok" }).to_string();
        let placed = nats(&duo.server, &["req", &format!("shop.order.hand-{by_hand}.place"), &body]).await;
        assert_eq!(placed.reply()["status"], json!("confirmed"), "{placed:?}");
        if let Some(status) = duo.orders[0].status() {
            break status;
        }
        assert!(left.elapsed() < LEAVES, "it does not end:\n{}", duo.orders[0].log());
    };
    assert!(status.success(), "{status}\n{}", duo.orders[0].log());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let calls = load.stop().await;

    for call in &calls {
        assert!(call.outcome.is_ok(), "{call:?}");
    }
    assert!(calls.len() > 50, "the load was none: {}", calls.len());
    // Every confirmed order was sold once, and none was confirmed to nobody.
    let stock = duo.stock().await;
    assert_eq!(stock.sold - before, calls.len() as u64 + by_hand, "{stock:?}");
    assert_eq!(stock.reserved, 0, "{stock:?}");
    duo.until_owned_by(&stays).await;
    duo.place_everywhere("after-leave").await;
}

/// With the broker's mapping calls come to a partition's queue group, without it to that of the
/// hosts. Most go to one partition, so that there is always one on its way when that is left.
#[tokio::test(flavor = "multi_thread")]
async fn c2_c3_a_node_that_leaves_loses_no_call_of_outsiders() {
    for profile in [Profile::Shop, Profile::Plain] {
        let server = Server::start(profile.clone()).await;
        let node = async || ShopNode::spawn(&server, "user", &["--lease", LEASE]).await;
        let (stays, mut leaves) = tokio::join!(node(), node());
        let owned = eventually(LEAVES, "the one who will leave owns a share", async || {
            let info = Info::of(&server, "any").await;
            info.owned_by("user", &leaves.id()).first().copied().ok_or(info.0)
        })
        .await;
        let hot = key_in(owned, "hot");
        let calls = async {
            let calls = (0..8).map(async |caller| {
                let key = if caller < 7 { hot.clone() } else { "cold-{{Count}}".to_owned() };
                let ada = r#"{"name":"Ada","email":"ada@example.com"}"#;
                nats_many(&server, &format!("shop.user.{key}.register"), ada, 1000).await
            });
            (futures_util::future::join_all(calls).await, Instant::now())
        };
        let leave = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let asked = Instant::now();
            (leaves.terminate().await, asked)
        };
        let ((answers, called), (status, asked)) = tokio::join!(calls, leave);
        assert!(called > asked + Duration::from_millis(200), "{profile:?}: the calls were over too soon");
        assert!(status.success(), "{profile:?}: {}", leaves.log());
        // A machine so busy that a node hears nothing of the broker for a second has it refuse, and say so.
        let logs = format!("{}\n{}", stays.log(), leaves.log());
        let fenced = logs.contains("the lease cannot be proved; keyed actors answer Unavailable");
        for answer in answers.iter().flatten() {
            let refused = fenced && answer.contains(r#""kind":"unavailable""#) && answer.contains("prove its lease");
            assert!(answer.contains("Ada") || refused, "{profile:?}: {answer}\n{logs}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_s1_six_processes_leave_in_order() {
    let mut shop = Shop::open().await;
    shop.register("u-1").await;
    let nodes = [&mut shop.user, &mut shop.payment, &mut shop.inventory, &mut shop.notification];
    for node in nodes.into_iter().chain(&mut shop.orders) {
        node.ask_to_leave();
    }
    let nodes = [&mut shop.user, &mut shop.payment, &mut shop.inventory, &mut shop.notification];
    for node in nodes.into_iter().chain(&mut shop.orders) {
        let status = node.exit(LEAVES).await;
        assert!(status.success(), "{status}\n{}", node.log());
    }
    let output = shop.req("shop.user.u-1.get", "").await;
    assert!(output.no_responders(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_second_signal_ends_a_node_that_cannot_leave() {
    let mut server = Server::start(Profile::Shop).await;
    let mut node = ShopNode::spawn(&server, "user", &["--lease", LEASE]).await;
    // Nobody answers, so its records cannot be handed over.
    server.pause();
    node.ask_to_leave();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // GNU timeout sends it twice: that is no second wish.
    node.ask_to_leave();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(node.status().is_none(), "it waits for the broker:\n{}", node.log());
    node.ask_to_leave();
    let status = node.exit(LEAVES).await;
    assert_eq!(status.code(), Some(1), "{}", node.log());
    server.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_node_leaves_a_broker_that_is_gone() {
    let mut server = Server::start(Profile::Shop).await;
    let mut node = ShopNode::spawn(&server, "user", &["--lease", LEASE]).await;
    server.stop().await;
    node.ask_to_leave();
    // Nothing runs, and when its lease has run out others may have its actors: nothing to wait for.
    let status = node.exit(Duration::from_secs(15)).await;
    assert!(status.code().is_some_and(|code| code < 2), "{status}: {}", node.log());
    for wrong in ["panicked", "turns still ran"] {
        assert!(!node.log().contains(wrong), "{wrong}: {}", node.log());
    }
}
