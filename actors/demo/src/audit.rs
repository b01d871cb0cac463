//! Adding up: what the services hold against what the orders say.
//!
//! The shop may have been used before, so the audit compares what changed since [`Before`], but
//! for what must hold at any time.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use greenroom::{AskError, Node};
use shop_contract::inventory::{self, Inventory, StockView};
use shop_contract::order::{Get, Line, Order, OrderView, Status};
use shop_contract::payment::{self, Payment};

use crate::data::{Data, OrderRow};
use crate::place::{Outcome, Placing, place};
use crate::setup;

/// How many complaints are kept of each audit; a broken shop has thousands.
const COMPLAINTS_MAX: usize = 20;

/// The shop before the demo did anything.
pub(crate) struct Before {
    /// By SKU.
    stock: HashMap<String, StockView>,
    /// By order, those that were confirmed.
    confirmed: HashMap<String, OrderView>,
}

/// What adds up, and what does not.
#[derive(Default)]
pub(crate) struct Audit {
    /// What is wrong with the goods.
    pub(crate) stock: Complaints,
    /// What is wrong with the money.
    pub(crate) money: Complaints,
    /// Where an order is not as its customer was told.
    pub(crate) answers: Complaints,
    pub(crate) products: usize,
    pub(crate) sold: i64,
    pub(crate) net_cents: u64,
}

/// What is wrong, as far as it is worth telling.
#[derive(Default)]
pub(crate) struct Complaints {
    pub(crate) first: Vec<String>,
    pub(crate) count: usize,
}

impl Complaints {
    pub(crate) fn add(&mut self, complaint: String) {
        self.count += 1;
        if self.first.len() < COMPLAINTS_MAX {
            self.first.push(complaint);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Before {
    /// Looks at everything that the demo may change.
    pub(crate) async fn look(node: &Node, data: &Data, in_flight: usize) -> anyhow::Result<Self> {
        let stock = stocks(node, data, in_flight).await?;
        let orders: Vec<Option<OrderView>> = stream::iter(&data.orders)
            .map(|order| view(node, &order.id))
            .buffer_unordered(in_flight)
            .try_collect()
            .await?;
        let confirmed = orders.into_iter().flatten().filter(|view| view.status == Status::Confirmed);
        Ok(Self { stock, confirmed: confirmed.map(|view| (view.order.clone(), view)).collect() })
    }
}

/// Audits the shop after every order has had its last answer.
pub(crate) async fn audit<'a>(
    node: &Node,
    data: &Data,
    before: &Before,
    placings: impl Iterator<Item = &'a Placing<'a>>,
    in_flight: usize,
) -> anyhow::Result<Audit> {
    let mut audit = Audit::default();
    let mut owed: HashMap<&str, i64> = HashMap::new();
    let mut looks = stream::iter(placings)
        .map(async |placing| anyhow::Ok((placing, look(node, placing.order).await?)))
        .buffer_unordered(in_flight);
    while let Some((placing, after)) = looks.try_next().await? {
        audit.check_order(placing, &after);
        let was_confirmed = before.confirmed.get(&placing.order.id);
        for Line { sku, qty } in after.confirmed().map_or(&[][..], |view| &view.lines) {
            *owed.entry(sku_of(data, sku)).or_default() += i64::from(*qty);
        }
        for Line { sku, qty } in was_confirmed.map_or(&[][..], |view| &view.lines) {
            *owed.entry(sku_of(data, sku)).or_default() -= i64::from(*qty);
        }
    }
    let stock = stocks(node, data, in_flight).await?;
    for product in &data.products {
        let owed = owed.get(product.sku.as_str()).copied().unwrap_or_default();
        audit.check_stock(&product.sku, product.stock, before.stock.get(&product.sku), stock.get(&product.sku), owed);
    }
    Ok(audit)
}

/// The SKU as the data has it, whose text outlives the orders that are looked at one by one.
fn sku_of<'a>(data: &'a Data, sku: &str) -> &'a str {
    data.products.iter().find(|product| product.sku == sku).map_or("", |product| &product.sku)
}

/// An order as the services have it.
struct After {
    view: Option<OrderView>,
    net_cents: i128,
}

impl After {
    fn confirmed(&self) -> Option<&OrderView> {
        self.view.as_ref().filter(|view| view.status == Status::Confirmed)
    }
}

impl Audit {
    /// Whether everything adds up.
    pub(crate) fn is_fine(&self) -> bool {
        self.stock.is_empty() && self.money.is_empty() && self.answers.is_empty()
    }

    fn check_order(&mut self, placing: &Placing<'_>, after: &After) {
        let id = &placing.order.id;
        let due = after.confirmed().map_or(0, |view| view.total_cents);
        self.net_cents = self.net_cents.saturating_add(due);
        if after.net_cents != i128::from(due) {
            self.money.add(format!("order {id}: {due} cents are due, {} were paid", after.net_cents));
        }
        let told = match &placing.outcome {
            Outcome::Confirmed { total_cents } => Some(*total_cents),
            Outcome::Refused(_) => None,
            // Its customer was told nothing.
            Outcome::Failed(_) => return,
        };
        let is = after.confirmed().map(|view| view.total_cents);
        // A refused order may well be confirmed with another content: its id was used before.
        if told.is_some() && told != is {
            self.answers.add(format!("order {id}: its customer was told {told:?} cents, and it has {is:?}"));
        }
        if told.is_none() && after.view.as_ref().is_some_and(|view| view.status == Status::Placing) {
            self.answers.add(format!("order {id}: it was refused, and still holds something"));
        }
    }

    fn check_stock(
        &mut self,
        sku: &str,
        restocked: u32,
        before: Option<&StockView>,
        after: Option<&StockView>,
        owed: i64,
    ) {
        let Some(after) = after else {
            self.stock.add(format!("{sku}: the product is gone"));
            return;
        };
        let StockView { free, reserved, sold, .. } = after;
        if after.restocked != free + reserved + sold {
            self.stock.add(format!(
                "{sku}: {} came in, and there are {free} free, {reserved} reserved and {sold} sold",
                after.restocked
            ));
        }
        if *reserved != 0 {
            self.stock.add(format!("{sku}: {reserved} are still reserved"));
        }
        let came = after.restocked - before.map_or(0, |before| before.restocked).min(after.restocked);
        if came != u64::from(restocked) {
            self.stock.add(format!("{sku}: {restocked} were delivered, {came} came in"));
        }
        let sold = difference(*sold, before.map_or(0, |before| before.sold));
        if sold != owed {
            self.stock.add(format!("{sku}: confirmed orders have {owed} of it, {sold} were sold"));
        }
        self.products += 1;
        self.sold += sold;
    }
}

fn difference(after: u64, before: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(i64::MAX)
}

/// Looks at an order and its payment, after letting it finish what it could not before.
async fn look(node: &Node, order: &OrderRow) -> anyhow::Result<After> {
    let mut after = view(node, &order.id).await?;
    let unfinished = |view: &OrderView| match view.status {
        Status::Confirmed => !view.shipped,
        status => status == Status::Placing,
    };
    if after.as_ref().is_some_and(unfinished) {
        place(node, order, setup::PATIENCE).await;
        after = view(node, &order.id).await?;
    }
    let net_cents = match setup::try_ask::<Payment, _>(node, &order.id, payment::Get {}).await {
        Ok(paid) => i128::from(paid.charged_cents) - i128::from(paid.refunded_cents),
        Err(AskError::Refused(_)) => 0,
        Err(AskError::Failed(error)) => return Err(error.into()),
    };
    Ok(After { view: after, net_cents })
}

async fn view(node: &Node, order: &str) -> anyhow::Result<Option<OrderView>> {
    match setup::try_ask::<Order, _>(node, order, Get {}).await {
        Ok(view) => Ok(Some(view)),
        Err(AskError::Refused(_)) => Ok(None),
        Err(AskError::Failed(error)) => Err(error.into()),
    }
}

/// The stock of every product that is known, by SKU.
async fn stocks(node: &Node, data: &Data, in_flight: usize) -> anyhow::Result<HashMap<String, StockView>> {
    let stocks: Vec<Option<StockView>> = stream::iter(&data.products)
        .map(async |product| match setup::try_ask::<Inventory, _>(node, &product.sku, inventory::Get {}).await {
            Ok(stock) => anyhow::Ok(Some(stock)),
            Err(AskError::Refused(_)) => Ok(None),
            Err(AskError::Failed(error)) => Err(error.into()),
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await?;
    Ok(stocks.into_iter().flatten().map(|stock| (stock.sku.clone(), stock)).collect())
}
