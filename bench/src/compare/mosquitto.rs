//! A `mosquitto` of our own: a child process on a free port, with a configuration in a directory of its own.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use xtask::broker::free_port;
use xtask::process::{Group, Launch, Process};

/// Names the program, past every other rule.
const VARIABLE: &str = "GREENROOM_MOSQUITTO";
const READY_LIMIT: Duration = Duration::from_secs(10);

/// A running broker. It is gone, with its directory, when it is dropped.
pub struct Mosquitto {
    // Dropped before the directory it runs in.
    process: Process,
    at: SocketAddr,
    version: String,
    _dir: TempDir,
}

impl Mosquitto {
    /// Where the program is. Debian installs it where the `PATH` of a user may not lead.
    pub fn find() -> anyhow::Result<PathBuf> {
        if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
            let program = PathBuf::from(named);
            ensure!(program.is_file(), "{VARIABLE} names {}, which is no program", program.display());
            return Ok(program);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join("mosquitto")).find(|program| program.is_file()).context(
            "there is no mosquitto, which mqtt-qos0 and mqtt-qos1 need. Any one of these mends it:\n  \
             1. install it: apt-get install mosquitto; its service may stay off\n  \
             2. set GREENROOM_MOSQUITTO to the path of one\n  \
             3. leave the two out: name the others with --only",
        )
    }

    /// Starts it, and waits until it accepts connections.
    pub fn start(program: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("greenroom-mosquitto-").tempdir()?;
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (config, log) = (dir.path().join("mosquitto.conf"), dir.path().join("log"));
        fs::write(&config, configuration(at))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config);
        let name = format!("mosquitto on port {}", at.port());
        let launch = Launch { name, command, log: Some(&log), group: Group::Shared, scratch: Some(dir.path()) };
        let mut process = Process::spawn(launch)?;
        let began = Instant::now();
        while TcpStream::connect(at).is_err() {
            if process.status()?.is_some() || began.elapsed() > READY_LIMIT {
                bail!("{} does not start; its last output:\n{}", program.display(), process.output_tail(20));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { process, at, version: version(program)?, _dir: dir })
    }

    /// Where clients connect.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Nothing is kept, nothing is held back, and nothing waits for more to send.
fn configuration(at: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
         max_inflight_messages 0\nmax_queued_messages 0\nlog_type error\nlog_dest stderr\n",
        at.port(),
        at.ip()
    )
}

/// The first line of its help is `mosquitto version 2.0.11`.
fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("-h").output().context("mosquitto cannot be asked for its version")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.lines().next().and_then(|line| line.strip_prefix("mosquitto version "));
    Ok(version.unwrap_or("of an unknown version").to_owned())
}
