//! The payments of the shop: what was charged for each order, and what was given back.
//!
//! It owns the sums of one order and which of its attempts are closed. It knows nothing of prices
//! or goods: the order says how much. The module `card` stands in for the card processor.

mod card;

mod payment;

pub use payment::PaymentActor;

#[cfg(test)]
mod tests;
