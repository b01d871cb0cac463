//! Asks from one process to another through a broker: greenroom's two sides, and the same by hand on the client library
//! that greenroom stands on.
//!
//! Here is only what answers and what asks. Who starts them, and in which order they are measured, is in
//! [`compare`](crate::compare).

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use futures_util::StreamExt;
use greenroom::prelude::*;
use greenroom_bench_load::{Caller, Client, announce, attend, runtime};

const APP: &str = "bench";
/// Where the responder without greenroom listens.
const RAW: &str = "raw.echo";
/// Actors that answer, one for each caller.
const KEYS: usize = 256;
/// How long it may take until a system answers.
const LIMIT: Duration = Duration::from_secs(60);

/// The systems whose sides are here.
#[derive(Clone, Copy, ValueEnum)]
pub enum System {
    Greenroom,
    AsyncNats,
}

/// Gives back what it is given.
#[contract(name = "echo", messages(Say))]
struct Echo;

#[message(Echo, ask, reply = String)]
struct Say {
    text: String,
}

struct EchoActor;

#[actor(Echo)]
impl EchoActor {
    async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self)
    }

    #[ask]
    fn say(&mut self, msg: Say) -> String {
        msg.text
    }
}

/// Answers until it is killed.
pub fn serve(system: System, url: &str) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match system {
            System::Greenroom => {
                let node = Node::builder(APP).name("host").connect(url).host::<EchoActor>().start().await?;
                announce(url)?;
                node.ended().await;
                Ok(())
            }
            System::AsyncNats => {
                let client = connect(url).await?;
                let mut asked = client.subscribe(RAW).await?;
                client.flush().await?;
                announce(url)?;
                while let Some(message) = asked.next().await {
                    if let Some(reply) = message.reply {
                        client.publish(reply, message.payload).await?;
                    }
                }
                Ok(())
            }
        }
    })
}

/// Asks as it is told to on the standard input.
pub fn ask(system: System, url: &str) -> anyhow::Result<()> {
    let runtime = runtime()?;
    match system {
        System::Greenroom => attend(&runtime, &runtime.block_on(Actors::find(url))?),
        System::AsyncNats => attend(&runtime, &Requests(runtime.block_on(connect(url))?)),
    }
}

/// A node that hosts nothing.
struct Actors(Node);

impl Actors {
    /// Waits until every actor has answered once.
    async fn find(url: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        let node = loop {
            match Node::builder(APP).name("client").connect(url).start().await {
                Ok(node) => break node,
                Err(error) if began.elapsed() > LIMIT => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let actors = Self(node);
        for key in 0..KEYS {
            while let Err(error) = actors.caller(key, 1).ask().await {
                ensure!(began.elapsed() < LIMIT, "actor {key} does not answer: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(actors)
    }
}

impl Client for Actors {
    type Caller = Asker;

    fn caller(&self, number: usize, payload: usize) -> Asker {
        Asker { echo: self.0.actor::<Echo>(format!("key-{}", number % KEYS)), text: "x".repeat(payload) }
    }
}

struct Asker {
    echo: Ref<Echo>,
    text: String,
}

impl Caller for Asker {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        Ok(self.echo.ask(Say { text: self.text.clone() }).await?.len())
    }
}

/// As greenroom connects: subjects are known to be good.
async fn connect(url: &str) -> anyhow::Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::new().skip_subject_validation(true);
    options.connect(url).await.with_context(|| format!("cannot connect to {url}"))
}

/// A connection.
struct Requests(async_nats::Client);

impl Client for Requests {
    type Caller = Requester;

    fn caller(&self, _: usize, payload: usize) -> Requester {
        Requester { client: self.0.clone(), body: Bytes::from(vec![b'x'; payload]) }
    }
}

struct Requester {
    client: async_nats::Client,
    body: Bytes,
}

impl Caller for Requester {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        let reply = self.client.request(RAW, self.body.clone()).await;
        Ok(reply.context("no reply: is the responder there?")?.payload.len())
    }
}
