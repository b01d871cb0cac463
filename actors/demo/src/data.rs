//! The files: who orders what, of which products.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};
use greenroom::Key;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shop_contract::order::Line;

/// Everything that the demo puts into the shop.
pub(crate) struct Data {
    pub(crate) users: Vec<UserRow>,
    pub(crate) products: Vec<ProductRow>,
    pub(crate) orders: Vec<OrderRow>,
}

/// A line of the users' file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A line of the products' file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductRow {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) price_cents: u64,
    pub(crate) stock: u32,
}

/// A line of the orders' file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRow {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) card: String,
}

impl Data {
    /// Reads the three files; of the orders, the first `count` if that is given.
    pub(crate) fn read(users: &Path, products: &Path, orders: &Path, count: Option<usize>) -> anyhow::Result<Self> {
        // First, as the others are looked for beside it: its absence explains theirs.
        let orders: Vec<OrderRow> = rows(orders, count.unwrap_or(usize::MAX))?;
        let users: Vec<UserRow> = rows(users, usize::MAX)?;
        let products: Vec<ProductRow> = rows(products, usize::MAX)?;
        ensure!(!orders.is_empty(), "there are no orders to place");
        if let Some(count) = count {
            ensure!(orders.len() == count, "{count} orders are asked for, and the file has {}", orders.len());
        }
        unique("order", orders.iter().map(|order| order.id.as_str()))?;
        unique("product", products.iter().map(|product| product.sku.as_str()))?;
        unique("user", users.iter().map(|user| user.id.as_str()))?;
        Ok(Self { users, products, orders })
    }
}

fn rows<T: DeserializeOwned>(path: &Path, most: usize) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows = Vec::new();
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let at = || format!("{}, line {number}", path.display());
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            rows.push(serde_json::from_str(&line).with_context(at)?);
        }
        if rows.len() >= most {
            break;
        }
    }
    Ok(rows)
}

/// The audit counts each of them once, so each must be there once; and each must be a key.
fn unique<'a>(what: &str, ids: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for id in ids {
        Key::new(id).with_context(|| format!("the {what} {id:?}"))?;
        ensure!(seen.insert(id), "the {what} {id} is there twice");
    }
    Ok(())
}
