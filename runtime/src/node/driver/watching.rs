//! What the driver sees of the bucket: every record, every change, and whether it is still the same bucket.

use std::time::Duration;

use super::sight::Seen;
use super::{BATCH, GONE_AFTER, Running, TICK};
use crate::error::Error;
use crate::ownership::{Entry, Gone, Input, Key, NodeId};
use crate::transport::Change;

impl Running {
    /// Takes what has arrived already, so that a burst is published once.
    pub(super) fn take_what_waits(&mut self) {
        for _ in 0..BATCH {
            let Some(change) = self.all.try_next() else { return };
            self.changed(change);
        }
    }

    pub(super) fn saw(&mut self, seen: Seen) {
        match seen {
            Seen::Begun => self.step(Input::SnapshotBegun),
            Seen::Change(change) => self.changed(change),
            Seen::Lost => self.all.open_again(&self.driver.bucket),
        }
    }

    pub(super) fn saw_beat(&mut self, seen: Seen) {
        match seen {
            Seen::Begun => self.step(Input::BeatsBegun),
            Seen::Change(Change::Current) => self.step(Input::BeatsShown),
            Seen::Change(Change::Entry(record)) => {
                // Whoever deletes its heartbeat has deleted its lease: it has left.
                let left = matches!(record.value, Err(crate::transport::Gone::Deleted));
                if let Some(Key::Beat(id)) = Key::parse(&record.key).filter(|_| !left) {
                    // A client takes a node for gone, and back, by this alone.
                    self.unpublished = true;
                    self.step(Input::Beat { id, revision: record.revision, beating: record.value.is_ok() });
                }
            }
            // The other watch says so too.
            Seen::Change(Change::Gone) => self.beats.open(&self.driver.bucket, TICK),
            Seen::Lost => self.beats.open_again(&self.driver.bucket),
        }
    }

    /// Watches these nodes' heartbeats from now on; and the own, which shows how late the watch is.
    pub(super) fn watch_beats(&mut self, of: &[NodeId]) {
        let own = (!self.driver.machine.is_client()).then(|| self.driver.me());
        self.beats.turn_to(of.iter().cloned().chain(own));
        self.beats.open(&self.driver.bucket, Duration::ZERO);
    }

    /// Looks whether the bucket is still the one that the node began with.
    pub(super) fn look_for_bucket(&mut self) {
        if self.looking.is_none() {
            let bucket = self.driver.bucket.clone();
            self.looking = Some(Box::pin(async move {
                let first = bucket.made().await;
                if !matches!(first, Ok(None)) {
                    return first;
                }
                tokio::time::sleep(GONE_AFTER).await;
                bucket.made().await
            }));
        }
    }

    pub(super) fn looked(&mut self, made: Result<Option<String>, Error>) {
        self.looking = None;
        match (made, &self.made) {
            (Err(_), _) => {}
            (Ok(Some(made)), None) => self.made = Some(made),
            (Ok(Some(made)), Some(before)) if made == *before => {}
            (Ok(made), _) => {
                if self.driver.machine.is_client() {
                    tracing::warn!(node = self.driver.around.id, "the app's records are gone; looking for new ones");
                    self.driver.machine = self.driver.machine.anew();
                    self.driver.around.marks.forget();
                    self.made = made;
                    self.unpublished = true;
                    self.published = None;
                    self.step(Input::Started);
                    self.own_status();
                    self.rewatch = true;
                } else {
                    self.step(Input::RecordsGone);
                }
            }
        }
    }

    pub(super) fn changed(&mut self, change: Change) {
        self.unpublished = true;
        match change {
            Change::Gone => {
                self.look_for_bucket();
                self.all.open(&self.driver.bucket, TICK);
            }
            Change::Current => {
                self.current = true;
                if self.made.is_none() {
                    self.look_for_bucket();
                }
                self.step(Input::SnapshotDone);
            }
            Change::Entry(record) => {
                let around = &self.driver.around;
                // Marks have no TTL: the watch has left it out.
                let left_out = matches!(record.value, Err(crate::transport::Gone::Expired));
                if !left_out && let Some(actor) = around.marks.learn(&record.key, record.value.as_ref().ok()) {
                    return around.duties.look(around, actor, None);
                }
                let Some(key) = Key::parse(&record.key) else {
                    if !left_out {
                        tracing::warn!(key = record.key, "an unknown record in the ownership bucket");
                    }
                    return;
                };
                let input = match record.value {
                    Ok(value) => match Entry::parse(key, &value) {
                        Ok(entry) => Input::Record { revision: record.revision, entry },
                        Err(error) => {
                            return tracing::warn!(key = record.key, %error, "an ownership record cannot be read");
                        }
                    },
                    Err(crate::transport::Gone::Deleted) => {
                        Input::Deleted { revision: record.revision, key, reason: Gone::Deleted }
                    }
                    Err(crate::transport::Gone::Expired) => {
                        Input::Deleted { revision: record.revision, key, reason: Gone::Expired }
                    }
                };
                self.step(input);
            }
        }
    }
}
