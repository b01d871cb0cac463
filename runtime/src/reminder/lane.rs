//! Lanes: on each lane of an actor type one node takes the firings, and sees that the turns are run.
//!
//! A firing is acknowledged when its turn is kept, or when there was nothing to run. If the turn failed, it is put
//! back as a wake-up for later, so that nothing stacks up here. Where an app has more partitions than lanes, the
//! actor may live on another node than its lane: that one is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::draft::{Due, Fired};
use super::wake::Firing;
use crate::error::{Error, ErrorBody, ErrorKind};
use crate::key::Key;
use crate::node::duty::{Duty, Post, lanes};
use crate::node::{Hosted, Located, Surroundings};
use crate::pending::Got;
use crate::subject::Subject;
use crate::tell::{self, Mark};
use crate::transport::{ConsumerConfig, Delivery, Inbound, Outbound};

/// How many turns of reminders one lane runs at a time.
const AT_ONCE: usize = 64;
/// How long the broker waits until it gives a firing to somebody else, after the last it heard of it: so long the
/// reminders wait whose owner died over them.
const ACK_WAIT: Duration = Duration::from_secs(5);
const STILL_AT_IT: Duration = Duration::from_secs(2);
/// How long a lane whose actor lives elsewhere waits for that node.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// When a firing comes again that could not be put back.
const NAK: Duration = Duration::from_secs(1);

/// The duty of taking the firings of a lane.
pub(crate) struct Lane;

impl Duty for Lane {
    fn name(&self) -> &'static str {
        "reminders"
    }

    fn is_wanted(&self, around: &Surroundings, hosted: &Hosted, partition: u16) -> bool {
        partition < lanes(around.settings.partitions) && around.marks.has(Mark::Reminds, hosted.name)
    }

    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(work(post))
    }
}

async fn work(post: Post) -> Result<(), Error> {
    let (around, actor, lane) = (&post.around, post.hosted.name, post.partition);
    let stream = around.wakes.stream(around).await?;
    let config = ConsumerConfig::new([around.subjects.reminder_lane(lane, actor)]).ack_wait(ACK_WAIT);
    // What an owner before this one had taken and not acknowledged comes at once.
    let Some(mut consumer) = tell::open(&post, &*stream, config).await? else { return Ok(()) };
    let mut turns = FuturesUnordered::new();
    while !post.stop.is_cancelled() {
        tokio::select! {
            biased;
            () = post.stop.cancelled() => {}
            Some(()) = turns.next(), if !turns.is_empty() => {}
            delivery = consumer.next(), if turns.len() < AT_ONCE => match delivery {
                Some(delivery) => turns.push(serve(&post, delivery)),
                None => return Ok(()),
            },
        }
    }
    // What waits here goes back; the turns that run end first.
    drop(consumer);
    while turns.next().await.is_some() {}
    Ok(())
}

/// Sees one firing through.
async fn serve(post: &Post, delivery: Delivery) {
    let Some(firing) = Firing::read(&delivery.record) else {
        tracing::warn!(subject = delivery.record.subject, "this is no firing of a reminder; it is thrown away");
        return settle(delivery.term("no firing of a reminder").await);
    };
    let mut fired = Box::pin(fire(post, &firing));
    let fired = loop {
        match tokio::time::timeout(STILL_AT_IT, &mut fired).await {
            Ok(fired) => break fired,
            Err(_) => settle(delivery.in_progress().await),
        }
    };
    match fired {
        Ok(_) => settle(delivery.ack().await),
        Err(error) => match post.around.wakes.again(&post.around, &firing, &error).await {
            Ok(()) => settle(delivery.ack().await),
            Err(_) => settle(delivery.nak(NAK).await),
        },
    }
}

/// A word that did not arrive costs a redelivery, which finds nothing to do.
fn settle(said: Result<(), Error>) {
    if let Err(error) = said {
        tracing::debug!(%error, "what became of a firing could not be said");
    }
}

/// Runs the turn where the actor lives.
async fn fire(post: &Post, firing: &Firing) -> Result<Fired, Error> {
    let (around, actor) = (&post.around, post.hosted.name);
    match around.cluster.locate(actor, around.partition_of(&firing.key)) {
        Located::Here { .. } => post.hosted.control.fire(&firing.key, firing.due.clone(), firing.born).await,
        Located::Node { id, .. } => pass_on(around, &id, &Word::of(firing)).await,
        Located::Vacant | Located::NoHosts => {
            let why = format!("nobody serves {actor}/{} just now", firing.key);
            Err(Error::new(ErrorKind::Unavailable, why))
        }
    }
}

/// What one node tells another of a firing, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Word {
    actor: String,
    key: String,
    name: String,
    number: u64,
    due: u64,
    born: u64,
}

impl Word {
    fn of(firing: &Firing) -> Self {
        let Due { name, number, due } = firing.due.clone();
        Self { actor: firing.actor.clone(), key: firing.key.as_str().to_owned(), name, number, due, born: firing.born }
    }
}

async fn pass_on(around: &Arc<Surroundings>, node: &str, word: &Word) -> Result<Fired, Error> {
    let body = serde_json::to_vec(word).unwrap_or_default();
    let told = around.exchange(Some(node), Instant::now() + TOLD_WITHIN, |reply| {
        Ok(Outbound::new(around.subjects.node(node, "remind"), body).reply_to(reply))
    });
    match told.await? {
        // An empty body says that it is dealt with; another, why not.
        Got::Answer(answer) if answer.body.is_empty() => Ok(Fired::Run),
        Got::Answer(answer) => Err(serde_json::from_slice::<ErrorBody>(&answer.body).map_or_else(
            |error| Error::new(ErrorKind::BadReply, format!("{node} answered no word")).with_source(error),
            Error::from,
        )),
        Got::NoOne | Got::Lost(_) | Got::TimedOut => {
            Err(Error::new(ErrorKind::Unavailable, format!("the node {node} does not answer about a reminder")))
        }
    }
}

/// Another node, whose lane it is, says that a reminder of an actor here is due.
pub(crate) fn heard(around: &Arc<Surroundings>, message: Inbound) {
    let reply = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
    let Some(Ok(reply)) = reply.map(Subject::parse) else { return };
    let word: Word = match serde_json::from_slice(&message.body) {
        Ok(word) => word,
        Err(error) => return tracing::warn!(%error, "a word about a reminder cannot be read"),
    };
    let Ok(place) = around.in_flight() else { return };
    let around = around.clone();
    around.clone().runtime.spawn(async move {
        let _place = place;
        let fired = async {
            let hosted = around.hosted(&word.actor).ok_or_else(|| around.stopped())?;
            let due = Due { name: word.name, number: word.number, due: word.due };
            hosted.control.fire(&Key::new(&word.key)?, due, word.born).await
        };
        let body = match fired.await {
            Ok(_) => Vec::new(),
            Err(error) => serde_json::to_vec(&ErrorBody::from(&error)).unwrap_or_default(),
        };
        if let Err(error) = around.answer(Outbound::new(reply, body)) {
            tracing::debug!(%error, "an answer about a reminder was not sent");
        }
    });
}
