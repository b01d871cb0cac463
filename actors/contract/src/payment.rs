//! Payments: what was charged for one order. The key is the order's id.
//!
//! The card processor behind it is a stand-in that judges by the token: `tok_ok…` pays,
//! `tok_declined…` is declined, `tok_insufficient…` has no funds, anything else is no card.

use greenroom::prelude::*;

/// The payment of one order.
#[contract(name = "payment", messages(Charge, Refund, Get), event = PaymentEvent)]
pub struct Payment;

/// Charges a card. The same data again is answered as the first time, and charged once.
#[message(Payment, ask, reply = Charged, refusal = ChargeRefused)]
pub struct Charge {
    /// Who pays.
    pub user: String,
    /// How much.
    pub cents: u64,
    /// The card's token. Its last four characters are kept, the rest never is.
    pub card: String,
    /// The order's attempt; see the crate's head.
    #[serde(default = "crate::first_attempt")]
    pub attempt: u32,
}

/// A card was charged.
#[data]
#[derive(PartialEq, Eq)]
pub struct Charged {
    /// How much.
    pub cents: u64,
    /// The last four characters of the card's token.
    pub card_end: String,
}

/// Why a card was not charged.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum ChargeRefused {
    /// The card's bank says no.
    #[error("the card was declined")]
    #[code(402)]
    CardDeclined,
    /// There is not enough behind the card.
    #[error("the card has not enough funds")]
    #[code(402)]
    InsufficientFunds,
    /// That is no card.
    #[error("that is no card's token; one looks like tok_ok")]
    #[code(422)]
    BadCard,
    /// Nobody charges nothing, or that much.
    #[error("a charge is 1 to {max_cents} cents")]
    #[code(422)]
    BadAmount {
        /// The highest charge.
        max_cents: u64,
    },
    /// The user's id is empty or too long for a user's key.
    #[error("the user's id is not one: it has 1 to 128 bytes")]
    #[code(422)]
    BadUser,
    /// The order is charged, with another user, amount or card.
    #[error("the order is charged already: {cents} cents")]
    AlreadyCharged {
        /// What was charged.
        cents: u64,
    },
    /// The attempt was refunded, so a charge of it that arrives now is late.
    #[error("attempt {attempt} of the order is closed")]
    Closed {
        /// The newest attempt that is closed.
        attempt: u32,
    },
}

/// Gives back what was charged, if anything was, and closes the attempt: a charge of it that
/// arrives later is refused. May be sent again.
#[message(Payment, ask, reply = PaymentView)]
pub struct Refund {
    /// The attempt to close, with all before it; without one, whatever is charged is refunded.
    #[serde(default)]
    pub attempt: Option<u32>,
}

/// Shows the payment.
#[message(Payment, read, reply = PaymentView, refusal = NoSuchPayment)]
pub struct Get {}

/// Nothing was ever charged for this order.
#[refusal(code = 404)]
#[derive(thiserror::Error, PartialEq, Eq)]
#[error("there is no payment for the order {order}")]
pub struct NoSuchPayment {
    /// The order's id.
    pub order: String,
}

/// What was charged for an order and what was given back, over all its attempts.
#[data]
#[derive(PartialEq, Eq)]
pub struct PaymentView {
    /// The order's id.
    pub order: String,
    /// The sum of all charges.
    pub charged_cents: u64,
    /// The sum of all refunds.
    pub refunded_cents: u64,
}

/// What happens to a payment.
#[event(Payment)]
pub enum PaymentEvent {
    /// A card was charged.
    Charged {
        /// In which attempt of the order.
        attempt: u32,
        /// Who paid.
        user: String,
        /// How much.
        cents: u64,
        /// The last four characters of the card's token.
        card_end: String,
    },
    /// An attempt was closed, and what it had charged was given back.
    Refunded {
        /// Which attempt; those before it are closed too.
        attempt: u32,
        /// How much; 0 if nothing was charged.
        cents: u64,
    },
}
