//! ractor_cluster: two nodes, a connection between them, and actors that are found by their process group.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use greenroom_bench_load::{Caller, Client, announce};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect};

const GROUP: &str = "echo";
/// Actors that answer. More of them, such as one for each caller, are slower here, and one is no faster.
const ACTORS: usize = 4;
const COOKIE: &str = "bench";
/// How long it may take until the nodes know each other.
const LIMIT: Duration = Duration::from_secs(30);

/// Its messages.
#[derive(RactorClusterMessage)]
enum EchoMessage {
    #[rpc]
    Say(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

struct Echo;

impl Actor for Echo {
    type Msg = EchoMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<EchoMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<EchoMessage>,
        message: EchoMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let EchoMessage::Say(body, reply) = message;
        Ok(reply.send(body)?)
    }
}

/// Answers until it is killed.
pub(crate) async fn serve(at: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..ACTORS {
        let (actor, _) = Actor::spawn(None, Echo, ()).await?;
        pg::join(GROUP.to_owned(), vec![actor.get_cell()]);
    }
    let (_, running) = node("server", at).await?;
    announce(&at.to_string())?;
    running.await.context("the node has ended")
}

async fn node(
    name: &str,
    at: SocketAddr,
) -> anyhow::Result<(ActorRef<NodeServerMessage>, tokio::task::JoinHandle<()>)> {
    let isolated = Some(NodeConnectionMode::Isolated);
    let server = NodeServer::new(at.port(), COOKIE.to_owned(), name.to_owned(), at.ip().to_string(), None, isolated);
    let node = Actor::spawn(None, server.with_listen_addr(at.ip()), ()).await;
    node.with_context(|| format!("no node could be started on {at}"))
}

/// A node that knows the actors of the other.
pub(crate) struct Cluster {
    actors: Vec<ActorRef<EchoMessage>>,
}

impl Cluster {
    pub(crate) async fn join(at: SocketAddr) -> anyhow::Result<Self> {
        let (node, _) = node("client", SocketAddr::new(at.ip(), 0)).await?;
        client_connect(&node, at).await.map_err(|error| anyhow!("cannot connect to {at}: {error:?}"))?;
        let began = Instant::now();
        loop {
            let actors: Vec<_> = pg::get_members(&GROUP.to_owned()).into_iter().map(ActorRef::from).collect();
            if actors.len() == ACTORS {
                return Ok(Self { actors });
            }
            ensure!(began.elapsed() < LIMIT, "the other node has shown {} of {ACTORS} actors", actors.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Client for Cluster {
    type Caller = RactorCaller;

    fn caller(&self, number: usize, payload: usize) -> RactorCaller {
        RactorCaller { actor: self.actors[number % self.actors.len()].clone(), body: vec![b'x'; payload] }
    }
}

/// One task's actor.
pub(crate) struct RactorCaller {
    actor: ActorRef<EchoMessage>,
    body: Vec<u8>,
}

impl Caller for RactorCaller {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        // A message owns its bytes.
        let body = self.body.clone();
        match self.actor.call(|reply| EchoMessage::Say(body, reply), None).await? {
            CallResult::Success(body) => Ok(body.len()),
            other => Err(anyhow!("no reply: {other:?}")),
        }
    }
}
