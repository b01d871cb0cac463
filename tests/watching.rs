//! Watches of actors whose process is killed or frozen.

use std::time::Duration;

use greenroom::Reason;
use shop_contract::order::{Get, Order};

use crate::harness::{Duo, Info, LEASE, Profile, ShopNode, TAKES_OVER, key_in, place};

const BUDGET: Duration = Duration::from_secs(5);

/// An order that lives on that node.
async fn order_on(duo: &Duo, node: &str) -> String {
    let owned = Info::of(&duo.server, node).await.owned_by("order", node);
    let order = key_in(*owned.first().expect("it owns some"), "watched");
    place(&duo.node, &order, BUDGET).await.expect("placed");
    order
}

async fn told(what: &str, happens: impl Future<Output = Option<Reason>>) -> Reason {
    let told = tokio::time::timeout(TAKES_OVER, happens).await;
    told.unwrap_or_else(|_| panic!("this was not told within {TAKES_OVER:?}: {what}")).expect("the watcher runs")
}

/// One watch sees three owners go: by a kill, by a drain with an heir, and by one without.
#[tokio::test(flavor = "multi_thread")]
async fn h7_a_watch_tells_of_kill_9_and_goes_on_with_the_heir() {
    let mut duo = Duo::open_on(Profile::Shop, "10s").await;
    let [victim, heir] = duo.orders.each_ref().map(ShopNode::id);
    let order = order_on(&duo, &victim).await;
    let mut watch = duo.node.watch::<Order>(&order).await.expect("a watch");
    let mut members = duo.node.watch_nodes();
    duo.orders[0].kill9();
    let died = Reason::NodeDied { node: victim.clone() };
    let gone = tokio::time::timeout(TAKES_OVER, watch.next()).await.expect("told").expect("the watcher runs");
    assert_eq!((gone.node.as_str(), gone.reason), (victim.as_str(), died.clone()));
    let gone = tokio::time::timeout(TAKES_OVER, members.next()).await.expect("told").expect("the watcher runs");
    assert_eq!((gone.node.as_str(), gone.reason), (victim.as_str(), died));

    duo.node.actor::<Order>(&order).within(TAKES_OVER).ask(Get {}).await.expect("it is kept");
    let third = ShopNode::spawn(&duo.server, "order", &["--lease", "10s"]).await;
    duo.orders[1].ask_to_leave();
    let moved = told("the heir leaves", async { watch.next().await.map(|gone| gone.reason) }).await;
    assert!(matches!(&moved, Reason::Moved { to } if *to == third.id()), "{moved:?} of {heir}");
    let gone = told("the heir has left", async { members.next().await.map(|gone| gone.reason) }).await;
    assert_eq!(gone, Reason::Drained);
    duo.node.actor::<Order>(&order).within(TAKES_OVER).ask(Get {}).await.expect("it is kept");
    third_leaves(third).await;
    let drained = told("the last one leaves", async { watch.next().await.map(|gone| gone.reason) }).await;
    assert_eq!(drained, Reason::Drained);
}

async fn third_leaves(mut third: ShopNode) {
    third.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_watch_tells_of_a_process_that_was_frozen_past_its_lease() {
    let mut duo = Duo::open_on(Profile::Shop, LEASE).await;
    let frozen = duo.orders[0].id();
    let order = order_on(&duo, &frozen).await;
    let mut watch = duo.node.watch::<Order>(&order).await.expect("a watch");
    let mut members = duo.node.watch_nodes();
    duo.orders[0].pause();
    let lost = Reason::NodeLost { node: frozen.clone() };
    assert_eq!(told("it is lost", async { watch.next().await.map(|gone| gone.reason) }).await, lost);
    assert_eq!(told("it is lost", async { members.next().await.map(|gone| gone.reason) }).await, lost);
    // What it says on waking changes nothing: the watch is with the heir by then.
    duo.node.actor::<Order>(&order).within(TAKES_OVER).ask(Get {}).await.expect("it is kept");
    duo.orders[0].resume();
    let told = tokio::time::timeout(Duration::from_secs(2), watch.next()).await;
    // It may have come back under another id and been given its share again; nothing has died since.
    assert!(told.is_err() || matches!(&told, Ok(Some(gone)) if matches!(gone.reason, Reason::Moved { .. })));
}
