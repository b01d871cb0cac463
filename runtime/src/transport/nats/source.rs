//! The NATS side of a subscription: one subscriber of the library after another, one for each
//! connection, and the way out that loses nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::ROUND_TRIP;
use super::link::{Link, from_wire};
use super::shared::Shared;
use crate::subject::Subject;
use crate::transport::Inbound;
use crate::transport::subscription::is_flush;

/// How many messages the broker may still give to one that leaves. Must exceed what it sends
/// between our last look and its reading of our word, so for a busy subscription what comes in
/// [`LEAVE_PAUSE`] is added: this task or the connection's may be paused in between.
const LEAVE_AFTER: u64 = 1_024;
/// The same for a subscription to which nothing came lately: every one of these costs a flush message.
const LEAVE_IDLE_AFTER: u64 = 256;
const LEAVE_PAUSE: Duration = Duration::from_millis(50);
/// How many flush messages are published before the broker must say that it has seen them: few
/// enough to leave room in the connection's queue for everybody else.
const BURST: usize = 128;
/// After this long a leaving subscription ends, come what may.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What the connection knows of a subscription: what to subscribe to, and where to put it.
pub(super) struct Slot {
    pub(super) filter: String,
    pub(super) queue: Option<String>,
    dropped: AtomicU64,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    fresh: Option<(Arc<Link>, Subscriber)>,
    closed: bool,
    left: bool,
    waker: Option<Waker>,
}

impl Slot {
    pub(super) fn new(filter: &str, queue: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            filter: filter.to_owned(),
            queue: queue.map(str::to_owned),
            dropped: AtomicU64::new(0),
            state: Mutex::new(SlotState::default()),
        })
    }

    /// Whether a new connection should subscribe again.
    pub(super) fn is_wanted(&self) -> bool {
        !self.state.lock().left
    }

    /// A connection has subscribed.
    pub(super) fn offer(&self, link: Arc<Link>, subscriber: Subscriber) {
        self.change(|state| {
            // One who has begun to leave takes nothing new up.
            if !state.left {
                state.fresh = Some((link, subscriber));
            }
        });
    }

    /// There will be no further connection.
    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// A message was thrown away because too many were waiting.
    pub(super) fn count_dropped(&self, connection: &str) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped.is_power_of_two() {
            tracing::warn!(connection, filter = %self.filter, dropped, "a subscription is too slow and loses messages");
        }
    }

    fn change(&self, change: impl FnOnce(&mut SlotState)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Where a subscription on NATS gets its messages from.
pub(in crate::transport) struct NatsSource {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    current: Option<(Arc<Link>, Subscriber)>,
    /// How many messages came from the current subscriber.
    received: u64,
    /// Messages taken from the current subscriber ahead of time, while leaving.
    ahead: VecDeque<Message>,
    leaving: Option<Leaving>,
}

struct Leaving {
    flush: Subject,
    link: Arc<Link>,
    /// At how many messages broker and client stop.
    until: u64,
    /// The burst of flush messages that is under way. Never locked, only there to be `Sync`.
    burst: Mutex<BoxFuture<'static, ()>>,
    deadline: Pin<Box<Sleep>>,
}

impl NatsSource {
    pub(super) fn new(shared: Arc<Shared>, slot: Arc<Slot>) -> Self {
        Self { shared, slot, current: None, received: 0, ahead: VecDeque::new(), leaving: None }
    }

    pub(in crate::transport) fn dropped(&self) -> u64 {
        self.slot.dropped.load(Ordering::Relaxed)
    }

    pub(in crate::transport) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if let Some(message) = self.ahead.pop_front() {
            return Poll::Ready(Some(inbound(message)));
        }
        loop {
            if let Some((_, subscriber)) = &mut self.current {
                match subscriber.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => {
                        self.received += 1;
                        return Poll::Ready(Some(inbound(message)));
                    }
                    Poll::Pending => match ready!(self.poll_leaving(cx)) {
                        Leave::GoOn => continue,
                        Leave::GiveUp => return Poll::Ready(None),
                    },
                    Poll::Ready(None) => self.current = None,
                }
            }
            // Broker and client have counted to the same number, or the connection is gone and
            // with it all that was in flight.
            if let Some(leaving) = &self.leaving {
                if self.received > leaving.until {
                    let (filter, until) = (&self.slot.filter, leaving.until);
                    tracing::warn!(%filter, until, received = self.received, "left without certainty: too much was in flight");
                }
                return Poll::Ready(None);
            }
            let mut state = self.slot.state.lock();
            if let Some(fresh) = state.fresh.take() {
                self.current = Some(fresh);
                self.received = 0;
            } else if state.closed || state.left {
                return Poll::Ready(None);
            } else {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }

    /// See [`Subscription::leave`](crate::transport::Subscription::leave).
    pub(in crate::transport) async fn leave(&mut self, flush: Subject) {
        if self.leaving.is_some() {
            return;
        }
        // No connection to come shall subscribe again.
        self.slot.state.lock().left = true;
        self.take_waiting();
        let Some((link, _)) = &self.current else { return };
        let link = link.clone();
        // What comes within one round trip is what can be in flight. If the broker does not
        // answer at all, the connection is about to be given up, and this subscription with it.
        let (before, began) = (self.ahead.len(), Instant::now());
        link.round_trip(ROUND_TRIP).await.ok();
        let took = began.elapsed().max(Duration::from_micros(1));
        self.take_waiting();
        let came = self.ahead.iter().skip(before).filter(|message| !is_flush(&message.subject)).count() as f64;
        let busy = came * LEAVE_PAUSE.max(4 * took).as_secs_f64() / took.as_secs_f64();
        let idle = self.ahead.is_empty();
        let margin = if idle { LEAVE_IDLE_AFTER } else { LEAVE_AFTER };
        let more = margin + busy.min(self.shared.settings.backlog as f64 / 2.0) as u64;
        let Some((_, subscriber)) = &mut self.current else { return };
        let until = self.received + more;
        if subscriber.unsubscribe_after(until).await.is_err() {
            return;
        }
        let burst = Mutex::new(burst(link.clone(), flush.clone()));
        let deadline = Box::pin(tokio::time::sleep(LEAVE_WITHIN));
        self.leaving = Some(Leaving { flush, link, until, burst, deadline });
    }

    /// Takes what has been delivered already, so that our count is the client's.
    fn take_waiting(&mut self) {
        // Bounded: the library's own channel gives no more than that without a pause.
        for _ in 0..=self.shared.settings.backlog {
            if self.current.is_none() && !self.take_up() {
                return;
            }
            let Some((_, subscriber)) = &mut self.current else { return };
            match tokio::task::unconstrained(subscriber.next()).now_or_never() {
                Some(Some(message)) => {
                    self.received += 1;
                    self.ahead.push_back(message);
                }
                Some(None) => self.current = None,
                None => return,
            }
        }
    }

    /// Goes on with the subscriber of a new connection, if there is one.
    fn take_up(&mut self) -> bool {
        self.current = self.slot.state.lock().fresh.take();
        self.received = 0;
        self.current.is_some()
    }

    /// Nothing to receive just now: if we are leaving, see to it that something comes.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Leave> {
        let Some(leaving) = &mut self.leaving else { return Poll::Pending };
        if leaving.deadline.poll_unpin(cx).is_ready() {
            tracing::warn!(
                filter = self.slot.filter,
                "left without certainty: the broker did not flush the subscription within {LEAVE_WITHIN:?}",
            );
            self.current = None;
            return Poll::Ready(Leave::GiveUp);
        }
        ready!(leaving.burst.get_mut().poll_unpin(cx));
        *leaving.burst.get_mut() = burst(leaving.link.clone(), leaving.flush.clone());
        Poll::Ready(Leave::GoOn)
    }
}

/// How a subscription that leaves goes on when nothing is waiting.
enum Leave {
    /// The broker has seen a burst: look again.
    GoOn,
    /// It took too long.
    GiveUp,
}

/// Publishes some flush messages and waits until the broker has seen them, so that one who leaves
/// is never faster than broker and connection are.
fn burst(link: Arc<Link>, flush: Subject) -> BoxFuture<'static, ()> {
    async move {
        // Never closed, so the permit always comes.
        let _turn = link.flushing.acquire().await;
        for _ in 0..BURST {
            // A full queue empties itself; a lost connection ends the stream.
            if link.publish(flush.as_str(), None, None, Bytes::new()).is_err() {
                break;
            }
        }
        if link.round_trip(ROUND_TRIP).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    .boxed()
}

/// A message of the library as ours.
pub(super) fn inbound(message: Message) -> Inbound {
    Inbound {
        no_responders: message.status == Some(async_nats::StatusCode::NO_RESPONDERS),
        headers: from_wire(message.headers.as_ref()),
        subject: message.subject.into_string(),
        reply: message.reply.map(async_nats::Subject::into_string),
        body: message.payload,
    }
}
