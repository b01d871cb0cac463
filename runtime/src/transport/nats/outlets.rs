//! Outlets: what waits until the connection's thread gets to it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::link::{Link, to_wire};
use crate::transport::{Outbound, Outlet, check};

/// The outlets of one connection that have something to send: each is here once until it is asked.
#[derive(Default)]
pub(super) struct Outlets {
    waiting: Mutex<VecDeque<Waiting>>,
    there: Notify,
}

enum Waiting {
    Outlet(Arc<dyn Outlet>),
    /// Somebody who wants to know when all before it was handed to the connection.
    Mark(oneshot::Sender<()>),
}

impl Outlets {
    pub(super) fn put(&self, outlet: Arc<dyn Outlet>) {
        self.push(Waiting::Outlet(outlet));
    }

    /// Ready once all that waits now was handed to the connection, or the connection is lost.
    pub(super) fn empty(&self) -> impl Future<Output = ()> + use<> {
        let (mark, passed) = oneshot::channel();
        self.push(Waiting::Mark(mark));
        async move { passed.await.unwrap_or_default() }
    }

    /// Asks one after the other, until the connection is lost.
    pub(super) async fn run(&self, link: &Link, max_payload: usize) {
        loop {
            self.there.notified().await;
            loop {
                let next = self.waiting.lock().pop_front();
                match next {
                    Some(Waiting::Outlet(outlet)) => {
                        for message in outlet.take() {
                            send(link, message, max_payload).await;
                        }
                    }
                    // Whoever asked may have gone.
                    Some(Waiting::Mark(mark)) => drop(mark.send(())),
                    None => break,
                }
            }
        }
    }

    fn push(&self, waiting: Waiting) {
        self.waiting.lock().push_back(waiting);
        self.there.notify_one();
    }
}

async fn send(link: &Link, message: Outbound, max_payload: usize) {
    let headers = check::message(&message, max_payload).and_then(|()| to_wire(&message.headers));
    let reply = message.reply.as_ref().map(|reply| reply.as_str());
    let sent = match headers {
        Ok(headers) => link.publish_in_turn(message.subject.as_str(), reply, headers, message.body).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::warn!(subject = %message.subject, %error, "what waited was not sent");
    }
}
