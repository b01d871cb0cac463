//! Requests over an inbox of our own.
//!
//! The client library's `request` forgets nobody who timed out and does not notice a lost
//! connection; here both are cleaned up at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::link::Link;
use crate::error::{Error, ErrorKind};

/// How many answers may be outstanding on one connection.
const OUTSTANDING_MAX: usize = 16_384;

/// How long after the broker has seen a message its refusal may take to be told.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// What became of a request that brought no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// Nothing was sent, or it reached nobody.
    NotSent(Error),
    /// It was sent, and that is all that is known.
    Unknown(Error),
}

impl CallError {
    pub(super) fn into_error(self) -> Error {
        match self {
            CallError::NotSent(error) => error,
            // For a request that changes nothing, no answer is as good as not asked.
            CallError::Unknown(error) => Error::new(ErrorKind::Unavailable, error.message().to_owned()),
        }
    }
}

/// The requests that wait for an answer on one connection.
pub(super) struct Calls {
    inbox: String,
    next: AtomicU64,
    /// `None` once the connection is gone.
    waiting: Mutex<Option<HashMap<u64, Waiting>>>,
}

struct Waiting {
    subject: String,
    answer: oneshot::Sender<Result<Message, Refused>>,
}

/// The broker does not let this user publish there.
struct Refused;

impl Calls {
    pub(super) fn new(prefix: &str) -> Self {
        Self { inbox: fresh_inbox(prefix), next: AtomicU64::new(1), waiting: Mutex::new(Some(HashMap::new())) }
    }

    /// What to subscribe to, for [`answer`](Self::answer).
    pub(super) fn filter(&self) -> String {
        format!("{}.*", self.inbox)
    }

    /// Hands an answer to whoever waits for it.
    pub(super) fn answer(&self, message: Message) {
        let number = message.subject.strip_prefix(&self.inbox).and_then(|rest| rest.strip_prefix('.'));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return };
        let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
        if let Some(waiting) = waiting {
            // An error here means that the asker has just given up.
            waiting.answer.send(Ok(message)).ok();
        }
    }

    /// The broker refused a publish to this subject: those who published there need not wait.
    pub(super) fn refused(&self, subject: &str) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        let numbers: Vec<u64> =
            waiting.iter().filter(|(_, call)| call.subject == subject).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(call) = waiting.remove(&number) {
                call.answer.send(Err(Refused)).ok();
            }
        }
    }

    /// The connection is gone: nobody need wait any longer.
    pub(super) fn fail(&self) {
        self.waiting.lock().take();
    }

    fn forget(&self, number: u64) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&number);
        }
    }
}

/// Takes a request out again when its asker gives up.
struct Turn<'a> {
    calls: &'a Calls,
    number: u64,
    answer: oneshot::Receiver<Result<Message, Refused>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.calls.forget(self.number);
    }
}

impl Link {
    /// Sends a request and waits for its first answer.
    pub(super) async fn call(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        body: Bytes,
        within: Duration,
    ) -> Result<Message, CallError> {
        let mut turn = self.wait_for(|_| subject.to_owned()).map_err(CallError::NotSent)?;
        let reply = format!("{}.{}", self.calls.inbox, turn.number);
        self.publish(subject, Some(&reply), headers, body).map_err(CallError::NotSent)?;
        match tokio::time::timeout(within, &mut turn.answer).await {
            Ok(Ok(Ok(message))) if message.status == Some(async_nats::StatusCode::NO_RESPONDERS) => {
                Err(CallError::NotSent(unavailable(format!("nobody answers on {subject} just now"))))
            }
            Ok(Ok(Ok(message))) => Ok(message),
            Ok(Ok(Err(Refused))) => Err(CallError::NotSent(unavailable(format!(
                "the broker does not let this user publish to {subject}: see its permissions"
            )))),
            Ok(Err(_)) => {
                Err(CallError::Unknown(unknown(format!("the connection was lost before the answer to {subject} came"))))
            }
            Err(_) => Err(CallError::Unknown(unknown(format!("no answer to {subject} within {within:?}")))),
        }
    }

    /// Publishes, and says whether the broker let it.
    pub(super) async fn may_publish(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        body: Bytes,
        within: Duration,
    ) -> Result<bool, Error> {
        let mut turn = self.wait_for(|_| subject.to_owned())?;
        let reply = format!("{}.{}", self.calls.inbox, turn.number);
        self.publish(subject, Some(&reply), headers, body)?;
        let lost = || unavailable("the connection to the broker was lost");
        let seen = async {
            self.round_trip(within).await?;
            // The refusal has been here before, but the library tells of it in a task of its own.
            tokio::time::sleep(REFUSED_WITHIN).await;
            Ok(true)
        };
        tokio::select! {
            answer = &mut turn.answer => answer.map(|answer| answer.is_ok()).map_err(|_| lost()),
            seen = seen => seen,
        }
    }

    /// Waits until the broker has seen everything that was sent before.
    pub(super) async fn round_trip(&self, within: Duration) -> Result<(), Error> {
        let mut turn = self.wait_for(|reply| reply.to_owned())?;
        let own = format!("{}.{}", self.calls.inbox, turn.number);
        self.publish(&own, None, None, Bytes::new())?;
        match tokio::time::timeout(within, &mut turn.answer).await {
            // A refusal has come from the broker as well, after all that was sent before.
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(unavailable("the connection to the broker was lost")),
            Err(_) => Err(unavailable(format!("the broker did not answer within {within:?}"))),
        }
    }

    /// The same, with all that outlets held before.
    pub(super) async fn arrived(&self, within: Duration) -> Result<(), Error> {
        let began = Instant::now();
        let empty = tokio::time::timeout(within, self.outlets.empty()).await;
        empty.map_err(|_| unavailable(format!("the connection did not take what waited within {within:?}")))?;
        self.round_trip(within.saturating_sub(began.elapsed())).await
    }

    fn wait_for(&self, subject: impl FnOnce(&str) -> String) -> Result<Turn<'_>, Error> {
        let calls = &self.calls;
        let number = calls.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = calls.waiting.lock();
        let map = waiting.as_mut().ok_or_else(|| unavailable("the connection to the broker was lost"))?;
        if map.len() >= OUTSTANDING_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{OUTSTANDING_MAX} requests to the broker are waiting for their answers"),
            ));
        }
        let subject = subject(&format!("{}.{number}", calls.inbox));
        map.insert(number, Waiting { subject, answer: sender });
        Ok(Turn { calls, number, answer })
    }
}

/// An inbox that nobody else has.
pub(super) fn fresh_inbox(prefix: &str) -> String {
    // Two independent 64-bit numbers from the operating system's randomness.
    let (one, two) = (RandomState::new().hash_one(1_u8), RandomState::new().hash_one(2_u8));
    format!("{prefix}.{one:016x}{two:016x}")
}

pub(super) fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn unknown(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unknown, message)
}
