//! The signals that end a node.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals this soon after the first are the same wish: GNU `timeout` sends SIGTERM to the process and then to its
/// group, and a terminal sends Ctrl-C to a whole group that may pass it on.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Listens for SIGTERM and Ctrl-C.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next signal.
    pub(crate) async fn wanted(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns at the next signal that is not part of the same wish as the last.
    pub(crate) async fn insisted(&mut self) {
        let one_wish = tokio::time::sleep(ONE_WISH);
        tokio::pin!(one_wish);
        loop {
            tokio::select! {
                () = &mut one_wish => break,
                () = self.wanted() => {}
            }
        }
        self.wanted().await;
    }
}
