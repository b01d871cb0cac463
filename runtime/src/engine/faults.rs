//! What an actor's panics lead to: a pause that grows, then quarantine.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// Panics within [`WINDOW`] before an actor is quarantined.
pub(crate) const PANICS_MAX: u32 = 5;
/// How long panics count together; an actor that ran that long without one starts afresh.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The pause after the second panic, doubled by each further one. The first costs no pause: most
/// panics are one bad message.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The panics of one actor.
#[derive(Debug)]
pub(crate) struct Faults {
    count: u32,
    last: Instant,
    until: Option<Instant>,
    cause: String,
}

impl Faults {
    /// Counts a panic. Returns the faults, for good if the actor is now quarantined.
    pub(crate) fn after(previous: Option<Faults>, cause: String) -> Self {
        let now = Instant::now();
        let count = match previous {
            Some(previous) if now.duration_since(previous.last) < WINDOW => previous.count + 1,
            _ => 1,
        };
        let until = (count > 1).then(|| now + FIRST_PAUSE * 2u32.saturating_pow(count - 2));
        Self { count, last: now, until, cause }
    }

    /// Whether the last of them counts still.
    pub(crate) fn is_recent(&self) -> bool {
        self.last.elapsed() < WINDOW
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        self.count >= PANICS_MAX
    }

    pub(crate) fn cause(&self) -> &str {
        &self.cause
    }

    /// Refuses a call while the actor pauses or is quarantined.
    pub(crate) fn admit(&self, actor: &str, key: &str) -> Result<(), Error> {
        if self.is_quarantined() {
            return Err(Error::new(
                ErrorKind::Quarantined,
                format!(
                    "{actor}/{key} panicked {} times and is quarantined until it is released; the last cause: {}",
                    self.count, self.cause
                ),
            ));
        }
        let Some(left) = self.until.and_then(|until| until.checked_duration_since(Instant::now())) else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{actor}/{key} panicked and is started again in {} ms; the cause: {}",
                left.as_millis(),
                self.cause
            ),
        )
        .with_details(serde_json::json!({ "retry_after_ms": u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })))
    }
}
