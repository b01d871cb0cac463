//! Real brokers, one child process each, for the tests, the demo and the measurements.
//!
//! A [`Broker`] has ports and a directory of its own, so any number of them run
//! side by side. It is gone, with its directory, when it is dropped. A [`Cluster`]
//! is several of them that replicate.
//!
//! Nothing here speaks NATS beyond reading the server's first line: clients are
//! the business of whoever starts the broker.

mod cluster;
mod port;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::process::{Group, Launch, Process, Signal};
use crate::tools::Tools;

pub use cluster::Cluster;
pub use port::{free_port, is_free};

/// A server is ready in a tenth of a second, but the machine may be busy and its store may need recovery.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A clean stop writes what is left of the store.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// A single look at a server that does not answer is given up after this.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// How often fresh ports are tried, should others take them between our look and the server's.
const PORT_ATTEMPTS: u32 = 8;

/// How a broker is set up.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Its configuration.
    pub config: Profile,
}

/// A broker's configuration. Ports, name and store directory are always given by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The repository's `nats.conf`: mappings, accounts, disconnect notices.
    Shop,
    /// JetStream and nothing else, as an embedder's server would be.
    #[default]
    Plain,
    /// The text of a configuration. It must not set `store_dir`: the server refuses to be told twice.
    Custom(String),
}

/// A running `nats-server`.
#[derive(Debug)]
pub struct Broker {
    // Dropped before the directory it writes to.
    process: Option<Process>,
    pid: u32,
    settings: Settings,
    dir: TempDir,
}

impl Broker {
    /// Starts a server on free ports and waits until it answers. Ctrl-C in the terminal ends it too.
    pub fn start(tools: &Tools, options: BrokerOptions) -> Result<Self> {
        Self::start_in(tools, options, Group::Shared, None)
    }

    /// Starts a server that does not hear Ctrl-C, on the given port or else on a free one.
    pub fn start_detached(tools: &Tools, options: BrokerOptions, port: Option<u16>) -> Result<Self> {
        Self::start_in(tools, options, Group::Own, port)
    }

    fn start_in(tools: &Tools, options: BrokerOptions, group: Group, port: Option<u16>) -> Result<Self> {
        retry_ports(|| {
            let settings = Settings {
                program: tools.nats_server.clone(),
                config: options.config.clone(),
                group,
                port: port.map_or_else(free_port, Ok)?,
                monitor: free_port()?,
                extra: Vec::new(),
            };
            Self::launch(settings)
        })
    }

    fn launch(settings: Settings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("greenroom-broker-").tempdir()?;
        let mut broker = Self { process: None, pid: 0, settings, dir };
        broker.boot()?;
        Ok(broker)
    }

    /// Where clients connect: `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// Its process id; after [`kill9`](Self::kill9) or [`stop`](Self::stop) the one it had.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs: false after it was stopped or killed, or ended by itself.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.status()?.is_none()),
            None => Ok(false),
        }
    }

    /// The directory that holds its store, configuration and log, for as long as the broker exists.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it has logged, over all restarts.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Stops it in the orderly way (SIGTERM) and waits. Its store stays: [`restart`](Self::restart) goes on from there.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>> {
        match self.process.take() {
            Some(mut process) => process.terminate(STOP_LIMIT).map(Some),
            None => Ok(None),
        }
    }

    /// Kills it with SIGKILL and waits until it is gone. Its store stays.
    pub fn kill9(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops it if it runs, and starts it again: same ports, same store.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        // The port is outside the range the kernel hands to clients, but another
        // test may have taken it for a moment while it looked for a free one.
        let deadline = Instant::now() + LOOK_LIMIT;
        loop {
            match self.boot() {
                Err(error) if error.is::<PortTaken>() && Instant::now() < deadline => thread::sleep(POLL),
                result => return result,
            }
        }
    }

    /// Freezes it (SIGSTOP): connections stay up and nothing moves.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Where its monitoring endpoints are: `http://127.0.0.1:<port>`.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.monitor)
    }

    /// The JSON answer of one of its monitoring endpoints, such as `/jsz` or `/connz`.
    pub fn monitor(&self, path: &str) -> Result<serde_json::Value> {
        let body = http_get(self.settings.monitor, path)
            .with_context(|| format!("the monitor of {} does not answer {path}", self.url()))?;
        serde_json::from_str(&body).with_context(|| format!("{path} is not JSON: {body}"))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let process = self.process.as_mut().ok_or_else(|| anyhow!("the broker is not running"))?;
        process.signal(signal)
    }

    fn boot(&mut self) -> Result<()> {
        let log = self.log_path();
        let log_start = fs::metadata(&log).map_or(0, |log| log.len());
        let name = self.name();
        let command = self.settings.command(&name, self.dir.path())?;
        let mut process = Process::spawn(Launch {
            name: format!("nats-server on port {}", self.settings.port),
            command,
            log: Some(&log),
            group: self.settings.group,
            scratch: Some(self.dir.path()),
        })?;
        wait_until_ready(&mut process, self.settings.port, &name, log_start)?;
        self.pid = process.pid();
        self.process = Some(process);
        Ok(())
    }

    /// Its name among servers: that of its directory, so that no two servers on this machine share one.
    pub fn name(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("nats-server.log")
    }
}

/// What stays the same over a broker's restarts.
#[derive(Clone, Debug)]
struct Settings {
    program: PathBuf,
    config: Profile,
    group: Group,
    port: u16,
    monitor: u16,
    extra: Vec<String>,
}

impl Settings {
    fn command(&self, name: &str, dir: &Path) -> Result<Command> {
        let config = match &self.config {
            Profile::Shop => crate::workspace_root().join("nats.conf"),
            Profile::Plain => written(dir, "jetstream: enabled\n")?,
            Profile::Custom(text) => written(dir, text)?,
        };
        let mut command = Command::new(&self.program);
        command
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-m", &self.monitor.to_string(), "-n", name])
            .arg("-c")
            .arg(config)
            .arg("-sd")
            .arg(dir.join("store"))
            .args(&self.extra);
        Ok(command)
    }
}

fn written(dir: &Path, config: &str) -> Result<PathBuf> {
    let path = dir.join("nats.conf");
    fs::write(&path, config)?;
    Ok(path)
}

/// The one start-up failure that is worth another attempt.
#[derive(Debug)]
struct PortTaken;

impl fmt::Display for PortTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port of the broker is taken by another process")
    }
}

impl std::error::Error for PortTaken {}

/// Tries again with other ports, which `start` picks, while they turn out to be taken.
fn retry_ports<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start() {
            Err(error) if error.is::<PortTaken>() && attempt < PORT_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// Waits until the server of that name, and no other, greets on the port.
fn wait_until_ready(process: &mut Process, port: u16, name: &str, log_start: u64) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        if let Some(status) = process.status()? {
            let output = process.output();
            let said = output.get(usize::try_from(log_start)?..).unwrap_or(&output);
            if said.contains("address already in use") {
                return Err(anyhow!(PortTaken).context(format!("nats-server cannot listen on port {port}")));
            }
            bail!("nats-server ended at its start ({status}); its last output:\n{}", process.output_tail(20));
        }
        if greeting(port).is_ok_and(|info| info.contains(&format!("\"server_name\":\"{name}\""))) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "nats-server is not ready on port {port} after {} s; its last output:\n{}",
            READY_LIMIT.as_secs(),
            process.output_tail(20)
        );
        thread::sleep(POLL);
    }
}

/// The first line of a NATS server: `INFO {…}`.
fn greeting(port: u16) -> Result<String> {
    let mut line = String::new();
    BufReader::new(connect(port)?).take(64 * 1024).read_line(&mut line)?;
    ensure!(line.starts_with("INFO "), "port {port} is not a NATS server");
    Ok(line)
}

/// HTTP/1.0, so that the end of the body is the end of the connection.
fn http_get(port: u16, path: &str) -> Result<String> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("not an HTTP answer"))?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}");
    Ok(body.to_owned())
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), LOOK_LIMIT)?;
    stream.set_read_timeout(Some(LOOK_LIMIT))?;
    stream.set_write_timeout(Some(LOOK_LIMIT))?;
    Ok(stream)
}
