//! The goods of one product, replayed from its events.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use shop_contract::inventory::InventoryEvent;

/// One product by its events.
#[derive(Default)]
pub(crate) struct Goods {
    pub(crate) restocked: u64,
    pub(crate) free: u64,
    pub(crate) reserved: u64,
    pub(crate) sold: u64,
    orders: BTreeMap<String, Held>,
}

/// What one order has of it.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) reserved: u64,
    pub(crate) shipped: u64,
}

/// The sums in a snapshot of the actor's state.
#[derive(Deserialize)]
struct Sums {
    restocked: u64,
    free: u64,
    reserved: u64,
    sold: u64,
}

impl Goods {
    /// What each order that ever reserved has of it.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.orders.iter().map(|(order, held)| (order.as_str(), held))
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// What it moves that is not there.
    pub(crate) fn apply(&mut self, event: &InventoryEvent) -> Result<(), String> {
        match event {
            InventoryEvent::Restocked { qty, .. } => {
                self.restocked += u64::from(*qty);
                self.free += u64::from(*qty);
                Ok(())
            }
            InventoryEvent::Reserved { order, qty, .. } => {
                let (held, qty) = (self.orders.entry(order.clone()).or_default(), u64::from(*qty));
                let twice = held.reserved + held.shipped > 0;
                held.reserved += qty;
                self.reserved += qty;
                let there = take(&mut self.free, qty);
                if twice {
                    return Err(format!("order {order} reserved twice"));
                }
                there.map_err(|short| format!("order {order} reserved {short} more than were free"))
            }
            InventoryEvent::Released { order, qty, .. } => {
                let (held, qty) = (self.orders.entry(order.clone()).or_default(), u64::from(*qty));
                self.free += qty;
                take(&mut self.reserved, qty)
                    .and(take(&mut held.reserved, qty))
                    .map_err(|short| format!("order {order} released {short} more than it had"))
            }
            InventoryEvent::Shipped { order, qty, .. } => {
                let (held, qty) = (self.orders.entry(order.clone()).or_default(), u64::from(*qty));
                self.sold += qty;
                held.shipped += qty;
                take(&mut self.reserved, qty)
                    .and(take(&mut held.reserved, qty))
                    .map_err(|short| format!("{short} more were shipped to order {order} than it had reserved"))
            }
            InventoryEvent::TakenBack { order, qty, .. } => {
                let (held, qty) = (self.orders.entry(order.clone()).or_default(), u64::from(*qty));
                self.free += qty;
                take(&mut self.sold, qty)
                    .and(take(&mut held.shipped, qty))
                    .map_err(|short| format!("order {order} gave back {short} more than it got"))
            }
        }
    }

    /// Compares with what the actor itself had summed up at this point.
    ///
    /// # Errors
    /// Where the two differ.
    pub(crate) fn is_as_in(&self, state: &Value) -> Result<(), String> {
        let sums = Sums::deserialize(state).map_err(|error| format!("its snapshot cannot be read: {error}"))?;
        let theirs = (sums.restocked, sums.free, sums.reserved, sums.sold);
        if theirs == (self.restocked, self.free, self.reserved, self.sold) {
            return Ok(());
        }
        Err(format!("its snapshot says {theirs:?}, and its events say {self}"))
    }
}

impl fmt::Display for Goods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { restocked, free, reserved, sold, .. } = self;
        write!(f, "{restocked} came in, and there are {free} free, {reserved} reserved and {sold} sold")
    }
}

/// Takes so many away.
///
/// # Errors
/// How many are missing.
fn take(from: &mut u64, qty: u64) -> Result<(), u64> {
    let short = qty.saturating_sub(*from);
    *from = from.saturating_sub(qty);
    if short == 0 { Ok(()) } else { Err(short) }
}
