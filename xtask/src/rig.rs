//! What `cargo xtask failover` and `cargo xtask faults` have in common: real processes, and the judging of what they did.
//!
//! The processes are those of `tests/rig`: nodes that host cells, callers that write down every call, and a reader of
//! journals. This starts and stops them, and compares what callers were told with what the journals hold. It knows
//! nothing of the runtime: the two sides meet in files of one JSON object a line.

mod journal;

mod programs;

mod stage;

mod figures;

#[cfg(test)]
mod tests;

pub use greenroom_history::{Call, Change, Entry, Operation, Outcome, extend, now_us};

pub use figures::Spread;
pub use journal::{Verdict, judge};
pub use programs::{Programs, RIG_VARIABLE, Speed};
pub use stage::{Brokers, Stage, StageOptions, Told};

/// The app that the processes make.
pub const APP: &str = "rig";
