//! The processes of the demo, from the first to start to the last to stop.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::{DemoOptions, Programs, orders_file};
use crate::broker::{Broker, BrokerOptions, Profile, is_free};
use crate::interrupt::Interrupt;
use crate::process::{Group, Launch, Process, Signal};
use crate::tools::Tools;

/// Who is on: two nodes share the orders, so that the demo has something to move.
const NODES: [&str; 6] = ["user", "order", "order", "payment", "inventory", "notification"];
/// The port on which plain `nats` finds the broker.
const WELL_KNOWN_PORT: u16 = 4222;
/// A node connects, makes its streams and takes its partitions.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A thousand orders take seconds; a demo that takes this long hangs.
const PLAY_LIMIT: Duration = Duration::from_secs(10 * 60);
/// A node hands over what it owns and lets running turns end.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Which of [`NODES`] is killed: one of the two that share the orders.
const VICTIM: usize = 1;

/// What happens while orders are placed.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    KillNode,
    StartNode,
    KillBroker,
}

impl Trouble {
    /// Each with the percentage of the orders that are through by then.
    const ALL: &[(u64, Trouble)] = &[(40, Self::KillNode), (60, Self::StartNode), (75, Self::KillBroker)];
}

/// How a part of the demo ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Interrupted,
}

/// Whether a node may have left in the orderly way, because somebody asked it to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Allowed,
    TooEarly,
}

/// The broker and the nodes. Dropping it kills them; [`close`](Self::close) asks them to leave.
#[derive(Debug)]
pub(super) struct Stage {
    tools: Tools,
    programs: Programs,
    interrupt: Interrupt,
    // The nodes before the broker, and both before the directory of their logs.
    nodes: Vec<Process>,
    broker: Option<Broker>,
    /// Which of the nodes was killed and is not back.
    away: Option<usize>,
    dir: TempDir,
}

impl Stage {
    /// An empty stage.
    pub(super) fn new(tools: Tools, programs: Programs, interrupt: Interrupt) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("greenroom-demo-").tempdir()?;
        Ok(Self { tools, programs, interrupt, nodes: Vec::new(), broker: None, away: None, dir })
    }

    /// Starts the broker and the nodes and waits until all are ready.
    pub(super) fn open(&mut self, well_known: bool, progress: &mut dyn FnMut(&str)) -> Result<Outcome> {
        let port = (well_known && is_free(WELL_KNOWN_PORT)).then_some(WELL_KNOWN_PORT);
        let broker = Broker::start_detached(&self.tools, BrokerOptions { config: Profile::Shop }, port)?;
        let url = broker.url();
        progress(&format!("broker   {url}"));
        self.broker = Some(broker);

        let started = Instant::now();
        for index in 0..NODES.len() {
            let node = self.start_node(index)?;
            self.nodes.push(node);
        }
        let outcome = self.wait_until_ready(started + READY_LIMIT)?;
        if outcome == Outcome::Done {
            progress(&format!("{} nodes  ready after {:.1} s", self.nodes.len(), started.elapsed().as_secs_f64()));
        }
        Ok(outcome)
    }

    /// Starts the node of that place in [`NODES`].
    fn start_node(&self, index: usize) -> Result<Process> {
        let (number, actor) = (index + 1, NODES[index]);
        let mut command = Command::new(&self.programs.node);
        command.args(["--host", actor, "--nats", &self.url()?, "--lease", "3s"]);
        Process::spawn(Launch {
            name: format!("shop-node {number} ({actor})"),
            command,
            log: Some(&self.dir.path().join(format!("node-{number}.log"))),
            group: Group::Own,
            scratch: Some(self.dir.path()),
        })
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> Result<String> {
        self.broker.as_ref().map(Broker::url).ok_or_else(|| anyhow!("the broker has not been started"))
    }

    /// The CLI that was found or fetched.
    pub(super) fn cli(&self) -> &Path {
        &self.tools.nats
    }

    /// Runs `shop-demo` to its end, its output being ours, and makes trouble on its way.
    pub(super) fn play(&mut self, options: &DemoOptions, progress: &mut dyn FnMut(&str)) -> Result<Outcome> {
        let placed = self.dir.path().join("placed");
        let mut command = Command::new(&self.programs.demo);
        command.arg("--nats").arg(self.url()?);
        command.arg("--orders").arg(orders_file()?);
        command.arg("--nats-cli").arg(&self.tools.nats);
        command.arg("--progress").arg(&placed);
        if let Some(path) = &options.json {
            command.arg("--json").arg(path);
        }
        if let Some(count) = options.orders {
            command.arg("--count").arg(count.to_string());
        }
        let mut demo = Process::spawn(Launch {
            name: "shop-demo".to_owned(),
            command,
            log: None,
            group: Group::Own,
            scratch: None,
        })?;
        let deadline = Instant::now() + PLAY_LIMIT;
        let mut troubles = if options.calm { [].iter() } else { Trouble::ALL.iter() }.peekable();
        loop {
            if let Some((_, trouble)) = troubles.next_if(|(percent, _)| is_placed(&placed, *percent)) {
                self.make(*trouble, progress)?;
            }
            if let Some(status) = demo.status()? {
                ensure!(status.success(), "shop-demo failed ({status})\n{}", self.node_tails());
                return Ok(Outcome::Done);
            }
            if self.interrupt.raised() {
                return Ok(Outcome::Interrupted);
            }
            self.check_nodes(Leaving::Allowed)?;
            ensure!(Instant::now() < deadline, "shop-demo is not through after {} s", PLAY_LIMIT.as_secs());
            thread::sleep(POLL);
        }
    }

    fn make(&mut self, trouble: Trouble, progress: &mut dyn FnMut(&str)) -> Result<()> {
        match trouble {
            Trouble::KillNode => {
                let node = self.nodes.get_mut(VICTIM).context("the node that is to be killed does not run")?;
                self.away = Some(VICTIM);
                node.kill()?;
                progress(&format!("killed   {} with SIGKILL", node.name()));
            }
            Trouble::StartNode => {
                let node = self.start_node(VICTIM)?;
                progress(&format!("started  {} again", node.name()));
                self.nodes[VICTIM] = node;
                self.away = None;
            }
            Trouble::KillBroker => {
                let broker = self.broker.as_mut().context("the broker has not been started")?;
                broker.kill9()?;
                progress("killed   the broker with SIGKILL");
                broker.restart()?;
                progress("started  the broker again, on the same store");
            }
        }
        Ok(())
    }

    /// Waits for Ctrl-C; a node or a broker that ends meanwhile is an error.
    pub(super) fn stay(&mut self) -> Result<()> {
        while !self.interrupt.raised() {
            self.check_nodes(Leaving::Allowed)?;
            if let Some(broker) = &mut self.broker {
                ensure!(broker.is_running()?, "the broker has ended; its log:\n{}", broker.logs());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Drains the nodes, all at once, then stops the broker. Everything is gone afterwards, even if this is an error.
    pub(super) fn close(&mut self, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let mut failures = Vec::new();
        let mut nodes = std::mem::take(&mut self.nodes);
        if let Some(away) = self.away.take() {
            nodes.remove(away);
        }
        for node in &mut nodes {
            if let Err(error) = node.signal(Signal::TERM) {
                failures.push(format!("{error:#}"));
            }
        }
        let deadline = Instant::now() + DRAIN_LIMIT;
        for mut node in nodes {
            match node.wait(deadline.saturating_duration_since(Instant::now())) {
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => {
                    failures.push(format!("{} ended with {status}:\n{}", node.name(), node.output_tail(20)))
                }
                Ok(None) => failures.push(format!(
                    "{} did not drain within {} s and was killed:\n{}",
                    node.name(),
                    DRAIN_LIMIT.as_secs(),
                    node.output_tail(20)
                )),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        if let Some(mut broker) = self.broker.take()
            && let Err(error) = broker.stop()
        {
            failures.push(format!("{error:#}"));
        }
        if failures.is_empty() {
            progress("all nodes drained, broker stopped");
            return Ok(());
        }
        bail!("the shop did not close cleanly:\n{}", failures.join("\n"))
    }

    fn wait_until_ready(&mut self, deadline: Instant) -> Result<Outcome> {
        loop {
            self.check_nodes(Leaving::TooEarly)?;
            if self.interrupt.raised() {
                return Ok(Outcome::Interrupted);
            }
            let waiting = |node: &&Process| !node.output().lines().any(|line| line.starts_with("ready"));
            let Some(node) = self.nodes.iter().find(waiting) else {
                return Ok(Outcome::Done);
            };
            ensure!(
                Instant::now() < deadline,
                "{} is not ready after {} s; its last output:\n{}",
                node.name(),
                READY_LIMIT.as_secs(),
                node.output_tail(20)
            );
            thread::sleep(POLL);
        }
    }

    fn check_nodes(&mut self, leaving: Leaving) -> Result<()> {
        let away = self.away;
        let nodes = self.nodes.iter_mut().enumerate().filter(|(index, _)| Some(*index) != away);
        for (_, node) in nodes {
            match node.status().with_context(|| format!("cannot look at {}", node.name()))? {
                None => {}
                Some(status) if status.success() && leaving == Leaving::Allowed => {}
                Some(status) => {
                    bail!("{} has ended ({status}); its last output:\n{}", node.name(), node.output_tail(20))
                }
            }
        }
        Ok(())
    }

    fn node_tails(&self) -> String {
        let tails = self.nodes.iter().map(|node| format!("last output of {}:\n{}", node.name(), node.output_tail(8)));
        tails.collect::<Vec<_>>().join("\n")
    }
}

/// Whether so many percent of the orders are through, by what `shop-demo` writes: `412 of 1000`.
fn is_placed(file: &Path, percent: u64) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let counts = text.trim().split_once(" of ").and_then(|(done, all)| Some((done.parse().ok()?, all.parse().ok()?)));
    counts.is_some_and(|(done, all): (u64, u64)| done * 100 >= all * percent)
}
