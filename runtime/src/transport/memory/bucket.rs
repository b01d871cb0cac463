//! The memory broker's side of a bucket, and its watches.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::broker::Broker;
use super::client::Client;
use crate::error::{Error, ErrorKind};
use crate::pauses::reached;
use crate::subject::Filter;
use crate::transport::replay::{Dropped, Replay};
use crate::transport::{Bucket, Change, Entry, Gone, Status, Watch, WriteError, check};

/// How many changes may wait for the one who watches.
const WATCH_CAPACITY: usize = 256;

/// A bucket of the memory broker.
pub(super) struct MemoryBucket {
    client: Arc<Client>,
    name: String,
}

impl MemoryBucket {
    pub(super) fn new(client: Arc<Client>, name: &str) -> Self {
        Self { client, name: name.to_owned() }
    }

    fn put(
        &self,
        key: &str,
        value: Result<Bytes, Gone>,
        expect: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<u64, WriteError> {
        check::key(key).and_then(|()| self.client.check()).map_err(WriteError::NotSent)?;
        let ttl = ttl.map(check::ttl).transpose().map_err(WriteError::NotSent)?.map(Duration::from_secs);
        self.client.broker.with_bucket(&self.name, |records| records.write(key, value, expect, ttl))
    }
}

impl Bucket for MemoryBucket {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let entry = check::key(key)
            .and_then(|()| self.client.check())
            .map(|()| self.client.broker.with_bucket(&self.name, |records| records.get(key)));
        std::future::ready(entry).boxed()
    }

    fn write(
        &self,
        key: &str,
        value: Bytes,
        expect: Option<u64>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        // Not before it is polled: a write that was dropped unpolled must not have happened.
        async move { self.put(&key, Ok(value), expect, ttl) }.boxed()
    }

    fn delete(&self, key: &str, expect: u64) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        async move { self.put(&key, Err(Gone::Deleted), Some(expect), None) }.boxed()
    }

    fn made(&self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        // Nobody can delete one here.
        std::future::ready(self.client.check().map(|()| Some("at first".to_owned()))).boxed()
    }

    fn watch(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Watch, Error>> {
        let watch = self.client.check().and_then(|()| {
            let runtime = Handle::try_current()
                .map_err(|_| Error::new(ErrorKind::Config, "watching a bucket needs a tokio runtime"))?;
            let (sender, changes) = mpsc::channel(WATCH_CAPACITY);
            let status = self.client.status.subscribe();
            runtime.spawn(follow(self.client.broker.clone(), status, self.name.clone(), filters, sender));
            Ok(Watch::new(changes))
        });
        std::future::ready(watch).boxed()
    }
}

/// Gives every record and then every change, as long as somebody watches.
async fn follow(
    broker: Arc<Broker>,
    mut status: watch::Receiver<Status>,
    bucket: String,
    filters: Vec<Filter>,
    changes: mpsc::Sender<Change>,
) {
    let mut replay = Replay::default();
    loop {
        let connected = tokio::select! {
            biased;
            () = changes.closed() => return,
            status = status.wait_for(|status| *status != Status::Disconnected) => status.is_ok_and(|status| status.is_connected()),
        };
        if !connected {
            return;
        }
        tokio::select! {
            biased;
            Err(Dropped) = read(&broker, &bucket, &filters, &changes, &mut replay) => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

/// Reads during one connection; ends when nobody watches any more.
async fn read(
    broker: &Broker,
    bucket: &str,
    filters: &[Filter],
    changes: &mpsc::Sender<Change>,
    replay: &mut Replay,
) -> Result<Infallible, Dropped> {
    let mut written = broker.writes(bucket);
    let mut seen = 0;
    replay.begin();
    loop {
        written.mark_unchanged();
        while let Some(entry) = broker.with_bucket(bucket, |records| records.after(seen)) {
            let revision = entry.revision;
            if filters.is_empty() || filters.iter().any(|filter| filter.matches(&entry.key)) {
                replay.give(changes, entry).await?;
            }
            seen = revision;
        }
        replay.finish(changes).await?;
        let expiry = broker.with_bucket(bucket, |records| records.next_expiry());
        tokio::select! {
            biased;
            () = changes.closed() => return Err(Dropped),
            () = written.changed() => {}
            () = reached(expiry) => {}
        }
    }
}
