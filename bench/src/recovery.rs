//! How long it takes until many durable actors are there again after their node was killed.
//!
//! Real processes: one node has nearly all actors, another stands by with the smallest weight there is. The first is
//! killed (SIGKILL), the broker says so, and the other takes over. Or nobody stands by, and the process is started again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use greenroom::{HostOptions, Node};
use xtask::broker::{Broker, BrokerOptions, Profile};
use xtask::process::{Group, Launch, Process};
use xtask::tools;

use crate::durable::{self, Keep, Kept, KeptActor, Samples};

const APP: &str = "bench";
/// Callers at once.
const CALLERS: u64 = 128;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Hosts the actors until it is killed.
pub fn host(url: &str, name: &str, weight: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let options = HostOptions::new().weight(weight);
        let node = Node::builder(APP).name(name).connect(url).host_with::<KeptActor>(options).start().await?;
        println!("ready {}", node.id());
        node.ended().await;
        Ok(())
    })
}

/// Runs every round, and prints the table.
pub fn run(quick: bool, actors: Option<u64>, json: Option<&Path>) -> anyhow::Result<()> {
    let actors = actors.unwrap_or(if quick { 10_000 } else { 100_000 });
    let rounds = if quick { 2 } else { 3 };
    let tools = tools::provision(&mut |line| eprintln!("{line}"))?;
    let broker = Broker::start(&tools, BrokerOptions { config: Profile::Custom(configuration()) })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let url = broker.url();
    let samples = runtime.block_on(async move {
        tokio::spawn(async move {
            let mut samples = Samples::default();
            let client = born(&url).await?;
            let mut turns = 0;
            for number in 1..=rounds {
                for standby in [true, false] {
                    eprintln!("  round {number} of {rounds}, {actors} actors, {}", Case { standby }.name());
                    turns += 1;
                    Case { standby }.measure(&mut samples, &client, &url, actors, &mut turns).await?;
                }
            }
            samples.keep("actors", "actors", None, actors as f64);
            client.drain().await?;
            anyhow::Ok(samples)
        })
        .await
    })??;
    durable::show(samples, json)
}

/// Who takes over.
#[derive(Clone, Copy)]
struct Case {
    standby: bool,
}

impl Case {
    fn name(self) -> &'static str {
        if self.standby { "another stands by" } else { "started again" }
    }

    fn names(self) -> [&'static str; 4] {
        match self.standby {
            true => [
                "another stands by: partitions served again",
                "another stands by: the first 99 % of actors answered",
                "another stands by: all actors have answered",
                "another stands by: actors that answered",
            ],
            false => [
                "started again: partitions served again",
                "started again: the first 99 % of actors answered",
                "started again: all actors have answered",
                "started again: actors that answered",
            ],
        }
    }

    /// One kill. `turns` counts how often every actor was asked before.
    async fn measure(
        self,
        samples: &mut Samples,
        client: &Node,
        url: &str,
        actors: u64,
        turns: &mut u64,
    ) -> anyhow::Result<()> {
        let mut first = start(url, "first", 10_000)?;
        let standby = if self.standby { Some(start(url, "standby", 1)?) } else { None };
        settle(client, if self.standby { 2 } else { 1 }).await?;
        let all = ask_all(client, actors, *turns).await?;
        samples.keep("before: actors brought into memory", "/s", None, actors as f64 / all.whole.as_secs_f64());

        *turns += 1;
        let before = holders(client);
        let died = Instant::now();
        first.kill()?;
        let again = if self.standby { None } else { Some(start(url, "again", 10_000)?) };
        let asking = tokio::spawn({
            let (client, turns) = (client.clone(), *turns);
            async move { ask_all(&client, actors, turns).await }
        });
        let served = served_anew(client, &before, died).await?;
        let all = asking.await??;
        let [partitions, most, whole, rate] = self.names();
        samples.keep(partitions, "ms", None, served.as_secs_f64() * 1e3);
        samples.keep(most, "ms", None, all.most.as_secs_f64() * 1e3);
        samples.keep(whole, "ms", None, all.whole.as_secs_f64() * 1e3);
        samples.keep(rate, "/s", None, actors as f64 / all.whole.as_secs_f64());
        drop((standby, again));
        until_gone(client).await
    }
}

/// A client of the app, which a node has to give birth to.
async fn born(url: &str) -> anyhow::Result<Node> {
    let mut birth = start(url, "birth", 1)?;
    let began = Instant::now();
    let client = loop {
        match Node::builder(APP).name("client").connect(url).start().await {
            Ok(client) => break client,
            Err(error) if began.elapsed() > LIMIT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    settle(&client, 1).await?;
    birth.kill()?;
    until_gone(&client).await?;
    Ok(client)
}

/// How long it took from the first question to the answers.
struct Asked {
    most: Duration,
    whole: Duration,
}

/// Asks every actor once; each must know how often it was asked before.
async fn ask_all(client: &Node, actors: u64, before: u64) -> anyhow::Result<Asked> {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                let mut most = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= actors {
                        return anyhow::Ok(most);
                    }
                    let actor = client.actor::<Kept>(format!("actor-{number}")).within(LIMIT);
                    let total = actor.ask(Keep { by: 1 }).await?;
                    ensure!(total == before, "actor-{number} was asked {total} times, not {before}");
                    if number == actors * 99 / 100 {
                        most = Some(began.elapsed());
                    }
                }
            })
        })
        .collect();
    let mut most = None;
    for caller in callers {
        most = caller.await??.or(most);
    }
    Ok(Asked { most: most.unwrap_or_default(), whole: began.elapsed() })
}

fn start(url: &str, name: &str, weight: u32) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["recovery-host", "--nats", url, "--name", name, "--weight", &weight.to_string()]);
    let launch = Launch { name: name.to_owned(), command, log: None, group: Group::Shared, scratch: None };
    Process::spawn(launch)
}

/// Who owns how many partitions.
fn holders(client: &Node) -> Vec<(String, usize)> {
    let info = client.info();
    let claims = info.claims.iter().filter(|claim| claim.actor == "kept" && !claim.partitions.is_empty());
    claims.map(|claim| (claim.node.clone(), claim.partitions.len())).collect()
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(began.elapsed() < LIMIT, "this did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until so many nodes are there and all partitions have owners, for a while.
async fn settle(client: &Node, nodes: usize) -> anyhow::Result<()> {
    let mut since = Instant::now();
    let mut last = Vec::new();
    until("the nodes have divided the partitions", || {
        let now = holders(client);
        let complete = client.info().nodes.iter().filter(|node| node.live && !node.hosts.is_empty()).count() == nodes
            && now.iter().map(|(_, share)| share).sum::<usize>() == usize::from(client.info().partitions);
        if !complete || now != last {
            (since, last) = (Instant::now(), now);
        }
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await
}

/// Waits until the one that had most has no partition any more, and none is without an owner.
async fn served_anew(client: &Node, before: &[(String, usize)], died: Instant) -> anyhow::Result<Duration> {
    let (dead, _) = before.iter().max_by_key(|(_, share)| *share).context("nobody owned anything")?;
    until("the partitions of the dead have other owners", || {
        let now = holders(client);
        let all = now.iter().map(|(_, share)| share).sum::<usize>() == usize::from(client.info().partitions);
        (all && now.iter().all(|(node, _)| node != dead)).then(|| died.elapsed())
    })
    .await
}

async fn until_gone(client: &Node) -> anyhow::Result<()> {
    until("nobody is left", || {
        let info = client.info();
        (!info.nodes.iter().any(|node| node.live && !node.hosts.is_empty())).then_some(())
    })
    .await
}

/// A broker that tells of connections that end, as `nats.conf` has it.
fn configuration() -> String {
    format!(
        r#"jetstream {{ sync_interval: "2m" }}
accounts {{
    APP {{
        jetstream: enabled
        users: [ {{ user: app }} ]
        imports: [ {{ stream: {{ account: SYS, subject: "$SYS.ACCOUNT.APP.DISCONNECT" }}, to: "{APP}.node.sys.disconnect" }} ]
    }}
    SYS {{ exports: [ {{ stream: "$SYS.ACCOUNT.*.DISCONNECT", account_token_position: 3 }} ] }}
}}
system_account: SYS
no_auth_user: app
"#
    )
}
