//! Inventory: the stock of one product. The key is the product's SKU.
//!
//! What was ever restocked is at every moment either free, or reserved for an order, or sold:
//! `restocked == free + reserved + sold`.
//!
//! An order reserves, and then either ships what it reserved or releases it. All of these may be
//! sent again: the second time changes nothing.

use greenroom::prelude::*;

/// The stock of one product.
#[contract(
    name = "inventory",
    messages(Restock, Get, Reserve, Release, Ship, TakeBack),
    event = InventoryEvent
)]
pub struct Inventory;

/// Adds goods. Not idempotent: two deliveries are two deliveries.
///
/// Only the quantity must be given: price and name stay as they are, and begin as 100 cents and
/// the SKU.
#[message(Inventory, ask, reply = StockView, refusal = RestockRefused)]
pub struct Restock {
    /// How many came; 0 makes a product known that is sold out.
    pub qty: u32,
    /// What one costs from now on.
    #[serde(default)]
    pub price_cents: Option<u64>,
    /// What to call it from now on.
    #[serde(default)]
    pub name: Option<String>,
}

/// Why goods were not taken in.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum RestockRefused {
    /// More than one delivery can hold.
    #[error("a delivery holds at most {max}")]
    #[code(422)]
    BadQuantity {
        /// The largest delivery.
        max: u32,
    },
    /// Nothing costs nothing, or that much.
    #[error("a price is 1 to {max_cents} cents")]
    #[code(422)]
    BadPrice {
        /// The highest price.
        max_cents: u64,
    },
    /// The name is empty or too long.
    #[error("a name has 1 to {max} bytes")]
    #[code(422)]
    BadName {
        /// The longest name, in bytes.
        max: u32,
    },
}

/// Shows the stock.
#[message(Inventory, read, reply = StockView, refusal = NoSuchProduct)]
pub struct Get {}

/// Nothing was ever restocked under this SKU.
#[refusal(code = 404)]
#[derive(thiserror::Error, PartialEq, Eq)]
#[error("there is no product {sku}")]
pub struct NoSuchProduct {
    /// The SKU that was asked for.
    pub sku: String,
}

/// Sets goods aside for an order, at today's price.
#[message(Inventory, ask, reply = Reserved, refusal = ReserveRefused)]
pub struct Reserve {
    /// The order's id.
    pub order: String,
    /// How many.
    pub qty: u32,
    /// The order's attempt; see the crate's head.
    #[serde(default = "crate::first_attempt")]
    pub attempt: u32,
}

/// Goods that are set aside.
#[data]
#[derive(PartialEq, Eq)]
pub struct Reserved {
    /// How many.
    pub qty: u32,
    /// What one costs this order, whatever the price becomes.
    pub price_cents: u64,
}

/// Why goods were not set aside.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum ReserveRefused {
    /// Nothing was ever restocked under this SKU.
    #[error("there is no product {sku}")]
    #[code(404)]
    NoSuchProduct {
        /// The SKU that was asked for.
        sku: String,
    },
    /// Fewer are free than are wanted.
    #[error("{sku} is short by {short}")]
    OutOfStock {
        /// The SKU.
        sku: String,
        /// How many are missing.
        short: u32,
    },
    /// Nobody sets aside nothing, or that much.
    #[error("an order sets aside 1 to {max}")]
    #[code(422)]
    BadQuantity {
        /// The most that one order may set aside.
        max: u32,
    },
    /// The order's id is empty or too long for an order's key.
    #[error("the order's id is not one: it has 1 to 128 bytes")]
    #[code(422)]
    BadOrder,
    /// The order has set aside another quantity in this attempt.
    #[error("the order has set aside {qty} already")]
    ReservedOtherwise {
        /// What it has set aside.
        qty: u32,
    },
    /// The attempt was undone, or a later one has begun, or the order has its goods.
    #[error("attempt {attempt} of the order is closed")]
    Closed {
        /// The newest attempt that is known.
        attempt: u32,
    },
    /// More orders hold reservations of this product than are kept track of.
    #[error("{open} orders have reservations open; try again when some are shipped")]
    #[code(429)]
    TooManyOpen {
        /// How many do.
        open: u32,
    },
}

/// Gives a reservation back and closes the attempt, whether or not anything was reserved: a
/// reservation of this attempt that arrives later is refused.
#[message(Inventory, ask, reply = StockView, refusal = ReleaseRefused)]
pub struct Release {
    /// The order's id.
    pub order: String,
    /// The attempt to close; see the crate's head.
    #[serde(default = "crate::first_attempt")]
    pub attempt: u32,
}

/// Why nothing was released.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum ReleaseRefused {
    /// The order's id is empty or too long for an order's key.
    #[error("the order's id is not one: it has 1 to 128 bytes")]
    #[code(422)]
    BadOrder,
    /// The goods are sold: they come back by `take_back` only.
    #[error("the order's goods are shipped")]
    Shipped,
}

/// Makes a reservation a sale.
#[message(Inventory, ask, reply = StockView, refusal = ShipRefused)]
pub struct Ship {
    /// The order's id.
    pub order: String,
    /// The attempt that reserved; see the crate's head.
    #[serde(default = "crate::first_attempt")]
    pub attempt: u32,
}

/// Why nothing was shipped.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum ShipRefused {
    /// The order has no reservation here.
    #[error("attempt {attempt} of the order {order} has nothing reserved")]
    NotReserved {
        /// The order's id.
        order: String,
        /// The attempt that was named.
        attempt: u32,
    },
}

/// Takes an order's shipped goods back into the stock.
#[message(Inventory, ask, reply = StockView, refusal = TakeBackRefused)]
pub struct TakeBack {
    /// The order's id.
    pub order: String,
    /// How many were shipped to it.
    pub qty: u32,
    /// The attempt that was shipped; see the crate's head.
    #[serde(default = "crate::first_attempt")]
    pub attempt: u32,
}

/// Why nothing was taken back.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum TakeBackRefused {
    /// That much was not shipped to this order.
    #[error("{qty} were not shipped to attempt {attempt} of the order {order}")]
    NotShipped {
        /// The order's id.
        order: String,
        /// The quantity that was named.
        qty: u32,
        /// The attempt that was named.
        attempt: u32,
    },
}

/// A product's stock. `restocked == free + reserved + sold`, always.
#[data]
#[derive(PartialEq, Eq)]
pub struct StockView {
    /// The product's SKU.
    pub sku: String,
    /// What it is called.
    pub name: String,
    /// What one costs.
    pub price_cents: u64,
    /// How many ever came in.
    pub restocked: u64,
    /// How many can be reserved.
    pub free: u64,
    /// How many are set aside for orders.
    pub reserved: u64,
    /// How many were shipped and not taken back.
    pub sold: u64,
}

/// What happens to a product's stock.
#[event(Inventory)]
pub enum InventoryEvent {
    /// Goods came in.
    Restocked {
        /// How many.
        qty: u32,
        /// What one costs from now on.
        price_cents: u64,
        /// What the product is called from now on.
        name: String,
    },
    /// Goods were set aside.
    Reserved {
        /// For which order.
        order: String,
        /// In which attempt of it.
        attempt: u32,
        /// How many.
        qty: u32,
        /// What one costs this order.
        price_cents: u64,
    },
    /// An attempt was closed, and what it had set aside is free again.
    Released {
        /// Of which order.
        order: String,
        /// Which attempt.
        attempt: u32,
        /// How many; 0 if nothing was set aside.
        qty: u32,
    },
    /// Goods that were set aside left the house.
    Shipped {
        /// For which order.
        order: String,
        /// In which attempt of it.
        attempt: u32,
        /// How many.
        qty: u32,
    },
    /// Goods came back.
    TakenBack {
        /// From which order.
        order: String,
        /// From which attempt of it.
        attempt: u32,
        /// How many.
        qty: u32,
    },
}
