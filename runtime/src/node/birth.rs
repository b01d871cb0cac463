//! Birth: what an app is born with, and every node of it must agree to.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::builder::NodeBuilder;
use crate::error::{Error, ErrorKind};
use crate::ownership::{Entry, Key as RecordKey, Meta, WIRE};
use crate::subject::Subjects;
use crate::transport::{Bucket, Transport, WriteError};

/// Partitions of an app that is born without saying.
const PARTITIONS: u16 = 64;
/// How long a node that hosts nothing waits for an app to be born.
const BORN_WITHIN: Duration = Duration::from_secs(10);

/// Reads what the app was born with, or gives birth to it.
pub(super) async fn of(bucket: &dyn Bucket, builder: &NodeBuilder) -> Result<Meta, Error> {
    let key = RecordKey::Meta.to_string();
    let wanted =
        Meta { partitions: builder.partitions.unwrap_or(PARTITIONS), wire: WIRE, born: crate::call::wall_ms() / 1_000 };
    let found = match bucket.get(&key).await?.and_then(|record| record.value.ok()) {
        Some(value) => value,
        // Who hosts nothing does not decide how an app is born.
        // On a broker of its own there is nobody else to wait for.
        None if builder.is_guest() => born(bucket, &key, &builder.app).await?,
        None => give_birth(bucket, &key, &wanted).await?,
    };
    let Ok(Entry::Meta(meta)) = Entry::parse(RecordKey::Meta, &found) else {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the record `meta` of the app {} cannot be read", builder.app),
        ));
    };
    let disagrees = builder.partitions.is_some_and(|partitions| partitions != meta.partitions);
    if meta.wire != WIRE || disagrees || meta.partitions == 0 {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the app {} was born with {} partitions and wire version {}; this node has {} and {WIRE}. The number of partitions is fixed at birth: leave it out, or give the app another name",
                builder.app, meta.partitions, meta.wire, wanted.partitions
            ),
        ));
    }
    Ok(meta)
}

/// How many partitions an app has that was born already.
///
/// # Errors
/// `NoHost` if it was not.
pub(crate) async fn partitions_of(transport: &dyn Transport, subjects: &Subjects) -> Result<u16, Error> {
    let bucket = transport.bucket(&subjects.ownership_bucket()).await?;
    let found = bucket.get(&RecordKey::Meta.to_string()).await?.and_then(|record| record.value.ok());
    let app = subjects.app();
    let Some(found) = found else {
        return Err(Error::new(ErrorKind::NoHost, format!("no node of the app {app} has ever run on this broker")));
    };
    match Entry::parse(RecordKey::Meta, &found) {
        Ok(Entry::Meta(meta)) => Ok(meta.partitions),
        _ => Err(Error::new(ErrorKind::Config, format!("the record `meta` of the app {app} cannot be read"))),
    }
}

async fn give_birth(bucket: &dyn Bucket, key: &str, wanted: &Meta) -> Result<Bytes, Error> {
    let value = Entry::Meta(*wanted)
        .to_json()
        .map_err(|error| Error::new(ErrorKind::Internal, "the app's record cannot be written").with_source(error))?;
    match bucket.write(key, value.clone().into(), Some(0), None).await {
        Ok(_) => Ok(value.into()),
        Err(WriteError::Conflict | WriteError::Unknown(_)) => {
            let record = bucket.get(key).await?.and_then(|record| record.value.ok());
            record.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the app's record cannot be read back"))
        }
        Err(WriteError::NotSent(error)) => Err(error),
    }
}

/// Waits for an app to be born by a node that hosts something.
async fn born(bucket: &dyn Bucket, key: &str, app: &str) -> Result<Bytes, Error> {
    let deadline = Instant::now() + BORN_WITHIN;
    loop {
        if let Some(value) = bucket.get(key).await?.and_then(|record| record.value.ok()) {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            let why =
                format!("no node of the app {app} has ever run on this broker: start one that hosts something first");
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
