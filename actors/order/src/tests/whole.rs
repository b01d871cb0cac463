//! Orders among the services as they are: goods and money add up.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use greenroom::{AskError, Node};
use shop_contract::inventory::{self, Inventory, Restock};
use shop_contract::order::{Cancel, Get, Line, Order, Place, Status};
use shop_contract::payment::{self, Payment};
use shop_contract::user::{Register, User};
use shop_inventory::InventoryActor;
use shop_payment::PaymentActor;
use shop_user::UserActor;

use crate::OrderActor;

const SKUS: [&str; 4] = ["tea-01", "tea-02", "pot-01", "cup-01"];

async fn shop() -> Node {
    let node = Node::local("shop").host::<OrderActor>().host::<UserActor>();
    let node = node.host::<InventoryActor>().host::<PaymentActor>().start().await;
    let node = node.expect("a local node starts");
    let ada = Register { name: "Ada".into(), email: "ada@example.org".into() };
    node.actor::<User>("u-1").ask(ada).await.expect("registered");
    for (sku, price) in SKUS.iter().zip(1..) {
        let restock = Restock { qty: 100, price_cents: Some(price * 125), name: None };
        node.actor::<Inventory>(sku).ask(restock).await.expect("restocked");
    }
    node
}

fn random_order(rng: &mut fastrand::Rng) -> Place {
    let line = |rng: &mut fastrand::Rng| {
        let sku = if rng.u32(..20) == 0 { "no-such" } else { SKUS[rng.usize(..SKUS.len())] };
        Line { sku: sku.into(), qty: rng.u32(1..5) }
    };
    let lines = (0..rng.usize(1..5)).map(|_| line(rng)).collect();
    let card = if rng.u32(..5) == 0 { "tok_declined" } else { "tok_ok" };
    let user = if rng.u32(..20) == 0 { "u-2" } else { "u-1" };
    Place { user: user.into(), lines, card: card.into() }
}

/// Places an order, sometimes twice, and sometimes thinks better of it.
async fn customer(node: Node, order: String, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..rng.usize(1..4) {
        let placed = node.actor::<Order>(&order).ask(random_order(&mut rng)).await;
        assert!(!matches!(placed, Err(AskError::Failed(_))), "{placed:?}");
    }
    if rng.u32(..4) == 0 {
        let cancelled = node.actor::<Order>(&order).ask(Cancel {}).await;
        assert!(!matches!(cancelled, Err(AskError::Failed(_))), "{cancelled:?}");
    }
}

/// Checks that every confirmed order has its goods and has paid for them, and no other has.
/// Returns how many orders are confirmed, rejected and cancelled.
async fn add_up(node: &Node, orders: &[String]) -> [u32; 3] {
    let mut sold: HashMap<String, u64> = HashMap::new();
    let mut counts = [0; 3];
    for order in orders {
        let Ok(view) = node.actor::<Order>(order).ask(Get {}).await else { continue };
        let paid = match node.actor::<Payment>(order).ask(payment::Get {}).await {
            Ok(payment) => payment.charged_cents - payment.refunded_cents,
            Err(_) => 0,
        };
        let due = if view.status == Status::Confirmed { view.total_cents } else { 0 };
        assert_eq!(paid, due, "{view:?}");
        match view.status {
            Status::Confirmed => {
                counts[0] += 1;
                assert!(view.shipped, "{view:?}");
                for Line { sku, qty } in view.lines {
                    *sold.entry(sku).or_default() += u64::from(qty);
                }
            }
            Status::Rejected => counts[1] += 1,
            Status::Cancelled => counts[2] += 1,
            Status::Absent | Status::Placing | Status::Cancelling => panic!("{view:?}"),
        }
    }
    for sku in SKUS {
        let stock = node.actor::<Inventory>(sku).ask(inventory::Get {}).await.expect("known");
        assert_eq!(stock.restocked, stock.free + stock.reserved + stock.sold, "{stock:?}");
        assert_eq!(stock.reserved, 0, "{stock:?}");
        assert_eq!(stock.sold, sold.get(sku).copied().unwrap_or_default(), "{stock:?}");
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_goods_and_money_add_up_after_any_mix_of_orders() {
    for seed in 0..5 {
        let node = shop().await;
        let orders: Vec<String> = (0..60).map(|n| format!("o-{n}")).collect();
        stream::iter(orders.iter().zip(seed * 1000..))
            .map(|(order, seed)| customer(node.clone(), order.clone(), seed))
            .buffer_unordered(16)
            .collect::<Vec<()>>()
            .await;
        let [confirmed, rejected, cancelled] = add_up(&node, &orders).await;
        // All of them happen, or this test shows nothing.
        assert!(confirmed > 5 && rejected > 2 && cancelled > 2, "{confirmed} {rejected} {cancelled}");
        node.drain().await.expect("drained");
    }
}
