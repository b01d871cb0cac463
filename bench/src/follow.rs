//! How fast the events of durable actors are followed, on a real server with file storage: by a program that reads the
//! journals, and by actors that the events drive.
//!
//! Each round has an app of its own, whose journals are filled before anybody follows them. A rate counts from the first
//! event that comes to the last.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use greenroom::HostOptions;
use greenroom::prelude::*;
use greenroom::subscribe::Received;
use xtask::broker::{Broker, BrokerOptions, Profile};
use xtask::tools;

use crate::durable::{self, Counted, Keep, Kept, KeptActor, Samples};

/// How many actors the events are of, and as many whom they drive.
const KEYS: u64 = 1_000;
/// Callers at once, while journals are filled.
const CALLERS: u64 = 128;
/// Events whose way is timed one by one.
const SINGLE: usize = 200;
/// How long it may take until everything has come.
const LIMIT: Duration = Duration::from_secs(300);

/// Is driven by events, and keeps what it was told.
#[contract(name = "ledger", messages(Entries), event = Entered)]
struct Ledger;

/// How many events it was told of.
#[message(Ledger, read, reply = u64)]
struct Entries;

#[event(Ledger)]
enum Entered {
    Entered { by: u64 },
}

#[data]
#[derive(Default)]
struct Page {
    entries: u64,
    total: u64,
}

impl State for Page {
    type Event = Entered;

    fn apply(&mut self, event: &Entered) {
        let Entered::Entered { by } = event;
        self.entries += 1;
        self.total += by;
    }
}

/// Is driven by events, and keeps nothing.
#[contract(name = "tally", messages(Strokes))]
struct Tally;

/// How many events it was told of.
#[message(Tally, read, reply = u64)]
struct Strokes;

/// What has come to all actors of this process.
struct Arrived {
    count: AtomicU64,
    /// When the first came, and the last.
    between: Mutex<Option<(Instant, Instant)>>,
}

static ARRIVED: Arrived = Arrived { count: AtomicU64::new(0), between: Mutex::new(None) };

impl Arrived {
    fn one(&self) {
        let now = Instant::now();
        if let Ok(mut between) = self.between.lock() {
            *between = Some(between.map_or((now, now), |(first, _)| (first, now)));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn begin(&self) {
        self.count.store(0, Ordering::SeqCst);
        if let Ok(mut between) = self.between.lock() {
            *between = None;
        }
    }

    /// Waits until so many have come.
    async fn until(&self, count: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let here = self.count.load(Ordering::SeqCst);
            if here >= count {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "{here} of {count} events have come");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Events per second, from the first to the last.
    fn rate(&self) -> anyhow::Result<f64> {
        let between = self.between.lock().ok().and_then(|between| *between);
        let (first, last) = between.context("nothing has come")?;
        Ok((self.count.load(Ordering::SeqCst) - 1) as f64 / (last - first).as_secs_f64())
    }
}

struct LedgerActor {
    page: Durable<Page>,
}

#[actor(Ledger, state = page, durable)]
impl LedgerActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { page: ctx.durable().await? })
    }

    #[on]
    fn counted(&mut self, happened: Received<Counted>) {
        let Counted::Added { by } = happened.event;
        self.page.emit(Entered::Entered { by });
        ARRIVED.one();
    }

    #[read]
    fn entries(&self, _: Entries) -> u64 {
        self.page.entries
    }
}

#[derive(Default)]
struct TallyActor {
    strokes: u64,
}

#[actor(Tally)]
impl TallyActor {
    #[on]
    fn counted(&mut self, _: Received<Counted>) {
        self.strokes += 1;
        ARRIVED.one();
    }

    #[read]
    fn strokes(&self, _: Strokes) -> u64 {
        self.strokes
    }
}

/// Runs every round, and prints the table.
pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    let tools = tools::provision(&mut |line| eprintln!("{line}"))?;
    let broker = Broker::start(&tools, BrokerOptions { config: Profile::Plain })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let url = broker.url();
    let samples = runtime.block_on(async move { tokio::spawn(async move { rounds(&url, quick).await }).await })??;
    durable::show(samples, json)
}

async fn rounds(url: &str, quick: bool) -> anyhow::Result<Samples> {
    let (rounds, events) = if quick { (3, 10_000) } else { (5, 50_000) };
    let mut samples = Samples::default();
    for number in 1..=rounds {
        eprintln!("  round {number} of {rounds}, {events} events");
        round(&mut samples, url, number, events).await?;
    }
    samples.keep("events, of 1,000 actors, in each round", "events", None, events as f64);
    Ok(samples)
}

async fn round(samples: &mut Samples, url: &str, number: u64, events: u64) -> anyhow::Result<()> {
    let app = format!("follow_{number}");
    let source = Node::builder(&app).name("source").connect(url).host::<KeptActor>().start().await?;
    fill(&source, events).await?;

    let reader = Node::builder(&app).name("reader").connect(url).start().await?;
    let mut journal = reader.subscribe::<Counted>().journal("reader").await?;
    let mut begun = None;
    for event in 0..events {
        journal.next().await.with_context(|| format!("the journals end after {event} events"))?;
        begun.get_or_insert_with(Instant::now);
    }
    let took = begun.context("no events")?.elapsed();
    samples.keep("a program reads the journals", "/s", None, (events - 1) as f64 / took.as_secs_f64());
    drop(journal);
    reader.drain().await?;

    let options = HostOptions::new();
    ARRIVED.begin();
    let node = Node::builder(&app).name("tally").connect(url).host_with::<TallyActor>(options.clone()).start().await?;
    ARRIVED.until(events).await?;
    samples.keep("volatile actors are driven", "/s", None, ARRIVED.rate()?);
    node.drain().await?;

    ARRIVED.begin();
    let node = Node::builder(&app).name("ledger").connect(url).host_with::<LedgerActor>(options).start().await?;
    ARRIVED.until(events).await?;
    samples.keep("durable actors are driven", "/s", None, ARRIVED.rate()?);
    let mut times = Vec::new();
    for event in 0..SINGLE as u64 {
        let actor = source.actor::<Kept>(key(event % KEYS));
        actor.ask(Keep { by: 1 }).await?;
        let began = Instant::now();
        ARRIVED.until(events + event + 1).await?;
        times.push(began.elapsed());
    }
    samples.keep("from the answered command to the turn, p50", "µs", None, durable::p50(times));
    let all = node.actor::<Ledger>(key(0)).ask(Entries).await?;
    let expected = events / KEYS + u64::from(SINGLE > 0);
    ensure!(all == expected, "the first actor was told of {all} events, not {expected}");
    node.drain().await?;
    source.drain().await?;
    Ok(())
}

fn key(number: u64) -> String {
    format!("k-{number}")
}

/// Has so many events emitted, one a turn, of all keys alike.
async fn fill(node: &Node, events: u64) -> anyhow::Result<()> {
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let node = node.clone();
            tokio::spawn(async move {
                for event in (caller..events).step_by(CALLERS as usize) {
                    let actor = node.actor::<Kept>(key(event % KEYS)).within(Duration::from_secs(60));
                    actor.ask(Keep { by: 1 }).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(())
}
