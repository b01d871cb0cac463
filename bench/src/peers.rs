//! One counter, four ways: an actor that adds a number and, when asked, gives the total.

use greenroom::contract::{Contract, Keyed, Message, Never, NoEvent, mode};
use greenroom::{Actor, Context, Error, Handle, Node, Ref, Verbs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// The address of the counter.
pub struct Counter;

/// Adds, and asks for the total.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Add(pub u64);

/// The same through an `async fn`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct AddAsync(pub u64);

/// Adds only.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Bump(pub u64);

impl Contract for Counter {
    const NAME: &'static str = "counter";
    const VERSION: &'static str = "1.0.0";
    type Kind = Keyed;
    type Messages = (Add, AddAsync, Bump);
    type Event = NoEvent;
}

impl Message for Add {
    const VERB: &'static str = "add";
    type Contract = Counter;
    type Mode = mode::Ask;
    type Reply = u64;
    type Refusal = Never;
}

impl Message for AddAsync {
    const VERB: &'static str = "add_async";
    type Contract = Counter;
    type Mode = mode::Ask;
    type Reply = u64;
    type Refusal = Never;
}

impl Message for Bump {
    const VERB: &'static str = "bump";
    type Contract = Counter;
    type Mode = mode::Tell;
    type Reply = ();
    type Refusal = Never;
}

/// 16 bytes of state.
#[derive(Default)]
pub struct CounterActor {
    total: u64,
    calls: u64,
}

impl CounterActor {
    fn add(&mut self, by: u64) -> u64 {
        self.calls += 1;
        self.total = self.total.wrapping_add(by);
        self.total
    }
}

impl Actor for CounterActor {
    type Contract = Counter;
    const VERSION: &'static str = "1.0.0";

    async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self::default())
    }

    fn verbs(verbs: &mut Verbs<Self>) {
        verbs.ask::<Add>();
        verbs.ask::<AddAsync>();
        verbs.tell::<Bump>();
    }
}

impl Handle<Add> for CounterActor {
    const READY: bool = true;

    fn handle(&mut self, msg: Add, _: &mut Context<'_, Self>) -> impl Future<Output = Result<u64, Never>> + Send {
        std::future::ready(Ok(self.add(msg.0)))
    }
}

impl Handle<AddAsync> for CounterActor {
    async fn handle(&mut self, msg: AddAsync, _: &mut Context<'_, Self>) -> Result<u64, Never> {
        Ok(self.add(msg.0))
    }
}

impl Handle<Bump> for CounterActor {
    const READY: bool = true;

    fn handle(&mut self, msg: Bump, _: &mut Context<'_, Self>) -> impl Future<Output = Result<(), Never>> + Send {
        self.add(msg.0);
        std::future::ready(Ok(()))
    }
}

/// A node without a broker, and the address of one actor on it. Defaults on: deadline, call chain,
/// panic boundary.
pub async fn greenroom() -> anyhow::Result<(Node, Ref<Counter>)> {
    let node = Node::local("bench").host::<CounterActor>().start().await?;
    let counter = node.actor::<Counter>("one");
    counter.ask(Add(0)).await?;
    Ok((node, counter))
}

/// What a bare tokio task is sent.
pub enum Sent {
    Add(u64, oneshot::Sender<u64>),
    Bump(u64),
}

/// A bare tokio task behind a bounded channel.
pub fn tokio_task() -> mpsc::Sender<Sent> {
    let (sender, mut inbox) = mpsc::channel(1024);
    tokio::spawn(async move {
        let mut total = 0u64;
        while let Some(message) = inbox.recv().await {
            match message {
                Sent::Add(by, reply) => {
                    total = total.wrapping_add(by);
                    let _ = reply.send(total);
                }
                Sent::Bump(by) => total = total.wrapping_add(by),
            }
        }
    });
    sender
}

/// ractor's counter.
pub struct RactorCounter;

/// Its messages.
pub enum RactorMessage {
    Add(u64, ractor::RpcReplyPort<u64>),
    Bump(u64),
}

impl ractor::Actor for RactorCounter {
    type Msg = RactorMessage;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ractor::ActorRef<Self::Msg>, (): ()) -> Result<u64, ractor::ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<Self::Msg>,
        message: Self::Msg,
        total: &mut u64,
    ) -> Result<(), ractor::ActorProcessingErr> {
        match message {
            RactorMessage::Add(by, reply) => {
                *total = total.wrapping_add(by);
                let _ = reply.send(*total);
            }
            RactorMessage::Bump(by) => *total = total.wrapping_add(by),
        }
        Ok(())
    }
}

/// kameo's counter.
#[derive(kameo::Actor)]
pub struct KameoCounter {
    pub total: u64,
}

/// Its messages.
pub struct KameoAdd(pub u64);

/// The one-way kind.
pub struct KameoBump(pub u64);

impl kameo::message::Message<KameoAdd> for KameoCounter {
    type Reply = u64;

    async fn handle(&mut self, message: KameoAdd, _: &mut kameo::message::Context<Self, Self::Reply>) -> u64 {
        self.total = self.total.wrapping_add(message.0);
        self.total
    }
}

impl kameo::message::Message<KameoBump> for KameoCounter {
    type Reply = ();

    async fn handle(&mut self, message: KameoBump, _: &mut kameo::message::Context<Self, Self::Reply>) {
        self.total = self.total.wrapping_add(message.0);
    }
}
