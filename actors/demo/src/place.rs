//! Placing one order, and what comes of it.

use std::time::{Duration, Instant};

use greenroom::{AskError, Error, ErrorKind, Node};
use shop_contract::order::{Order, Place, PlaceRefused, Placed};

use crate::data::OrderRow;
use crate::pause;

/// How long one try may take.
const TRY_TIME: Duration = Duration::from_secs(5);

/// What became of one order.
pub(crate) struct Placing<'a> {
    pub(crate) order: &'a OrderRow,
    pub(crate) outcome: Outcome,
    /// From the first try to the last answer.
    pub(crate) took: Duration,
    pub(crate) tries: u32,
}

/// How an order ended for its customer.
#[derive(Debug)]
pub(crate) enum Outcome {
    Confirmed { total_cents: u64 },
    Refused(PlaceRefused),
    Failed(String),
}

/// Places an order through the node.
pub(crate) async fn place<'a>(node: &Node, order: &'a OrderRow, patience: Duration) -> Placing<'a> {
    let address = node.actor::<Order>(&order.id).within(TRY_TIME);
    persist(order, patience, async || Answer::of(address.ask(message(order)).await)).await
}

/// The message that places this order.
pub(crate) fn message(order: &OrderRow) -> Place {
    Place { user: order.user.clone(), lines: order.lines.clone(), card: order.card.clone() }
}

/// One answer, and whether to ask again.
pub(crate) enum Answer {
    Final(Outcome),
    Again(Outcome),
}

impl Answer {
    pub(crate) fn of(answer: Result<Placed, AskError<PlaceRefused>>) -> Self {
        match answer {
            Ok(placed) => Answer::Final(Outcome::Confirmed { total_cents: placed.total_cents }),
            Err(AskError::Refused(refused @ PlaceRefused::Unavailable { .. })) => {
                Answer::Again(Outcome::Failed(refused.to_string()))
            }
            Err(AskError::Refused(refused)) => Answer::Final(Outcome::Refused(refused)),
            Err(AskError::Failed(error)) => {
                let outcome = Outcome::Failed(format!("{}: {error}", error.kind()));
                if is_worth_another(&error) { Answer::Again(outcome) } else { Answer::Final(outcome) }
            }
        }
    }
}

/// Asks until the answer is final or `patience` is over.
pub(crate) async fn persist(order: &OrderRow, patience: Duration, mut ask: impl AsyncFnMut() -> Answer) -> Placing<'_> {
    let began = Instant::now();
    let mut tries = 1;
    let outcome = loop {
        match ask().await {
            Answer::Final(outcome) => break outcome,
            Answer::Again(outcome) if began.elapsed() >= patience => break outcome,
            Answer::Again(_) => tokio::time::sleep(pause(tries)).await,
        }
        tries += 1;
    };
    Placing { order, outcome, took: began.elapsed(), tries }
}

/// Placing is idempotent by the order's id, so an answer that was lost may be asked for again, too.
fn is_worth_another(error: &Error) -> bool {
    error.is_retryable() || matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Interrupted | ErrorKind::Expired)
}

/// The name under which a refusal is counted: `out_of_stock`, and for a card what was wrong with it.
pub(crate) fn reason(refused: &PlaceRefused) -> String {
    let name = match refused {
        PlaceRefused::CardRefused { reason } => serde_json::to_value(reason),
        other => serde_json::to_value(other),
    };
    match name {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(variant)) => variant.keys().next().cloned().unwrap_or_default(),
        _ => "other".to_owned(),
    }
}
