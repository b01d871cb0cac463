//! What following a stream makes of its consumers.

use async_nats::Message;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{delivered_record, reading_from};
use crate::subject::Filter;
use crate::transport::Record;
use crate::transport::nats::follow::{Place, Reader};
use crate::transport::replay::Dropped;

/// One who follows a stream.
pub(super) struct StreamReader {
    stream: String,
    filters: Vec<Filter>,
    headers_only: bool,
    /// The lowest sequence that was not given yet.
    next: u64,
}

impl StreamReader {
    pub(super) fn new(stream: &str, filters: Vec<Filter>, next: u64, headers_only: bool) -> Self {
        Self { stream: stream.to_owned(), filters, headers_only, next }
    }
}

impl Reader for StreamReader {
    type Item = Record;

    fn what(&self) -> String {
        format!("the stream {}", self.stream)
    }

    fn stream(&self) -> String {
        self.stream.clone()
    }

    fn wanted(&self) -> Value {
        let mut wanted = reading_from(self.next, &self.filters);
        wanted["headers_only"] = Value::Bool(self.headers_only);
        wanted
    }

    async fn begin(&mut self, _: u64, _: &mpsc::Sender<Record>) -> Result<(), Dropped> {
        Ok(())
    }

    async fn take(&mut self, place: Place, message: Message, to: &mpsc::Sender<Record>) -> Result<(), Dropped> {
        // A replica that lags behind begins before it was told to.
        if place.stream < self.next {
            return Ok(());
        }
        let room = to.reserve().await.map_err(|_| Dropped)?;
        self.next = place.stream + 1;
        room.send(delivered_record(&place, message));
        Ok(())
    }

    async fn idle(&mut self, _: &mpsc::Sender<Record>) -> Result<(), Dropped> {
        Ok(())
    }
}
