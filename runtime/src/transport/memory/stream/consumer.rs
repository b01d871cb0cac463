//! The memory broker's side of a durable consumer.

use std::sync::Arc;

use super::super::client::Client;
use crate::error::Error;
use crate::pauses::reached;
use crate::transport::stream::Word;
use crate::transport::{ConsumerConfig, Delivery, Status};

/// A hold on a durable consumer. Nothing waits here: the broker is asked for each record.
pub(in crate::transport) struct MemoryConsumer {
    client: Arc<Client>,
    stream: String,
    name: String,
}

impl MemoryConsumer {
    pub(super) fn open(client: Arc<Client>, stream: &str, name: &str, config: ConsumerConfig) -> Result<Self, Error> {
        client.check()?;
        client.broker.streams.with_leader(stream, |log, _| log.consumer(name, config))??;
        Ok(Self { client, stream: stream.to_owned(), name: name.to_owned() })
    }

    pub(in crate::transport) fn try_next(&mut self) -> Result<Option<Delivery>, Error> {
        self.client.check()?;
        let given = self.client.broker.streams.with_leader(&self.stream, |log, _| log.deliver(&self.name))?;
        Ok(given.map(|(record, times)| {
            let receipt = MemoryReceipt {
                client: self.client.clone(),
                stream: self.stream.clone(),
                consumer: self.name.clone(),
                sequence: record.sequence,
            };
            Delivery::memory(record, times, receipt)
        }))
    }

    pub(in crate::transport) async fn next(&mut self) -> Option<Delivery> {
        let mut status = self.client.status.subscribe();
        let client = self.client.clone();
        let streams = &client.broker.streams;
        let mut changes = streams.changes(&self.stream);
        loop {
            let back = status.wait_for(|status| *status != Status::Disconnected).await;
            if !back.is_ok_and(|status| status.is_connected()) {
                return None;
            }
            changes.mark_unchanged();
            if let Ok(Some(delivery)) = self.try_next() {
                return Some(delivery);
            }
            let due = streams.with(&self.stream, |log, faults| {
                log.next_due_of(&self.name).into_iter().chain(faults.next_due()).min()
            });
            tokio::select! {
                biased;
                () = changes.changed() => {}
                changed = status.changed() => changed.ok()?,
                () = reached(due.ok()?) => {}
            }
        }
    }
}

/// Where to say what became of a record.
pub(in crate::transport) struct MemoryReceipt {
    client: Arc<Client>,
    stream: String,
    consumer: String,
    sequence: u64,
}

impl MemoryReceipt {
    pub(in crate::transport) fn say(&self, word: Word) -> Result<(), Error> {
        self.client.check()?;
        let streams = &self.client.broker.streams;
        streams.with_leader(&self.stream, |log, _| log.hear(&self.consumer, self.sequence, &word))
    }
}
