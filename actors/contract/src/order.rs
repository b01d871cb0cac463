//! Orders. The key is the order's id, chosen by the caller, so that placing can be repeated.

use greenroom::prelude::*;

use crate::payment::ChargeRefused;

/// An order of the shop.
#[contract(name = "order", messages(Place, Get, Cancel), event = OrderEvent)]
pub struct Order;

/// Places the order: reserves every line, charges the card, and ships; or does none of it.
///
/// May be repeated: a confirmed order with the same user and lines is answered as the first time.
/// A refused one holds nothing, so placing it again starts afresh, with whatever content.
#[message(Order, ask, reply = Placed, refusal = PlaceRefused)]
pub struct Place {
    /// Who orders.
    pub user: String,
    /// What they order. Lines with the same SKU count as one.
    pub lines: Vec<Line>,
    /// The token of the card that pays. It is passed on and not kept.
    pub card: String,
}

/// One line of an order.
#[data]
#[derive(PartialEq, Eq)]
pub struct Line {
    /// The product.
    pub sku: String,
    /// How many of it.
    pub qty: u32,
}

/// A confirmed order.
#[data]
#[derive(PartialEq, Eq)]
pub struct Placed {
    /// The order's id.
    pub order: String,
    /// What was charged.
    pub total_cents: u64,
    /// How the order stands: confirmed.
    pub status: Status,
}

/// How an order stands.
#[data]
#[derive(Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// It was never placed.
    #[default]
    Absent,
    /// An attempt was begun and neither confirmed nor undone: what it holds is given back as soon
    /// as the order is placed again or cancelled.
    Placing,
    /// It is paid for.
    Confirmed,
    /// It was refused, and holds nothing.
    Rejected,
    /// It is being cancelled: cancelling again goes on where that stopped.
    Cancelling,
    /// It was cancelled: refunded, and its goods taken back.
    Cancelled,
}

/// Why an order was not confirmed. After each of these the order holds nothing, but for
/// [`Unavailable`](PlaceRefused::Unavailable), which says whether it does.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum PlaceRefused {
    /// There are no lines.
    #[error("an order has at least one line")]
    #[code(422)]
    EmptyOrder,
    /// There are too many lines.
    #[error("an order has at most {max} lines")]
    #[code(422)]
    TooManyLines {
        /// The most lines of an order.
        max: u32,
    },
    /// A line orders nothing, or too much.
    #[error("{sku}: an order has 1 to {max} of a product")]
    #[code(422)]
    BadQuantity {
        /// The product.
        sku: String,
        /// The most of it.
        max: u32,
    },
    /// Nobody is registered under this id.
    #[error("there is no user {user}")]
    #[code(404)]
    UnknownUser {
        /// The id.
        user: String,
    },
    /// No such product.
    #[error("there is no product {sku}")]
    #[code(404)]
    UnknownProduct {
        /// The SKU.
        sku: String,
    },
    /// Fewer are free than are ordered.
    #[error("{sku} is short by {short}")]
    OutOfStock {
        /// The SKU.
        sku: String,
        /// How many are missing.
        short: u32,
    },
    /// The card was not charged.
    #[error("not paid: {reason}")]
    #[code(402)]
    CardRefused {
        /// Why not.
        reason: ChargeRefused,
    },
    /// The order is confirmed with another content, or cancelled: an id is used once.
    #[error("the order is {status} already; use another id")]
    AlreadyPlaced {
        /// How it stands.
        status: Status,
    },
    /// Somebody who had to be asked could not be, or did not answer in time. Placing again is safe
    /// whatever the attempt has come to.
    #[error("could not be placed just now: {message}; placing it again is safe")]
    #[code(424)]
    Unavailable {
        /// Who, and what is known.
        message: String,
        /// Whether the attempt was undone completely. If not, the next attempt begins with that.
        undone: bool,
    },
}

/// Shows the order.
#[message(Order, read, reply = OrderView, refusal = NoSuchOrder)]
pub struct Get {}

/// Nothing was ever placed under this id.
#[refusal(code = 404)]
#[derive(thiserror::Error, PartialEq, Eq)]
#[error("there is no order {order}")]
pub struct NoSuchOrder {
    /// The id that was asked for.
    pub order: String,
}

/// An order as its user sees it.
#[data]
#[derive(PartialEq, Eq)]
pub struct OrderView {
    /// The order's id.
    pub order: String,
    /// How it stands.
    pub status: Status,
    /// Whose it is.
    pub user: String,
    /// What was ordered, one line for each SKU.
    pub lines: Vec<Line>,
    /// What was charged, if it was confirmed.
    pub total_cents: u64,
    /// Whether all its goods have left the house.
    pub shipped: bool,
    /// Why it was rejected, if it was.
    pub refused: Option<PlaceRefused>,
}

/// Cancels a confirmed order: takes its goods back and refunds it. May be repeated.
#[message(Order, ask, reply = OrderView, refusal = CancelRefused)]
pub struct Cancel {}

/// Why an order was not cancelled.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum CancelRefused {
    /// Nothing was ever placed under this id.
    #[error("there is no order {order}")]
    #[code(404)]
    NoSuchOrder {
        /// The id that was asked for.
        order: String,
    },
    /// The order holds nothing that could be given back.
    #[error("the order is {status}: there is nothing to cancel")]
    NotCancellable {
        /// How it stands.
        status: Status,
    },
    /// Somebody who had to be asked could not be. Cancelling again goes on where this stopped.
    #[error("could not be cancelled just now: {message}; cancelling it again is safe")]
    #[code(424)]
    Unavailable {
        /// Who, and what is known.
        message: String,
    },
}

/// What happens to an order.
#[event(Order)]
pub enum OrderEvent {
    /// An attempt was begun: from here on it may hold goods and money.
    Placed {
        /// Counted from 1.
        attempt: u32,
        /// Who orders.
        user: String,
        /// What they order, one line for each SKU.
        lines: Vec<Line>,
    },
    /// The order is paid for, its goods are set aside.
    Confirmed {
        /// Who ordered.
        user: String,
        /// What they ordered, one line for each SKU.
        lines: Vec<Line>,
        /// What they paid.
        total_cents: u64,
    },
    /// Its goods have left the house.
    Shipped {
        /// Who gets them.
        user: String,
    },
    /// The attempt was undone.
    Rejected {
        /// Who ordered.
        user: String,
        /// What they were told.
        reason: PlaceRefused,
    },
    /// Cancelling was begun.
    Cancelling {
        /// Who cancels.
        user: String,
    },
    /// The goods are back and the money is.
    Cancelled {
        /// Who cancelled.
        user: String,
        /// What they got back.
        refunded_cents: u64,
    },
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Absent => "absent",
            Status::Placing => "being placed",
            Status::Confirmed => "confirmed",
            Status::Rejected => "rejected",
            Status::Cancelling => "being cancelled",
            Status::Cancelled => "cancelled",
        })
    }
}
