//! Passing on: an outsider's call that came to a node which does not own its actor goes to the one that does.
//!
//! The owner says that it has the call before it does anything with it, and answers the outsider itself. So a call
//! that nobody has is passed on again, and one whose owner died is not waited for in silence.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Located;
use super::hosted::Hosted;
use super::serve::{Taken, refuse};
use super::surroundings::Surroundings;
use crate::call::not_started;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::pending::Got;
use crate::subject::{Call as Asked, Subject};
use crate::transport::{Headers, Inbound, Outbound};
use crate::wire::{OutsideCall, REPLY, SUBJECT, TIMEOUT};

/// How often the owner is looked for again, if nothing is heard of a change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long the owner has at least to say that it has a call.
const SAYS_SO: Duration = Duration::from_millis(500);

/// Passes an outsider's call on to the node that owns its actor, reply subject and remaining time
/// kept. Waits, within the call's own time, for a partition that has no owner just now.
pub(super) fn pass_on(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Taken) {
    let Ok(place) = around.in_flight() else {
        let error = Error::new(ErrorKind::Overloaded, "too many calls wait to be passed on to another node");
        return refuse(around, &message, error);
    };
    let (task, hosted, subject) = (around.clone(), hosted.clone(), subject.to_owned());
    let passing = async move {
        if let Err(error) = pass(&task, &hosted, &subject, &message).await {
            refuse(&task, &message, error);
        }
        drop(place);
    };
    around.runtime.spawn(around.passing.track_future(passing));
}

/// Takes a call that another node has passed on: tells it so, and gives the call as its sender meant it.
pub(super) fn taken(around: &Arc<Surroundings>, mut message: Inbound) -> Option<(String, Taken)> {
    let subject = message.headers.get(SUBJECT)?.to_owned();
    let passed_by = message.reply.take();
    message.reply = message.headers.get(REPLY).map(str::to_owned);
    if let Some(Ok(passed_by)) = passed_by.as_deref().map(Subject::parse)
        && let Err(error) = around.answer(Outbound::new(passed_by, ""))
    {
        tracing::debug!(%error, "the node that passed a call on was not told that it arrived");
    }
    Some((subject, Taken::new(around, message)))
}

async fn pass(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: &Taken) -> Result<(), Error> {
    let asked = Asked::keyed(subject)
        .ok_or_else(|| Error::new(ErrorKind::BadRequest, "that is no subject of a keyed actor"))?;
    let key = Key::from_token(asked.token)?;
    let partition = around.partition_of(&key);
    OutsideCall::read(&message.headers, around.settings.budget)?;
    let (ends, deadline) = (message.until, message.start_by);
    if ends <= Instant::now() {
        return Err(not_started(hosted.name, key.as_str()));
    }
    loop {
        let mut versions = around.cluster.versions();
        let located = around.cluster.locate(hosted.name, partition);
        let held = matches!(located, Located::Here { .. });
        match located {
            Located::Node { id, .. } => {
                let headers = onward(message, subject, ends);
                // A node that is there says so within milliseconds: near the end of its time a call must not be given
                // up, and then be answered after all.
                let told = deadline.max(Instant::now() + SAYS_SO);
                let sent = around.exchange(Some(&id), told, |reply| {
                    let call = Outbound::new(around.subjects.node(&id, "call"), message.body.clone());
                    Ok(call.with_headers(headers).reply_to(reply))
                });
                match sent.await {
                    Ok(Got::Answer(_)) => return Ok(()),
                    Ok(Got::Lost(why)) => return fate_unknown(around, &format!("{}/{key}", hosted.name), why),
                    // Nobody has it: its owner is gone, and another will be.
                    Ok(Got::NoOne) => {}
                    Ok(Got::TimedOut) => {
                        return fate_unknown(
                            around,
                            &format!("{}/{key}", hosted.name),
                            "it did not say that it has it",
                        );
                    }
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error),
                }
            }
            Located::Here { .. } if hosted.gate.check(partition, &key).is_ok() => {
                super::partition::deliver(around, hosted, subject, message.clone());
                return Ok(());
            }
            Located::NoHosts if around.cluster.is_current() => {
                return Err(Error::new(ErrorKind::NoHost, format!("no node hosts {}", hosted.name)));
            }
            Located::Here { .. } | Located::Vacant | Located::NoHosts => {}
        }
        let nap = Instant::now() + LOOK_AGAIN;
        around.until(nap.min(deadline), versions.changed()).await;
        if Instant::now() >= deadline {
            if held {
                // Its turn still runs on another node.
                return Err(not_started(hosted.name, key.as_str()));
            }
            let why = format!("the partition of {}/{key} had no owner in time; nothing was run", hosted.name);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
    }
}

fn onward(message: &Taken, subject: &str, ends: Instant) -> Headers {
    let mut headers = message.headers.clone();
    headers.set(SUBJECT, subject);
    let left = ends.saturating_duration_since(Instant::now());
    headers.set(TIMEOUT, u64::try_from(left.as_millis()).unwrap_or(u64::MAX).to_string());
    if let Some(reply) = message.reply.as_deref() {
        headers.set(REPLY, reply);
    }
    headers
}

/// A node that stops says nothing: the owner may have the call, and answer it.
fn fate_unknown(around: &Surroundings, actor: &str, why: &str) -> Result<(), Error> {
    if around.check_running().is_err() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unknown, format!("the owner of {actor} was asked, and {why}; it may have run the call")))
}
