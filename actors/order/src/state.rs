//! The state of one order, as its events make it.

use greenroom::prelude::*;
use serde::{Deserialize, Serialize};
use shop_contract::order::{Line, OrderEvent, OrderView, PlaceRefused, Status};

/// One order.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct OrderState {
    pub(crate) status: Status,
    /// The newest attempt, from 1.
    pub(crate) attempt: u32,
    pub(crate) user: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) total_cents: u64,
    pub(crate) shipped: bool,
    pub(crate) refused: Option<PlaceRefused>,
}

impl State for OrderState {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { attempt, user, lines } => {
                *self = Self {
                    status: Status::Placing,
                    attempt: *attempt,
                    user: user.clone(),
                    lines: lines.clone(),
                    ..Self::default()
                };
            }
            OrderEvent::Confirmed { total_cents, .. } => {
                self.status = Status::Confirmed;
                self.total_cents = *total_cents;
            }
            OrderEvent::Shipped { .. } => self.shipped = true,
            OrderEvent::Rejected { reason, .. } => {
                self.status = Status::Rejected;
                self.refused = Some(reason.clone());
            }
            OrderEvent::Cancelling { .. } => self.status = Status::Cancelling,
            OrderEvent::Cancelled { .. } => self.status = Status::Cancelled,
        }
    }
}

impl OrderState {
    pub(crate) fn view(&self, order: &Key) -> OrderView {
        OrderView {
            order: order.as_str().to_owned(),
            status: self.status,
            user: self.user.clone(),
            lines: self.lines.clone(),
            total_cents: self.total_cents,
            shipped: self.shipped,
            refused: self.refused.clone(),
        }
    }
}
