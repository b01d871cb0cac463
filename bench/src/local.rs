//! Ask and tell on one node, one caller, beside the peers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use ractor::rpc::CallResult;

use crate::peers::{self, Add, AddAsync, Bump, KameoAdd, KameoBump, KameoCounter, RactorCounter, RactorMessage, Sent};
use crate::report::{self, Footprint, Local, Row, Sample};

/// Calls between two looks at the clock.
const BATCH: u64 = 1_000;

/// Does something for a while, then waits for the end of it all; the time of one.
macro_rules! timed {
    ($spell:expr, $operation:expr, $end:expr) => {{
        let cpu = report::cpu_ns()?;
        let began = Instant::now();
        let mut count = 0u64;
        while began.elapsed() < $spell {
            for _ in 0..BATCH {
                $operation;
            }
            // A batch of one-way messages ends with its last one handled: no system may run up a queue.
            $end;
            count += BATCH + 1;
        }
        let ns = began.elapsed().as_nanos() as f64 / count as f64;
        Sample { ns, cpu_ns: (report::cpu_ns()? - cpu) / count as f64 }
    }};
}

/// Runs every case, interleaved, and prints the table.
pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    let (rounds, spell) = if quick { (3, Duration::from_millis(150)) } else { (7, Duration::from_millis(400)) };
    let mut rows = Vec::new();
    for threads in [1, 2] {
        let runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
        };
        // The caller is a task like any other: on its own thread it would not be on a worker.
        rows.extend(runtime.block_on(async move { tokio::spawn(cases(threads, rounds, spell)).await })??);
    }
    report::print(&rows, &["ractor", "tokio channel"]);
    let footprint = footprint(if quick { 200_000 } else { 1_000_000 })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report::write(json, &Local { cores, rows, footprint })
}

async fn cases(threads: usize, rounds: usize, spell: Duration) -> anyhow::Result<Vec<Row>> {
    let (node, counter) = peers::greenroom().await?;
    let task = peers::tokio_task();
    let (ractor, _ractor) = ractor::Actor::spawn(None, RactorCounter, ()).await?;
    let kameo = <KameoCounter as kameo::actor::Spawn>::spawn(KameoCounter { total: 0 });
    let mut samples: Vec<(&str, &str, Vec<Sample>)> = Vec::new();
    let mut keep =
        |system, operation, sample| match samples.iter_mut().find(|known| known.0 == system && known.1 == operation) {
            Some(known) => known.2.push(sample),
            None => samples.push((system, operation, vec![sample])),
        };
    for round in 1..=rounds {
        eprintln!("  {threads} thread(s), round {round} of {rounds}");
        keep("greenroom", "ask", timed!(spell, counter.ask(Add(1)).await?, counter.ask(Add(0)).await?));
        keep("greenroom async fn", "ask", timed!(spell, counter.ask(AddAsync(1)).await?, counter.ask(Add(0)).await?));
        keep("tokio channel", "ask", timed!(spell, ask_task(&task).await?, ask_task(&task).await?));
        keep("ractor", "ask", timed!(spell, ask_ractor(&ractor).await?, ask_ractor(&ractor).await?));
        keep("kameo", "ask", timed!(spell, kameo.ask(KameoAdd(1)).await?, kameo.ask(KameoAdd(0)).await?));
        // One-way: the clock stops when the last message has been handled.
        keep("greenroom", "tell", timed!(spell, counter.tell(Bump(1)).await?, counter.ask(Add(0)).await?));
        keep("tokio channel", "tell", timed!(spell, task.send(Sent::Bump(1)).await?, ask_task(&task).await?));
        keep("ractor", "tell", timed!(spell, ractor.cast(RactorMessage::Bump(1))?, ask_ractor(&ractor).await?));
        keep("kameo", "tell", timed!(spell, kameo.tell(KameoBump(1)).await?, kameo.ask(KameoAdd(0)).await?));
    }
    node.drain().await?;
    ractor.stop(None);
    Ok(samples.into_iter().map(|(system, operation, samples)| Row::of(system, operation, threads, &samples)).collect())
}

async fn ask_task(task: &tokio::sync::mpsc::Sender<Sent>) -> anyhow::Result<u64> {
    let (reply, total) = tokio::sync::oneshot::channel();
    task.send(Sent::Add(1, reply)).await?;
    Ok(total.await?)
}

async fn ask_ractor(counter: &ractor::ActorRef<RactorMessage>) -> anyhow::Result<u64> {
    match counter.call(|reply| RactorMessage::Add(1, reply), None).await? {
        CallResult::Success(total) => Ok(total),
        other => anyhow::bail!("ractor did not answer: {other:?}"),
    }
}

/// In a process of its own: what this one has allocated before would be in the figure.
fn footprint(actors: u64) -> anyhow::Result<Footprint> {
    let file = std::env::temp_dir().join(format!("greenroom-footprint-{}.json", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe()?)
        .args(["footprint", "--actors", &actors.to_string(), "--json"])
        .arg(&file)
        .status()
        .context("the measurement of the footprint cannot be started")?;
    anyhow::ensure!(status.success(), "the measurement of the footprint failed ({status})");
    let footprint = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    std::fs::remove_file(&file)?;
    Ok(footprint)
}
