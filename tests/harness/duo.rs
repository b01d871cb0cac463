//! Two nodes that share the orders, and what orders need: for tests in which one of them goes.

use std::time::Duration;

use greenroom::Node;
use shop_contract::inventory::{Get as GetStock, Inventory, StockView};
use shop_contract::payment::{Get as GetPayment, Payment};

use super::{
    Call, Info, LEASE, PRICE_CENTS, Profile, SKU, STOCK, Server, ShopNode, all_partitions, client, eventually, holds,
    key_in, place, prepare,
};

/// Long past a lease, and past what the broker needs to say that it ran out.
pub(crate) const TAKES_OVER: Duration = Duration::from_secs(20);

/// Two nodes that host orders, and one for all that orders need.
pub(crate) struct Duo {
    pub(crate) orders: [ShopNode; 2],
    pub(crate) rest: ShopNode,
    pub(crate) server: Server,
    pub(crate) node: Node,
}

impl Duo {
    pub(crate) async fn open() -> Self {
        Self::open_on(Profile::Shop, LEASE).await
    }

    /// With leases that live so long, on a broker of that kind.
    pub(crate) async fn open_on(profile: Profile, lease: &str) -> Self {
        let server = Server::start(profile).await;
        let node = async |hosts| ShopNode::spawn(&server, hosts, &["--lease", lease]).await;
        let (first, second, rest) =
            tokio::join!(node("order"), node("order"), node("user,payment,inventory,notification"));
        let node = client(&server).await;
        prepare(&node).await;
        Self { orders: [first, second], rest, server, node }
    }

    /// Waits until the node of that id owns every partition of the orders.
    pub(crate) async fn until_owned_by(&self, id: &str) {
        eventually(TAKES_OVER, "one node owns every partition", async || {
            let info = Info::of(&self.server, id).await;
            holds(info.owned_by("order", id) == all_partitions(), || info.0.to_string())
        })
        .await;
    }

    /// Places an order in every partition, all of which must be confirmed.
    pub(crate) async fn place_everywhere(&self, prefix: &str) {
        for partition in all_partitions() {
            let order = key_in(partition, prefix);
            let placed = place(&self.node, &order, Duration::from_secs(5)).await;
            assert!(matches!(placed, Ok(PRICE_CENTS)), "partition {partition}, {order}: {placed:?}");
        }
    }

    /// Waits until orders are placed again in every partition.
    pub(crate) async fn recovers_everywhere(&self, prefix: &str) {
        for partition in all_partitions() {
            let order = key_in(partition, prefix);
            eventually(TAKES_OVER, "orders are placed again", async || {
                place(&self.node, &order, Duration::from_secs(2)).await
            })
            .await;
        }
    }

    pub(crate) async fn stock(&self) -> StockView {
        self.node.actor::<Inventory>(SKU).ask(GetStock {}).await.expect("the stock is shown")
    }

    /// Every order that was confirmed to its caller is paid for, and nothing got lost.
    pub(crate) async fn adds_up(&self, calls: &[Call]) {
        let confirmed = || calls.iter().filter(|call| call.outcome.is_ok());
        for call in confirmed().step_by(7) {
            let paid = self.node.actor::<Payment>(&call.order).ask(GetPayment {}).await.expect("it is shown");
            assert_eq!(paid.charged_cents - paid.refunded_cents, PRICE_CENTS, "{call:?}: {paid:?}");
        }
        let stock = self.stock().await;
        assert_eq!(stock.free + stock.reserved + stock.sold, u64::from(STOCK), "{stock:?}");
        assert!(stock.sold >= confirmed().count() as u64, "{stock:?}, {} confirmed", confirmed().count());
    }
}
