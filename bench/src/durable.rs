//! Durable commands beside the appends that they stand on, on a real server with file storage.
//!
//! What is compared in a ratio was measured in one round, one after the other, by the same client library with the same
//! bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use greenroom::prelude::*;
use serde::Serialize;
use tokio::sync::Barrier;
use xtask::broker::{Broker, BrokerOptions, Profile};
use xtask::tools;

use crate::peers::{Add, Counter, CounterActor};
use crate::raw::{By, Raw};
use crate::report;

/// Callers at once, and appends at once.
const IN_FLIGHT: usize = 64;
/// Keys that each of them uses in turn.
const KEYS_EACH: usize = 4;

/// A counter that is kept.
#[contract(name = "kept", messages(Keep, KeepAsync, Total), event = Counted)]
pub(crate) struct Kept;

/// Adds, by a handler that never waits.
#[message(Kept, ask, reply = u64)]
pub(crate) struct Keep {
    pub(crate) by: u64,
}

/// Adds, by one that may.
#[message(Kept, ask, reply = u64)]
pub(crate) struct KeepAsync {
    by: u64,
}

/// The total.
#[message(Kept, read, reply = u64)]
pub(crate) struct Total;

#[event(Kept)]
pub(crate) enum Counted {
    Added { by: u64 },
}

#[data]
#[derive(Default)]
struct Sum {
    total: u64,
}

impl State for Sum {
    type Event = Counted;

    fn apply(&mut self, event: &Counted) {
        let Counted::Added { by } = event;
        self.total += by;
    }
}

pub(crate) struct KeptActor {
    sum: Durable<Sum>,
}

#[actor(Kept, state = sum, durable)]
impl KeptActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { sum: ctx.durable().await? })
    }

    #[ask]
    fn keep(&mut self, msg: Keep) -> u64 {
        self.sum.emit(Counted::Added { by: msg.by });
        self.sum.total
    }

    #[ask]
    async fn keep_async(&mut self, msg: KeepAsync) -> u64 {
        self.sum.emit(Counted::Added { by: msg.by });
        self.sum.total
    }

    #[read]
    fn total(&self, _: Total) -> u64 {
        self.sum.total
    }
}

/// One figure over all rounds.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    /// What it should be, if anything is said of that.
    goal: Option<&'static str>,
    rounds: usize,
}

#[derive(Serialize)]
struct Figures {
    cores: usize,
    figures: Vec<Figure>,
}

/// Samples of everything, by name, in the order of their first round.
#[derive(Default)]
pub(crate) struct Samples(Vec<(&'static str, &'static str, Option<&'static str>, Vec<f64>)>);

impl Samples {
    pub(crate) fn keep(&mut self, name: &'static str, unit: &'static str, goal: Option<&'static str>, sample: f64) {
        match self.0.iter_mut().find(|known| known.0 == name) {
            Some(known) => known.3.push(sample),
            None => self.0.push((name, unit, goal, vec![sample])),
        }
    }

    fn figures(self) -> Vec<Figure> {
        let figure = |(name, unit, goal, mut samples): (_, _, _, Vec<f64>)| {
            samples.sort_by(f64::total_cmp);
            let (median, min, max) = (samples[samples.len() / 2], samples[0], samples[samples.len() - 1]);
            Figure { name, unit, median, min, max, goal, rounds: samples.len() }
        };
        self.0.into_iter().map(figure).collect()
    }
}

/// Runs the cases whose letters are named, interleaved, and prints the table.
pub fn run(quick: bool, only: &str, json: Option<&Path>) -> anyhow::Result<()> {
    let tools = tools::provision(&mut |line| eprintln!("{line}"))?;
    let broker = Broker::start(&tools, BrokerOptions { config: Profile::Plain })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let at = Server { url: broker.url(), pid: broker.pid() };
    let only = only.to_owned();
    let samples =
        runtime.block_on(async move { tokio::spawn(async move { cases(&at, quick, &only).await }).await })??;
    show(samples, json)
}

/// Prints the table of what was measured, and writes it.
pub(crate) fn show(samples: Samples, json: Option<&Path>) -> anyhow::Result<()> {
    let figures = samples.figures();
    println!("\n| what | median [min–max] | unit | goal | rounds |\n|---|---|---|---|---|");
    for Figure { name, unit, median, min, max, goal, rounds } in &figures {
        println!("| {name} | {median:.2} [{min:.2}–{max:.2}] | {unit} | {} | {rounds} |", goal.unwrap_or("–"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report::write(json, &Figures { cores, figures })
}

/// The broker that everything runs on.
struct Server {
    url: String,
    pid: u32,
}

async fn cases(at: &Server, quick: bool, only: &str) -> anyhow::Result<Samples> {
    let (url, wanted) = (at.url.as_str(), |case: char| only.contains(case));
    let (rounds, spell) = if quick { (3, Duration::from_millis(400)) } else { (7, Duration::from_secs(1)) };
    let node = Node::builder("bench").name("owner").connect(url).host::<KeptActor>().host::<CounterActor>();
    let node = node.start().await?;
    let client = Node::builder("bench").name("client").connect(url).start().await?;
    let raw = Raw::open(url, &node).await?;
    let mut samples = Samples::default();
    for round in 1..=rounds {
        eprintln!("  round {round} of {rounds}");
        if wanted('a') {
            many_keys(&mut samples, &node, &client, &raw, (at.pid, spell)).await?;
        }
        if wanted('b') {
            one_key(&mut samples, &node, &client, &raw, spell).await?;
        }
        if wanted('c') {
            hot_key(&mut samples, &node, (at.pid, spell)).await?;
        }
    }
    if wanted('d') {
        activation(&mut samples, node, url, quick).await?;
    }
    client.drain().await?;
    Ok(samples)
}

/// A spell in which something is done in several tasks: they begin together, when all are ready.
pub(crate) struct Run {
    ready: Barrier,
    over: AtomicBool,
}

impl Run {
    fn of(tasks: usize) -> Arc<Self> {
        Arc::new(Self { ready: Barrier::new(tasks + 1), over: AtomicBool::new(false) })
    }

    pub(crate) async fn begin(&self) {
        self.ready.wait().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// What a spell came to.
struct Done {
    /// Per second, all together.
    rate: f64,
    /// CPU time of one, in microseconds: of this process, and of the broker.
    own: f64,
    broker: f64,
}

/// Does something in so many tasks for a while.
async fn rate<F, R>(
    tasks: usize,
    (broker, spell): (u32, Duration),
    make: impl Fn(usize, Arc<Run>) -> F,
) -> anyhow::Result<Done>
where
    F: Future<Output = anyhow::Result<R>> + Send + 'static,
    R: Count + Send + 'static,
{
    let run = Run::of(tasks);
    let tasks: Vec<_> = (0..tasks).map(|task| tokio::spawn(make(task, run.clone()))).collect();
    run.begin().await;
    let cpu = (report::cpu_ns()?, report::cpu_ns_of(broker)?);
    let began = Instant::now();
    tokio::time::sleep(spell).await;
    run.over.store(true, Ordering::Relaxed);
    let mut count = 0;
    for task in tasks {
        count += task.await??.count();
    }
    let took = began.elapsed().as_secs_f64();
    let spent = |before: f64, now: f64| (now - before) / 1e3 / count as f64;
    Ok(Done {
        rate: count as f64 / took,
        own: spent(cpu.0, report::cpu_ns()?),
        broker: spent(cpu.1, report::cpu_ns_of(broker)?),
    })
}

trait Count {
    fn count(&self) -> usize;
}

impl<T> Count for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }
}

fn keys_of(task: usize) -> Vec<String> {
    (0..KEYS_EACH).map(|key| format!("k-{task}-{key}")).collect()
}

/// Asks for the same again and again; the time of each.
async fn asks<M>(node: Node, keys: Vec<String>, run: Arc<Run>, make: fn() -> M) -> anyhow::Result<Vec<Duration>>
where
    M: greenroom::contract::Message<Contract = Kept, Mode = greenroom::contract::mode::Ask, Reply = u64>,
    M::Refusal: Send + Sync,
{
    let actors: Vec<Ref<Kept>> = keys.iter().map(|key| node.actor::<Kept>(key)).collect();
    for actor in &actors {
        // In memory, with all its past, before the clock runs.
        actor.ask(Total).await?;
    }
    let mut times = Vec::new();
    run.begin().await;
    while !run.is_over() {
        for actor in &actors {
            let began = Instant::now();
            actor.ask(make()).await?;
            times.push(began.elapsed());
        }
    }
    Ok(times)
}

fn keep() -> Keep {
    Keep { by: 1 }
}

fn keep_async() -> KeepAsync {
    KeepAsync { by: 1 }
}

/// (a) Many keys, many callers; (e) the same from another node.
async fn many_keys(
    samples: &mut Samples,
    node: &Node,
    client: &Node,
    raw: &Raw,
    spell: (u32, Duration),
) -> anyhow::Result<()> {
    let appender = |by| {
        move |task, run: Arc<Run>| {
            let raw = raw.clone();
            async move { raw.appends(by, &keys_of(task), &run).await }
        }
    };
    let asker = |node: &Node| {
        let node = node.clone();
        move |task, run| asks(node.clone(), keys_of(task), run, keep)
    };
    let library = rate(IN_FLIGHT, spell, appender(By::Library)).await?;
    let before = rate(IN_FLIGHT, spell, appender(By::Transport)).await?;
    let commands = rate(IN_FLIGHT, spell, asker(node)).await?;
    let after = rate(IN_FLIGHT, spell, appender(By::Transport)).await?;
    let appends = f64::midpoint(before.rate, after.rate);
    samples.keep("a: raw appends, 64 in flight", "/s", None, appends);
    samples.keep("a: durable commands, 64 callers", "/s", None, commands.rate);
    samples.keep("a: commands / appends", "×", Some("≥ 0.8"), commands.rate / appends);
    samples.keep("e: appends by the library, 64 in flight", "/s", None, library.rate);
    samples.keep("e: commands / those", "×", None, commands.rate / library.rate);
    samples.keep("a: CPU of an append, here", "µs", None, f64::midpoint(before.own, after.own));
    samples.keep("a: CPU of an append, at the broker", "µs", None, f64::midpoint(before.broker, after.broker));
    samples.keep("a: CPU of a command, here", "µs", None, commands.own);
    samples.keep("a: CPU of a command, at the broker", "µs", None, commands.broker);
    samples.keep("e: the same from another node", "/s", None, rate(IN_FLIGHT, spell, asker(client)).await?.rate);
    Ok(())
}

pub(crate) fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / 1_000.0
}

/// Does something alone for a while.
async fn spelled<T>(spell: Duration, make: impl AsyncFnOnce(Arc<Run>) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let run = Run::of(1);
    let other = run.clone();
    let timer = tokio::spawn(async move {
        other.begin().await;
        tokio::time::sleep(spell).await;
        other.over.store(true, Ordering::Relaxed);
    });
    let made = make(run).await;
    timer.abort();
    made
}

/// (b) One key, one caller; (e) the same from another node.
async fn one_key(samples: &mut Samples, node: &Node, client: &Node, raw: &Raw, spell: Duration) -> anyhow::Result<()> {
    let key = || vec!["sequential".to_owned()];
    let appends = async |by| anyhow::Ok(p50(spelled(spell, async |run| raw.appends(by, &key(), &run).await).await?));
    let append = appends(By::Transport).await?;
    let command = p50(spelled(spell, async |run| asks(node.clone(), key(), run, keep).await).await?);
    let library = appends(By::Library).await?;
    let append = f64::midpoint(append, appends(By::Transport).await?);
    let counter = node.actor::<Counter>("local");
    let began = Instant::now();
    for _ in 0..10_000 {
        counter.ask(Add(1)).await?;
    }
    let local = began.elapsed().as_nanos() as f64 / 10_000.0 / 1_000.0;
    samples.keep("b: raw append, p50", "µs", None, append);
    samples.keep("e: append by the library, p50", "µs", None, library);
    samples.keep("b: volatile local ask", "µs", None, local);
    samples.keep("b: durable command, p50", "µs", None, command);
    samples.keep("b: command / (append + ask)", "×", Some("≤ 1.2"), command / (append + local));
    let remote = p50(spelled(spell, async |run| asks(client.clone(), key(), run, keep).await).await?);
    samples.keep("e: one from another node, p50", "µs", None, remote);
    Ok(())
}

/// (c) One key, many callers, against its own sequential rate.
async fn hot_key(samples: &mut Samples, node: &Node, spell: (u32, Duration)) -> anyhow::Result<()> {
    let hot = || vec!["hot".to_owned()];
    let plain = |_, run| asks(node.clone(), hot(), run, keep);
    let waiting = |_, run| asks(node.clone(), hot(), run, keep_async);
    let one = rate(1, spell, plain).await?.rate;
    let many = rate(IN_FLIGHT, spell, plain).await?.rate;
    let one_async = rate(1, spell, waiting).await?.rate;
    let many_async = rate(IN_FLIGHT, spell, waiting).await?.rate;
    samples.keep("c: one key, one caller", "/s", None, one);
    samples.keep("c: one key, 64 callers, fn", "/s", None, many);
    samples.keep("c: fn, 64 / 1", "×", Some("≥ 5"), many / one);
    samples.keep("c: one key, 64 callers, async fn", "/s", None, many_async);
    samples.keep("c: async fn, 64 / 1", "×", Some("≥ 0.9"), many_async / one_async);
    Ok(())
}

/// (d) The first call to an actor with a past.
async fn activation(samples: &mut Samples, node: Node, url: &str, quick: bool) -> anyhow::Result<()> {
    let long = if quick { 20_000 } else { 100_000 };
    let (few, many) = (if quick { 5 } else { 15 }, if quick { 2 } else { 5 });
    eprintln!("  {few} journals of 1,000 events and {many} of {long}");
    for (number, events) in (0..few).map(|number| (number, 1_000)).chain((few..few + many).map(|number| (number, long)))
    {
        let callers = if events > 1_000 { IN_FLIGHT * 2 } else { 4 };
        let key = format!("past-{number}");
        let tasks = (0..callers).map(|caller| {
            let actor = node.actor::<Kept>(&key).within(Duration::from_secs(60));
            tokio::spawn(async move {
                for _ in 0..events / callers + usize::from(caller < events % callers) {
                    actor.ask(keep()).await?;
                }
                anyhow::Ok(())
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await??;
        }
    }
    node.drain().await?;
    let node = Node::builder("bench").name("heir").connect(url).host::<KeptActor>().start().await?;
    // Everything but the journals is warm: the heir owns every partition, one of which each of these falls into.
    for number in 0..1_000 {
        while node.actor::<Kept>(format!("nobody-{number}")).ask(Total).await.is_err() {}
    }
    for number in 0..few + many {
        let actor = node.actor::<Kept>(format!("past-{number}"));
        let began = Instant::now();
        let total = actor.ask(Total).await?;
        let took = began.elapsed().as_nanos() as f64 / 1e6;
        let events = if number < few { 1_000 } else { long as u64 };
        ensure!(total == events, "past-{number} has {total} events, not {events}");
        let name = if number < few { "d: first look, 1,000 events" } else { "d: first look, many events" };
        samples.keep(name, "ms", Some("≤ 10"), took);
    }
    samples.keep("d: many are", "events", None, long as f64);
    node.drain().await?;
    Ok(())
}
