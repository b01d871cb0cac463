//! The processes: brokers, and a server and a client of each system. They are gone when the stage is dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use greenroom_bench_load::{Order, READY, Spell};
use xtask::broker::{Broker, BrokerOptions, Profile, free_port};
use xtask::process::{Group, Launch, Process};
use xtask::tools::{self, Tools, Version};

use super::mosquitto::Mosquitto;
use super::system::{Between, Program, System};
use crate::report;

/// How long a side may take until it can be measured, and to answer after its callers should have ended.
const LIMIT: Duration = Duration::from_secs(90);

/// All processes.
pub struct Stage {
    // In the order in which they end.
    running: Vec<Running>,
    nats: Option<(Broker, Version)>,
    mosquitto: Option<Mosquitto>,
}

/// What one spell of one system was like.
pub struct Measured {
    pub spell: Spell,
    /// Nanoseconds of processor time that client, server and broker have used.
    pub cpu: [f64; 3],
}

impl Stage {
    /// Finds what is needed, and then starts everything.
    pub fn open(systems: &[System]) -> anyhow::Result<Self> {
        let between = |what: Between| systems.iter().any(|system| system.between == what);
        // Whatever is missing is said before anything is built or started.
        let mosquitto = between(Between::Mosquitto).then(Mosquitto::find).transpose()?;
        let own = std::env::current_exe().context("this program does not know where it is")?;
        let peers = if systems.iter().any(|system| system.program == Program::Peers) {
            eprintln!("building the peers, if they have changed");
            xtask::bench::build_peers()?
        } else {
            PathBuf::new()
        };
        let mut stage = Self { running: Vec::new(), nats: None, mosquitto: None };
        if between(Between::Nats) {
            let tools = tools::provision(&mut |line| eprintln!("{line}"))?;
            stage.nats = Some(start_nats(&tools)?);
        }
        stage.mosquitto = mosquitto.map(|program| Mosquitto::start(&program)).transpose()?;
        for system in systems {
            eprintln!("starting {}", system.name);
            let program = if system.program == Program::Own { &own } else { &peers };
            let running = stage.start(*system, program).with_context(|| system.name)?;
            stage.running.push(running);
        }
        Ok(stage)
    }

    fn start(&self, system: System, program: &Path) -> anyhow::Result<Running> {
        let (at, broker) = match (system.between, &self.nats, &self.mosquitto) {
            (Between::Nothing, ..) => (SocketAddr::from(([127, 0, 0, 1], free_port()?)).to_string(), None),
            (Between::Nats, Some((nats, _)), _) => (nats.url(), Some(nats.pid())),
            (Between::Mosquitto, _, Some(mosquitto)) => (mosquitto.at().to_string(), Some(mosquitto.pid())),
            (Between::Nats | Between::Mosquitto, ..) => bail!("its broker was not started"),
        };
        let server = Side::start(system, program, "server", &at)?;
        let client = Side::start(system, program, "client", &at)?;
        Ok(Running { system, client, server, broker })
    }

    /// The systems, in their order.
    pub fn systems(&self) -> Vec<System> {
        self.running.iter().map(|running| running.system).collect()
    }

    /// Lets the client of the system at this place carry out an order.
    pub fn measure(&mut self, place: usize, order: Order) -> anyhow::Result<Measured> {
        let running = self.running.get_mut(place).context("there is no such system")?;
        let Order { payload, in_flight, .. } = order;
        let name = running.system.name;
        running.measure(order).with_context(|| {
            format!("{name} with {payload} bytes and {in_flight} in flight failed; --only and --cases leave things out")
        })
    }

    /// What the brokers are, by name and version.
    pub fn brokers(&self) -> Vec<(&'static str, String)> {
        let nats = self.nats.iter().map(|(_, version)| ("nats-server", version.to_string()));
        nats.chain(self.mosquitto.iter().map(|broker| ("mosquitto", broker.version().to_owned()))).collect()
    }
}

fn start_nats(tools: &Tools) -> anyhow::Result<(Broker, Version)> {
    let broker = Broker::start(tools, BrokerOptions { config: Profile::Plain })?;
    Ok((broker, Version::of(&tools.nats_server)?))
}

/// A system whose connections are open.
struct Running {
    system: System,
    client: Side,
    server: Side,
    broker: Option<u32>,
}

impl Running {
    fn measure(&mut self, order: Order) -> anyhow::Result<Measured> {
        let before = self.cpu()?;
        writeln!(self.client.to, "{order}").context("the client has ended; what it said is above")?;
        let line = self.client.line(LIMIT + Duration::from_millis(order.millis))?;
        let after = self.cpu()?;
        let spell = serde_json::from_str(&line).with_context(|| format!("the client said {line:?}"))?;
        let cpu = std::array::from_fn(|at| after[at] - before[at]);
        Ok(Measured { spell, cpu })
    }

    fn cpu(&self) -> anyhow::Result<[f64; 3]> {
        let broker = self.broker.map(report::cpu_ns_of).transpose()?;
        let side = |side: &Side| report::cpu_ns_of(side.process.pid());
        Ok([side(&self.client)?, side(&self.server)?, broker.unwrap_or_default()])
    }
}

/// One of the two processes of a system.
struct Side {
    process: Process,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Side {
    /// Starts it and waits until it is ready.
    fn start(system: System, program: &Path, what: &str, at: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args([what, system.name, "--at", at]);
        let name = format!("the {what} of {}", system.name);
        let (process, to, from) =
            Process::converse(Launch { name, command, log: None, group: Group::Shared, scratch: None })?;
        let mut side = Self { process, to, from: lines(from) };
        let said = side.line(LIMIT)?;
        if said.split_whitespace().next() != Some(READY) {
            bail!("{} said {said:?} instead of {READY:?}", side.process.name());
        }
        Ok(side)
    }

    /// The next line that it says.
    fn line(&mut self, limit: Duration) -> anyhow::Result<String> {
        self.from.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("{} says nothing for {} s", self.process.name(), limit.as_secs()),
            RecvTimeoutError::Disconnected => anyhow!("{} has ended; what it said is above", self.process.name()),
        })
    }
}

/// Lines as they come, so that one can stop waiting for them.
fn lines(from: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(16);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
