//! What can be ordered at all, before anybody is asked.

use std::collections::BTreeMap;

use greenroom::Key;
use shop_contract::order::{Line, PlaceRefused};

/// The most lines of an order.
const LINES_MAX: u32 = 100;

/// The most of one product in an order.
const QTY_MAX: u32 = 10_000;

/// One line for each SKU, in the order of the SKUs, so that the same order is always the same.
///
/// # Errors
/// The first thing that is wrong with the lines.
pub(crate) fn merged(lines: &[Line]) -> Result<Vec<Line>, PlaceRefused> {
    if lines.is_empty() {
        return Err(PlaceRefused::EmptyOrder);
    }
    if lines.len() > LINES_MAX as usize {
        return Err(PlaceRefused::TooManyLines { max: LINES_MAX });
    }
    let mut quantities: BTreeMap<&str, u32> = BTreeMap::new();
    for Line { sku, qty } in lines {
        if Key::new(sku).is_err() {
            return Err(PlaceRefused::UnknownProduct { sku: shown(sku) });
        }
        let merged = quantities.entry(sku).or_default();
        // Saturating: what is past u32 is far past the most of a product, too.
        *merged = merged.saturating_add(*qty);
        if *qty == 0 || *merged > QTY_MAX {
            return Err(PlaceRefused::BadQuantity { sku: sku.clone(), max: QTY_MAX });
        }
    }
    Ok(quantities.into_iter().map(|(sku, qty)| Line { sku: sku.to_owned(), qty }).collect())
}

/// As much of a text that is no key as belongs into an error.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
