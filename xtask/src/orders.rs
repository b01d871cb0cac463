//! The demo's data: users, products and a thousand orders, always the same ones.
//!
//! The generator decides every figure; the files in `examples/data` are what it
//! wrote last, and a test holds the two together. They are committed so that the
//! examples and other languages can read them without running anything.
//!
//! Some orders are meant to fail, each kind for another reason: see [`Order`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How many orders there are.
pub const ORDERS: usize = 1_000;
/// How many users there are.
pub const USERS: usize = 50;

/// The user whom the documentation registers by hand, `u-7`: the data agree with it, so either may come first.
const ADA: usize = 7;
/// Changing it changes every order.
const SEED: u64 = 0x67_7265_656e_726f;
/// Out of a hundred orders, how many are malformed or name what does not exist.
const INVALID_PERCENT: u64 = 4;
/// Out of a hundred orders, how many are paid with a card that will be refused.
const REFUSED_PERCENT: u64 = 8;

/// A line of `users.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `u-1` to `u-50`.
    pub id: String,
    /// A name to greet.
    pub name: String,
    /// Unique.
    pub email: String,
}

/// A line of `products.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// `tea-01`, `mug-03`: kind and number.
    pub sku: String,
    /// A name to show.
    pub name: String,
    /// What one costs.
    pub price_cents: u32,
    /// How many there are at first: of a few products fewer than will be ordered.
    pub stock: u32,
}

/// A line of `orders.jsonl`.
///
/// About 4 % are invalid (no lines, a quantity of 0, the unknown user `u-404`, the unknown product `fax-99`); about
/// 8 % carry a card that is refused; of the rest some come when the stock of what they want is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// `o-0001` to `o-1000`.
    pub id: String,
    /// Who orders.
    pub user: String,
    /// What, each product at most once.
    pub lines: Vec<Line>,
    /// `tok_ok`, `tok_declined` or `tok_insufficient`.
    pub card: String,
}

/// One product of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which product.
    pub sku: String,
    /// How many.
    pub qty: u32,
}

/// The users.
pub fn users() -> Vec<User> {
    const NAMES: [&str; 10] = ["Ada", "Bela", "Chidi", "Dana", "Emre", "Freya", "Goro", "Hana", "Ines", "Jun"];
    let user = |n: usize| {
        if n == ADA {
            return User { id: format!("u-{n}"), name: "Ada".to_owned(), email: "ada@example.com".to_owned() };
        }
        let name = NAMES[(n - 1) % NAMES.len()];
        User { id: format!("u-{n}"), name: name.to_owned(), email: format!("{}.{n}@example.com", name.to_lowercase()) }
    };
    (1..=USERS).map(user).collect()
}

/// The products with their first stock.
pub fn products() -> Vec<Product> {
    // Kind, name, price of the first, how many variants.
    const KINDS: [(&str, &str, u32, u32); 5] = [
        ("tea", "Tea", 490, 12),
        ("coffee", "Coffee", 790, 10),
        ("mug", "Mug", 1_200, 8),
        ("pot", "Teapot", 2_900, 5),
        ("filter", "Filter", 250, 5),
    ];
    let mut products = Vec::new();
    for (kind, name, price, variants) in KINDS {
        for n in 1..=variants {
            // Every fifth product is scarce: its stock does not last for all who want it.
            let stock = if products.len() % 5 == 2 { 55 } else { 500 };
            products.push(Product {
                sku: format!("{kind}-{n:02}"),
                name: format!("{name} No. {n}"),
                price_cents: price + 35 * n,
                stock,
            });
        }
    }
    products
}

/// The orders, in the order in which they are placed.
pub fn orders() -> Vec<Order> {
    let products = products();
    let mut random = SplitMix64(SEED);
    (1..=ORDERS).map(|n| order(n, &products, &mut random)).collect()
}

/// Writes the three files into a directory.
pub fn write(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, content) in files()? {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn files() -> Result<[(&'static str, String); 3]> {
    Ok([
        ("users.jsonl", json_lines(&users())?),
        ("products.jsonl", json_lines(&products())?),
        ("orders.jsonl", json_lines(&orders())?),
    ])
}

fn json_lines<T: Serialize>(items: &[T]) -> Result<String> {
    let mut text = String::new();
    for item in items {
        text.push_str(&serde_json::to_string(item)?);
        text.push('\n');
    }
    Ok(text)
}

fn order(n: usize, products: &[Product], random: &mut SplitMix64) -> Order {
    let mut wanted: Vec<Line> = Vec::new();
    for _ in 0..1 + random.below(3) {
        let sku = &products[random.index(products.len())].sku;
        let qty = [1, 1, 1, 2, 2, 3][random.index(6)];
        if wanted.iter().all(|line| line.sku != *sku) {
            wanted.push(Line { sku: sku.clone(), qty });
        }
    }
    let mut order = Order {
        id: format!("o-{n:04}"),
        user: format!("u-{}", 1 + random.index(USERS)),
        lines: wanted,
        card: "tok_ok".to_owned(),
    };
    // One throw decides, so that an order never fails for two reasons.
    match random.below(100) {
        roll if roll < INVALID_PERCENT => match roll {
            0 => order.lines.clear(),
            1 => order.lines[0].qty = 0,
            2 => order.user = "u-404".to_owned(),
            _ => order.lines[0].sku = "fax-99".to_owned(),
        },
        roll if roll < INVALID_PERCENT + REFUSED_PERCENT => {
            order.card = if roll % 2 == 0 { "tok_declined" } else { "tok_insufficient" }.to_owned();
        }
        _ => {}
    }
    order
}

/// SplitMix64: a dozen lines instead of a dependency whose next version may number differently.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, by the high bits of a product: even enough, and no division.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_committed_files_are_what_the_generator_writes() {
        let dir = crate::workspace_root().join("examples/data");
        for (name, content) in files().expect("serializable") {
            let committed = fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(committed == content, "examples/data/{name} is stale: run `cargo xtask orders`");
        }
    }

    #[test]
    fn the_shares_are_as_promised() {
        let orders = orders();
        let mut stock: HashMap<_, _> = products().into_iter().map(|p| (p.sku, p.stock)).collect();
        let (mut invalid, mut refused, mut out_of_stock) = (0, 0, 0);
        for order in &orders {
            let unknown = order.user == "u-404" || order.lines.iter().any(|line| !stock.contains_key(&line.sku));
            if unknown || order.lines.is_empty() || order.lines.iter().any(|line| line.qty == 0) {
                invalid += 1;
            } else if order.lines.iter().any(|line| stock[&line.sku] < line.qty) {
                out_of_stock += 1;
            } else if order.card != "tok_ok" {
                refused += 1;
            } else {
                for line in &order.lines {
                    *stock.get_mut(&line.sku).expect("known") -= line.qty;
                }
            }
        }
        assert_eq!((orders.len(), products().len(), users().len()), (ORDERS, 40, USERS));
        println!("invalid {invalid}, refused {refused}, out of stock {out_of_stock}");
        assert!((30..=50).contains(&invalid), "{invalid} invalid");
        assert!((60..=100).contains(&refused), "{refused} refused");
        assert!((50..=100).contains(&out_of_stock), "{out_of_stock} out of stock");
    }

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
