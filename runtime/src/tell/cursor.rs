//! Cursors: how far a reading of journals has come, kept at the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::node::duty::Post;
use crate::transport::{Bucket, WriteError};

const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// Where a duty that reads journals begins. Written by compare-and-set, so that of two nodes which believe that the
/// duty is theirs one stops.
pub(super) struct Cursor {
    bucket: Box<dyn Bucket>,
    key: String,
    epoch: u64,
    revision: u64,
    /// Everything up to this sequence is done.
    pub(super) at: u64,
    /// Whether nobody has written it yet.
    pub(super) is_new: bool,
}

/// A cursor as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Everything up to this sequence is done.
    at: u64,
    /// The claim under which it was written.
    epoch: u64,
}

impl Cursor {
    /// Reads it; `None` if a later owner has written it already.
    pub(super) async fn open(post: &Post, key: String) -> Result<Option<Self>, Error> {
        let around = &post.around;
        let bucket = around.transport.bucket(&around.subjects.relay_bucket()).await?;
        let found = bucket.get(&key).await?;
        let revision = found.as_ref().map_or(0, |record| record.revision);
        let kept: Option<Kept> = match found.and_then(|record| record.value.ok()) {
            None => None,
            Some(value) => Some(serde_json::from_slice(&value).map_err(|error| {
                let why =
                    format!("how far {key} has come cannot be read; see the bucket {}", around.subjects.relay_bucket());
                Error::new(ErrorKind::Internal, why).with_source(error)
            })?),
        };
        if kept.as_ref().is_some_and(|kept| kept.epoch > post.epoch) {
            return Ok(None);
        }
        let (at, is_new) = kept.map_or((0, true), |kept| (kept.at, false));
        Ok(Some(Self { bucket, key, epoch: post.epoch, revision, at, is_new }))
    }

    /// What it is the cursor of, for people.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) async fn save(&mut self, at: u64) -> Result<(), Error> {
        let kept = serde_json::to_vec(&Kept { at, epoch: self.epoch });
        let kept = kept.map_err(|error| Error::new(ErrorKind::Internal, "a cursor is no JSON").with_source(error))?;
        let write = self.bucket.write(&self.key, kept.into(), Some(self.revision), None);
        let why = match tokio::time::timeout_at(Instant::now() + WRITE_WITHIN, write).await {
            Ok(Ok(revision)) => {
                (self.revision, self.at, self.is_new) = (revision, at, false);
                return Ok(());
            }
            Ok(Err(WriteError::Conflict)) => "another node has written it".to_owned(),
            Ok(Err(WriteError::NotSent(error) | WriteError::Unknown(error))) => error.to_string(),
            Err(_) => "the broker does not answer".to_owned(),
        };
        Err(Error::new(ErrorKind::Unavailable, format!("how far {} has come was not written: {why}", self.key)))
    }
}
