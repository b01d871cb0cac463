//! Servers and clients of the systems that greenroom is compared with, each used as its documentation advises.
//!
//! `server SYSTEM --at ADDRESS` gives back what it is given until it is killed. `client SYSTEM --at ADDRESS` keeps its
//! connections open and measures what it is told to on its standard input. The address is where the server listens, or
//! that of the broker between the two.

#![forbid(unsafe_code)]

mod slots;

mod grpc;

mod http;

mod mqtt;

mod ractor;

mod kameo;

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use greenroom_bench_load::{attend, runtime};
use rumqttc::QoS;

/// The same for all systems, as for greenroom.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One side of one system.
#[derive(Parser)]
struct Arguments {
    side: Side,
    system: System,
    /// Where the server listens, or the broker between the two.
    #[arg(long, value_name = "ADDRESS")]
    at: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Server,
    Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum System {
    Tonic,
    #[value(name = "tonic-x4")]
    TonicX4,
    TonicStream,
    Axum,
    #[value(name = "mqtt-qos0")]
    MqttQos0,
    #[value(name = "mqtt-qos1")]
    MqttQos1,
    #[value(name = "ractor_cluster")]
    RactorCluster,
    Kameo,
}

fn main() -> anyhow::Result<()> {
    let Arguments { side, system, at } = Arguments::parse();
    match side {
        Side::Server => serve(system, at),
        Side::Client => ask(system, at),
    }
}

fn serve(system: System, at: SocketAddr) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match system {
            System::Tonic | System::TonicX4 | System::TonicStream => grpc::serve(at).await,
            System::Axum => http::serve(at).await,
            System::MqttQos0 => mqtt::serve(at, QoS::AtMostOnce).await,
            System::MqttQos1 => mqtt::serve(at, QoS::AtLeastOnce).await,
            System::RactorCluster => ractor::serve(at).await,
            System::Kameo => kameo::serve(at).await,
        }
    })
}

fn ask(system: System, at: SocketAddr) -> anyhow::Result<()> {
    let runtime = runtime()?;
    match system {
        System::Tonic => attend(&runtime, &runtime.block_on(grpc::unary::Unary::connect(at, 1))?),
        System::TonicX4 => attend(&runtime, &runtime.block_on(grpc::unary::Unary::connect(at, 4))?),
        System::TonicStream => attend(&runtime, &runtime.block_on(grpc::stream::Conversation::open(at))?),
        System::Axum => attend(&runtime, &runtime.block_on(http::Pool::connect(at))?),
        System::MqttQos0 => attend(&runtime, &runtime.block_on(mqtt::Topics::connect(at, QoS::AtMostOnce))?),
        System::MqttQos1 => attend(&runtime, &runtime.block_on(mqtt::Topics::connect(at, QoS::AtLeastOnce))?),
        System::RactorCluster => attend(&runtime, &runtime.block_on(ractor::Cluster::join(at))?),
        System::Kameo => attend(&runtime, &runtime.block_on(kameo::Swarm::join(at))?),
    }
}
