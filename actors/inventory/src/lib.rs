//! The stock of the shop, one actor for each product.
//!
//! It owns how many of a product are free, reserved and sold, and what one costs. Every unit that
//! ever came in is in exactly one of the three: `stock` moves units between them by events, and
//! nothing else does. It does not know what an order is, only its id.

mod stock;

mod inventory;

pub use inventory::InventoryActor;
pub use stock::REMEMBERED_MAX;

#[cfg(test)]
mod tests;
