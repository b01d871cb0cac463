//! The journals of the cells as the broker has them, read without asking any actor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{NatsTransport, Record as Stored, Start, StreamConfig, Transport};
use greenroom_history::{Change, Entry};
use serde::Deserialize;

use crate::Place;

/// How long nothing has to come before the leader is asked whether that was all.
const QUIET: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct JournalArgs {
    #[command(flatten)]
    place: Place,
    /// The sequence of the first record that is looked at.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// Where every record is written down, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A record at rest, as far as it matters here; its form is described in `docs/wire.md`.
#[derive(Deserialize)]
struct Record {
    form: u32,
    id: String,
    epoch: u64,
    #[serde(default)]
    events: Vec<StoredEvent>,
}

#[derive(Deserialize)]
struct StoredEvent {
    name: String,
    body: serde_json::Value,
}

pub(crate) async fn run(args: JournalArgs) -> anyhow::Result<()> {
    let transport = NatsTransport::connect(args.place.connect()?.name("rig-journal")).await?;
    let entries = read(&transport, &args).await;
    transport.close().await;
    let entries = entries.context("the journals cannot be read")?;
    let file = File::create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let mut out = BufWriter::new(file);
    for entry in &entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

async fn read(transport: &dyn Transport, args: &JournalArgs) -> anyhow::Result<Vec<Entry>> {
    let subjects = Subjects::new(Name::new(&args.place.app)?);
    let (name, filter) = (subjects.journal_stream("cell"), subjects.journals("cell"));
    let stream = transport.stream(&name, StreamConfig::new([filter.clone()])).await?;
    let mut following = stream.follow(Vec::new(), Start::At(args.from)).await?;
    let mut entries = Vec::new();
    let mut last = args.from.saturating_sub(1);
    loop {
        match tokio::time::timeout(QUIET, following.next()).await {
            Ok(Some(record)) => {
                last = record.sequence;
                entries.push(entry(&record).with_context(|| format!("record {last}, on {}", record.subject))?);
            }
            Ok(None) => bail!("the connection was closed"),
            // The leader knows whether there is more.
            Err(_) if stream.next(&filter, last + 1).await?.is_none() => return Ok(entries),
            Err(_) => {}
        }
    }
}

fn entry(stored: &Stored) -> anyhow::Result<Entry> {
    let record: Record = serde_json::from_slice(&stored.body)?;
    ensure!(record.form == 1, "it has form {}, and only form 1 is known", record.form);
    let mut changes = Vec::with_capacity(record.events.len());
    for event in &record.events {
        // Events travel as enums do: {"appended": 7}, or the value alone.
        let body = event.body.as_object().and_then(|object| object.values().next()).unwrap_or(&event.body);
        let value = body.as_u64().with_context(|| format!("its event {}: {}", event.name, event.body))?;
        changes.push(match event.name.as_str() {
            "appended" => Change::Appended(value),
            "written" => Change::Written(value),
            other => bail!("its event is {other}"),
        });
    }
    let key = stored.subject.rsplit('.').next().unwrap_or_default().to_owned();
    // An append is named after the node that made it, and its number there.
    let node = record.id.rsplit_once('-').map_or(record.id.as_str(), |(node, _)| node).to_owned();
    Ok(Entry { sequence: stored.sequence, key, epoch: record.epoch, node, changes })
}
