//! What the driver sees of the bucket: every record, every change, and whether it is still the same bucket.

use std::time::Duration;

use super::{BATCH, GONE_AFTER, Running, TICK, WATCH_PAUSE_MAX};
use crate::error::Error;
use crate::ownership::{Entry, Gone, Input, Key};
use crate::transport::{Change, Watch};

impl Running {
    /// Takes what has arrived already, so that a burst is published once.
    pub(super) fn take_what_waits(&mut self) {
        for _ in 0..BATCH {
            let Some(Some(change)) = self.watch.as_mut().map(Watch::try_next) else { return };
            self.changed(change);
        }
    }

    /// Begins to watch, aside: renewals and answers go on meanwhile.
    pub(super) fn open_watch(&mut self, after: Duration) {
        self.watch = None;
        let bucket = self.driver.bucket.clone();
        self.opening = Some(Box::pin(async move {
            tokio::time::sleep(after).await;
            bucket.watch().await
        }));
    }

    pub(super) fn opened(&mut self, opened: Result<Watch, Error>) {
        self.opening = None;
        match opened {
            Ok(watch) => {
                self.unwatched = 0;
                self.watch = Some(watch);
                self.step(Input::SnapshotBegun);
            }
            Err(error) => {
                if self.unwatched == 0 {
                    tracing::warn!(%error, "the ownership bucket cannot be watched; trying again until it can");
                }
                self.open_watch(WATCH_PAUSE_MAX.min(TICK * 2_u32.saturating_pow(self.unwatched)));
                self.unwatched = self.unwatched.saturating_add(1);
            }
        }
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
                self.open_watch(TICK);
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
                if let Some(actor) = around.marks.learn(&record.key, record.value.as_ref().ok()) {
                    return around.duties.look(around, actor, None);
                }
                let Some(key) = Key::parse(&record.key) else {
                    return tracing::warn!(key = record.key, "an unknown record in the ownership bucket");
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

pub(super) async fn next_change(watch: &mut Option<Watch>) -> Option<Change> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}
