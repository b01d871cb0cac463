//! The question that a watcher asks the owner of an actor, and its answer: JSON on `{app}.node.{id}.watch`.

use std::pin::pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::table::{Live, Watcher};
use super::{Reason, Watched};
use crate::error::Error;
use crate::key::Key;
use crate::node::Surroundings;

/// What has happened to an actor since?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(super) actor: String,
    pub(super) key: String,
    /// Who asks, and the number of its watch.
    pub(super) node: String,
    pub(super) watch: u64,
    /// The activation that the watcher takes to be there; 0 for none.
    #[serde(default)]
    pub(super) live: u64,
    /// The newest end that it was told; absent in the first question to a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
    /// How long the question waits for something to happen.
    pub(super) wait_ms: u64,
    /// Whether the watch is over: then nothing is answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) over: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    /// Whether the node serves the actor, or a last turn of it.
    pub(super) here: bool,
    /// The activation that is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) live: Option<Live>,
    /// Those that have ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ends: Vec<Ended>,
    /// The newest end there was: the next question names it.
    pub(super) upto: u64,
    /// Whether more has ended than the node remembers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) missed: bool,
}

/// An activation that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) number: u64,
    pub(super) epoch: u64,
    #[serde(flatten)]
    pub(super) reason: Reason,
}

/// Answers a question to this node: at once if there is something to tell, and otherwise when there is.
pub(crate) async fn answer(around: &Arc<Surroundings>, body: &[u8]) -> Option<Vec<u8>> {
    let question: Question = match serde_json::from_slice(body) {
        Ok(question) => question,
        Err(error) => {
            tracing::warn!(%error, "a question about a watched actor cannot be read; it is dropped");
            return None;
        }
    };
    match look(around, &question).await {
        Ok(said) => said.and_then(|said| serde_json::to_vec(&said).ok()),
        Err(error) => {
            // It is asked again.
            tracing::warn!(%error, actor = question.actor, key = question.key, "a watch was not taken");
            None
        }
    }
}

/// The answer to a question, on the node that it is for; `None` if it wants none.
pub(super) async fn look(around: &Arc<Surroundings>, question: &Question) -> Result<Option<Said>, Error> {
    let key = Key::new(&question.key)?;
    let partition = around.partition_of(&key);
    let watched = Watched { actor: question.actor.clone(), key };
    let by = Watcher { node: question.node.clone(), id: question.watch };
    let table = &around.watched;
    if question.over {
        table.forget(&watched, &by);
        return Ok(None);
    }
    let Some(hosted) = around.hosted(&question.actor) else { return Ok(Some(Said::default())) };
    table.register(&watched, partition, &by, || hosted.control.live(&watched.key))?;
    let first = question.after.is_none();
    let after = question.after.unwrap_or_else(|| table.newest_end(&watched));
    let until = Instant::now() + std::time::Duration::from_millis(question.wait_ms.min(super::follow::WAIT_MS));
    while let Some(pulse) = table.pulse(&watched) {
        let mut happens = pin!(pulse.notified());
        // From here on nothing that happens is missed.
        happens.as_mut().enable();
        let over = Instant::now() >= until;
        if let Some(news) = table.news(&watched, after) {
            let serves = hosted.gate.epoch(partition) != 0;
            let here = serves || news.live.is_some();
            let differs = news.live.map_or(0, |live| live.number) != question.live;
            if first || over || !here || differs || !news.ends.is_empty() {
                let end = |(live, reason): (Live, Reason)| Ended { number: live.number, epoch: live.epoch, reason };
                let ends = news.ends.into_iter().map(end).collect();
                return Ok(Some(Said { here, live: news.live, ends, upto: news.upto, missed: news.missed }));
            }
        } else if over {
            break;
        }
        around.until(until, happens).await;
        around.check_running()?;
    }
    // Not settled yet, or the watcher was forgotten meanwhile: asked again, it is answered.
    Ok(None)
}
