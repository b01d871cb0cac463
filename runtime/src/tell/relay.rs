//! The relay: brings what the turns of an actor type have sent from their journals into the command stream.
//!
//! One for each type, on the node that serves its partition 0. It follows the headers of the journals, and reads the
//! records that have something to send; see [`carry`](super::carry).

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::carry::{Carrying, Load, send, sender};
use super::command::Told;
use super::cursor::Cursor;
use super::marks::Mark;
use crate::error::Error;
use crate::journal::{OUTBOX, Record as Journaled};
use crate::node::duty::{Duty, Post};
use crate::node::{Hosted, Surroundings};
use crate::subject::Filter;
use crate::transport::{Record, Start, Stream, StreamConfig};

/// The duty of relaying.
pub(crate) struct Relay;

impl Duty for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn is_wanted(&self, around: &Surroundings, hosted: &Hosted, partition: u16) -> bool {
        partition == 0 && around.marks.has(Mark::Sends, hosted.name)
    }

    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(relay(post))
    }
}

async fn relay(post: Post) -> Result<(), Error> {
    let around = &post.around;
    let actor = post.hosted.name;
    let config = StreamConfig::new([around.subjects.journals(actor)]);
    let stream: Arc<dyn Stream> =
        Arc::from(around.transport.stream(&around.subjects.journal_stream(actor), config).await?);
    let Some(mut cursor) = Cursor::open(&post, actor.to_owned()).await? else { return Ok(()) };
    cursor.at = cursor.at.max(around.marks.begin(actor).saturating_sub(1));
    let follow = stream.follow_headers(Vec::new(), Start::At(cursor.at + 1)).await?;
    tracing::debug!(node = around.id, actor, from = cursor.at + 1, "relaying");
    Carrying::new(post.clone(), Arc::new(Outboxes { stream }), cursor).run(follow).await
}

/// What turns have sent.
struct Outboxes {
    stream: Arc<dyn Stream>,
}

impl Load for Outboxes {
    fn concerns(&self, record: &Record) -> bool {
        record.headers.get(OUTBOX).is_some()
    }

    fn send(self: Arc<Self>, post: Post, record: Record) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move { send_all(&post, &*self.stream, &record.subject, record.sequence).await })
    }
}

/// Sends what one record has to send, in its order.
async fn send_all(post: &Post, stream: &dyn Stream, source: &str, sequence: u64) -> Result<(), Error> {
    let record = stream.next(&Filter::of(source), sequence).await?;
    // One that an operator has deleted has nothing to send any more.
    let Some(record) = record.filter(|record| record.sequence == sequence) else { return Ok(()) };
    let journaled = Journaled::read(&record.body)?;
    let from = sender(post.hosted.name, source);
    for tell in &journaled.tells {
        match Told::of(tell, &from) {
            Ok(told) => send(post, told).await?,
            Err(error) => {
                tracing::error!(source, sequence, %error, "a durable tell names what cannot be; it is passed over")
            }
        }
    }
    Ok(())
}
