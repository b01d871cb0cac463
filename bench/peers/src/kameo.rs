//! kameo's remote actors: two peers of libp2p over TCP, with noise and yamux as its documentation has it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use futures_util::StreamExt as _;
use greenroom_bench_load::{Caller, Client, announce};
use kameo::actor::{RemoteActorRef, Spawn as _};
use kameo::message::{Context, Message};
use kameo::remote::{Behaviour, messaging};
use kameo::{Actor, RemoteActor, Reply, remote_message};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};

/// Actors that answer, as many as ractor_cluster has.
const ACTORS: usize = 4;
/// Requests at once; more than any case has in flight.
const STREAMS: usize = 1024;
/// How long it may take until the peers know each other, and how long a request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Gives back what it is given.
#[derive(Actor, RemoteActor)]
struct Echo;

#[derive(Serialize, Deserialize, Reply)]
struct Body {
    // As bytes, not as a list of numbers.
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

#[remote_message]
impl Message<Body> for Echo {
    type Reply = Body;

    async fn handle(&mut self, message: Body, _: &mut Context<Self, Self::Reply>) -> Body {
        message
    }
}

/// Answers until it is killed.
pub(crate) async fn serve(at: SocketAddr) -> anyhow::Result<()> {
    start(&multiaddr(at)?, None)?;
    for number in 0..ACTORS {
        let actor = Echo::spawn(Echo);
        actor.register(name(number)).await.context("an actor could not be registered")?;
    }
    announce(&at.to_string())?;
    std::future::pending().await
}

fn multiaddr(at: SocketAddr) -> anyhow::Result<Multiaddr> {
    Ok(format!("/ip4/{}/tcp/{}", at.ip(), at.port()).parse()?)
}

fn name(number: usize) -> String {
    format!("echo-{number}")
}

/// Starts this process's swarm; it listens, and dials another if it is told where.
fn start(listen: &Multiaddr, dial: Option<Multiaddr>) -> anyhow::Result<()> {
    let config = messaging::Config::default().with_request_timeout(LIMIT).with_max_concurrent_streams(STREAMS);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux_config)?
        .with_behaviour(|key| Behaviour::new(key.public().to_peer_id(), config))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
        .build();
    swarm.behaviour().try_init_global().map_err(|error| anyhow!("{error}"))?;
    swarm.listen_on(listen.clone())?;
    if let Some(dial) = dial.clone() {
        swarm.dial(dial)?;
    }
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await
                && let Some(address) = &dial
            {
                swarm.add_peer_address(peer_id, address.clone());
            }
        }
    });
    Ok(())
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(2 * STREAMS);
    config
}

/// This process's swarm, which knows the actors of the other.
pub(crate) struct Swarm {
    actors: Vec<RemoteActorRef<Echo>>,
}

impl Swarm {
    pub(crate) async fn join(at: SocketAddr) -> anyhow::Result<Self> {
        start(&multiaddr(SocketAddr::new(at.ip(), 0))?, Some(multiaddr(at)?))?;
        let began = Instant::now();
        let mut actors = Vec::with_capacity(ACTORS);
        while actors.len() < ACTORS {
            match RemoteActorRef::<Echo>::lookup(name(actors.len())).await {
                Ok(Some(actor)) => actors.push(actor),
                found => {
                    let error = found.err();
                    ensure!(began.elapsed() < LIMIT, "{} of {ACTORS} actors were found: {error:?}", actors.len());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(Self { actors })
    }
}

impl Client for Swarm {
    type Caller = KameoCaller;

    fn caller(&self, number: usize, payload: usize) -> KameoCaller {
        let actor = self.actors[number % self.actors.len()].clone();
        KameoCaller { actor, message: Body { body: vec![b'x'; payload] } }
    }
}

/// One task's actor.
pub(crate) struct KameoCaller {
    actor: RemoteActorRef<Echo>,
    message: Body,
}

impl Caller for KameoCaller {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        let reply = self.actor.ask(&self.message).await;
        Ok(reply.map_err(|error| anyhow!("no reply: {error:?}"))?.body.len())
    }
}
