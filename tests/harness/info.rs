//! What a node says of itself and the others: the answer to `nats req shop.node.any.info ''`.

use serde_json::{Value, json};

use super::{Server, nats};

/// Partitions of each actor type, unless an app was born with others.
pub(crate) const PARTITIONS: u64 = 64;

/// An answer of a node.
#[derive(Clone, Debug)]
pub(crate) struct Info(pub(crate) Value);

impl Info {
    /// Asks the node of that id, or `"any"`. A frozen node is among any, too.
    pub(crate) async fn of(server: &Server, node: &str) -> Self {
        Self(nats(server, &["req", &format!("shop.node.{node}.info"), ""]).await.reply())
    }

    /// The ids of the nodes that it knows, sorted.
    pub(crate) fn nodes(&self) -> Vec<String> {
        let nodes = self.0["nodes"].as_array().into_iter().flatten();
        let mut ids: Vec<_> = nodes.filter_map(|node| node["id"].as_str()).map(str::to_owned).collect();
        ids.sort();
        ids
    }

    /// What it says of the node of that id.
    pub(crate) fn node(&self, id: &str) -> Option<&Value> {
        self.0["nodes"].as_array()?.iter().find(|node| node["id"] == json!(id))
    }

    /// The partitions of an actor type that anybody owns, sorted.
    pub(crate) fn owned(&self, actor: &str) -> Vec<u64> {
        self.numbers(actor, |_| true)
    }

    /// The partitions of an actor type that a node owns, sorted.
    pub(crate) fn owned_by(&self, actor: &str, id: &str) -> Vec<u64> {
        self.numbers(actor, |node| *node == json!(id))
    }

    fn numbers(&self, actor: &str, node: impl Fn(&Value) -> bool) -> Vec<u64> {
        let claims = self.0["claims"].as_array().into_iter().flatten();
        let claims = claims.filter(|claim| claim["actor"] == json!(actor) && node(&claim["node"]));
        let numbers = claims.filter_map(|claim| claim["partitions"].as_array()).flatten();
        let mut numbers: Vec<u64> = numbers.filter_map(Value::as_u64).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Every partition.
pub(crate) fn all_partitions() -> Vec<u64> {
    (0..PARTITIONS).collect()
}

/// A key of plain characters that begins with `prefix` and lies in that partition: FNV-1a of its
/// token, as the broker computes it.
pub(crate) fn key_in(partition: u64, prefix: &str) -> String {
    let hash = |text: &str| {
        text.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
    };
    let keys = (0_u32..).map(|number| format!("{prefix}-{number}"));
    let mut keys = keys.filter(|key| u64::from(hash(key)) % PARTITIONS == partition);
    keys.next().expect("every partition has keys")
}
