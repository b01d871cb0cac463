//! Listening: what reaches a node, and where it goes.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::discovery::{ClusterInfo, Discovery};
use super::doubt::{AWAKE, Doubt};
use super::driver::Feed;
use super::hosted::Hosted;
use super::intake::Intakes;
use super::keeper::{Job, Word};
use super::probe::{self, Mapping};
use super::serve::Taken;
use super::surroundings::Surroundings;
use super::{chase, passing, serve};
use crate::error::{Error, ErrorKind};
use crate::executor::Executor;
use crate::key::Key;
use crate::reminder;
use crate::subject::{Call as Asked, FLUSH_VERB, Filter, PROBE_VERB, Subject, Subjects};
use crate::transport::{Inbound, Outbound, Status, Subscription, Transport};
use crate::wire::reply_headers;

/// Messages from other nodes that may wait to be dispatched.
const NODE_CAPACITY: usize = 65_536;
/// Ends of connections that may wait to be looked at.
const NOTICE_CAPACITY: usize = 1_024;
/// Calls of outsiders that may wait for one instance, or to be passed on.
const CALL_CAPACITY: usize = 16_384;

/// Listens to what other nodes say, to `$SRV`, and to calls that must be passed on.
pub(super) async fn listen(inner: &Arc<Inner>, feed: &Feed, jobs: &mpsc::Sender<Job>) -> Result<(), Error> {
    let around = &inner.around;
    let (subjects, transport) = (&around.subjects, &around.transport);
    let said = transport.subscribe(&subjects.node_all(&around.id), None, NODE_CAPACITY).await?;
    let intakes = Intakes::new(around.clone(), inner.stop.clone(), inner.nodes.clone());
    let watched = intakes.clone();
    spawn_until(&around.runtime, inner.stop.clone(), async move { watched.watch().await });
    let heard = hear_nodes(around.clone(), inner.leave_nodes.clone(), said, feed.clone(), jobs.clone(), intakes);
    let stop = inner.stop.clone();
    let task = async move {
        stop.run_until_cancelled(heard).await;
    };
    around.runtime.spawn(inner.nodes.track_future(task));
    for filter in ["$SRV.*", "$SRV.*.*", "$SRV.*.*.*"] {
        let mut asked = transport.subscribe(&Filter::of(filter), None, 1_024).await?;
        let discovery = Discovery::new(around.clone());
        spawn_until(&around.runtime, stop_of(&around.node), async move {
            while let Some(message) = asked.next().await {
                discovery.answer(&message);
            }
        });
    }
    let sends = around.clone();
    spawn_until(&around.runtime, inner.stop.clone(), async move { sends.frames.run(&*sends.transport).await });
    let anybody = transport.subscribe(&subjects.any_node(), Some("any"), 1_024).await?;
    let flush = subjects.node("any", FLUSH_VERB);
    let asked = around.clone();
    serve_until(
        inner,
        take_until(anybody, flush, inner.leave_services.clone().cancelled_owned(), move |message| {
            match message.subject.rsplit('.').next() {
                Some("info") => info(&asked, &message),
                verb => unknown(&asked, verb.unwrap_or_default(), &message),
            }
        }),
    );
    watch_connection(around);
    for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
        let partitions = around.settings.partitions;
        let found = probe::mapping(&*around.transport, &around.subjects, &around.id, partitions, hosted.name).await?;
        if found == Mapping::Absent {
            pass_calls_on(inner, hosted).await?;
        }
    }
    Ok(())
}

/// Listens to what the broker says of connections that have ended. Without it, leases decide alone.
pub(super) async fn notices(subjects: &Subjects, transport: &dyn Transport) -> Option<Subscription> {
    match transport.subscribe(&subjects.disconnects(), None, NOTICE_CAPACITY).await {
        Ok(notices) => Some(notices),
        Err(error) => {
            tracing::warn!(%error, "the broker does not tell of connections that end; leases decide alone");
            None
        }
    }
}

/// Takes what other nodes say. When it is to leave, what is on its way is still answered.
async fn hear_nodes(
    around: Arc<Surroundings>,
    leave: CancellationToken,
    mut said: Subscription,
    feed: Feed,
    jobs: mpsc::Sender<Job>,
    intakes: Arc<Intakes>,
) {
    let mut leaving = false;
    let mut doubt = Doubt::new(around.clone());
    loop {
        tokio::select! {
            biased;
            () = leave.cancelled(), if !leaving => {
                leaving = true;
                said.leave(around.subjects.node(&around.id, FLUSH_VERB)).await;
            }
            () = doubt.look() => {}
            message = said.next() => match message {
                Some(message) => node_message(&around, &feed, &jobs, &intakes, &mut doubt, message).await,
                None => return,
            },
        }
    }
}

/// Runs a task that takes calls: a drain waits for it, and a node that is cut off ends it.
fn serve_until(inner: &Inner, task: impl Future<Output = ()> + Send + 'static) {
    let stop = inner.stop.clone();
    let task = async move {
        stop.run_until_cancelled(task).await;
    };
    inner.around.runtime.spawn(inner.services.track_future(task));
}

fn stop_of(node: &std::sync::OnceLock<std::sync::Weak<Inner>>) -> CancellationToken {
    node.get().and_then(std::sync::Weak::upgrade).map(|inner| inner.stop.clone()).unwrap_or_default()
}

fn spawn_until(runtime: &Executor, stop: CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    runtime.spawn(async move {
        stop.run_until_cancelled(task).await;
    });
}

async fn node_message(
    around: &Arc<Surroundings>,
    feed: &Feed,
    jobs: &mpsc::Sender<Job>,
    intakes: &Arc<Intakes>,
    doubt: &mut Doubt,
    message: Inbound,
) {
    let mut tokens = message.subject.split('.').skip(3);
    let (Some(verb), number) = (tokens.next(), tokens.next()) else { return };
    match verb {
        "r" => {
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                around.pending.answered(number, message);
            }
        }
        "in" => intakes.take(message, doubt.count()),
        AWAKE => doubt.heard(&message.body),
        "call" => {
            if let Some((subject, message)) = passing::taken(around, message)
                && let Err(mpsc::error::SendError(Job::Call { message, .. })) =
                    jobs.send(Job::Call { subject, message }).await
            {
                let why = "the node that the call was passed on to has stopped; nothing was run";
                serve::refuse(around, &message, Error::new(ErrorKind::Stopped, why));
            }
        }
        "info" => info(around, &message),
        "remind" => reminder::heard(around, message),
        "probe" => chase::heard(around, &message.body),
        "watch" => watched(around, message),
        "offer" | "ready" | "idle" => match serde_json::from_slice::<Word>(&message.body) {
            Ok(word) => {
                let answer = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
                let answer = answer.and_then(|reply| Subject::parse(reply).ok());
                if let Some(fed) = word.fed(verb, answer) {
                    feed.hear(fed).await;
                }
            }
            Err(error) => tracing::warn!(subject = message.subject, %error, "a word of another node cannot be read"),
        },
        verb => unknown(around, verb, &message),
    }
}

/// Answers who watches an actor of this node, when there is something to tell.
fn watched(around: &Arc<Surroundings>, message: Inbound) {
    let reply = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
    let reply = reply.and_then(|reply| Subject::parse(reply).ok());
    let asked = around.clone();
    spawn_until(&around.runtime, around.stop(), async move {
        if let (Some(said), Some(reply)) = (crate::watch::answer(&asked, &message.body).await, reply)
            && let Err(error) = asked.answer(Outbound::new(reply, said))
        {
            tracing::debug!(%error, "news of a watched actor were not sent; they are asked for again");
        }
    });
}

/// What people may ask a node.
fn unknown(around: &Arc<Surroundings>, verb: &str, message: &Inbound) {
    tracing::debug!(subject = message.subject, "an unknown message for this node");
    let why = format!("a node has no verb {verb:?}; it has info");
    let error = Error::new(ErrorKind::UnknownVerb, why).with_details(serde_json::json!({ "verbs": ["info"] }));
    serve::refuse(around, message, error);
}

fn info(around: &Arc<Surroundings>, message: &Inbound) {
    let reply = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
    let Some(Ok(reply)) = reply.map(Subject::parse) else { return };
    let answer = Outbound::new(reply, ClusterInfo::of(around).to_json()).with_headers(reply_headers());
    if let Err(error) = around.answer(answer) {
        tracing::debug!(%error, "an answer about this node was not sent");
    }
}

/// Answers to calls that were on their way are lost with the connection: whoever waits is told, also
/// if another connection has taken its place before anybody looked.
fn watch_connection(around: &Arc<Surroundings>) {
    let mut status = around.transport.status();
    let watched = around.clone();
    spawn_until(&around.runtime, stop_of(&around.node), async move {
        let mut known = status.borrow_and_update().clone();
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            if now == known {
                continue;
            }
            let kept = match (&known, &now) {
                // Servers number their clients alike, so the number tells on the same one only.
                (Status::Connected { server: old, .. }, Status::Connected { server, .. }) if old != server => None,
                (_, Status::Connected { client, .. }) => Some(*client),
                (_, Status::Disconnected | Status::Closed) => None,
            };
            watched.pending.connection_lost(kept);
            tracing::warn!(node = watched.id, from = ?known, to = ?now, "the connection to the broker changed");
            known = now;
        }
    });
}

/// Where the broker has no mapping: every host of an actor takes calls to it, in a queue group, and
/// passes them on to their owner.
async fn pass_calls_on(inner: &Arc<Inner>, hosted: &Arc<Hosted>) -> Result<(), Error> {
    let around = &inner.around;
    let filter = around.subjects.calls(hosted.name);
    let calls = around.transport.subscribe(&filter, Some("forward"), CALL_CAPACITY).await?;
    let flush = around.subjects.call_token(hosted.name, FLUSH_VERB, FLUSH_VERB);
    let (around, hosted) = (around.clone(), hosted.clone());
    let take = move |message: Inbound| {
        let subject = message.subject.clone();
        if Asked::keyed(&subject).is_some_and(|call| call.verb != PROBE_VERB) {
            pass_or_serve(&around, &hosted, &subject, Taken::new(&around, message));
        }
    };
    serve_until(inner, take_until(calls, flush, inner.leave_services.clone().cancelled_owned(), take));
    Ok(())
}

fn pass_or_serve(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Taken) {
    let key = Asked::keyed(subject).map(|asked| Key::from_token(asked.token));
    match key {
        Some(Ok(key)) if hosted.gate.check(around.partition_of(&key), &key).is_ok() => {
            serve::outside(around, hosted, subject, message)
        }
        Some(Ok(_)) => passing::pass_on(around, hosted, subject, message),
        Some(Err(error)) => serve::refuse(around, &message, error),
        None => {}
    }
}

/// Listens to calls of this node's services: as many queue subscriptions as the pool has
/// instances, so that the broker's lot falls by weight.
pub(super) async fn listen_for_services(inner: &Arc<Inner>) -> Result<(), Error> {
    let around = &inner.around;
    for hosted in around.all_hosted().values().filter(|hosted| !hosted.keyed) {
        for _ in 0..hosted.pool {
            let filter = around.subjects.services(hosted.name);
            let calls = around.transport.subscribe(&filter, Some(hosted.name), CALL_CAPACITY).await?;
            let flush = around.subjects.service(hosted.name, FLUSH_VERB);
            let (leaves, over) = (inner.leave_services.clone(), hosted.over.clone());
            let leave = async move {
                tokio::select! { () = leaves.cancelled() => {}, () = over.cancelled() => {} }
            };
            let (around, hosted) = (around.clone(), hosted.clone());
            let take = move |message: Inbound| {
                let subject = message.subject.clone();
                serve::outside(&around, &hosted, &subject, Taken::new(&around, message));
            };
            serve_until(inner, take_until(calls, flush, leave, take));
        }
    }
    Ok(())
}

/// Gives every message to `take`; when it is to leave, also those that are on their way.
async fn take_until(mut calls: Subscription, flush: Subject, leave: impl Future<Output = ()>, take: impl Fn(Inbound)) {
    let mut leave = pin!(leave);
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            () = &mut leave, if !leaving => {
                leaving = true;
                calls.leave(flush.clone()).await;
            }
            message = calls.next() => match message {
                Some(message) => take(message),
                None => return,
            },
        }
    }
}
