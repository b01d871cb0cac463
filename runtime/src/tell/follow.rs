//! Following: brings events from the journals of one actor type to the actors of another that has asked for them.
//!
//! One for each subscription, on the node that serves the partition of its name. Each event becomes a durable tell, so
//! that its order, its attempts, its dead letter and its effect once are those of any other; its id says which event of
//! which record it is, so it is the same whoever sends it, and however often. See [`carry`](super::carry).

use std::sync::Arc;

use futures_util::future::{BoxFuture, try_join_all};

use super::carry::{Carrying, Load, send, sender};
use super::command::Told;
use super::cursor::Cursor;
use super::dead;
use crate::call::{TurnId, wall_ms};
use crate::error::{Error, ErrorKind};
use crate::journal::{EVENTS, Record as Journaled};
use crate::key::Key;
use crate::node::duty::{Duty, Post};
use crate::node::{Hosted, Surroundings, Takes};
use crate::subscribe::{Beginning, Follows, Happening};
use crate::transport::{Record, Start, StreamConfig};

/// The duty of following.
pub(crate) struct Following;

impl Duty for Following {
    fn name(&self) -> &'static str {
        "follow"
    }

    fn is_wanted(&self, _: &Surroundings, hosted: &Hosted, partition: u16) -> bool {
        hosted.takes.iter().any(|takes| takes.partition == partition)
    }

    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let here = post.hosted.takes.iter().filter(|takes| takes.partition == post.partition);
            try_join_all(here.map(|takes| follow(&post, takes))).await.map(drop)
        })
    }
}

async fn follow(post: &Post, takes: &Takes) -> Result<(), Error> {
    let around = &post.around;
    let (actor, verb, follows) = (post.hosted.name, takes.verb, takes.follows);
    let source = follows.source;
    let config = StreamConfig::new([around.subjects.journals(source)]);
    let stream = around.transport.stream(&around.subjects.journal_stream(source), config).await?;
    let Some(mut cursor) = Cursor::open(post, format!("{actor}.{verb}")).await? else { return Ok(()) };
    let end = stream.end().await?;
    if cursor.is_new && follows.from == Beginning::Now {
        // Remembered at once: a node that dies before the first event must not move the beginning.
        cursor.save(end).await?;
    }
    if cursor.at > end {
        let why = format!(
            "the subscription {verb} of {actor} has come to {} in the journals of {source}, which end at {end}: were \
             they made anew? Delete the key {actor}.{verb} of the bucket {} to begin anew",
            cursor.at,
            around.subjects.relay_bucket()
        );
        return Err(Error::new(ErrorKind::Internal, why));
    }
    if is_in_vain(around, source) {
        tracing::warn!(actor, verb, source, "the actors whose events are wanted keep no journal, so none will come");
    }
    let records = stream.follow(Vec::new(), Start::At(cursor.at + 1)).await?;
    tracing::debug!(node = around.id, actor, verb, source, from = cursor.at + 1, "following");
    let events = Events { verb, follows };
    Carrying::new(post.clone(), Arc::new(events), cursor).run(records).await
}

/// Whether actors of this type are hosted, and none of them keeps a journal.
fn is_in_vain(around: &Surroundings, source: &str) -> bool {
    let view = around.cluster.view();
    let mut hosts = view.hosts(source).peekable();
    hosts.peek().is_some() && !hosts.any(|(id, ..)| view.is_durable(id, source))
}

/// What has happened.
struct Events {
    verb: &'static str,
    follows: Follows,
}

impl Load for Events {
    fn concerns(&self, record: &Record) -> bool {
        record.headers.get(EVENTS).is_some()
    }

    fn send(self: Arc<Self>, post: Post, record: Record) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let (subject, sequence) = (&record.subject, record.sequence);
            let token = subject.rsplit('.').next().unwrap_or_default();
            let read = Key::from_token(token).and_then(|key| Ok((key, Journaled::read(&record.body)?)));
            match read {
                Ok((key, journaled)) => self.send_all(&post, subject, &key, &journaled).await,
                Err(error) => {
                    tracing::error!(subject, sequence, %error, "this is no record of a journal; it is passed over");
                    Ok(())
                }
            }
        })
    }
}

impl Events {
    async fn send_all(&self, post: &Post, subject: &str, key: &Key, journaled: &Journaled) -> Result<(), Error> {
        let (around, actor) = (&post.around, post.hosted.name);
        let from = sender(self.follows.source, subject);
        for (number, stored) in (journaled.first..).zip(&journaled.events) {
            let happening = Happening::of(key, number, stored);
            let receiver = (self.follows.receiver)(&happening);
            // What nobody can be found for is a dead letter of the actor that has the key of its source.
            let to = match &receiver {
                Ok(None) => continue,
                Ok(Some(to)) => to,
                Err(_) => key,
            };
            let name = format!("{} {actor} {} {subject} {} {number}", around.subjects.app(), self.verb, journaled.id);
            let told = Told {
                actor: actor.to_owned(),
                key: to.clone(),
                verb: self.verb.to_owned(),
                body: happening.body()?,
                id: TurnId::named(&name),
                born: wall_ms(),
                from: Some(from.clone()),
                trace: None,
            };
            match receiver {
                Ok(_) => send(post, told).await?,
                Err(error) => dead::unsent(around, &told, &error).await?,
            }
        }
        Ok(())
    }
}
