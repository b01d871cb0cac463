//! One connection: what lives and dies with it.
//!
//! Each connection is a client of the library of its own, and the library never reconnects: what
//! waits to be sent when a connection is lost is thrown away with it, and broker and client agree
//! on how many messages a subscription has had. Both would not hold for a client that reconnects.

use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::{OnceLock, Weak};

use async_nats::{Client, Event, HeaderMap, HeaderName, HeaderValue, ServerError, Subscriber};
use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, unavailable};
use super::outlets::Outlets;
use super::source::Slot;
use crate::error::{Error, ErrorKind};
use crate::transport::Headers;

/// How many refused subscriptions are remembered until their subscriber asks.
const REFUSED_MAX: usize = 64;

/// How many subscriptions of one connection flush at once.
const FLUSHING: usize = 2;

/// One connection to the broker.
pub(super) struct Link {
    /// Counts the connections of a transport.
    pub(super) epoch: u64,
    pub(super) calls: Calls,
    pub(super) outlets: Outlets,
    /// Cancelled when the connection is lost.
    pub(super) lost: CancellationToken,
    client: OnceLock<Client>,
    /// Filters that the broker did not let us subscribe to.
    refused: Mutex<VecDeque<String>>,
    /// Whose messages are thrown away, by the library's number of the subscription.
    slots: Mutex<HashMap<u64, Weak<Slot>>>,
    /// Subscriptions that flush what is on its way at once: their messages share the queue with
    /// everybody else's.
    pub(super) flushing: Semaphore,
    name: String,
}

impl Link {
    pub(super) fn new(epoch: u64, name: &str, inbox_prefix: &str) -> Self {
        Self {
            epoch,
            calls: Calls::new(inbox_prefix),
            outlets: Outlets::default(),
            lost: CancellationToken::new(),
            client: OnceLock::new(),
            refused: Mutex::new(VecDeque::new()),
            slots: Mutex::new(HashMap::new()),
            flushing: Semaphore::new(FLUSHING),
            name: name.to_owned(),
        }
    }

    /// The handshake is done.
    pub(super) fn established(&self, client: Client) {
        // Set once, by the task that made the link.
        self.client.set(client).ok();
    }

    /// Whether the handshake is done; the library must not connect a second time.
    pub(super) fn is_established(&self) -> bool {
        self.client.get().is_some()
    }

    pub(super) fn client(&self) -> Result<&Client, Error> {
        self.client.get().ok_or_else(|| unavailable("not connected to the broker"))
    }

    /// Hands a message to the connection if there is room for it now.
    pub(super) fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<(), Error> {
        // The library only waits for room in its queue here, so a send that is not done when it
        // is first polled has not happened and never will. It must not depend on how much of its
        // budget the calling task has used up.
        let sent = tokio::task::unconstrained(self.publish_in_turn(subject, reply, headers, body)).now_or_never();
        sent.unwrap_or_else(|| {
            let why = "the queue to the broker is full: it takes messages more slowly than they come";
            Err(Error::new(ErrorKind::Overloaded, why))
        })
    }

    /// Hands a message to the connection as soon as there is room for it. Nothing is sent if this is dropped before.
    pub(super) async fn publish_in_turn(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<(), Error> {
        let client = self.client()?;
        let (subject, reply) = (subject.to_owned(), reply.map(str::to_owned));
        let sent = match (reply, headers) {
            (None, None) => client.publish(subject, body).await,
            (None, Some(headers)) => client.publish_with_headers(subject, headers, body).await,
            (Some(reply), None) => client.publish_with_reply(subject, reply, body).await,
            (Some(reply), Some(headers)) => client.publish_with_reply_and_headers(subject, reply, headers, body).await,
        };
        sent.map_err(|error| match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                Error::new(ErrorKind::PayloadTooLarge, error.to_string())
            }
            async_nats::client::PublishErrorKind::InvalidSubject => {
                Error::new(ErrorKind::BadRequest, error.to_string())
            }
            async_nats::client::PublishErrorKind::Send => unavailable("the connection to the broker was lost"),
        })
    }

    /// Subscribes; the interest has reached the broker once a round trip has followed.
    pub(super) async fn subscribe(&self, filter: &str, queue: Option<&str>) -> Result<Subscriber, Error> {
        let client = self.client()?;
        match queue {
            None => client.subscribe(filter.to_owned()).await,
            Some(queue) => client.queue_subscribe(filter.to_owned(), queue.to_owned()).await,
        }
        .map_err(|error| unavailable(format!("cannot subscribe to {filter}")).with_source(error))
    }

    /// Remembers to whom a subscription belongs, so that it can be told of messages it missed.
    pub(super) fn watch_losses(&self, subscriber: &Subscriber, slot: &std::sync::Arc<Slot>) {
        if let Some(number) = number_of(subscriber) {
            let mut slots = self.slots.lock();
            slots.retain(|_, slot| slot.strong_count() > 0);
            slots.insert(number, std::sync::Arc::downgrade(slot));
        }
    }

    /// Whether the broker has refused a subscription to this filter since it was last asked.
    pub(super) fn was_refused(&self, filter: &str) -> bool {
        let mut refused = self.refused.lock();
        let before = refused.len();
        refused.retain(|known| known != filter);
        refused.len() < before
    }

    /// What the library reports.
    pub(super) fn event(&self, event: Event) {
        let name = self.name.as_str();
        match event {
            Event::Disconnected | Event::Closed => self.lost.cancel(),
            Event::LameDuckMode => {
                tracing::warn!(connection = name, "the broker is in lame duck mode and will close this connection");
            }
            Event::SlowConsumer(number) => {
                let slot = self.slots.lock().get(&number).and_then(Weak::upgrade);
                match slot {
                    Some(slot) => slot.count_dropped(name),
                    None => tracing::warn!(connection = name, number, "a subscription is too slow and loses messages"),
                }
            }
            Event::ServerError(ServerError::Other(text)) => {
                tracing::warn!(connection = name, error = %text, "the broker reports an error");
                self.violation(&text);
            }
            Event::ServerError(error) => {
                tracing::warn!(connection = name, %error, "the broker reports an error");
            }
            Event::ClientError(error) => tracing::debug!(connection = name, %error, "the client reports an error"),
            Event::Connected | Event::Draining => {}
        }
    }

    /// Tells those who wait that the broker has refused what they sent.
    fn violation(&self, text: &str) {
        let Some(rest) = strip_prefix_ignoring_case(text, "permissions violation for ") else { return };
        let Some(subject) = rest.split('"').nth(1) else { return };
        if strip_prefix_ignoring_case(rest, "publish").is_some() {
            self.calls.refused(subject);
        } else {
            let mut refused = self.refused.lock();
            if refused.len() == REFUSED_MAX {
                refused.pop_front();
            }
            refused.push_back(subject.to_owned());
        }
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|head| &text[head.len()..])
}

/// The library's number of a subscription, which `Event::SlowConsumer` carries and nothing but
/// its debug output shows. Without it, losses are only reported for the connection.
fn number_of(subscriber: &Subscriber) -> Option<u64> {
    let shown = format!("{subscriber:?}");
    let digits = shown.strip_prefix("Subscriber { sid: ")?;
    digits.get(..digits.find(',')?)?.parse().ok()
}

/// Headers for the wire; `None` if there are none.
pub(super) fn to_wire(headers: &Headers) -> Result<Option<HeaderMap>, Error> {
    if headers.is_empty() {
        return Ok(None);
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        let bad = |why: String| Error::new(ErrorKind::BadRequest, format!("the header {name:?} cannot be sent: {why}"));
        let known = HeaderName::from_str(name).map_err(|error| bad(error.to_string()))?;
        let value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
        map.append(known, value);
    }
    Ok(Some(map))
}

/// Headers from the wire. The library keeps those of one name in order, the names in none.
pub(super) fn from_wire(map: Option<&HeaderMap>) -> Headers {
    let mut headers = Headers::new();
    for (name, values) in map.into_iter().flat_map(HeaderMap::iter) {
        for value in values {
            headers.push(name.to_string(), value.as_str());
        }
    }
    headers
}
