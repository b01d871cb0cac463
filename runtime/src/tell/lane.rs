//! Lanes: the way of durable tells from the stream to their receivers.
//!
//! A lane is the share of an actor type's keys that one consumer of the stream brings, on the node that serves the
//! partition of the same number. The tells of one key are delivered one after the other, in the order of the stream:
//! the next begins when the one before was acknowledged, by then committed or a dead letter. Different keys go side by
//! side. The consumer bears the claim's epoch: an heir removes those of earlier epochs, and what they had not
//! acknowledged comes to the heir at once and in order. A tell whose turn has committed may come again then; it is
//! known by its id.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::command::{self, Stored};
use super::dead;
use super::delivery::{self, Ended};
use super::marks::Mark;
use crate::error::{Error, ErrorKind};
use crate::node::duty::{Duty, Post, lanes};
use crate::node::{Hosted, Surroundings};
use crate::pauses::Pauses;
use crate::subject::Filter;
use crate::transport::{Consumer, ConsumerConfig, Delivery, Status, Stream};

/// Tells of one lane that are here and not acknowledged.
const HELD_MAX: usize = 128;
/// How many of them are asked for at once.
const FETCH: usize = 32;
/// After so long the broker gives out again what was not acknowledged. Nothing waits for that but what a fault of ours
/// has lost.
const ACK_WAIT: Duration = Duration::from_secs(300);
/// How often an heir removes consumers before it begins again from the start.
const OPEN_TRIES: usize = 20;
const OPEN_AGAIN: Duration = Duration::from_millis(20);
const ACK_FIRST: Duration = Duration::from_millis(20);
const ACK_MAX: Duration = Duration::from_secs(1);
/// How long turns that run may take once the lane is another's.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// The duty of delivering one lane.
pub(crate) struct Lanes;

impl Duty for Lanes {
    fn name(&self) -> &'static str {
        "lane"
    }

    fn is_wanted(&self, around: &Surroundings, hosted: &Hosted, partition: u16) -> bool {
        partition < lanes(around.settings.partitions) && around.marks.has(Mark::Told, hosted.name)
    }

    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(work(post))
    }
}

async fn work(post: Post) -> Result<(), Error> {
    let stream = command::open(&post.around).await?;
    let wanted = ConsumerConfig::new([post.around.subjects.lane(post.hosted.name, post.partition)])
        .ack_wait(ACK_WAIT)
        .max_ack_pending(HELD_MAX)
        .fetch(FETCH);
    let mut lane = Lane {
        post: post.clone(),
        stream: stream.clone(),
        held: BTreeMap::new(),
        keys: HashMap::new(),
        running: FuturesUnordered::new(),
    };
    let mut status = post.around.transport.status();
    let mut client = post.around.client();
    let Some(mut consumer) = open(&post, &*stream, wanted.clone()).await? else { return Ok(()) };
    while let Step::Reconnected = lane.run(&mut consumer, &mut status, client).await? {
        // What was on its way to the connection before would be given out again in minutes: a new consumer has it now.
        client = post.around.client();
        match open(&post, &*stream, wanted.clone()).await? {
            Some(opened) => consumer = opened,
            None => return Ok(()),
        }
    }
    drop(consumer);
    lane.finish().await;
    Ok(())
}

/// The consumer of a lane under this claim, made anew; those of earlier claims are removed. `None` if a later claim
/// has one already.
pub(crate) async fn open(post: &Post, stream: &dyn Stream, wanted: ConsumerConfig) -> Result<Option<Consumer>, Error> {
    let prefix = format!("{}-{}-", post.hosted.name, post.partition);
    let mut last = None;
    for _ in 0..OPEN_TRIES {
        for name in stream.consumers().await? {
            let epoch = name.strip_prefix(&prefix).and_then(|epoch| epoch.parse::<u64>().ok());
            match epoch {
                Some(epoch) if epoch > post.epoch => return Ok(None),
                Some(_) => stream.remove_consumer(&name).await?,
                None => {}
            }
        }
        if !post.holds() {
            return Err(Error::new(ErrorKind::Unavailable, "the claim of the lane is not held any more"));
        }
        match stream.consumer(&format!("{prefix}{}", post.epoch), wanted.clone()).await {
            Ok(consumer) => return Ok(Some(consumer)),
            // One of an earlier claim may have been made in between.
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(OPEN_AGAIN).await;
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "the consumer of the lane cannot be made")))
}

/// How a consumer was left.
enum Step {
    Stopped,
    /// The connection is another one now.
    Reconnected,
}

/// The latest word on where a tell is to be acknowledged.
type Receipt = Arc<Mutex<Arc<Delivery>>>;

struct Lane {
    post: Post,
    stream: Arc<dyn Stream>,
    /// What is here and not acknowledged, by sequence.
    held: BTreeMap<u64, Receipt>,
    /// By token: the sequences of a key's tells. The first is on its way.
    keys: HashMap<String, VecDeque<u64>>,
    running: FuturesUnordered<BoxFuture<'static, (u64, String, bool)>>,
}

impl Lane {
    async fn run(
        &mut self,
        consumer: &mut Consumer,
        status: &mut watch::Receiver<Status>,
        client: Option<u64>,
    ) -> Result<Step, Error> {
        let stop = self.post.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Step::Stopped),
                Some((sequence, token, settled)) = self.running.next(), if !self.running.is_empty() => {
                    self.ended(sequence, &token, settled);
                }
                Ok(()) = status.changed() => {
                    let connected = status.borrow_and_update().is_connected();
                    if connected && self.post.around.client() != client {
                        return Ok(Step::Reconnected);
                    }
                }
                delivery = consumer.next(), if self.held.len() < HELD_MAX => match delivery {
                    Some(delivery) => self.take(delivery),
                    None => return Ok(Step::Stopped),
                },
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let sequence = delivery.record.sequence;
        if let Some(receipt) = self.held.get(&sequence) {
            // Given out again while it is being dealt with: from now on it is acknowledged here.
            *receipt.lock() = Arc::new(delivery);
            return;
        }
        let token = delivery.record.subject.rsplit('.').nth(1).unwrap_or_default().to_owned();
        self.held.insert(sequence, Arc::new(Mutex::new(Arc::new(delivery))));
        let waiting = self.keys.entry(token.clone()).or_default();
        waiting.push_back(sequence);
        if waiting.len() == 1 {
            self.start(sequence, token);
        }
    }

    fn start(&mut self, sequence: u64, token: String) {
        let Some(receipt) = self.held.get(&sequence).cloned() else { return };
        let (post, stream) = (self.post.clone(), self.stream.clone());
        self.running.push(Box::pin(async move {
            let settled = settle(&post, &*stream, &receipt).await;
            (sequence, token, settled)
        }));
    }

    fn ended(&mut self, sequence: u64, token: &str, settled: bool) {
        if !settled {
            // The lane is another's: what is left of this key is the other's too.
            return;
        }
        self.held.remove(&sequence);
        let Some(waiting) = self.keys.get_mut(token) else { return };
        waiting.pop_front();
        match waiting.front().copied() {
            Some(next) => self.start(next, token.to_owned()),
            None => drop(self.keys.remove(token)),
        }
    }

    /// Lets turns that run end and be acknowledged; nothing new is begun.
    async fn finish(mut self) {
        let finish = async { while self.running.next().await.is_some() {} };
        drop(tokio::time::timeout(FINISH_WITHIN, finish).await);
    }
}

/// Delivers one tell, and acknowledges it when nothing is left to be done for it. `false` if that is another's now.
async fn settle(post: &Post, stream: &dyn Stream, receipt: &Receipt) -> bool {
    let delivery = receipt.lock().clone();
    let tell = Stored::of(delivery.record.clone());
    drop(delivery);
    match delivery::deliver(post, &tell).await {
        Ended::Done => {}
        Ended::Left => return false,
        Ended::Dead(death) => {
            let mut pauses = Pauses::new(ACK_FIRST, ACK_MAX);
            while let Err(error) = dead::bury(&post.around, &tell, &death).await {
                tracing::warn!(subject = tell.record.subject, %error, "a dead letter was not kept; trying again");
                if post.stop.run_until_cancelled(tokio::time::sleep(pauses.next())).await.is_none() {
                    return false;
                }
            }
        }
    }
    acknowledge(post, stream, receipt).await
}

/// Says that it is done, until the broker has heard it.
async fn acknowledge(post: &Post, stream: &dyn Stream, receipt: &Receipt) -> bool {
    let mut pauses = Pauses::new(ACK_FIRST, ACK_MAX);
    loop {
        let delivery = receipt.lock().clone();
        let Err(error) = delivery.ack().await else { return true };
        // It may have been heard, and only the answer was lost.
        let record = &delivery.record;
        let found = stream.next(&Filter::of(record.subject.as_str()), record.sequence).await;
        if found.is_ok_and(|found| found.is_none_or(|found| found.sequence != record.sequence)) {
            return true;
        }
        tracing::debug!(subject = record.subject, %error, "a durable tell was not acknowledged; trying again");
        if post.stop.run_until_cancelled(tokio::time::sleep(pauses.next())).await.is_none() {
            return false;
        }
    }
}
