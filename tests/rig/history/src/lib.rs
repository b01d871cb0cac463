//! What the rig's processes write down, and `xtask` judges: one JSON object a line.
//!
//! A crate of its own, because the two sides must not depend on each other: the processes are made of the runtime, and
//! `xtask` has to build when that one does not.

mod entry;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use entry::{Change, Entry};

/// Microseconds on the clock that all processes of this machine share and nobody sets.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// The digest of a list that is longer by one value: FNV-1a (64 bits) over the digest before and the value, both with
/// the lowest byte first. An empty list has the digest 0.
pub fn extend(digest: u64, value: u64) -> u64 {
    let bytes = digest.to_le_bytes().into_iter().chain(value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What a cell can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// Add a value to the list.
    Append {
        /// Appended by this call and no other.
        value: u64,
    },
    /// Overwrite the register.
    Set {
        /// Written by this call and no other.
        value: u64,
    },
    /// Overwrite the register if it holds what is expected.
    Cas {
        /// What it must hold.
        expected: u64,
        /// Written by this call and no other.
        value: u64,
    },
    /// Show both.
    Get,
}

impl Operation {
    /// The value that it leaves in a journal, if it takes effect; none leaves the same.
    pub fn value(&self) -> Option<u64> {
        match self {
            Self::Append { value } | Self::Set { value } | Self::Cas { value, .. } => Some(*value),
            Self::Get => None,
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// The cell said no: what it held is known.
    Refused,
    /// It was certainly not run.
    Failed,
    /// Nobody knows: it may have taken effect, or may do so at any later time.
    Info,
}

/// One call. Times are microseconds of [`now_us`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Who made it: one caller makes one call at a time, but for 0, who makes many.
    pub client: u32,
    /// Of which cell.
    pub key: String,
    /// What was asked.
    #[serde(flatten)]
    pub operation: Operation,
    /// Before anything of it was sent.
    pub invoked_us: u64,
    /// When its end was known.
    pub ended_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What the register held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<u64>,
    /// How long the list was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digest, see [`extend`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<u64>,
    /// The id of the node whose turn it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why it was not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Call {
    /// A call that begins now. Until something else is known, nothing is.
    pub fn begin(client: u32, key: &str, operation: Operation) -> Self {
        Self {
            client,
            key: key.to_owned(),
            operation,
            invoked_us: now_us(),
            ended_us: u64::MAX,
            outcome: Outcome::Info,
            register: None,
            length: None,
            digest: None,
            node: None,
            error: None,
        }
    }
}
