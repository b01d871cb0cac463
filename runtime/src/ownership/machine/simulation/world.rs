//! The world: nodes with their drivers, the paths between them and the broker, and what goes wrong there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::Random;
use super::broker::Broker;
use super::faults::Fault;
use super::lags::Lag;
use crate::ownership::machine::{CasId, Config, Input, Machine, Millis};
use crate::ownership::record::{Entry, HostInfo, Key, NodeId, Part};

pub(super) const TTL_MS: u64 = 6_000;
const TICK_MS: u64 = 300;
/// How long a node has for its drain.
pub(super) const DRAIN_MS: u64 = 16_000;
pub(super) const ANSWER_MS: u64 = 700;

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) partitions: u16,
    pub(super) nodes: usize,
    pub(super) clients: usize,
    /// Percentage of messages and answers that are lost or late while faults last.
    pub(super) losses: u64,
    /// All host everything, with equal weight and the same start.
    pub(super) quiet: bool,
    /// The broker says when an owning connection has ended: soon, late, or not at all.
    pub(super) tells: bool,
    /// How many heartbeats a node watches.
    pub(super) neighbours: usize,
}

impl Plan {
    pub(super) fn random(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        Self {
            partitions: random.between(1, 7) as u16,
            nodes: random.between(1, 7) as usize,
            clients: usize::from(random.chance(20)),
            losses: random.between(0, 20),
            quiet: false,
            tells: random.chance(75),
            neighbours: random.between(1, 4) as usize,
        }
    }

    pub(super) fn quiet(nodes: usize) -> Self {
        Self { partitions: 8, nodes, clients: 1, losses: 0, quiet: true, tells: true, neighbours: 2 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Up,
    Crashed,
    Ended,
}

/// One start of a node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) slot: usize,
    pub(super) id: NodeId,
    pub(super) hosts: BTreeMap<String, u32>,
    pub(super) machine: Machine,
    pub(super) life: Life,
    pub(super) admitting: BTreeMap<Part, u64>,
    pub(super) held: BTreeMap<Part, BTreeSet<String>>,
    /// The partitions whose queue groups it is in; what it does not admit there, it holds.
    pub(super) joined: BTreeSet<Part>,
    pub(super) snapshots: u32,
    pub(super) leased: bool,
    pub(super) enrolled: bool,
    pub(super) told_to_drain: bool,
    pub(super) paused_until: u64,
    pub(super) linked: bool,
    /// Counts connections; what was on its way for an older one is lost.
    pub(super) link: u64,
    /// Whether its owning connection stands, at the broker's end.
    pub(super) own: bool,
    /// The number of that connection.
    pub(super) client: u64,
    pub(super) cursor: Option<u64>,
    /// Whose heartbeats it watches, how often it has asked for others, and how far it was shown them.
    pub(super) beats: BTreeSet<NodeId>,
    pub(super) asked: u64,
    pub(super) beats_cursor: Option<u64>,
    pub(super) lag: Lag,
    /// The keys that ran when the partition was given away.
    pub(super) busy: BTreeMap<Part, Vec<String>>,
    /// Those of the busy keys whose turns run still.
    pub(super) running: BTreeMap<Part, BTreeSet<String>>,
    /// How many of its leaves are not quiet yet.
    pub(super) leaving: u32,
    /// What it has left while turns of it run.
    pub(super) loud: BTreeSet<(Part, u64)>,
    offset: u64,
    drift: u64,
}

impl Node {
    /// The node's own clock: another origin, and up to 4.5 % faster or slower.
    pub(super) fn clock(&self, now: u64) -> Millis {
        self.offset + now * (955 + self.drift) / 1_000
    }
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick(usize),
    Tell(usize, Input),
    Write(usize, Write, Fate),
    Show(usize, u64, u64),
    Snapshot(usize, u64),
    /// What is shown of heartbeats, and by which of the connections and questions.
    ShowBeats(usize, u64, u64),
    Beats(usize, u64, u64),
    Behind(usize, u64, Box<Broker>, u64),
    CaughtUp(usize),
    Link(usize, u64),
    Down(usize, u64),
    /// A round trip on an owning connection has come to the broker.
    Trip(usize, u64, u64),
    /// A node notices that its owning connection is gone.
    OwnDown(usize, u64),
    /// It has another one.
    OwnLink(usize, u64),
    /// The broker's word that a connection has ended comes to a node.
    Word(usize, Input),
    Idle {
        old: usize,
        heir: usize,
        part: Part,
        epoch: u64,
        key: String,
    },
    Expire,
    BrokerUp,
    Start(usize),
    Fault,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Renew(Entry, Millis),
    Put(Entry, u64, CasId),
    Delete(Key, u64, CasId),
    Purge(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    /// The driver has given up on the answer.
    Unheard,
}

/// Everything, and what is about to happen.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) broker: Broker,
    pub(super) nodes: Vec<Node>,
    pub(super) now: u64,
    pub(super) steps: u64,
    /// A running hash of all effects.
    pub(super) digest: u64,
    /// How often each thing happened.
    pub(super) tally: BTreeMap<&'static str, u64>,
    starts: u64,
    /// What goes wrong, and before how many more inputs and effects of anybody.
    pub(super) planned: Option<(u64, Vec<Fault>)>,
    /// How many inputs and effects there were.
    pub(super) boundaries: u64,
    pub(super) faulty: bool,
    /// Until when what nodes say to each other is lost.
    pub(super) silent_until: u64,
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    events: Vec<Option<Event>>,
    pub(super) trace: bool,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, trace: bool) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            broker: Broker::new(),
            nodes: Vec::new(),
            now: 0,
            steps: 0,
            digest: 0,
            tally: BTreeMap::new(),
            starts: 0,
            planned: None,
            boundaries: 0,
            faulty: false,
            silent_until: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            trace,
            plan,
        };
        for slot in 0..world.plan.nodes + world.plan.clients {
            let after = if world.plan.quiet { 0 } else { world.random.between(0, 8_000) };
            world.after(after, Event::Start(slot));
        }
        world
    }

    /// Runs with random faults.
    pub(super) fn run_faults(&mut self, millis: u64) -> Result<(), String> {
        self.faulty = true;
        self.after(1_000, Event::Fault);
        self.run_for(millis)
    }

    /// Ends new faults and losses; what lasts ends by itself. Somebody is left to host.
    pub(super) fn heal(&mut self) {
        self.faulty = false;
        let hosting = |node: &&Node| node.life == Life::Up && !node.told_to_drain && !node.hosts.is_empty();
        if self.nodes.iter().filter(hosting).count() == 0 {
            self.after(0, Event::Start(0));
        }
    }

    pub(super) fn run_for(&mut self, millis: u64) -> Result<(), String> {
        let until = self.now + millis;
        while let Some(Reverse((at, index))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            let Some(event) = self.events[index].take() else { continue };
            if let Some(resume) = self.deferred(&event) {
                self.events[index] = Some(event);
                self.queue.push(Reverse((resume, index)));
                continue;
            }
            self.happen(event)?;
        }
        self.now = until;
        Ok(())
    }

    pub(super) fn after(&mut self, millis: u64, event: Event) {
        self.queue.push(Reverse((self.now + millis, self.events.len())));
        self.events.push(Some(event));
    }

    /// How long a message takes.
    pub(super) fn latency(&mut self) -> u64 {
        if self.faulty && self.random.chance(4) { self.random.between(100, 3_000) } else { self.random.between(1, 30) }
    }

    /// Between two inputs or effects: the moment for what is planned.
    pub(super) fn boundary(&mut self) {
        self.boundaries += 1;
        match &mut self.planned {
            Some((0, faults)) => {
                let faults = std::mem::take(faults);
                self.planned = None;
                faults.into_iter().for_each(|fault| self.fault(fault));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
    }

    fn deferred(&self, event: &Event) -> Option<u64> {
        let at = match event {
            Event::Tick(at)
            | Event::Tell(at, _)
            | Event::Show(at, ..)
            | Event::Snapshot(at, _)
            | Event::ShowBeats(at, ..)
            | Event::Beats(at, ..)
            | Event::Behind(at, ..)
            | Event::CaughtUp(at)
            | Event::Link(at, _)
            | Event::Down(at, _)
            | Event::OwnDown(at, _)
            | Event::OwnLink(at, _)
            | Event::Word(at, _) => at,
            Event::Idle { old, .. } => old,
            _ => return None,
        };
        Some(self.nodes[*at].paused_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick(at) => {
                if self.nodes[at].life == Life::Up {
                    self.after(TICK_MS, Event::Tick(at));
                    self.tell(at, Input::Tick)?;
                }
            }
            Event::Tell(at, input) => {
                self.ended(at, &input);
                self.tell(at, input)?;
            }
            Event::Write(at, write, fate) => self.arrive(at, write, fate)?,
            Event::Show(at, link, until) => self.show(at, link, until)?,
            Event::Snapshot(at, link) => self.snapshot(at, link)?,
            Event::ShowBeats(at, link, until) => self.show_beats(at, link, until)?,
            Event::Beats(at, link, asked) => self.beats(at, link, asked)?,
            Event::Behind(at, link, old, lasts) => self.read_again(at, link, old, lasts)?,
            Event::CaughtUp(at) => self.caught_up(at)?,
            Event::Link(at, link) => self.link(at, link)?,
            Event::Down(at, link) => self.down(at, link)?,
            Event::Trip(at, client, id) => self.trip(at, client, id),
            Event::OwnDown(at, client) => self.own_down(at, client)?,
            Event::OwnLink(at, client) => self.own_link(at, client)?,
            Event::Word(at, word) => self.hear(at, word)?,
            Event::Idle { old, heir, part, epoch, key } => self.tell_idle(old, heir, part, epoch, key),
            Event::Expire => {
                if self.broker.up && self.broker.expire(self.now) {
                    self.show_all();
                }
            }
            Event::BrokerUp => {
                self.broker.up = true;
                self.broker.expire(self.now);
                for at in 0..self.nodes.len() {
                    // Within one renew interval, less what clocks and paths take.
                    let back = self.random.between(10, 1_700);
                    self.after(back, Event::Link(at, self.nodes[at].link));
                }
            }
            Event::Start(slot) => self.start(slot)?,
            Event::Fault => self.random_fault(),
        }
        Ok(())
    }

    fn start(&mut self, slot: usize) -> Result<(), String> {
        self.starts += 1;
        let mut hosts = BTreeMap::new();
        if slot < self.plan.nodes {
            for actor in ["cart", "order"] {
                if self.plan.quiet || self.random.chance(75) {
                    let weight = if self.plan.quiet { 1 } else { self.random.between(1, 4) };
                    hosts.insert(actor.to_owned(), weight as u32);
                }
            }
        }
        let info =
            |weight: &u32| HostInfo { version: "1".to_owned(), weight: *weight, durable: false, always_on: Vec::new() };
        let hosted = hosts.iter().map(|(actor, weight)| (actor.clone(), info(weight))).collect();
        let config = Config {
            lease_ttl_ms: TTL_MS,
            renew_every_ms: TTL_MS / 3,
            neighbours: self.plan.neighbours,
            handovers_at_once: 3,
            orphan_patience_ms: 500,
            offer_patience_ms: 800,
            hold_patience_ms: 2_000,
            unsure_patience_ms: 600,
            stands_ms: 900,
            loop_pause_ms: 200,
            loop_pause_max_ms: 3_000,
            ..Config::new(&format!("n{slot}"), &self.starts.to_string(), hosted, self.plan.partitions)
        };
        let at = self.nodes.len();
        self.nodes.push(Node {
            slot,
            id: config.me.clone(),
            hosts,
            machine: Machine::new(config),
            life: Life::Up,
            admitting: BTreeMap::new(),
            held: BTreeMap::new(),
            joined: BTreeSet::new(),
            snapshots: 0,
            leased: false,
            enrolled: false,
            told_to_drain: false,
            paused_until: 0,
            linked: false,
            link: 0,
            own: false,
            client: 0,
            cursor: None,
            beats: BTreeSet::new(),
            asked: 0,
            beats_cursor: None,
            lag: Lag::default(),
            busy: BTreeMap::new(),
            running: BTreeMap::new(),
            leaving: 0,
            loud: BTreeSet::new(),
            offset: self.random.between(0, 1_000_000),
            drift: self.random.between(0, 91),
        });
        self.after(0, Event::Tick(at));
        self.tell(at, Input::Started)?;
        self.link(at, 0)
    }
}
