use std::collections::HashMap;

use greenroom::contract::Message;
use greenroom::{AskError, Node};
use shop_contract::inventory::{
    Get, Inventory, Release, ReleaseRefused, Reserve, ReserveRefused, Reserved, Restock, RestockRefused, Ship,
    ShipRefused, StockView, TakeBack, TakeBackRefused,
};

use crate::{InventoryActor, REMEMBERED_MAX};

/// One product of a shop of its own.
struct Product(Node);

impl Product {
    async fn absent() -> Self {
        Self(Node::local("shop").host::<InventoryActor>().start().await.expect("a local node starts"))
    }

    async fn with(qty: u32) -> Self {
        let product = Self::absent().await;
        product.ask(Restock { qty, price_cents: Some(250), name: None }).await.expect("restocked");
        product
    }

    async fn ask<M>(&self, msg: M) -> Result<M::Reply, M::Refusal>
    where
        M: Message<Contract = Inventory, Mode: greenroom::contract::Replies>,
    {
        match self.0.actor::<Inventory>("tea-01").ask(msg).await {
            Ok(reply) => Ok(reply),
            Err(AskError::Refused(refused)) => Err(refused),
            Err(AskError::Failed(error)) => panic!("{error}"),
        }
    }

    /// (free, reserved, sold), after checking that they make up all that came in.
    async fn sums(&self) -> (u64, u64, u64) {
        let StockView { restocked, free, reserved, sold, .. } = self.ask(Get {}).await.expect("known");
        assert_eq!(restocked, free + reserved + sold);
        (free, reserved, sold)
    }
}

fn reserve(order: &str, attempt: u32, qty: u32) -> Reserve {
    Reserve { order: order.into(), qty, attempt }
}

fn release(order: &str, attempt: u32) -> Release {
    Release { order: order.into(), attempt }
}

fn ship(order: &str, attempt: u32) -> Ship {
    Ship { order: order.into(), attempt }
}

fn take_back(order: &str, attempt: u32, qty: u32) -> TakeBack {
    TakeBack { order: order.into(), qty, attempt }
}

#[tokio::test]
async fn restocking_needs_only_a_quantity() {
    let product = Product::absent().await;
    assert_eq!(product.ask(Get {}).await.expect_err("never restocked").sku, "tea-01");

    let just_qty: Restock = serde_json::from_str(r#"{"qty":100}"#).expect("qty is enough");
    let view = product.ask(just_qty).await.expect("restocked");
    assert_eq!((view.name.as_str(), view.price_cents, view.free), ("tea-01", 100, 100));

    let named = Restock { qty: 0, price_cents: Some(350), name: Some("Sencha".into()) };
    product.ask(named).await.expect("named and priced");
    let view = product.ask(Restock { qty: 5, price_cents: None, name: None }).await.expect("restocked");
    assert_eq!((view.name.as_str(), view.price_cents, view.restocked), ("Sencha", 350, 105));
}

#[tokio::test]
async fn a_delivery_that_cannot_be_is_refused() {
    let product = Product::absent().await;
    let price = |price_cents| Restock { qty: 1, price_cents: Some(price_cents), name: None };
    let name = |name: String| Restock { qty: 1, price_cents: None, name: Some(name) };
    let huge = Restock { qty: u32::MAX, price_cents: None, name: None };
    assert!(matches!(product.ask(huge).await, Err(RestockRefused::BadQuantity { .. })));
    assert!(matches!(product.ask(price(0)).await, Err(RestockRefused::BadPrice { .. })));
    assert!(matches!(product.ask(price(u64::MAX)).await, Err(RestockRefused::BadPrice { .. })));
    assert!(matches!(product.ask(name(" ".into())).await, Err(RestockRefused::BadName { .. })));
    assert!(matches!(product.ask(name("n".repeat(201))).await, Err(RestockRefused::BadName { .. })));
    assert!(product.ask(Get {}).await.is_err(), "a refused delivery made the product known");
}

#[tokio::test]
async fn a_reservation_moves_goods_once_however_often_it_is_sent() {
    let product = Product::with(10).await;
    let first = product.ask(reserve("o-1", 1, 3)).await.expect("enough is there");
    assert_eq!(first, Reserved { qty: 3, price_cents: 250 });
    product.ask(Restock { qty: 0, price_cents: Some(999), name: None }).await.expect("a new price");
    assert_eq!(product.ask(reserve("o-1", 1, 3)).await, Ok(first), "at the price of the first time");
    assert_eq!(product.sums().await, (7, 3, 0));
    assert_eq!(product.ask(reserve("o-1", 1, 4)).await, Err(ReserveRefused::ReservedOtherwise { qty: 3 }));

    for _ in 0..2 {
        product.ask(ship("o-1", 1)).await.expect("shipped");
        assert_eq!(product.sums().await, (7, 0, 3));
    }
    assert!(product.ask(reserve("o-1", 1, 3)).await.is_ok(), "a repeated message is late, not wrong");
    assert_eq!(product.ask(release("o-1", 1)).await, Err(ReleaseRefused::Shipped));
    for _ in 0..2 {
        product.ask(take_back("o-1", 1, 3)).await.expect("taken back");
        assert_eq!(product.sums().await, (10, 0, 0));
    }
}

#[tokio::test]
async fn more_than_is_free_is_refused_with_what_is_missing() {
    let product = Product::with(10).await;
    product.ask(reserve("o-1", 1, 8)).await.expect("enough is there");
    let short = ReserveRefused::OutOfStock { sku: "tea-01".into(), short: 3 };
    assert_eq!(product.ask(reserve("o-2", 1, 5)).await, Err(short));
    assert_eq!(product.sums().await, (2, 8, 0));
    for _ in 0..2 {
        product.ask(release("o-1", 1)).await.expect("released");
    }
    assert_eq!(product.ask(reserve("o-2", 1, 5)).await, Ok(Reserved { qty: 5, price_cents: 250 }));
}

#[tokio::test]
async fn what_arrives_late_of_a_closed_attempt_is_refused() {
    let product = Product::with(10).await;
    // The release overtook the reservation that it undoes.
    product.ask(release("o-1", 1)).await.expect("nothing to release");
    assert_eq!(product.ask(reserve("o-1", 1, 3)).await, Err(ReserveRefused::Closed { attempt: 1 }));
    // The next attempt is another matter, and the last one's release no longer touches it.
    product.ask(reserve("o-1", 2, 3)).await.expect("a new attempt");
    product.ask(release("o-1", 1)).await.expect("late, and without effect");
    assert_eq!(product.sums().await, (7, 3, 0));
    assert_eq!(product.ask(reserve("o-1", 1, 3)).await, Err(ReserveRefused::Closed { attempt: 2 }));
    assert!(matches!(product.ask(ship("o-1", 1)).await, Err(ShipRefused::NotReserved { .. })));
    // A third attempt replaces what the second held.
    product.ask(reserve("o-1", 3, 10)).await.expect("the second attempt's goods are free again");
    assert_eq!(product.sums().await, (0, 10, 0));
}

#[tokio::test]
async fn what_was_never_reserved_is_neither_shipped_nor_taken_back() {
    let product = Product::with(10).await;
    let refused = Err(ShipRefused::NotReserved { order: "o-1".into(), attempt: 1 });
    assert_eq!(product.ask(ship("o-1", 1)).await, refused);
    product.ask(reserve("o-1", 1, 3)).await.expect("enough is there");
    let refused = |qty| Err(TakeBackRefused::NotShipped { order: "o-1".into(), qty, attempt: 1 });
    assert_eq!(product.ask(take_back("o-1", 1, 3)).await, refused(3));
    product.ask(ship("o-1", 1)).await.expect("shipped");
    assert_eq!(product.ask(take_back("o-1", 1, 4)).await, refused(4));
    assert!(product.ask(take_back("o-2", 1, 3)).await.is_err(), "these went to another order");
    assert_eq!(product.sums().await, (7, 0, 3));
}

#[tokio::test]
async fn what_is_no_order_or_quantity_is_refused() {
    let product = Product::with(10).await;
    assert_eq!(product.ask(reserve("", 1, 3)).await, Err(ReserveRefused::BadOrder));
    assert_eq!(product.ask(reserve(&"o".repeat(129), 1, 3)).await, Err(ReserveRefused::BadOrder));
    assert_eq!(product.ask(release(&"o".repeat(129), 1)).await, Err(ReleaseRefused::BadOrder));
    for qty in [0, u32::MAX] {
        let refused = product.ask(reserve("o-1", 1, qty)).await;
        assert!(matches!(refused, Err(ReserveRefused::BadQuantity { .. })), "{qty}: {refused:?}");
    }
}

#[tokio::test]
async fn goods_of_an_order_that_is_long_forgotten_can_be_taken_back() {
    let many = REMEMBERED_MAX as u32 + 1;
    let product = Product::with(many).await;
    for n in 0..many {
        let order = format!("o-{n}");
        product.ask(reserve(&order, 1, 1)).await.expect("enough is there");
        product.ask(ship(&order, 1)).await.expect("shipped");
    }
    assert!(product.ask(take_back("o-0", 1, 2)).await.is_err(), "one went out to forgotten orders");
    for _ in 0..2 {
        product.ask(take_back("o-0", 1, 1)).await.expect("taken back");
        assert_eq!(product.sums().await, (1, 0, u64::from(many) - 1));
    }
}

/// What a caller believes an order to hold, going by the answers alone.
#[derive(Default)]
struct Believed {
    reserved: HashMap<String, (u32, u32)>,
    shipped: HashMap<String, (u32, u32)>,
}

impl Believed {
    async fn step(&mut self, product: &Product, rng: &mut fastrand::Rng) {
        let order = format!("o-{}", rng.u32(..12));
        let (attempt, qty) = (rng.u32(1..4), rng.u32(1..9));
        match rng.u32(..10) {
            0 => drop(product.ask(Restock { qty, price_cents: None, name: None }).await.expect("restocked")),
            1..5 => {
                let is_new = self.shipped.get(&order).is_none_or(|(shipped, _)| *shipped != attempt);
                if product.ask(reserve(&order, attempt, qty)).await.is_ok() && is_new {
                    self.reserved.insert(order, (attempt, qty));
                }
            }
            5..7 => {
                if product.ask(release(&order, attempt)).await.is_ok()
                    && self.reserved.get(&order).is_some_and(|(reserved, _)| *reserved <= attempt)
                {
                    self.reserved.remove(&order);
                }
            }
            7..9 => {
                if product.ask(ship(&order, attempt)).await.is_ok()
                    && let Some(held) = self.reserved.remove(&order)
                {
                    self.shipped.insert(order, held);
                }
            }
            _ => {
                let known = self.shipped.get(&order).copied();
                let (attempt, qty) = known.unwrap_or((attempt, qty));
                if product.ask(take_back(&order, attempt, qty)).await.is_ok() {
                    self.shipped.remove(&order);
                }
            }
        }
    }

    fn sums(&self) -> (u64, u64) {
        let sum = |held: &HashMap<String, (u32, u32)>| held.values().map(|(_, qty)| u64::from(*qty)).sum();
        (sum(&self.reserved), sum(&self.shipped))
    }
}

#[tokio::test]
async fn s3_stock_adds_up_after_any_sequence() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let product = Product::with(30).await;
        let mut believed = Believed::default();
        for step in 0..250 {
            believed.step(&product, &mut rng).await;
            let (_, reserved, sold) = product.sums().await;
            assert_eq!((reserved, sold), believed.sums(), "seed {seed}, step {step}");
        }
    }
}
