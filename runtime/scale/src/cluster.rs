//! The nodes: their machines, the clock, and what is on its way between them and the bucket.
//!
//! Every way takes one millisecond in each direction, and nothing is lost. What the machines ask for is carried out in
//! [`effects`](super::effects).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::beats::Beats;
use crate::bucket::Bucket;
use crate::ownership::record::{Member, NodeId, Part};
use crate::ownership::rendezvous::Seed;
use crate::ownership::{Claim, Config, Effect, Entry, HostInfo, Input, Key, Machine};

/// One way, in milliseconds.
pub(crate) const WAY_MS: u64 = 1;
/// How often a driver tells its machine the time.
const TICK_MS: u64 = 250;

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) machine: Machine,
    pub(crate) alive: bool,
    pub(crate) drained: bool,
    /// Up to which revision its watch has shown; `None` without a watch.
    pub(crate) cursor: Option<u64>,
    /// Whether the next showing is on its way.
    pub(crate) showing: bool,
    /// Whose heartbeats it watches, and how often it has asked for others.
    pub(crate) beats: Vec<NodeId>,
    pub(crate) asked: u64,
    /// Processor time spent in the machine since the last count began, and the longest of it in one go: a step, or all
    /// the changes that came together.
    pub(crate) spent: Duration,
    pub(crate) longest: Duration,
}

/// What is about to happen.
#[derive(Debug)]
pub(crate) enum Event {
    Start(usize),
    Tick(usize),
    Tell(usize, Input),
    Write(usize, Write),
    Show(usize),
    /// What there is of the heartbeats that a node asked for at this time of asking.
    Beats(usize, u64),
    /// A heartbeat runs out if it is still this one.
    Expire(NodeId, u64),
}

/// A write on its way to the bucket.
#[derive(Debug)]
pub(crate) enum Write {
    Renew(u64),
    Put(Entry, u64, u64),
    Delete(Key, u64, u64),
}

/// What has been sent, by kind.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Traffic {
    /// Writes of claims; of members, tombstones and the rest but renewals; and those that were refused.
    pub(crate) claims: u64,
    pub(crate) records: u64,
    pub(crate) refused: u64,
    pub(crate) renewals: u64,
    /// Changes shown by watches: heartbeats, and everything else.
    pub(crate) shown_renewals: u64,
    pub(crate) shown: u64,
    /// Offers, replies and the like, from node to node.
    pub(crate) words: u64,
    /// The broker's words that a connection has ended, one for each node that hears it.
    pub(crate) notices: u64,
    pub(crate) round_trips: u64,
    /// Steps of all machines.
    pub(crate) steps: u64,
    pub(crate) rewatches: u64,
    /// How often a node asked for other heartbeats.
    pub(crate) beat_watches: u64,
    /// The records in the snapshots that were shown.
    pub(crate) snapshot_records: u64,
}

/// All nodes and the bucket.
pub(crate) struct Cluster {
    pub(crate) now: u64,
    pub(crate) bucket: Bucket,
    pub(crate) beats: Beats,
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: HashMap<NodeId, usize>,
    pub(crate) traffic: Traffic,
    /// Where each partition should be, and how many are not.
    expected: BTreeMap<Part, NodeId>,
    pub(crate) astray: usize,
    pub(crate) actors: Vec<Arc<str>>,
    pub(crate) partitions: u16,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    next: u64,
}

impl Cluster {
    pub(crate) fn new(partitions: u16, types: usize) -> Self {
        Self {
            now: 0,
            bucket: Bucket::default(),
            beats: Beats::default(),
            nodes: Vec::new(),
            index: HashMap::new(),
            traffic: Traffic::default(),
            expected: BTreeMap::new(),
            astray: 0,
            actors: (0..types).map(|n| Arc::from(format!("actor{n}"))).collect(),
            partitions,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
        }
    }

    /// Adds a node that starts after a while. Its watch begins when it is shown a snapshot.
    pub(crate) fn add(&mut self, after: u64) -> usize {
        let at = self.nodes.len();
        let hosts = self.actors.iter().map(|actor| (actor.to_string(), host())).collect();
        let config = Config::new(&format!("node{at}"), &format!("x{at:06}"), hosts, self.partitions);
        self.index.insert(config.me.clone(), at);
        self.nodes.push(Node {
            id: config.me.clone(),
            machine: Machine::new(config),
            alive: true,
            drained: false,
            cursor: None,
            showing: false,
            beats: Vec::new(),
            asked: 0,
            spent: Duration::ZERO,
            longest: Duration::ZERO,
        });
        self.after(after, Event::Start(at));
        at
    }

    pub(crate) fn member(&self, at: usize) -> Entry {
        let id = self.nodes[at].id.clone();
        let member = Member {
            id: id.clone(),
            name: format!("node{at}"),
            hosts: self.actors.iter().map(|actor| (actor.to_string(), host())).collect(),
            services: BTreeMap::new(),
            draining: false,
            waiting: false,
            started_ms: 0,
        };
        Entry::Member(id, member)
    }

    /// Says that every partition should come to be where these nodes' order puts it.
    pub(crate) fn expect(&mut self, nodes: &[usize]) {
        let mut expected = BTreeMap::new();
        for actor in &self.actors {
            let seeds: Vec<_> = nodes.iter().map(|at| (Seed::new(&self.nodes[*at].id, actor), *at)).collect();
            for number in 0..self.partitions {
                let scored = seeds.iter().map(|(seed, at)| (seed.score(number, 1), *at));
                if let Some((_, best)) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
                    expected.insert(Part::new(actor.clone(), number), self.nodes[best].id.clone());
                }
            }
        }
        self.expected = expected;
        let wrong = |(part, id): &(&Part, &NodeId)| self.holder(part) != Some(*id);
        self.astray = self.expected.iter().filter(wrong).count();
    }

    /// Writes the claims as they should be, as though they had been made long ago.
    pub(crate) fn claim_all(&mut self) {
        for (part, id) in &self.expected {
            let lease = self.bucket.known(&Key::Lease(id.clone()));
            let nonce = format!("{}-1-4711", &id.as_str()[id.as_str().len() - 7..]);
            let claim = Claim::new(Some(id.clone()), 1, nonce, lease);
            self.bucket.put(Entry::Claim(part.clone(), claim), 0);
        }
        self.astray = 0;
    }

    /// Kills nodes all at once. If the broker `tells`, it tells every node of every connection.
    pub(crate) fn kill(&mut self, dead: &[usize], tells: bool) {
        for at in dead {
            self.nodes[*at].alive = false;
        }
        for at in dead.iter().filter(|_| tells) {
            let word = Input::ConnectionGone { node: self.nodes[*at].id.clone(), server: "s".to_owned(), client: 1 };
            for to in self.alive() {
                self.traffic.notices += 1;
                self.after(3 * WAY_MS, Event::Tell(to, word.clone()));
            }
        }
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].alive).collect()
    }

    /// Lets time pass until `done` or for so long; false if it was not done.
    pub(crate) fn run(&mut self, millis: u64, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + millis;
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if done(self) {
                return true;
            }
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&id) {
                self.happen(event);
            }
        }
        self.now = until;
        done(self)
    }

    pub(crate) fn after(&mut self, millis: u64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + millis, self.next)));
        self.events.insert(self.next, event);
    }

    /// Gives an input to a node's machine and carries out what comes of it.
    pub(crate) fn tell(&mut self, at: usize, input: Input) {
        let began = processor_time();
        self.step(at, input);
        self.spent(at, began);
    }

    /// Gives inputs that come together, and takes the time of all of them.
    pub(crate) fn tell_all(&mut self, at: usize, inputs: Vec<Input>) {
        let began = processor_time();
        inputs.into_iter().for_each(|input| self.step(at, input));
        self.spent(at, began);
    }

    fn step(&mut self, at: usize, input: Input) {
        if !self.nodes[at].alive {
            return;
        }
        let mut out: Vec<Effect> = Vec::new();
        self.nodes[at].machine.step(input, self.now, &mut out);
        self.traffic.steps += 1;
        for effect in out {
            self.carry_out(at, effect);
        }
    }

    fn spent(&mut self, at: usize, began: Duration) {
        let took = processor_time().saturating_sub(began);
        let node = &mut self.nodes[at];
        node.spent += took;
        node.longest = node.longest.max(took);
    }

    /// Shows a node everything that is there.
    pub(crate) fn snapshot(&mut self, at: usize) {
        self.nodes[at].cursor = Some(self.bucket.revision());
        self.tell(at, Input::SnapshotBegun);
        let shown = self.bucket.snapshot();
        self.traffic.snapshot_records += shown.len() as u64;
        self.tell_all(at, shown);
        self.tell(at, Input::SnapshotDone);
    }

    /// A claim is about to change: is it where it should be afterwards?
    pub(crate) fn moved(&mut self, part: &Part, to: Option<&NodeId>) {
        let Some(expected) = self.expected.get(part) else { return };
        let before = self.holder(part) == Some(expected);
        let after = to == Some(expected);
        self.astray = self.astray + usize::from(before) - usize::from(after);
    }

    fn holder(&self, part: &Part) -> Option<&NodeId> {
        match self.bucket.entry(&Key::Part(part.clone())) {
            Some(Entry::Claim(_, claim)) => claim.node.as_ref(),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(at) => {
                self.after(TICK_MS, Event::Tick(at));
                self.tell(at, Input::Started);
                self.tell(at, Input::Connected { server: "s".to_owned(), client: 1 });
            }
            Event::Tick(at) => {
                if self.nodes[at].alive {
                    self.after(TICK_MS, Event::Tick(at));
                    self.tell(at, Input::Tick);
                }
            }
            Event::Tell(at, input) => self.tell(at, input),
            Event::Write(at, write) => self.arrive(at, write),
            Event::Show(at) => self.show(at),
            Event::Beats(at, asked) => self.show_beats(at, asked),
            Event::Expire(id, revision) => self.expire(&id, revision),
        }
    }
}

/// What this thread has had of a processor: others may share the machine.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(whole) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn host() -> HostInfo {
    HostInfo { version: "1".to_owned(), weight: 1, durable: false, always_on: Vec::new() }
}
