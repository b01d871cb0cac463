//! The shop's node binary as a process.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;
use xtask::process::{Group, Launch, Process, Signal};

use super::{Server, eventually, program};

/// A node connects, joins the others and takes its partitions.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A `shop-node`. Killed when dropped; if that happens in a panic, its log is printed.
#[derive(Debug)]
pub(crate) struct ShopNode {
    hosts: String,
    // Before the directory that it writes to.
    process: Process,
    dir: TempDir,
}

impl ShopNode {
    /// Starts `shop-node --host {hosts} --nats {server} {extra_args}`, and waits for its `ready`.
    pub(crate) async fn spawn(server: &Server, hosts: &str, extra_args: &[&str]) -> Self {
        let mut node = Self::launch(server, hosts, extra_args).await;
        node.ready().await;
        node
    }

    /// Starts one and does not wait.
    pub(crate) async fn launch(server: &Server, hosts: &str, extra_args: &[&str]) -> Self {
        Self::launch_with(hosts, extra_args, &[("NATS_URL", server.url())]).await
    }

    /// Starts one that finds its broker by these variables, and does not wait.
    pub(crate) async fn launch_with(hosts: &str, extra_args: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = program("shop-node").await;
        let dir = tempfile::Builder::new().prefix("greenroom-node-").tempdir().expect("a directory");
        let mut command = Command::new(program);
        let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("NATS_"));
        command.env_clear().envs(inherited).env("XDG_CONFIG_HOME", dir.path());
        command.env_remove("RUST_LOG").envs(variables.iter().copied());
        command.args(["--host", hosts]).args(extra_args);
        let process = Process::spawn(Launch {
            name: format!("shop-node ({hosts})"),
            command,
            log: Some(&dir.path().join("node.log")),
            group: Group::Shared,
            scratch: Some(dir.path()),
        });
        Self { hosts: hosts.to_owned(), process: process.expect("the node starts"), dir }
    }

    /// Waits until it has printed `ready`, and says which id it has.
    pub(crate) async fn ready(&mut self) -> String {
        self.ready_again(1).await
    }

    /// Waits for its `ready` number `nth`: a node that was taken for dead comes back as somebody
    /// new. Gives the id.
    pub(crate) async fn ready_again(&mut self, nth: usize) -> String {
        let what = format!("{} is ready for time {nth}", self.process.name());
        eventually(READY_LIMIT, &what, async || {
            if let Some(id) = self.ids().into_iter().nth(nth - 1) {
                return Ok(id);
            }
            let status = self.status();
            assert!(status.is_none(), "{} ended: {status:?}\n{}", self.process.name(), self.log());
            Err(format!("\n{}", self.process.output_tail(20)))
        })
        .await
    }

    /// Every id it has had, by its `ready` lines.
    pub(crate) fn ids(&self) -> Vec<String> {
        let log = self.process.output();
        let ready = log.lines().filter_map(|line| line.strip_prefix("ready "));
        ready.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// The id it has now.
    pub(crate) fn id(&self) -> String {
        self.ids().pop().expect("it has been ready")
    }

    /// What it has printed, on both outputs.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill9(&mut self) {
        self.process.kill().expect("it can be killed");
    }

    /// SIGSTOP: it holds its connections and does nothing.
    pub(crate) fn pause(&mut self) {
        self.process.signal(Signal::STOP).expect("it can be paused");
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.process.signal(Signal::CONT).expect("it can be resumed");
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_to_leave(&mut self) {
        self.process.signal(Signal::TERM).expect("it can be signalled");
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.process.status().expect("it can be looked at")
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_leave();
        self.exit(Duration::from_secs(40)).await
    }

    /// Waits for it to end by itself.
    pub(crate) async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.process.name());
        eventually(limit, &what, async || {
            self.status().ok_or_else(|| format!("it runs\n{}", self.process.output_tail(20)))
        })
        .await
    }
}

impl Drop for ShopNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let id = self.ids().pop().unwrap_or_default();
            eprintln!("---- shop-node hosting {} ({id}), in {}\n{}", self.hosts, self.dir.path().display(), self.log());
        }
    }
}
