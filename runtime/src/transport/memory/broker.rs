//! What all clients of one memory broker share: routes, buckets, streams, and whether it runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::client::{Client, Inbox};
use super::records::Records;
use super::routes::{Mapping, Routes, SubscriptionId};
use super::stream::Streams;
use crate::changes::{Changes, SeenChanges};
use crate::error::Error;
use crate::transport::{Inbound, Outbound, Status, check};

/// The limit of a real server that was not told otherwise.
const MAX_PAYLOAD: usize = 1 << 20;

/// The broker's inside.
pub(super) struct Broker {
    state: Mutex<State>,
    buckets: Mutex<HashMap<String, Stored>>,
    pub(super) streams: Streams,
}

struct State {
    running: bool,
    /// Counts the starts, as each gives a server a new id.
    starts: u64,
    max_payload: usize,
    next: u64,
    routes: Routes,
    mappings: Vec<Mapping>,
    inboxes: BTreeMap<SubscriptionId, Arc<Inbox>>,
    clients: Vec<Weak<Client>>,
}

struct Stored {
    records: Records,
    writes: Changes,
}

impl Broker {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                running: true,
                starts: 1,
                max_payload: MAX_PAYLOAD,
                next: 1,
                routes: Routes::default(),
                mappings: Vec::new(),
                inboxes: BTreeMap::new(),
                clients: Vec::new(),
            }),
            buckets: Mutex::new(HashMap::new()),
            streams: Streams::default(),
        }
    }

    pub(super) fn map(&self, mapping: Mapping) {
        self.state.lock().mappings.push(mapping);
    }

    pub(super) fn set_max_payload(&self, bytes: usize) {
        self.state.lock().max_payload = bytes;
    }

    pub(super) fn max_payload(&self) -> usize {
        self.state.lock().max_payload
    }

    /// Stops or starts; all clients that are not held back notice at once.
    pub(super) fn run(&self, running: bool) {
        let mut state = self.state.lock();
        if state.running == running {
            return;
        }
        state.running = running;
        state.starts += u64::from(running);
        state.clients.retain(|client| client.strong_count() > 0);
        let clients: Vec<Arc<Client>> = state.clients.iter().filter_map(Weak::upgrade).collect();
        for client in clients {
            state.settle(&client);
        }
    }

    /// A new client, connected if the broker runs.
    pub(super) fn join(&self, client: &Arc<Client>) {
        let mut state = self.state.lock();
        state.clients.retain(|client| client.strong_count() > 0);
        state.clients.push(Arc::downgrade(client));
        state.settle(client);
    }

    /// Cuts a client off, or lets it come back.
    pub(super) fn hold(&self, client: &Client, held: bool) {
        let mut state = self.state.lock();
        client.set_held(held);
        state.settle(client);
    }

    pub(super) fn subscribe(
        &self,
        client: &Arc<Client>,
        filter: &str,
        queue: Option<&str>,
        capacity: usize,
    ) -> (Arc<Inbox>, mpsc::Receiver<Inbound>) {
        let mut state = self.state.lock();
        let id = state.number();
        let (inbox, messages) = Inbox::new(id, client, filter, capacity);
        state.routes.add(filter, queue, id);
        state.inboxes.insert(id, inbox.clone());
        (inbox, messages)
    }

    /// Gives this subscription nothing more.
    pub(super) fn unsubscribe(&self, inbox: &Inbox) {
        let removed = {
            let mut state = self.state.lock();
            state.routes.remove(inbox.filter(), inbox.id());
            state.inboxes.remove(&inbox.id())
        };
        // Ends the stream; not under the lock, since it wakes whoever receives.
        if let Some(inbox) = removed {
            inbox.close();
        }
    }

    /// Ends everything that this client has.
    pub(super) fn leave(&self, client: &Client) {
        let inboxes: Vec<Arc<Inbox>> =
            self.state.lock().inboxes.values().filter(|inbox| inbox.belongs_to(client)).cloned().collect();
        for inbox in inboxes {
            self.unsubscribe(&inbox);
        }
    }

    /// Delivers a message to all whom it concerns, or tells its sender that there is nobody.
    pub(super) fn publish(&self, from: &Client, message: Outbound) -> Result<(), Error> {
        let mut state = self.state.lock();
        check::message(&message, state.max_payload)?;
        let subject = message.subject.as_str();
        let subject =
            state.mappings.iter().find_map(|mapping| mapping.apply(subject)).unwrap_or_else(|| subject.to_owned());
        let inbound = Inbound {
            subject,
            reply: message.reply.as_ref().map(|reply| reply.as_str().to_owned()),
            headers: message.headers,
            body: message.body,
            no_responders: false,
        };
        let receivers = state.receivers(&inbound.subject, |_| true);
        match (receivers.is_empty(), &message.reply) {
            (false, _) => receivers.iter().for_each(|inbox| inbox.put(inbound.clone())),
            (true, Some(reply)) => state.nobody(from, reply.as_str(), &inbound.subject),
            (true, None) => {}
        }
        Ok(())
    }

    /// Does something with a bucket's records, making the bucket if there is none.
    pub(super) fn with_bucket<T>(&self, name: &str, act: impl FnOnce(&mut Records) -> T) -> T {
        let mut buckets = self.buckets.lock();
        let stored = buckets.entry(name.to_owned()).or_insert_with(Stored::new);
        let before = stored.records.last_revision();
        let outcome = act(&mut stored.records);
        if stored.records.last_revision() != before {
            stored.writes.note();
        }
        outcome
    }

    /// Changes whenever something was written to the bucket.
    pub(super) fn writes(&self, name: &str) -> SeenChanges {
        self.buckets.lock().entry(name.to_owned()).or_insert_with(Stored::new).writes.seen()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has a client's status say whether it is connected.
    fn settle(&mut self, client: &Client) {
        let connect = self.running && !client.is_held();
        if connect == client.is_connected() {
            return;
        }
        let status = if connect {
            Status::Connected { server: format!("MEMORY-{}", self.starts), client: self.number() }
        } else {
            Status::Disconnected
        };
        client.status.send_if_modified(|now| {
            let open = *now != Status::Closed;
            if open {
                *now = status;
            }
            open
        });
    }

    fn receivers(&mut self, subject: &str, wanted: impl Fn(&Inbox) -> bool) -> Vec<Arc<Inbox>> {
        let inboxes = &self.inboxes;
        let reachable = |id| inboxes.get(&id).is_some_and(|inbox| inbox.is_reachable() && wanted(inbox));
        let ids = self.routes.receivers(subject, reachable);
        ids.iter().filter_map(|id| self.inboxes.get(id)).cloned().collect()
    }

    /// Only the sender itself is told, and only if it listens on its reply subject.
    fn nobody(&mut self, from: &Client, reply: &str, subject: &str) {
        let Some(inbox) = self.receivers(reply, |inbox| inbox.belongs_to(from)).into_iter().next() else { return };
        let mut headers = crate::transport::Headers::new();
        headers.push("Nats-Subject", subject);
        inbox.put(Inbound {
            subject: reply.to_owned(),
            reply: None,
            headers,
            body: bytes::Bytes::new(),
            no_responders: true,
        });
    }
}

impl Stored {
    fn new() -> Self {
        Self { records: Records::default(), writes: Changes::default() }
    }
}
