//! A bucket: a stream that keeps the last message of each subject, as the `nats kv` commands know
//! it. Written by plain publishes, since the library's own helpers lose the time to live.

mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use self::watch::WatchReader;
use super::follow;
use super::jetstream;
use super::shared::Shared;
use crate::error::Error;
use crate::subject::Filter;
use crate::transport::stream::EXPECTED;
use crate::transport::{Bucket, Entry, Gone, Watch, WriteError, check};

/// How long the marker of an expired record stays.
const MARKER_TTL: Duration = Duration::from_secs(10);
/// How long that of a deleted one stays: a broker cuts off whoever takes nothing for so long, and a watch begins anew
/// after that. So none misses a deletion.
const DELETED_TTL: Duration = Duration::from_secs(600);
/// How many changes may wait for the one who watches, besides those that the connection keeps.
const WATCH_CAPACITY: usize = 256;

/// What a bucket that was there already should have in common with one of ours.
const FIELDS: &[&str] = &[
    "storage",
    "num_replicas",
    "max_msgs_per_subject",
    "discard",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
];

/// A bucket on JetStream.
pub(super) struct NatsBucket {
    shared: Arc<Shared>,
    name: String,
}

impl NatsBucket {
    /// Binds the bucket, creating its stream if there is none.
    pub(super) async fn open(shared: Arc<Shared>, name: &str) -> Result<Self, Error> {
        check::bucket_name(name)?;
        let wanted = stream_config(name, shared.settings.replicas);
        jetstream::open(&shared, &format!("the bucket {name}"), &wanted, FIELDS).await?;
        Ok(Self { shared, name: name.to_owned() })
    }

    fn subject(&self, key: &str) -> Result<String, Error> {
        check::key(key)?;
        Ok(format!("$KV.{}.{key}", self.name))
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = json!({ "last_by_subj": self.subject(key)? });
        let what = format!("{key} of the bucket {}", self.name);
        let message = jetstream::message(&self.shared, &format!("KV_{}", self.name), &request, &what).await?;
        Ok(message.map(|message| Entry {
            key: key.to_owned(),
            revision: message.sequence,
            value: value(Some(&message.headers), message.payload),
        }))
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Option<u64>,
        mut headers: HeaderMap,
    ) -> Result<u64, WriteError> {
        let subject = self.subject(key).map_err(WriteError::NotSent)?;
        if let Some(expect) = expect {
            headers.insert(EXPECTED, expect.to_string());
        }
        jetstream::write(&self.shared, &subject, Some(headers), value, key).await
    }
}

impl Bucket for NatsBucket {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let key = key.to_owned();
        async move { self.read(&key).await }.boxed()
    }

    fn write(
        &self,
        key: &str,
        value: Bytes,
        expect: Option<u64>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        async move {
            let mut headers = HeaderMap::new();
            if let Some(ttl) = ttl {
                let seconds = check::ttl(ttl).map_err(WriteError::NotSent)?;
                headers.insert("Nats-TTL", format!("{seconds}s"));
            }
            self.put(&key, value, expect, headers).await
        }
        .boxed()
    }

    fn delete(&self, key: &str, expect: u64) -> BoxFuture<'_, Result<u64, WriteError>> {
        let key = key.to_owned();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("KV-Operation", "PURGE");
            headers.insert("Nats-Rollup", "sub");
            headers.insert("Nats-TTL", format!("{}s", DELETED_TTL.as_secs()));
            self.put(&key, Bytes::new(), Some(expect), headers).await
        }
        .boxed()
    }

    fn made(&self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        async move {
            let live = self.shared.live()?;
            let made = live.link.made(&self.shared.settings.api_prefix, &format!("KV_{}", self.name)).await;
            made.map_err(|error| error.into_error("the broker does not say whether the bucket is there"))
        }
        .boxed()
    }

    fn watch(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Watch, Error>> {
        async move {
            let reader = WatchReader::new(&self.name, &filters);
            Ok(Watch::new(follow::start(&self.shared, reader, WATCH_CAPACITY).await?))
        }
        .boxed()
    }
}

/// A record's value from a message of its stream.
fn value(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Bytes, Gone> {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    if header("Nats-Marker-Reason") == Some("MaxAge") {
        return Err(Gone::Expired);
    }
    if header("Nats-Marker-Reason").is_some() || matches!(header("KV-Operation"), Some("DEL" | "PURGE")) {
        return Err(Gone::Deleted);
    }
    Ok(payload)
}

fn stream_config(name: &str, replicas: usize) -> Value {
    json!({
        "name": format!("KV_{name}"),
        "subjects": [format!("$KV.{name}.>")],
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": false,
        "allow_msg_ttl": true,
        "subject_delete_marker_ttl": MARKER_TTL.as_nanos() as u64,
    })
}
