//! Doubt: what a node has not read before it stood still, or lost its connection, may have been sent long ago.
//!
//! Its sender may have given up, or have asked another node since. So such frames are answered *moved*, and whoever
//! still waits asks again. They end where a message comes back that the node has sent to itself after that: on the
//! subject on which frames come, so that everything that waited there came before it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::surroundings::Surroundings;
use crate::transport::{Outbound, Status};

/// How late the clock of a node may tick.
const STALL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// The verb of the message by which a node finds out that it has read everything.
pub(super) const AWAKE: &str = "awake";

/// Whether a node reads what may be old.
pub(super) struct Doubt {
    around: Arc<Surroundings>,
    status: watch::Receiver<Status>,
    tick: Interval,
    ticked: Instant,
    /// What the message says that ends it; `None` if there is no doubt.
    since: Option<u64>,
    /// Whether that message was sent.
    sent: bool,
    last: u64,
}

impl Doubt {
    pub(super) fn new(around: Arc<Surroundings>) -> Self {
        let mut status = around.transport.status();
        status.mark_unchanged();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { around, status, tick, ticked: Instant::now(), since: None, sent: false, last: 0 }
    }

    /// Waits until there is something to look at, and looks. Safe to cancel.
    pub(super) async fn look(&mut self) {
        tokio::select! {
            biased;
            _ = self.tick.tick() => {
                self.is_there();
                self.ticked = Instant::now();
            }
            Ok(()) = self.status.changed() => {
                if self.status.borrow_and_update().is_connected() {
                    self.begin();
                }
            }
        }
        if self.since.is_some() && !self.sent {
            self.send();
        }
    }

    /// Whether what is read now may be old.
    pub(super) fn is_there(&mut self) -> bool {
        if self.ticked.elapsed() > STALL {
            tracing::warn!(node = self.around.id, late = ?self.ticked.elapsed(), "this node stood still");
            self.ticked = Instant::now();
            self.begin();
        }
        self.since.is_some()
    }

    /// How often there was doubt so far, if there is none of what is read now.
    pub(super) fn count(&mut self) -> Option<u64> {
        (!self.is_there()).then_some(self.last)
    }

    /// Takes a message that the node has sent to itself.
    pub(super) fn heard(&mut self, body: &[u8]) {
        if self.since.is_some_and(|since| body == since.to_string().as_bytes()) {
            self.since = None;
        }
    }

    fn begin(&mut self) {
        self.last += 1;
        self.around.doubts.store(self.last, Ordering::Release);
        (self.since, self.sent) = (Some(self.last), false);
        self.send();
    }

    fn send(&mut self) {
        let subject = self.around.subjects.node(&self.around.id, AWAKE);
        let message = Outbound::new(subject, self.last.to_string());
        // What cannot be sent now is sent at the next tick.
        self.sent = self.around.transport.publish(message).is_ok();
    }
}
