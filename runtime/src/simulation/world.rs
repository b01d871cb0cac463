//! The nodes, the callers and the faults of one seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock;
use super::history::{Kind, Op, Outcome, Stored, check, check_echoes, check_epochs, echo_due};
use super::link::{Rig, Way};
use super::list::{ECHO, List, ListActor, Look, Pass, Push, PushAndRefuse, PushLater, PushSlowly, PushTwice};
use super::random::Random;
use crate::error::{AskError, ErrorKind};
use crate::journal::Record;
use crate::node::Node;
use crate::subject::{Name, Subject, Subjects};
use crate::transport::{MemoryBroker, Outbound, Status, Stream, StreamConfig, Transport};

const APP: &str = "sim";
/// How long a lease lives: above the two seconds after which a write without an answer is given up.
const LEASE: Duration = Duration::from_secs(6);
const PARTITIONS: u16 = 4;
/// How long faults go on.
const FAULTS_MS: u64 = 25_000;
/// How long after the last fault everything works again, at most: two leases, and what those who came too late wait.
const HEALED: Duration = Duration::from_secs(20);
/// How long after that the last echo has come, at most: what was on its way to somebody who died is sent again then.
const ECHOED: Duration = Duration::from_secs(120);
/// How long after the last one another one of the same might come: what was delivered and not acknowledged comes again
/// after five minutes at most.
const ECHOED_AGAIN: Duration = Duration::from_secs(310);

/// What one seed plays.
pub(super) struct Plan {
    seed: u64,
    nodes: usize,
    callers: usize,
    keys: usize,
    /// See [`Way`].
    slowest: u64,
    lossy: u64,
    /// Whether the broker says when a connection has ended.
    tells: bool,
    /// Whether the broker itself goes away now and then.
    broker: bool,
    /// Whether lists tell each other, and are reminded.
    echoes: bool,
}

impl Plan {
    /// Something of everything.
    pub(super) fn random(seed: u64) -> Self {
        let random = Random::new(seed);
        Self {
            seed,
            nodes: random.between(1, 5) as usize,
            callers: random.between(1, 5) as usize,
            keys: random.between(1, 4) as usize,
            slowest: random.between(0, 6),
            lossy: *random.pick(&[0, 1, 5, 20]),
            tells: random.chance(70),
            broker: random.chance(40),
            echoes: random.chance(25),
        }
    }
}

/// What a run leaves.
pub(super) struct Report {
    /// Depends on everything that happened, and when.
    pub(super) digest: u64,
    /// How often each fault and each outcome came.
    pub(super) tally: BTreeMap<&'static str, u64>,
}

/// Plays a plan to its end, and judges it.
pub(super) fn run(plan: Plan, trace: bool) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async move {
        clock::begin();
        let world = World::new(plan, trace);
        let judged = world.clone().play().await;
        clock::end();
        let notes = world.notes.lock();
        judged.map(|()| Report { digest: notes.digest, tally: notes.tally.clone() })
    })
}

#[derive(Clone)]
struct World {
    plan: Arc<Plan>,
    broker: MemoryBroker,
    way: Way,
    random: Random,
    subjects: Subjects,
    /// Ends the faults, and then the nodes.
    calm: CancellationToken,
    over: CancellationToken,
    notes: Arc<Mutex<Notes>>,
    /// What was killed: it stands still for ever, and is never let go.
    graves: Arc<Mutex<Vec<Node>>>,
}

#[derive(Default)]
struct Notes {
    trace: bool,
    digest: u64,
    tally: BTreeMap<&'static str, u64>,
    history: Vec<Op>,
    wrong: Option<String>,
    values: u64,
}

impl World {
    fn new(plan: Plan, trace: bool) -> Self {
        let random = Random::new(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let way = Way { random: random.clone(), slowest: plan.slowest, lossy: Arc::default() };
        Self {
            plan: Arc::new(plan),
            broker: MemoryBroker::new(),
            way,
            random,
            subjects: Subjects::new(Name::new(APP).expect("a name")),
            calm: CancellationToken::new(),
            over: CancellationToken::new(),
            notes: Arc::new(Mutex::new(Notes { trace, ..Notes::default() })),
            graves: Arc::default(),
        }
    }

    async fn play(self) -> Result<(), String> {
        let tasks = TaskTracker::new();
        for number in 0..self.plan.nodes {
            tasks.spawn(self.clone().live(number));
        }
        let callers = TaskTracker::new();
        for number in 0..self.plan.callers {
            callers.spawn(self.clone().call(number));
        }
        if self.plan.broker {
            tasks.spawn(self.clone().trouble());
        }
        self.way.lossy.store(self.plan.lossy, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(FAULTS_MS)).await;
        self.note("calm", "no more faults");
        self.calm.cancel();
        self.way.lossy.store(0, Ordering::Relaxed);
        self.broker.start();
        callers.close();
        callers.wait().await;
        let judged = self.judge().await;
        self.over.cancel();
        judged
    }

    fn note(&self, what: &'static str, text: &str) {
        let mut notes = self.notes.lock();
        let line = format!("{:>6} {what}: {text}", clock::elapsed_ms());
        for byte in line.bytes() {
            notes.digest = (notes.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if notes.trace {
            println!("{line}");
        }
        *notes.tally.entry(what).or_default() += 1;
    }

    /// Waits; false if the faults have ended meanwhile.
    async fn pause(&self, millis: u64) -> bool {
        let wait = tokio::time::sleep(Duration::from_millis(millis));
        self.calm.run_until_cancelled(wait).await.is_some()
    }

    /// One place for a node, with one process after the other in it.
    async fn live(self, number: usize) {
        loop {
            let rig = Rig::new(&self.broker, &self.way);
            let idle = Duration::from_secs(self.random.between(1, 20));
            let node = Node::builder(APP)
                .memory(&self.broker)
                .rig(rig.clone())
                .name(format!("n{number}"))
                .partitions(PARTITIONS)
                .lease(LEASE)
                .passivate_after(idle)
                .host::<ListActor>();
            match node.start().await {
                Err(error) => {
                    self.note("start failed", &format!("n{number}: {error}"));
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Ok(node) => {
                    self.note("start", node.id());
                    // One caller beside the actors, which stands still with them.
                    let beside = rig.frost.over(self.clone().call_beside(node.clone(), number));
                    tokio::spawn(beside);
                    if self.trouble_of(node, &rig).await {
                        return;
                    }
                }
            }
        }
    }

    /// What happens to one process. Returns whether all is over.
    async fn trouble_of(&self, node: Node, rig: &Rig) -> bool {
        let id = node.id().to_owned();
        loop {
            let quiet = self.random.between(200, 8_000);
            let ended = tokio::select! {
                biased;
                ended = node.ended() => Some(ended),
                calm = self.pause(quiet) => if calm { None } else { Some(self.outlive(&node).await) },
            };
            if let Some(ended) = ended {
                self.note("ended", &format!("{id}: {ended:?}"));
                return self.over.is_cancelled();
            }
            match self.random.between(0, 10) {
                0..=2 => {
                    self.kill(node, rig);
                    self.pause(self.random.between(0, 9_000)).await;
                    return false;
                }
                3 | 4 => {
                    self.note("drain", &id);
                    let drained = node.drain().await;
                    self.note("drained", &format!("{id}: {drained:?}"));
                    self.pause(self.random.between(0, 3_000)).await;
                    return false;
                }
                5 | 6 => {
                    let millis = self.random.between(100, 15_000);
                    self.note("freeze", &format!("{id} for {millis} ms"));
                    rig.frost.set(true);
                    self.pause(millis).await;
                    rig.frost.set(false);
                    self.note("thaw", &id);
                }
                _ => {
                    let millis = self.random.between(10, 10_000);
                    self.note("cut", &format!("{id} for {millis} ms"));
                    if self.random.chance(50) {
                        self.tell(rig, &id);
                    }
                    rig.cut(*self.random.pick(&[0, 5, 50, 500, 3_000]));
                    self.pause(millis).await;
                    rig.mend();
                    self.note("mend", &id);
                }
            }
        }
    }

    async fn outlive(&self, node: &Node) -> crate::node::Ended {
        tokio::select! {
            biased;
            ended = node.ended() => ended,
            () = self.over.cancelled() => crate::node::Ended::Drained,
        }
    }

    fn kill(&self, node: Node, rig: &Rig) {
        self.note("kill", node.id());
        rig.frost.set(true);
        self.tell(rig, node.id());
        rig.cut(0);
        self.graves.lock().push(node);
    }

    /// The broker says that a connection has ended.
    fn tell(&self, rig: &Rig, id: &str) {
        let Some(Status::Connected { server, client }) = rig.own().filter(|_| self.plan.tells) else { return };
        let body = format!(
            r#"{{"server":{{"id":"{server}"}},"client":{{"id":{client},"name":"{id}/own"}},"reason":"Client Closed"}}"#
        );
        let link = self.broker.transport("broker");
        let subject = Subject::parse("sim.node.sys.disconnect").expect("a subject");
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            drop(link.publish(Outbound::new(subject, body)));
        });
    }

    /// What happens to the broker.
    async fn trouble(self) {
        let faults = self.broker.faults(&self.subjects.journal_stream("list"));
        while self.pause(self.random.between(1_000, 12_000)).await {
            let millis = self.random.between(10, 9_000);
            if self.random.chance(50) {
                self.note("no leader", &format!("for {millis} ms"));
                faults.no_leader(Duration::from_millis(millis));
            } else {
                self.note("no broker", &format!("for {millis} ms"));
                self.broker.stop();
                self.pause(millis).await;
                self.broker.start();
                self.note("broker", "again");
            }
        }
        faults.clear();
    }

    /// One caller, in a process that hosts nothing.
    async fn call(self, number: usize) {
        let node = loop {
            let rig = Rig::new(&self.broker, &self.way);
            match Node::builder(APP).memory(&self.broker).rig(rig).name(format!("c{number}")).start().await {
                Ok(node) => break node,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        while !self.calm.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(self.random.between(0, 120))).await;
            let key = format!("k{}", self.random.between(0, self.plan.keys as u64));
            let budget = Duration::from_millis(*self.random.pick(&[300, 2_000, 5_000, 20_000]));
            self.ask(&node, number, &key, budget).await;
        }
        // By then all must be well.
        tokio::time::sleep(HEALED).await;
        for key in 0..self.plan.keys {
            let outcome = self.ask_one(&node, number, &format!("k{key}"), Duration::from_secs(5), 0).await;
            if !matches!(outcome, Outcome::At(_)) {
                let wrong = format!("k{key} does not answer {HEALED:?} after the last fault: {outcome:?}");
                self.notes.lock().wrong.get_or_insert(wrong);
            }
        }
    }

    /// A caller in the process of a node, as long as that lives.
    async fn call_beside(self, node: Node, number: usize) {
        while !self.calm.is_cancelled() && node.ended().now_or_never().is_none() {
            let key = format!("k{}", self.random.between(0, self.plan.keys as u64));
            self.ask(&node, 10 + number, &key, Duration::from_secs(2)).await;
            tokio::time::sleep(Duration::from_millis(self.random.between(0, 120))).await;
        }
    }

    async fn ask(&self, node: &Node, client: usize, key: &str, budget: Duration) {
        let kind = self.random.between(0, if self.plan.echoes { 16 } else { 12 });
        if let Outcome::NotRun = self.ask_one(node, client, key, budget, kind).await {
            // Nobody is there just now: as long as people wait before they try again.
            tokio::time::sleep(Duration::from_millis(self.random.between(50, 500))).await;
        }
    }

    async fn ask_one(&self, node: &Node, client: usize, key: &str, budget: Duration, kind: u64) -> Outcome {
        let value = {
            let mut notes = self.notes.lock();
            notes.values += 1;
            notes.values
        };
        let op_kind = match kind {
            0..=5 => Kind::Push(value),
            6 | 7 => Kind::PushTwice(value),
            8 => Kind::Refused(value),
            9..=11 => Kind::Look,
            12 | 13 => Kind::Pass(value, format!("k{}", self.random.between(0, self.plan.keys as u64))),
            _ => Kind::Later(value),
        };
        let began = clock::elapsed_ms();
        let at = {
            let mut notes = self.notes.lock();
            let kind = op_kind.clone();
            let op = Op { client, key: key.to_owned(), kind, began, ended: None, outcome: Outcome::Open };
            notes.history.push(op);
            notes.history.len() - 1
        };
        let list = node.actor::<List>(key).within(budget);
        let outcome = match kind {
            0..=2 => self.outcome(list.ask(Push { value }).await.map(Outcome::At)),
            3..=5 => {
                let millis = self.random.between(0, 60);
                self.outcome(list.ask(PushSlowly { value, millis }).await.map(Outcome::At))
            }
            6 | 7 => match self.outcome(list.ask(PushTwice { value }).await.map(Outcome::At)) {
                // The first of its steps may have been kept.
                Outcome::Refused => Outcome::Open,
                outcome => outcome,
            },
            8 => self.outcome(list.ask(PushAndRefuse { value }).await.map(Outcome::At)),
            12 | 13 if let Kind::Pass(_, to) = op_kind => {
                self.outcome(list.ask(Pass { value, to }).await.map(Outcome::At))
            }
            14.. => {
                let millis = self.random.between(0, 15_000);
                self.outcome(list.ask(PushLater { value, millis }).await.map(Outcome::At))
            }
            _ => self.outcome(list.ask(Look).await.map(Outcome::Seen)),
        };
        let shown = match &outcome {
            Outcome::Seen(seen) => format!("{} values, the last {:?}", seen.len(), seen.last()),
            other => format!("{other:?}"),
        };
        let text = format!("c{client} {key} {:?} since {began}: {shown}", self.notes.lock().history[at].kind);
        self.note(outcome.name(), &text);
        let mut notes = self.notes.lock();
        notes.history[at].outcome = outcome.clone();
        notes.history[at].ended = Some(clock::elapsed_ms());
        outcome
    }

    fn outcome<R>(&self, answer: Result<Outcome, AskError<R>>) -> Outcome {
        match answer {
            Ok(outcome) => outcome,
            Err(AskError::Refused(_)) => Outcome::Refused,
            Err(AskError::Failed(error)) => {
                let defect = matches!(
                    error.kind(),
                    ErrorKind::Internal | ErrorKind::Panicked | ErrorKind::Quarantined | ErrorKind::BadReply
                );
                if defect {
                    self.notes.lock().wrong.get_or_insert(format!("a defect: {error}"));
                }
                self.note("failed", &error.to_string());
                if error.is_retryable() { Outcome::NotRun } else { Outcome::Open }
            }
        }
    }

    /// Compares what callers were told with what the journals hold.
    async fn judge(&self) -> Result<(), String> {
        if let Some(wrong) = self.notes.lock().wrong.take() {
            return Err(wrong);
        }
        let link = self.broker.transport("judge");
        let config = StreamConfig::new([self.subjects.journals("list")]);
        let stream = link.stream(&self.subjects.journal_stream("list"), config).await.map_err(|e| e.to_string())?;
        let mut lists = self.lists(&*stream).await?;
        let echoed = Instant::now() + ECHOED;
        while echo_due(&self.notes.lock().history, &lists).is_some() && Instant::now() < echoed {
            tokio::time::sleep(Duration::from_secs(1)).await;
            lists = self.lists(&*stream).await?;
        }
        if self.plan.echoes && self.random.chance(20) {
            tokio::time::sleep(ECHOED_AGAIN).await;
            lists = self.lists(&*stream).await?;
        }
        let notes = self.notes.lock();
        check_echoes(&notes.history, &lists)?;
        for (key, list) in &lists {
            let ops: Vec<&Op> = notes.history.iter().filter(|op| op.key == *key).collect();
            check(&ops, list).map_err(|why| format!("{key}: {why}"))?;
        }
        drop(notes);
        let echoed = lists.values().flatten().any(|value| value & ECHO != 0);
        self.note(if echoed { "ends with echoes" } else { "ends" }, &format!("{lists:?}"));
        Ok(())
    }

    /// What the journals hold.
    async fn lists(&self, stream: &dyn Stream) -> Result<BTreeMap<String, Vec<u64>>, String> {
        let mut lists = BTreeMap::new();
        for number in 0..self.plan.keys {
            let key = format!("k{number}");
            let (stored, list) = self.read(stream, &key).await?;
            check_epochs(&stored).map_err(|why| format!("{key}: {why}"))?;
            lists.insert(key, list);
        }
        Ok(lists)
    }

    async fn read(&self, stream: &dyn Stream, key: &str) -> Result<(Vec<Stored>, Vec<u64>), String> {
        let key = crate::key::Key::new(key).map_err(|e| e.to_string())?;
        let filter = self.subjects.journal("list", &key).to_filter();
        let (mut stored, mut list, mut next) = (Vec::new(), Vec::new(), 1);
        while let Some(found) = stream.next(&filter, next).await.map_err(|e| e.to_string())? {
            next = found.sequence + 1;
            let record = Record::read(&found.body).map_err(|e| e.to_string())?;
            let node = record.id.rsplit_once('-').map_or("", |(node, _)| node).to_owned();
            stored.push(Stored { epoch: record.epoch, node });
            for event in &record.events {
                let body: serde_json::Value = serde_json::from_str(event.body.get()).map_err(|e| e.to_string())?;
                let value = body["pushed"]["value"].as_u64().or_else(|| body["value"].as_u64());
                list.push(value.ok_or_else(|| format!("an event without a value: {body}"))?);
            }
        }
        Ok((stored, list))
    }
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::Open => "unknown",
            Outcome::At(_) => "pushed",
            Outcome::Seen(_) => "seen",
            Outcome::Refused => "refused",
            Outcome::NotRun => "not run",
        }
    }
}
