//! Asks from one process to another through a broker, beside the same done by hand on the client library.
//!
//! Client, server and broker are separate processes. All cases of a round are measured one after the other, so only
//! ratios within a round count.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt;
use greenroom::prelude::*;
use serde::Serialize;
use tokio::sync::Barrier;
use xtask::broker::{Broker, BrokerOptions, Profile};
use xtask::process::{Group, Launch, Process};
use xtask::tools;

use crate::report;

const APP: &str = "bench";
/// Where the responder without greenroom listens.
const RAW: &str = "raw.echo";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What is measured: bytes, and how many at once.
const CASES: [(usize, usize); 8] =
    [(100, 1), (100, 256), (1_024, 1), (1_024, 64), (1_024, 256), (10_240, 64), (102_400, 1), (102_400, 64)];

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

/// One case of one system, over all rounds.
#[derive(Serialize)]
struct Row {
    system: &'static str,
    payload_bytes: usize,
    in_flight: usize,
    rps_median: f64,
    rps_min: f64,
    rps_max: f64,
    p50_us: f64,
    p99_us: f64,
    /// User and system time of client, server and broker, for one call, in the median round.
    cpu_us_per_op: f64,
    /// The same, of each of them.
    client_us: f64,
    server_us: f64,
    broker_us: f64,
    rounds: usize,
}

/// One round.
#[derive(Clone, Copy)]
struct Sample {
    rps: f64,
    p50: f64,
    p99: f64,
    client: f64,
    server: f64,
    broker: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    Greenroom,
    Raw,
}

impl System {
    const ALL: [System; 2] = [System::Greenroom, System::Raw];

    fn name(self) -> &'static str {
        match self {
            System::Greenroom => "greenroom",
            System::Raw => "async-nats",
        }
    }
}

/// Answers until it is killed.
pub fn host(url: &str, system: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if system == System::Greenroom.name() {
            let node = Node::builder(APP).name("host").connect(url).host::<EchoActor>().start().await?;
            node.ended().await;
            return Ok(());
        }
        let client = async_nats::connect(url).await?;
        let mut asked = client.subscribe(RAW).await?;
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                client.publish(reply, message.payload).await?;
            }
        }
        Ok(())
    })
}

/// Runs every case, interleaved, and prints the table.
pub fn run(quick: bool, only: Option<&str>, json: Option<&Path>) -> anyhow::Result<()> {
    let (rounds, spell) = if quick { (3, Duration::from_millis(400)) } else { (5, Duration::from_secs(1)) };
    let tools = tools::provision(&mut |line| eprintln!("{line}"))?;
    let broker = Broker::start(&tools, BrokerOptions { config: Profile::Plain })?;
    let hosts = System::ALL
        .iter()
        .map(|system| Ok((*system, start(&broker.url(), *system)?)))
        .collect::<anyhow::Result<_>>()?;
    let at = At { url: broker.url(), broker: broker.pid(), hosts };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let only = only.map(str::to_owned);
    let rows = runtime.block_on(async move {
        tokio::spawn(async move { cases(&at, rounds, spell, only.as_deref()).await }).await
    })??;
    print(&rows);
    report::write(json, &rows)
}

struct At {
    url: String,
    broker: u32,
    hosts: Vec<(System, Process)>,
}

fn start(url: &str, system: System) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["remote-host", "--nats", url, "--system", system.name()]);
    let name = system.name().to_owned();
    Process::spawn(Launch { name, command, log: None, group: Group::Shared, scratch: None })
}

async fn cases(at: &At, rounds: usize, spell: Duration, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let callers = Callers::ready(&at.url).await?;
    let wanted = |payload: usize, in_flight: usize| only.is_none_or(|only| only == format!("{payload}x{in_flight}"));
    let cases: Vec<_> = CASES.into_iter().filter(|(payload, in_flight)| wanted(*payload, *in_flight)).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len() * System::ALL.len()];
    for round in 1..=rounds {
        eprintln!("  round {round} of {rounds}");
        let all = cases.iter().flat_map(|case| System::ALL.map(|system| (system, *case)));
        for ((system, (payload, in_flight)), samples) in all.zip(&mut samples) {
            let host = at.hosts.iter().find(|host| host.0 == system).map_or(0, |host| host.1.pid());
            samples.push(callers.measure(system, payload, in_flight, spell, [host, at.broker]).await?);
        }
    }
    let all = cases.iter().flat_map(|case| System::ALL.map(|system| (system, *case)));
    Ok(all
        .zip(samples)
        .map(|((system, (payload, in_flight)), samples)| row(system, payload, in_flight, &samples))
        .collect())
}

fn row(system: System, payload_bytes: usize, in_flight: usize, samples: &[Sample]) -> Row {
    let of = |figure: fn(&Sample) -> f64| {
        let mut all: Vec<f64> = samples.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    let (rps_median, rps_min, rps_max) = of(|sample| sample.rps);
    Row {
        system: system.name(),
        payload_bytes,
        in_flight,
        rps_median,
        rps_min,
        rps_max,
        p50_us: of(|sample| sample.p50).0,
        p99_us: of(|sample| sample.p99).0,
        cpu_us_per_op: of(|sample| sample.client + sample.server + sample.broker).0,
        client_us: of(|sample| sample.client).0,
        server_us: of(|sample| sample.server).0,
        broker_us: of(|sample| sample.broker).0,
        rounds: samples.len(),
    }
}

fn print(rows: &[Row]) {
    println!(
        "\n| bytes | at once | system | calls/s [min–max] | p50 µs | p99 µs | CPU µs (client, server, broker) | rate to {} |",
        System::Raw.name()
    );
    println!("|---|---|---|---|---|---|---|---|");
    for row in rows {
        let peer = rows.iter().find(|peer| {
            peer.system == System::Raw.name()
                && (peer.payload_bytes, peer.in_flight) == (row.payload_bytes, row.in_flight)
        });
        let ratio = peer.map_or(f64::NAN, |peer| row.rps_median / peer.rps_median);
        println!(
            "| {} | {} | {} | {:.0} [{:.0}–{:.0}] | {:.0} | {:.0} | {:.1} ({:.1}, {:.1}, {:.1}) | {ratio:.2} |",
            row.payload_bytes,
            row.in_flight,
            row.system,
            row.rps_median,
            row.rps_min,
            row.rps_max,
            row.p50_us,
            row.p99_us,
            row.cpu_us_per_op,
            row.client_us,
            row.server_us,
            row.broker_us,
        );
    }
}

/// A client of each system.
struct Callers {
    node: Node,
    raw: async_nats::Client,
}

impl Callers {
    /// Waits until every system answers.
    async fn ready(url: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        let node = loop {
            match Node::builder(APP).name("client").connect(url).start().await {
                Ok(node) => break node,
                Err(error) if began.elapsed() > LIMIT => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let raw = async_nats::connect(url).await?;
        let callers = Self { node, raw };
        for system in System::ALL {
            for caller in 0..256 {
                while let Err(error) = callers.caller(system, caller, 100).ask().await {
                    anyhow::ensure!(began.elapsed() < LIMIT, "{} does not answer: {error}", system.name());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(callers)
    }

    fn caller(&self, system: System, number: usize, payload: usize) -> Caller {
        let text = "x".repeat(payload);
        match system {
            System::Greenroom => Caller::Greenroom(self.node.actor::<Echo>(format!("key-{number}")), text),
            System::Raw => Caller::Raw(self.raw.clone(), Bytes::from(text)),
        }
    }

    async fn measure(
        &self,
        system: System,
        payload: usize,
        in_flight: usize,
        spell: Duration,
        others: [u32; 2],
    ) -> anyhow::Result<Sample> {
        let (ready, over) = (Arc::new(Barrier::new(in_flight + 1)), Arc::new(AtomicBool::new(false)));
        let tasks: Vec<_> = (0..in_flight)
            .map(|number| {
                let (caller, ready, over) = (self.caller(system, number, payload), ready.clone(), over.clone());
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(1 << 14);
                    ready.wait().await;
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        caller.ask().await?;
                        times.push(began.elapsed().as_nanos() as u64);
                    }
                    anyhow::Ok(times)
                })
            })
            .collect();
        ready.wait().await;
        let cpu = || anyhow::Ok([report::cpu_ns()?, report::cpu_ns_of(others[0])?, report::cpu_ns_of(others[1])?]);
        let (before, began) = (cpu()?, Instant::now());
        tokio::time::sleep(spell).await;
        over.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.context("a caller panicked")??);
        }
        let (took, after) = (began.elapsed().as_secs_f64(), cpu()?);
        times.sort_unstable();
        let count = times.len();
        let at = |share: usize| times.get(count * share / 100).map_or(f64::NAN, |ns| *ns as f64 / 1e3);
        let spent = |at: usize| (after[at] - before[at]) / 1e3 / count as f64;
        let (client, server, broker) = (spent(0), spent(1), spent(2));
        Ok(Sample { rps: count as f64 / took, p50: at(50), p99: at(99), client, server, broker })
    }
}

enum Caller {
    Greenroom(Ref<Echo>, String),
    Raw(async_nats::Client, Bytes),
}

impl Caller {
    async fn ask(&self) -> anyhow::Result<()> {
        let (got, sent) = match self {
            Caller::Greenroom(echo, text) => (echo.ask(Say { text: text.clone() }).await?.len(), text.len()),
            Caller::Raw(client, body) => (client.request(RAW, body.clone()).await?.payload.len(), body.len()),
        };
        anyhow::ensure!(got == sent, "{sent} bytes went, {got} came back");
        Ok(())
    }
}
