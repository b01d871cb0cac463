//! The journals, as they lie in their stream.

use serde::{Deserialize, Serialize};

/// One record of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the stream.
    pub sequence: u64,
    /// Whose journal it is of.
    pub key: String,
    /// The epoch of the claim under which it was written.
    pub epoch: u64,
    /// The node that wrote it.
    pub node: String,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// One event of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The list became longer by this value.
    Appended(u64),
    /// The register was overwritten.
    Written(u64),
}
