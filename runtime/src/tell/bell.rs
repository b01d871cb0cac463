//! The bell: how nodes notice that somebody who is no node has told an actor type durably.
//!
//! Whoever publishes to the command stream by hand makes no mark. So every host of a type that has none yet listens for
//! its durable tells, as one of a queue group, and makes the mark when it hears one; what it hears is in the stream
//! already. It also looks into the stream when it begins. Once the mark is there, nobody listens any more.

use std::sync::Arc;
use std::time::Duration;

use super::command;
use super::marks::Mark;
use crate::error::Error;
use crate::node::Surroundings;
use crate::pauses::Pauses;

/// The queue group of those who listen.
const LISTENERS: &str = "bell";
/// One is enough.
const CAPACITY: usize = 16;
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Listens for an actor type that this node hosts, until it has its mark.
pub(crate) async fn listen(around: Arc<Surroundings>, actor: &'static str) {
    let mut pauses = Pauses::new(AGAIN_FIRST, AGAIN_MAX);
    while !around.marks.has(Mark::Told, actor) {
        if let Err(error) = hear(&around, actor).await {
            let pause = pauses.next();
            tracing::debug!(actor, %error, "nobody would notice what is told durably by hand; trying again in {pause:?}");
            tokio::time::sleep(pause).await;
        }
    }
}

async fn hear(around: &Surroundings, actor: &'static str) -> Result<(), Error> {
    let mut marks = around.marks.versions();
    let subjects = &around.subjects;
    let mut rung = around.transport.subscribe(&subjects.commands_for(actor), Some(LISTENERS), CAPACITY).await?;
    // Made here, so that there is something to publish to; and what came before anybody listened counts too.
    let stream = command::open(around).await?;
    if stream.next(&subjects.lanes(actor), 1).await?.is_none() {
        loop {
            tokio::select! {
                biased;
                rung = rung.next() => match rung {
                    Some(_) => break,
                    // The node stops.
                    None => return std::future::pending().await,
                },
                () = marks.changed() => if around.marks.has(Mark::Told, actor) { return Ok(()) },
            }
        }
    }
    around.marks.set(around, Mark::Told, actor, async { Ok(None) }).await
}
