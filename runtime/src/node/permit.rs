//! Permits to read: the proof that this node still was the owner a moment ago.
//!
//! A read of a durable actor appends nothing, so nothing would tell an owner that was superseded. So it is answered
//! only if the lease is proved, and a message to the broker and back on the owning connection was sent less than 5 ms
//! ago, or after the read arrived. Whoever takes over waits for longer than that before it answers anything. One
//! permit serves every read of the node.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::surroundings::Surroundings;
use crate::error::{Error, ErrorKind};
use crate::ownership::PERMIT_MS;

/// For how long a permit is good, from before its message was sent.
const GOOD_FOR: Duration = Duration::from_millis(PERMIT_MS);

/// The newest permit of a node.
#[derive(Debug)]
pub(crate) struct Permits {
    /// When the node began.
    began: Instant,
    /// When the last message was sent that came back while the lease was proved.
    proved: Mutex<Option<Instant>>,
    /// When the last message that came back was sent.
    sent: Mutex<Option<Instant>>,
    /// Held by the one who fetches.
    fetching: tokio::sync::Mutex<()>,
}

impl Permits {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            proved: Mutex::default(),
            sent: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }
}

impl Surroundings {
    /// How long ago this node was certainly the owner of what it owns.
    pub(crate) fn age(&self) -> Duration {
        self.permits.proved.lock().unwrap_or(self.permits.began).elapsed()
    }

    /// Takes in that a message sent then came back on the owning connection.
    pub(super) fn came_back(&self, sent: Instant) {
        if self.proof.holds() {
            let mut newest = self.permits.proved.lock();
            *newest = (*newest).max(Some(sent));
        }
    }

    /// Waits for a permit. Costs nothing if there was a read just now, and a round trip otherwise.
    ///
    /// # Errors
    /// `Unavailable` if the lease is not proved, or the broker does not answer.
    pub(crate) async fn permit(self: &Arc<Self>) -> Result<(), Error> {
        let arrived = Instant::now();
        let good = |sent: Instant| sent >= arrived || sent.elapsed() < GOOD_FOR;
        if !self.permits.sent.lock().is_some_and(good) {
            let _one = self.permits.fetching.lock().await;
            if !self.permits.sent.lock().is_some_and(good) {
                let sent = Instant::now();
                self.transport.flush().await?;
                *self.permits.sent.lock() = Some(sent);
                self.came_back(sent);
            }
        }
        if self.proof.holds() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the node that owns this actor cannot prove its lease just now"))
    }
}
