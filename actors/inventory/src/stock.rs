//! The state of one product: sums, and what each order holds of it.

use std::collections::{BTreeMap, VecDeque};

use greenroom::prelude::*;
use serde::{Deserialize, Serialize};
use shop_contract::inventory::InventoryEvent;

/// How many orders that no longer hold a reservation are remembered for each product.
///
/// A late message of an order is recognised as late for that long: until this many other orders
/// were shipped or released after it.
pub const REMEMBERED_MAX: usize = 1024;

/// One product's stock.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// None until the first delivery.
    pub(crate) product: Option<Product>,
    pub(crate) restocked: u64,
    pub(crate) free: u64,
    pub(crate) reserved: u64,
    pub(crate) sold: u64,
    /// How many orders have a reservation open.
    pub(crate) open: u32,
    orders: BTreeMap<String, Held>,
    /// The orders that were settled, the oldest first, each with the number that its settling got.
    settled: VecDeque<(u64, String)>,
    settlings: u64,
    /// How many were shipped to orders that are forgotten since, and not taken back.
    pub(crate) forgotten: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) price_cents: u64,
}

/// What one order holds of the product, by its newest attempt.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) attempt: u32,
    pub(crate) qty: u32,
    pub(crate) price_cents: u64,
    pub(crate) standing: Standing,
    /// Which settling this is, so that an older one of the same order does not evict it.
    settling: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// The order's, but still here.
    Reserved,
    /// The order's, and gone.
    Shipped,
    /// Given back or taken back: the attempt is over.
    Closed,
}

impl Stock {
    /// What is remembered of an order.
    pub(crate) fn held(&self, order: &str) -> Option<&Held> {
        self.orders.get(order)
    }

    /// Files what an order has come to, and forgets the oldest of what is over the bound.
    fn settle(&mut self, order: &str, mut held: Held) {
        self.settlings += 1;
        held.settling = self.settlings;
        self.orders.insert(order.to_owned(), held);
        self.settled.push_back((self.settlings, order.to_owned()));
        if self.settled.len() > REMEMBERED_MAX
            && let Some((settling, oldest)) = self.settled.pop_front()
            && self.orders.get(&oldest).is_some_and(|held| held.settling == settling)
            && let Some(held) = self.orders.remove(&oldest)
            && held.standing == Standing::Shipped
        {
            self.forgotten += u64::from(held.qty);
        }
    }
}

impl State for Stock {
    type Event = InventoryEvent;

    fn apply(&mut self, event: &InventoryEvent) {
        match event {
            InventoryEvent::Restocked { qty, price_cents, name } => {
                self.restocked += u64::from(*qty);
                self.free += u64::from(*qty);
                self.product = Some(Product { name: name.clone(), price_cents: *price_cents });
            }
            InventoryEvent::Reserved { order, attempt, qty, price_cents } => {
                self.free -= u64::from(*qty);
                self.reserved += u64::from(*qty);
                self.open += 1;
                let held = Held {
                    attempt: *attempt,
                    qty: *qty,
                    price_cents: *price_cents,
                    standing: Standing::Reserved,
                    // No settling has this number: what is reserved is never forgotten.
                    settling: 0,
                };
                self.orders.insert(order.clone(), held);
            }
            InventoryEvent::Released { order, attempt, qty } => {
                self.reserved -= u64::from(*qty);
                self.free += u64::from(*qty);
                self.close(order, *attempt);
            }
            InventoryEvent::Shipped { order, attempt, qty } => {
                self.reserved -= u64::from(*qty);
                self.sold += u64::from(*qty);
                self.open -= 1;
                let price_cents = self.held(order).map_or(0, |held| held.price_cents);
                let standing = Standing::Shipped;
                self.settle(order, Held { attempt: *attempt, qty: *qty, price_cents, standing, settling: 0 });
            }
            InventoryEvent::TakenBack { order, attempt, qty } => {
                self.sold -= u64::from(*qty);
                self.free += u64::from(*qty);
                if self.held(order).is_none() {
                    self.forgotten -= u64::from(*qty);
                }
                self.close(order, *attempt);
            }
        }
    }
}

impl Stock {
    fn close(&mut self, order: &str, attempt: u32) {
        if self.held(order).is_some_and(|held| held.standing == Standing::Reserved) {
            self.open -= 1;
        }
        let standing = Standing::Closed;
        self.settle(order, Held { attempt, qty: 0, price_cents: 0, standing, settling: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_orders_are_forgotten_past_the_bound_and_reserved_ones_never() {
        let mut stock = Stock::default();
        let name = "tea".to_owned();
        stock.apply(&InventoryEvent::Restocked { qty: 1_000_000, price_cents: 1, name });
        let reserved = |order: &str, attempt| InventoryEvent::Reserved {
            order: order.to_owned(),
            attempt,
            qty: 1,
            price_cents: 1,
        };
        let released = |order: &str, attempt| InventoryEvent::Released { order: order.to_owned(), attempt, qty: 1 };
        stock.apply(&reserved("open", 1));
        stock.apply(&released("open", 1));
        stock.apply(&reserved("open", 2));
        for n in 0..3 * REMEMBERED_MAX {
            let order = format!("o-{n}");
            stock.apply(&reserved(&order, 1));
            stock.apply(&InventoryEvent::Shipped { order, attempt: 1, qty: 1 });
        }
        assert_eq!((stock.orders.len(), stock.settled.len()), (REMEMBERED_MAX + 1, REMEMBERED_MAX));
        assert_eq!(stock.open, 1);
        assert!(stock.held("open").is_some_and(|held| held.standing == Standing::Reserved));
        assert!(stock.held("o-0").is_none());

        // Their goods can still come back, but no more than went out.
        assert_eq!(stock.forgotten, 2 * REMEMBERED_MAX as u64);
        stock.apply(&InventoryEvent::TakenBack { order: "o-0".to_owned(), attempt: 1, qty: 1 });
        // Room for what is remembered of that was made by forgetting one more.
        assert_eq!(stock.forgotten, 2 * REMEMBERED_MAX as u64);
    }
}
