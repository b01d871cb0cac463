//! The journals of the shop as the broker has them: every record of a stream, read without any of the actors.

use std::time::Duration;

use anyhow::{Context, bail};
use greenroom::Event;
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Record as Stored, Start, StreamConfig, Transport};
use serde::Deserialize;
use serde_json::Value;

/// How long nothing has to come before it is asked whether that was all.
const QUIET: Duration = Duration::from_millis(100);

/// What one turn, or a step of it, has added to one actor's journal.
pub(crate) struct Entry<E> {
    /// The actor's key as it stands in subjects.
    pub(crate) token: String,
    /// The number of the first of the events in the actor's life.
    pub(crate) first: u64,
    /// The epoch of the claim under which it was written.
    pub(crate) epoch: u64,
    pub(crate) events: Vec<E>,
    /// Whether nothing was written before it.
    pub(crate) begins: bool,
    /// The state that it leaves, where it holds one.
    pub(crate) state: Option<Value>,
}

/// A record at rest, as far as it matters here; its form is described in `docs/wire.md`.
#[derive(Deserialize)]
struct Record {
    form: u32,
    first: u64,
    epoch: u64,
    #[serde(default)]
    events: Vec<StoredEvent>,
    snapshot: Option<Snapshot>,
    /// Where the last snapshot before it lies, and how much was written since: neither, in a journal's first record.
    #[serde(default)]
    base: u64,
    #[serde(default)]
    since: u64,
}

#[derive(Deserialize)]
struct StoredEvent {
    name: String,
    version: u32,
    body: Value,
}

#[derive(Deserialize)]
struct Snapshot {
    state: Value,
}

/// Every record of the journals of one actor type, in the order in which they were written.
///
/// # Errors
/// If the broker does not answer, or a record is none that can be read.
pub(crate) async fn read<E: Event>(transport: &dyn Transport, app: &str) -> anyhow::Result<Vec<Entry<E>>> {
    let subjects = Subjects::new(Name::new(app)?);
    let (name, filter) = (subjects.journal_stream(E::ACTOR), subjects.journals(E::ACTOR));
    let stream = transport.stream(&name, StreamConfig::new([filter.clone()])).await?;
    let mut following = stream.follow(Vec::new(), Start::At(1)).await?;
    let mut entries = Vec::new();
    let mut last = 0;
    loop {
        match tokio::time::timeout(QUIET, following.next()).await {
            Ok(Some(record)) => {
                last = record.sequence;
                let at = || format!("record {last} of {name}, on {}", record.subject);
                entries.push(entry(&record).with_context(at)?);
            }
            Ok(None) => bail!("the connection was closed while {name} was read"),
            // The leader knows whether there is more.
            Err(_) if stream.next(&filter, last + 1).await?.is_none() => return Ok(entries),
            Err(_) => {}
        }
    }
}

fn entry<E: Event>(stored: &Stored) -> anyhow::Result<Entry<E>> {
    let record: Record = serde_json::from_slice(&stored.body)?;
    if record.form != 1 {
        bail!("it has form {}, and only form 1 is known", record.form);
    }
    let mut events = Vec::with_capacity(record.events.len());
    for event in record.events {
        if event.version != E::VERSION {
            bail!("its event {} has version {}, and only {} is known", event.name, event.version, E::VERSION);
        }
        events.push(serde_json::from_value(event.body).with_context(|| format!("its event {}", event.name))?);
    }
    let token = stored.subject.rsplit('.').next().unwrap_or_default().to_owned();
    let state = record.snapshot.map(|snapshot| snapshot.state);
    let begins = record.base == 0 && record.since == 0;
    Ok(Entry { token, first: record.first, epoch: record.epoch, events, begins, state })
}
