//! Existing ractor actors on a subject: the way in for a system that has some.
//!
//! ```no_run
//! use greenroom::Node;
//! use ractor::RpcReplyPort;
//!
//! enum LegacyMsg { Get(String, RpcReplyPort<u64>) }
//!
//! # async fn run(actor: ractor::ActorRef<LegacyMsg>) -> Result<(), greenroom::Error> {
//! let node = Node::builder("shop").expose("legacy.get", actor, LegacyMsg::Get).start().await?;
//! // nats req shop.legacy.get '"some key"'
//! # Ok(()) }
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{ActorRef, RpcReplyPort};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::codec::{Codec, from_person};
use crate::contract::{Mode, VerbContract};
use crate::error::{Error, ErrorKind};
use crate::node::{NodeBuilder, Room, Runner};
use crate::reference::Target;
use crate::routes::{Verb, WireCall, WireOutcome, WireRoute};
use crate::stats::VerbStats;

impl NodeBuilder {
    /// Puts a ractor actor on `{app}.{subject}`, where `subject` is `{service}.{verb}`: calls there
    /// become messages made by `make`, an enum variant that takes the request and a reply port.
    /// Requests and replies are JSON; the verb is announced to `nats micro` with their schemas, and
    /// nodes that expose the same service share its calls.
    ///
    /// The actor stays its owner's: greenroom neither supervises nor stops it. Calls that wait for
    /// it are bounded by [`mailbox`](NodeBuilder::mailbox).
    pub fn expose<T, Request, Reply>(
        mut self,
        subject: &'static str,
        actor: ActorRef<T>,
        make: impl Fn(Request, RpcReplyPort<Reply>) -> T + Send + Sync + 'static,
    ) -> Self
    where
        T: ractor::Message,
        Request: DeserializeOwned + JsonSchema + Send + 'static,
        Reply: Serialize + JsonSchema + Send + 'static,
    {
        let Some((service, verb)) = subject.split_once('.').filter(|(_, verb)| !verb.contains('.')) else {
            let why = format!("{subject:?} is not of the form service.verb");
            return self.refuse(Error::new(ErrorKind::Config, why));
        };
        let contract = VerbContract {
            verb,
            mode: Mode::Ask,
            request: schemars::schema_for!(Request),
            reply: schemars::schema_for!(Reply),
            refusal: false.into(),
        };
        let stats = Arc::new(VerbStats::default());
        // A bound that is too large is refused when the node is started.
        let room = Room::new(self.mailbox_of_exposed().min(Semaphore::MAX_PERMITS));
        let route = Exposed { name: subject, actor, make: Arc::new(make), stats: stats.clone(), room: room.clone() };
        self.add_exposed(service, Verb::exposed(contract, Arc::new(route), stats), room);
        self
    }
}

type Make<T, Request, Reply> = Arc<dyn Fn(Request, RpcReplyPort<Reply>) -> T + Send + Sync>;

struct Exposed<T, Request, Reply> {
    name: &'static str,
    actor: ActorRef<T>,
    make: Make<T, Request, Reply>,
    stats: Arc<VerbStats>,
    room: Room,
}

impl<T, Request, Reply> WireRoute for Exposed<T, Request, Reply>
where
    T: ractor::Message,
    Request: DeserializeOwned + Send + 'static,
    Reply: Serialize + Send + 'static,
{
    fn deliver(&self, _: &Target, call: WireCall, _: Option<&Runner>) {
        let received = call.received;
        let read = if call.by_hand { from_person(&call.body) } else { Codec::Json.decode(&call.body) };
        let request: Request = match read {
            Ok(request) => request,
            Err(why) => {
                let error = Error::new(ErrorKind::BadRequest, format!("{} cannot read the request: {why}", self.name));
                return self.fail(call, error);
            }
        };
        let Some(room) = self.room.enter() else {
            let error = Error::new(ErrorKind::Overloaded, format!("too many calls wait for {}", self.name));
            return self.fail(call, error);
        };
        if let Some(started) = &call.started {
            // From here on its time is the other runtime's to keep.
            started.store(true, Ordering::Release);
        }
        let left = call.call.deadline.at().saturating_duration_since(tokio::time::Instant::now());
        let (actor, make, stats, name) = (self.actor.clone(), self.make.clone(), self.stats.clone(), self.name);
        // The node delivers on its own runtime.
        tokio::spawn(async move {
            let outcome = ask(&actor, &*make, request, left, name).await;
            stats.requests.fetch_add(1, Ordering::Relaxed);
            stats.timed(received);
            match outcome {
                Ok(body) => call.answer.send(WireOutcome::Reply(body)),
                Err(error) => {
                    stats.note(&error);
                    call.answer.send(WireOutcome::Failure(error));
                }
            }
            drop(room);
        });
    }
}

impl<T, Request, Reply> Exposed<T, Request, Reply> {
    fn fail(&self, call: WireCall, error: Error) {
        self.stats.failed(&error);
        call.answer.send(WireOutcome::Failure(error));
    }
}

async fn ask<T, Request, Reply>(
    actor: &ActorRef<T>,
    make: &(dyn Fn(Request, RpcReplyPort<Reply>) -> T + Send + Sync),
    request: Request,
    left: Duration,
    name: &str,
) -> Result<bytes::Bytes, Error>
where
    T: ractor::Message,
    Reply: Serialize + Send + 'static,
{
    match actor.call(|port| make(request, port), Some(left)).await {
        Ok(CallResult::Success(reply)) => Codec::Json.encode(&reply),
        Ok(CallResult::Timeout) => {
            Err(Error::new(ErrorKind::Unknown, format!("{name} did not answer in time: what it did is not known")))
        }
        Ok(CallResult::SenderError) => {
            Err(Error::new(ErrorKind::Interrupted, format!("{name} dropped the call without an answer")))
        }
        Err(error) => Err(Error::new(ErrorKind::Unavailable, format!("the actor behind {name} has stopped: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ractor::{Actor, ActorProcessingErr};
    use tokio::runtime::Runtime;

    use super::*;
    use crate::node::Node;
    use crate::subject::Subject;
    use crate::transport::{Inbound, MemoryBroker, Outbound, Transport};

    /// Waits for so many milliseconds, and gives them back.
    struct Waiter;

    enum Waits {
        For(u64, RpcReplyPort<u64>),
    }

    impl Actor for Waiter {
        type Msg = Waits;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Waits>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _: ActorRef<Waits>,
            Waits::For(ms, port): Waits,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(port.send(ms)?)
        }
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    }

    async fn ask(broker: &MemoryBroker, ms: u64) -> Inbound {
        let outsider = broker.transport("outsider");
        let inbox = Subject::parse("_INBOX.one").expect("a subject");
        let mut answers = outsider.subscribe(&inbox.to_filter(), None, 8).await.expect("a subscription");
        let call = Subject::parse("demo.waiter.wait").expect("a subject");
        outsider.publish(Outbound::new(call, ms.to_string()).reply_to(inbox)).expect("sent");
        tokio::time::timeout(Duration::from_secs(5), answers.next()).await.expect("in time").expect("an answer")
    }

    #[test]
    fn c4_a_builder_may_be_made_outside_of_a_runtime() {
        let (runtime, broker) = (runtime(), MemoryBroker::new());
        let (actor, _) = runtime.block_on(Actor::spawn(None, Waiter, ())).expect("an actor");
        let builder = Node::builder("demo").memory(&broker).expose("waiter.wait", actor, Waits::For);
        runtime.block_on(async {
            let node = builder.start().await.expect("a node starts");
            assert_eq!(&ask(&broker, 1).await.body[..], b"1");
            node.drain().await.expect("drained");
        });
    }

    #[test]
    fn c4_a_drain_waits_for_exposed_calls() {
        let (runtime, broker) = (runtime(), MemoryBroker::new());
        runtime.block_on(async {
            let (actor, _) = Actor::spawn(None, Waiter, ()).await.expect("an actor");
            let node = Node::builder("demo").memory(&broker).expose("waiter.wait", actor, Waits::For);
            let node = node.start().await.expect("a node starts");
            let asked = tokio::spawn(async move { ask(&broker, 600).await });
            tokio::time::sleep(Duration::from_millis(200)).await;
            node.drain().await.expect("drained");
            assert_eq!(&asked.await.expect("no panic").body[..], b"600");
        });
    }
}
