//! Following an actor: where its watch asks, what it makes of the answers, and of none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::question::{self, Question, Said};
use super::table::Live;
use super::{Gone, Reason, Watch, Watched};
use crate::changes::SeenChanges;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::{Located, Surroundings};
use crate::ownership::Departure;
use crate::pending::Got;
use crate::transport::Outbound;

/// How long a question waits at the owner, at most.
pub(super) const WAIT_MS: u64 = 15_000;
/// How long its answer may be on its way beside that.
const SLACK: Duration = Duration::from_secs(5);
/// How soon an owner is looked for, or asked, again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an owner may be out of reach, with its actor claimed elsewhere, before nobody is expected to say why.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ends that wait to be taken.
const ENDS_WAITING: usize = 64;

/// Begins a watch; returns when the actor's owner knows of it.
pub(crate) async fn begin(around: &Arc<Surroundings>, actor: &str, key: &str) -> Result<Watch, Error> {
    around.check_running()?;
    let key = Key::new(key)?;
    let place = around.watching()?;
    let (ends, received) = mpsc::channel(ENDS_WAITING);
    let (ready, registered) = oneshot::channel();
    let watched = Watched { actor: actor.to_owned(), key };
    let follower = Follower {
        around: around.clone(),
        partition: around.partition_of(&watched.key),
        id: around.watched.number(),
        watched,
        ends,
        ready: Some(ready),
        at: None,
        _place: place,
    };
    let (leave, who) = (around.leave_watches.clone(), format!("{actor}/{}", follower.watched.key));
    let task = async move {
        leave.run_until_cancelled(follower.follow()).await;
    };
    let task = around.runtime.spawn(around.followers.track_future(task));
    let watch = Watch { ends: received, task: task.abort_handle() };
    let within = Instant::now() + around.settings.budget;
    match around.until(within, registered).await {
        Some(Ok(())) => Ok(watch),
        Some(Err(_)) => Err(around.stopped()),
        None => {
            let why = format!("no owner of {who} has taken the watch within {:?}", around.settings.budget);
            Err(Error::new(ErrorKind::Unavailable, why))
        }
    }
}

struct Follower {
    around: Arc<Surroundings>,
    watched: Watched,
    partition: u16,
    id: u64,
    ends: mpsc::Sender<Gone>,
    /// Told when the first owner has answered.
    ready: Option<oneshot::Sender<()>>,
    at: Option<At>,
    _place: OwnedSemaphorePermit,
}

/// The owner that knows of the watch.
#[derive(Clone, Debug)]
struct At {
    node: String,
    live: Option<Live>,
    upto: u64,
    /// Since when it has not answered.
    silent: Option<Instant>,
}

/// Nobody takes the ends any more.
struct Dropped;

impl Follower {
    async fn follow(mut self) {
        let mut versions = self.around.cluster.versions();
        loop {
            versions.mark_unchanged();
            let Some(node) = self.whom_to_ask() else {
                self.pause(&mut versions).await;
                continue;
            };
            let gone = self.around.cluster.departure(&node).is_some();
            let said = if gone { None } else { self.ask(&node).await };
            let told = match said {
                Some(said) => self.heard(&node, said).await,
                None => self.not_heard(&node).await,
            };
            match told {
                Ok(true) => {}
                Ok(false) => self.pause(&mut versions).await,
                Err(Dropped) => return,
            }
        }
    }

    fn whom_to_ask(&self) -> Option<String> {
        if let Some(at) = &self.at {
            return Some(at.node.clone());
        }
        match self.around.cluster.locate(&self.watched.actor, self.partition) {
            Located::Here { .. } => Some(self.around.id.clone()),
            Located::Node { id, .. } => Some(id.as_ref().to_owned()),
            Located::Vacant | Located::NoHosts => None,
        }
    }

    async fn pause(&self, versions: &mut SeenChanges) {
        // Whether the view has changed or not: it is looked at again.
        self.around.until(Instant::now() + AGAIN, versions.changed()).await;
    }

    async fn ask(&self, node: &str) -> Option<Said> {
        let question = Question {
            actor: self.watched.actor.clone(),
            key: self.watched.key.as_str().to_owned(),
            node: self.around.id.clone(),
            watch: self.id,
            live: self.at.as_ref().and_then(|at| at.live).map_or(0, |live| live.number),
            after: self.at.as_ref().map(|at| at.upto),
            wait_ms: WAIT_MS,
            over: false,
        };
        if node == self.around.id {
            return question::look(&self.around, &question).await.ok().flatten();
        }
        let body = serde_json::to_vec(&question).ok()?;
        let deadline = Instant::now() + Duration::from_millis(WAIT_MS) + SLACK;
        let got = self.around.exchange(Some(node), deadline, |reply| {
            Ok(Outbound::new(self.around.subjects.node(node, "watch"), body).reply_to(reply))
        });
        match got.await {
            Ok(Got::Answer(answer)) => serde_json::from_slice(&answer.body).ok(),
            Ok(Got::NoOne | Got::Lost(_) | Got::TimedOut) | Err(_) => None,
        }
    }

    /// Takes in an answer. `Ok(false)`: there is no hurry to ask again.
    async fn heard(&mut self, node: &str, said: Said) -> Result<bool, Dropped> {
        let before = self.at.take();
        if said.missed {
            self.tell(node, 0, Reason::Unknown).await?;
        }
        for end in &said.ends {
            self.tell(node, end.epoch, end.reason.clone()).await?;
        }
        if let Some(was) = before.as_ref().and_then(|at| at.live)
            && said.live.map(|live| live.number) != Some(was.number)
            && !said.ends.iter().any(|end| end.number == was.number)
            && !said.missed
        {
            // The node has forgotten the watch, and with it the end.
            self.tell(node, was.epoch, Reason::Unknown).await?;
        }
        if !said.here {
            if before.is_some() {
                self.leave(node);
            }
            return Ok(false);
        }
        if let Some(ready) = self.ready.take() {
            if said.live.is_none() {
                self.tell(node, 0, Reason::NotActive).await?;
            }
            // A beginner that has given up is seen at the next end.
            let _ = ready.send(());
        }
        self.at = Some(At { node: node.to_owned(), live: said.live, upto: said.upto, silent: None });
        Ok(true)
    }

    /// Looks what became of an owner that does not answer.
    async fn not_heard(&mut self, node: &str) -> Result<bool, Dropped> {
        let Some(at) = &mut self.at else { return Ok(false) };
        let view = self.around.cluster.view();
        let handed = view.handed_over(&self.watched.actor, self.partition);
        let moved = handed.filter(|(from, _)| from.as_str() == node).map(|(_, to)| to.as_str().to_owned());
        let moved = moved.map(|to| Reason::Moved { to });
        let reason = match self.around.cluster.departure(node) {
            Some(Departure::Left) => moved.unwrap_or(Reason::Drained),
            Some(how) => moved.unwrap_or_else(|| {
                let node = node.to_owned();
                if how == Departure::Died { Reason::NodeDied { node } } else { Reason::NodeLost { node } }
            }),
            None => {
                let elsewhere = match self.around.cluster.locate(&self.watched.actor, self.partition) {
                    Located::Node { id, .. } => *id != *node,
                    Located::Here { .. } => self.around.id != node,
                    Located::Vacant | Located::NoHosts => false,
                };
                let silent = *at.silent.get_or_insert_with(Instant::now);
                if !elsewhere || silent.elapsed() < PATIENCE {
                    return Ok(false);
                }
                moved.unwrap_or(Reason::Unknown)
            }
        };
        if let Some(live) = at.live {
            self.tell(node, live.epoch, reason).await?;
        }
        self.leave(node);
        self.at = None;
        Ok(true)
    }

    async fn tell(&self, node: &str, epoch: u64, reason: Reason) -> Result<(), Dropped> {
        let gone = Gone {
            actor: self.watched.actor.clone(),
            key: self.watched.key.as_str().to_owned(),
            node: node.to_owned(),
            epoch,
            reason,
        };
        self.ends.send(gone).await.map_err(|_| Dropped)
    }

    /// Tells a node that it need not remember this watch any more.
    fn leave(&self, node: &str) {
        let by = super::table::Watcher { node: self.around.id.clone(), id: self.id };
        if node == self.around.id {
            return self.around.watched.forget(&self.watched, &by);
        }
        let question = Question {
            actor: self.watched.actor.clone(),
            key: self.watched.key.as_str().to_owned(),
            node: by.node,
            watch: by.id,
            live: 0,
            after: None,
            wait_ms: 0,
            over: true,
        };
        let Ok(body) = serde_json::to_vec(&question) else { return };
        if let Err(error) = self.around.transport.publish(Outbound::new(self.around.subjects.node(node, "watch"), body))
        {
            // The node forgets it by itself after a while.
            tracing::debug!(%error, node, "the end of a watch was not told");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            self.leave(&at.node);
        }
    }
}
