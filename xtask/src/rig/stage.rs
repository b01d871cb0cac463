//! The processes: brokers, nodes, callers. Whatever happens, none of them outlives the stage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use greenroom_history::{Call, Entry};
use serde::de::DeserializeOwned;

use tempfile::TempDir;

use super::APP;
use super::programs::Programs;
use crate::broker::{Broker, BrokerOptions, Cluster, Profile};
use crate::interrupt::Interrupt;
use crate::process::{Group, Launch, Process, Signal};

/// A node connects, finds the others, and gets its share.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A caller waits for its last answers.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
/// A node hands over what it owns and lets running turns end.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);
const ELECTED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// How many servers there are, and so how many keep each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// One server, one copy.
    One,
    /// Three servers, three copies.
    Three,
}

/// How nodes learn of the death of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The broker says when a connection ends, as `nats.conf` has it.
    AtOnce,
    /// It says nothing, so that the lease decides.
    ByTheLease,
}

/// What the stage is to be like.
#[derive(Clone, Copy, Debug)]
pub struct StageOptions {
    /// How many servers.
    pub brokers: Brokers,
    /// Whether the broker tells of connections that end.
    pub told: Told,
    /// How many seconds a lease lives.
    pub lease_s: u64,
}

/// One node's process.
#[derive(Debug)]
pub struct Member {
    /// What it is called: never the same twice.
    pub name: String,
    pub(crate) process: Process,
}

impl Member {
    /// The ids it has had, the newest last.
    pub fn ids(&self) -> Vec<String> {
        let output = self.process.output();
        output.lines().filter_map(|line| line.strip_prefix("ready ")).map(str::to_owned).collect()
    }
}

/// The servers of a stage.
#[derive(Debug)]
enum Servers {
    One(Box<Broker>),
    Three(Cluster),
}

/// Brokers and nodes, and a directory for what all of them write. Dropping it kills everything.
#[derive(Debug)]
pub struct Stage {
    programs: Programs,
    options: StageOptions,
    interrupt: Interrupt,
    // The nodes before the broker, and both before the directory of their logs.
    nodes: Vec<Member>,
    servers: Servers,
    named: u32,
    read_to: u64,
    dir: TempDir,
}

impl Stage {
    /// Starts the brokers, and no node yet.
    pub(crate) fn open(programs: &Programs, options: StageOptions, interrupt: &Interrupt) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("greenroom-rig-").tempdir()?;
        let profile = Profile::Custom(configuration(&options));
        let servers = match options.brokers {
            Brokers::One => {
                let broker = Broker::start_detached(&programs.tools, BrokerOptions { config: profile }, None)?;
                Servers::One(Box::new(broker))
            }
            Brokers::Three => {
                let cluster = Cluster::start_with(&programs.tools, 3, &profile)?;
                cluster.wait_for_meta_leader(ELECTED_WITHIN)?;
                Servers::Three(cluster)
            }
        };
        let (programs, interrupt) = (programs.clone(), interrupt.clone());
        Ok(Self { programs, options, interrupt, nodes: Vec::new(), servers, named: 0, read_to: 0, dir })
    }

    /// Where clients connect.
    pub fn urls(&self) -> String {
        match &self.servers {
            Servers::One(broker) => broker.url(),
            Servers::Three(cluster) => cluster.urls(),
        }
    }

    /// The ports on which the servers take clients.
    pub fn ports(&self) -> Vec<u16> {
        match &self.servers {
            Servers::One(broker) => vec![broker.port()],
            Servers::Three(cluster) => cluster.brokers().iter().map(Broker::port).collect(),
        }
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.ports().len()
    }

    /// How many seconds a lease lives.
    pub fn lease_s(&self) -> u64 {
        self.options.lease_s
    }

    /// SIGKILL for the server that leads the journals; gives its index.
    pub fn kill_leader(&mut self) -> Result<usize> {
        let index = match &self.servers {
            Servers::One(_) => 0,
            Servers::Three(cluster) => leader(cluster)?,
        };
        self.server(index)?.kill9()?;
        Ok(index)
    }

    /// Starts a server again, on its store and its ports.
    pub fn restart_server(&mut self, index: usize) -> Result<()> {
        self.server(index)?.restart()
    }

    fn server(&mut self, index: usize) -> Result<&mut Broker> {
        match &mut self.servers {
            Servers::One(broker) => Ok(broker),
            Servers::Three(cluster) => cluster.broker_mut(index).with_context(|| format!("there is no server {index}")),
        }
    }

    /// The nodes that were started and not taken away.
    pub fn nodes(&self) -> &[Member] {
        &self.nodes
    }

    /// Starts a node under a name that none had before, says which, and does not wait for it.
    pub fn start_node(&mut self) -> Result<String> {
        let urls = self.urls();
        self.start_node_at(&urls, |command| command)
    }

    /// The same, with brokers where this says, and by the command that is made of the usual one.
    pub fn start_node_at(&mut self, urls: &str, place: impl FnOnce(Command) -> Command) -> Result<String> {
        self.named += 1;
        let name = format!("n{}", self.named);
        let mut command = self.rig("node", urls);
        command.args(["--name", &name, "--lease", &self.options.lease_s.to_string()]);
        let process = self.spawn(&name, place(command))?;
        self.nodes.push(Member { name: name.clone(), process });
        Ok(name)
    }

    /// Waits until every node has said that it is ready.
    pub fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        for index in 0..self.nodes.len() {
            self.until_said(Which::Node(index), "ready ", deadline)?;
        }
        Ok(())
    }

    /// Takes a node out, to do with it what one likes.
    pub fn take_node(&mut self, name: &str) -> Result<Member> {
        let index = self.nodes.iter().position(|node| node.name == name);
        Ok(self.nodes.remove(index.with_context(|| format!("there is no node {name}"))?))
    }

    /// Starts a caller: `rig {kind} --out …` with these arguments.
    pub fn start_caller(&self, kind: &str, name: &str, args: &[String]) -> Result<Caller> {
        let out = self.dir.path().join(format!("{name}.jsonl"));
        let mut command = self.rig(kind, &self.urls());
        command.args(args).arg("--out").arg(&out);
        Ok(Caller { process: self.spawn(name, command)?, out })
    }

    /// Waits until a caller has said this at the beginning of a line.
    pub fn until_caller(&mut self, caller: &mut Caller, word: &str) -> Result<()> {
        self.until_said(Which::Caller(caller), word, Instant::now() + READY_LIMIT)
    }

    /// Lets a caller finish, and gives all its calls.
    pub fn end_caller(&self, mut caller: Caller) -> Result<Vec<Call>> {
        let status = caller.process.terminate(ENDS_WITHIN)?;
        ensure!(status.success(), "{} failed: {}", caller.process.name(), caller.process.output_tail(20));
        let calls = read_lines(&caller.out);
        // They were read, and a hundred runs would fill a disk.
        fs::remove_file(&caller.out)?;
        calls
    }

    /// What has been added to the journals since this was asked last.
    pub fn new_entries(&mut self) -> Result<Vec<Entry>> {
        let out = self.dir.path().join("journal.jsonl");
        let mut command = self.rig("journal", &self.urls());
        command.args(["--from", &(self.read_to + 1).to_string()]).arg("--out").arg(&out);
        let mut process = self.spawn("journal", command)?;
        match process.wait(ENDS_WITHIN)? {
            Some(status) if status.success() => {}
            status => bail!("the journals cannot be read ({status:?}):\n{}", process.output_tail(20)),
        }
        let entries: Vec<Entry> = read_lines(&out)?;
        self.read_to = entries.last().map_or(self.read_to, |entry| entry.sequence);
        Ok(entries)
    }

    /// Waits, unless Ctrl-C comes.
    pub fn rest(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.not_interrupted()?;
            thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        }
        Ok(())
    }

    /// SIGTERM for a node, and waits until it has left.
    pub fn drain(&self, mut node: Member) -> Result<()> {
        node.signal(Signal::TERM)?;
        match node.process.wait(DRAIN_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", node.name, node.process.output_tail(20)),
            None => bail!("{} did not drain:\n{}", node.name, node.process.output_tail(20)),
        }
    }

    /// Keeps the directory with all that was written, and says where it is.
    pub fn keep(self) -> PathBuf {
        let logs = match &self.servers {
            Servers::One(broker) => vec![broker.logs()],
            Servers::Three(cluster) => cluster.brokers().iter().map(Broker::logs).collect(),
        };
        for (number, log) in logs.iter().enumerate() {
            // What cannot be written is missed, and nothing else.
            let _ = fs::write(self.dir.path().join(format!("broker-{number}.log")), log);
        }
        let Self { dir, nodes, .. } = self;
        drop(nodes);
        dir.keep()
    }

    /// Where everything is written.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An error once Ctrl-C has come.
    pub(crate) fn not_interrupted(&self) -> Result<()> {
        ensure!(!self.interrupt.raised(), "interrupted");
        Ok(())
    }

    /// The programs it was opened with.
    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    fn rig(&self, kind: &str, urls: &str) -> Command {
        let mut command = Command::new(&self.programs.rig);
        let replicas = match self.options.brokers {
            Brokers::One => "1",
            Brokers::Three => "3",
        };
        command.args([kind, "--nats", urls, "--replicas", replicas]);
        command
    }

    fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.dir.path().join(format!("{name}.log"));
        let (group, scratch) = (Group::Own, Some(self.dir.path()));
        Process::spawn(Launch { name: name.to_owned(), command, log: Some(&log), group, scratch })
    }

    fn until_said(&mut self, mut which: Which<'_>, word: &str, deadline: Instant) -> Result<()> {
        loop {
            self.not_interrupted()?;
            let process = match &mut which {
                Which::Node(index) => &mut self.nodes[*index].process,
                Which::Caller(caller) => &mut caller.process,
            };
            if process.output().lines().any(|line| line.starts_with(word)) {
                return Ok(());
            }
            let name = process.name().to_owned();
            if let Some(status) = process.status()? {
                bail!("{name} has ended ({status}); its last output:\n{}", process.output_tail(20));
            }
            ensure!(Instant::now() < deadline, "{name} has not said {word:?}:\n{}", process.output_tail(20));
            thread::sleep(POLL);
        }
    }
}

enum Which<'a> {
    Node(usize),
    Caller(&'a mut Caller),
}

/// A process that calls, and writes down what became of it.
#[derive(Debug)]
pub struct Caller {
    process: Process,
    out: PathBuf,
}

impl Caller {
    /// The rest of the line that begins so; nothing if it has not been said.
    pub fn said(&self, word: &str) -> String {
        let output = self.process.output();
        output.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default().to_owned()
    }
}

impl Member {
    /// SIGKILL, and gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP, and still.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Any other signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}

/// Which server leads the stream of the journals, as one of them knows it.
fn leader(cluster: &Cluster) -> Result<usize> {
    let deadline = Instant::now() + ELECTED_WITHIN;
    let stream = format!("{APP}-evt-cell");
    loop {
        for broker in cluster.brokers() {
            let known = broker.monitor("/jsz?accounts=true&streams=true").unwrap_or_default();
            let accounts = known["account_details"].as_array().into_iter().flatten();
            let streams = accounts.filter_map(|account| account["stream_detail"].as_array()).flatten();
            let leads = streams.filter(|found| found["name"] == stream.as_str());
            for leads in leads.filter_map(|found| found["cluster"]["leader"].as_str()) {
                if let Some(index) = cluster.brokers().iter().position(|broker| broker.name() == leads) {
                    return Ok(index);
                }
            }
        }
        ensure!(Instant::now() < deadline, "nobody leads {stream}");
        thread::sleep(POLL * 50);
    }
}

/// The development profile in `nats.conf`, for the app of the rig.
fn configuration(options: &StageOptions) -> String {
    let import = match options.told {
        Told::AtOnce => {
            r#"imports: [ { stream: { account: SYS, subject: "$SYS.ACCOUNT.APP.DISCONNECT" }, to: "rig.node.sys.disconnect" } ]"#
        }
        Told::ByTheLease => "",
    };
    // Or clients would be told of the servers themselves, past what stands between.
    let cluster = if options.brokers == Brokers::Three { "cluster { no_advertise: true }" } else { "" };
    format!(
        r#"ping_interval: "3s"
ping_max: 2
jetstream {{ sync_interval: "2m" }}
{cluster}
accounts {{
    APP {{
        jetstream: enabled
        users: [ {{ user: app, permissions: {{ publish: {{ deny: "rig.node.sys.>" }} }} }} ]
        {import}
        mappings: {{ "rig.cell.*.*": "rig.@.{{{{partition(64,1)}}}}.cell.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}" }}
    }}
    SYS {{ exports: [ {{ stream: "$SYS.ACCOUNT.*.DISCONNECT", account_token_position: 3 }} ] }}
}}
system_account: SYS
no_auth_user: app
"#
    )
}

/// Reads a file of one JSON object a line.
fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parse = |(number, line)| {
        serde_json::from_str(line).with_context(|| format!("line {} of {}: {line}", number + 1, path.display()))
    };
    text.lines().enumerate().map(parse).collect()
}
