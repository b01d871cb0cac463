//! Callers that place orders one after the other, and keep what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::{AskError, Error, ErrorKind, Node};
use shop_contract::inventory::{Inventory, Restock};
use shop_contract::order::{Line, Order, Place, PlaceRefused};
use shop_contract::user::{Register, User};
use tokio::task::JoinSet;

use super::{Server, eventually};

/// What every order of the load orders one of.
pub(crate) const SKU: &str = "load-tea";
/// What a call may take beyond its budget on a machine that is busy with other tests.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// Who orders.
pub(crate) const USER: &str = "load-user";
/// Enough for any test.
pub(crate) const STOCK: u32 = 1_000_000;
/// What one costs.
pub(crate) const PRICE_CENTS: u64 = 100;

/// A node that hosts nothing and only calls.
pub(crate) async fn client(server: &Server) -> Node {
    Node::builder("shop").name("client").connect(server.url()).start().await.expect("a client starts")
}

/// Makes the user and the product known.
pub(crate) async fn prepare(node: &Node) {
    eventually(Duration::from_secs(20), "the user is registered", async || {
        let ada = Register { name: "Ada".to_owned(), email: "ada@example.com".to_owned() };
        node.actor::<User>(USER).ask(ada).await
    })
    .await;
    eventually(Duration::from_secs(20), "the product is in stock", async || {
        let restock = Restock { qty: STOCK, price_cents: Some(PRICE_CENTS), name: None };
        node.actor::<Inventory>(SKU).ask(restock).await
    })
    .await;
}

/// Places one order, for one piece.
pub(crate) async fn place(node: &Node, order: &str, budget: Duration) -> Result<u64, AskError<PlaceRefused>> {
    let lines = vec![Line { sku: SKU.to_owned(), qty: 1 }];
    let place = Place { user: USER.to_owned(), lines, card: "tok_ok".to_owned() };
    node.actor::<Order>(order).within(budget).ask(place).await.map(|placed| placed.total_cents)
}

/// One order of the load and what came of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) order: String,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) outcome: Result<u64, AskError<PlaceRefused>>,
}

impl Call {
    /// The failure, if it is one.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.outcome.as_ref().err().and_then(AskError::failure)
    }
}

/// No call took longer than it might, and each says what is known.
pub(crate) fn each_names_its_cause(calls: &[Call], budget: Duration) {
    for call in calls {
        assert!(call.took <= budget + SLACK, "{call:?}");
        match &call.outcome {
            Ok(cents) => assert_eq!(*cents, PRICE_CENTS, "{call:?}"),
            Err(AskError::Failed(error)) => {
                assert!(error.is_retryable() || error.kind() == ErrorKind::Unknown, "{}: {call:?}", error.kind());
            }
            // The order itself was reached too late to reach all that it needs; placing again is safe.
            Err(AskError::Refused(PlaceRefused::Unavailable { .. })) => {}
            Err(AskError::Refused(_)) => panic!("{call:?}"),
        }
    }
}

/// Callers at work; they stop when this is dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Call>>,
}

impl Load {
    /// Starts so many callers, each with fresh orders one after the other.
    pub(crate) fn start(node: &Node, prefix: &str, callers: usize, budget: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for caller in 0..callers {
            let (node, stop, prefix) = (node.clone(), stop.clone(), format!("{prefix}-{caller}"));
            all.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let order = format!("{prefix}-{}", calls.len());
                    let began = Instant::now();
                    let outcome = place(&node, &order, budget).await;
                    calls.push(Call { order, began, took: began.elapsed(), outcome });
                    // So that a fast failure does not become a busy loop.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                calls
            });
        }
        Self { stop, callers: all }
    }

    /// Lets every caller finish its order, and gives all calls.
    pub(crate) async fn stop(mut self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        while let Some(done) = self.callers.join_next().await {
            calls.extend(done.expect("a caller does not panic"));
        }
        calls
    }
}
