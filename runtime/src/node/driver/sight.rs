//! A watch of some of the bucket's records, opened again whenever it is lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{TICK, WATCH_PAUSE_MAX};
use crate::error::Error;
use crate::ownership::{Key, NodeId};
use crate::subject::Filter;
use crate::transport::{Bucket, Change, Watch};

/// The records of the bucket but the heartbeats: those of [`Key`], and the marks.
const RECORDS: [&str; 8] = ["meta", "member.>", "lease.>", "part.>", "past.>", "outbox.*", "told.*", "remind.*"];

/// A watch, or the attempt to open one.
#[derive(Default)]
pub(super) struct Sight {
    /// What it shows; if that is nothing, it is not opened.
    filters: Vec<Filter>,
    watch: Option<Watch>,
    opening: Option<BoxFuture<'static, Result<Watch, Error>>>,
    /// How often in a row it could not be opened.
    failed: u32,
}

/// What a sight has to tell.
pub(super) enum Seen {
    /// It is open: everything that there is follows.
    Begun,
    Change(Change),
    /// It has to be opened again.
    Lost,
}

impl Sight {
    /// Everything but the heartbeats of others than `me`.
    pub(super) fn of_records(me: Option<NodeId>) -> Self {
        let own = me.map(beat);
        let filters = RECORDS.into_iter().map(Filter::of).chain(own).collect();
        Self { filters, ..Self::default() }
    }

    /// From the next opening on, the heartbeats of these nodes.
    pub(super) fn turn_to(&mut self, nodes: impl Iterator<Item = NodeId>) {
        self.filters = nodes.map(beat).collect();
    }

    /// Opens it anew, aside: renewals and answers go on meanwhile.
    pub(super) fn open(&mut self, bucket: &Arc<dyn Bucket>, after: Duration) {
        self.watch = None;
        let (bucket, filters) = (bucket.clone(), self.filters.clone());
        self.opening = (!filters.is_empty()).then(|| -> BoxFuture<'static, _> {
            Box::pin(async move {
                tokio::time::sleep(after).await;
                bucket.watch(filters).await
            })
        });
    }

    /// Opens it anew after a while, the longer the more often that has failed.
    pub(super) fn open_again(&mut self, bucket: &Arc<dyn Bucket>) {
        let after = match self.failed {
            0 => Duration::ZERO,
            failed => WATCH_PAUSE_MAX.min(TICK * 2_u32.saturating_pow(failed - 1)),
        };
        self.open(bucket, after);
    }

    /// Waits for something to tell; for ever, if it is not open. Safe to cancel.
    pub(super) async fn next(&mut self) -> Seen {
        if let Some(opening) = &mut self.opening {
            let opened = opening.await;
            self.opening = None;
            return match opened {
                Ok(watch) => {
                    self.failed = 0;
                    self.watch = Some(watch);
                    Seen::Begun
                }
                Err(error) => {
                    if self.failed == 0 {
                        tracing::warn!(%error, "the ownership bucket cannot be watched; trying again until it can");
                    }
                    self.failed = self.failed.saturating_add(1);
                    Seen::Lost
                }
            };
        }
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        match watch.next().await {
            Some(change) => Seen::Change(change),
            None => Seen::Lost,
        }
    }

    /// What has arrived already.
    pub(super) fn try_next(&mut self) -> Option<Change> {
        self.watch.as_mut()?.try_next()
    }
}

fn beat(node: NodeId) -> Filter {
    Filter::of(Key::Beat(node).to_string())
}
