//! `greenroom dead`: the durable tells of an app that could not be delivered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use greenroom::subject::{Name, Subjects};
use greenroom::tell::{DeadLetter, DeadLetters};
use greenroom::transport::{Connect, NatsTransport, Transport};
use serde_json::{Value, json};
use time::OffsetDateTime;

const HELP: &str = "\
Examples:
  greenroom dead ls --app shop
  greenroom dead show 12
  greenroom dead replay 12 13                the same messages again, under their old ids
  greenroom dead replay --all --actor order  after what was wrong with orders is mended
  greenroom dead discard 12
  greenroom dead ls --json | jq '.[] | select(.kind == \"panicked\") | .sequence'

A durable tell whose turn fails again and again, is refused, or can never work ends here, with
its cause. Replaying puts it behind whatever waits for its actor now; a durable actor lets it
take effect once, however often it is replayed. The stock CLI shows the same:
  nats stream view shop-dead

Without --nats the broker is found as the nats CLI finds it (NATS_URL, NATS_CONTEXT, …).
It exits with 0 if all was done, with 1 if a letter was not there, with 2 if nothing could be done.";

/// Shows and replays durable tells that could not be delivered.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Where the broker is, as nats://host:port; several with commas between. Wins over NATS_URL.
    #[arg(long, value_name = "URL", global = true)]
    nats: Option<String>,
    /// The app: what the subjects of its actors begin with.
    #[arg(long, default_value = "shop", value_parser = name, global = true)]
    app: Name,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists them, oldest first.
    Ls {
        /// Only those for this actor type.
        #[arg(long, value_parser = name)]
        actor: Option<Name>,
        /// How many at the most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Prints a list of {sequence, actor, key, verb, kind, cause, attempts, at, id, subject, body}.
        #[arg(long)]
        json: bool,
    },
    /// Shows one: what it says, what happened, and its headers.
    Show {
        /// Its number, as `ls` gives it.
        sequence: u64,
        /// Prints it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Puts some back into the stream of durable tells, and removes them here once they are there.
    Replay {
        /// Their numbers, as `ls` gives them.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        sequences: Vec<u64>,
        /// All that there are now.
        #[arg(long)]
        all: bool,
        /// With --all: only those for this actor type.
        #[arg(long, value_parser = name, requires = "all")]
        actor: Option<Name>,
    },
    /// Throws some away.
    Discard {
        /// Their numbers, as `ls` gives them.
        #[arg(required = true)]
        sequences: Vec<u64>,
    },
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.message().to_owned())
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// For people, or for programs if they asked for that.
    pub(crate) said: String,
    /// What was not there.
    pub(crate) missed: Vec<String>,
}

/// Carries the command out.
///
/// # Errors
/// If nothing could be done.
pub(crate) async fn run(args: &Args) -> anyhow::Result<Done> {
    let mut connect = Connect::from_env(|name| std::env::var(name).ok())?;
    if let Some(url) = &args.nats {
        connect = connect.url(url).context("--nats")?;
    }
    let transport = Arc::new(NatsTransport::connect(connect.name("greenroom-dead")).await?);
    let done = carry_out(args, &transport).await;
    // Nothing is left to send; the process ends anyway if this takes longer.
    tokio::time::timeout(Duration::from_secs(1), transport.close()).await.ok();
    done
}

async fn carry_out(args: &Args, transport: &Arc<NatsTransport>) -> anyhow::Result<Done> {
    let subjects = Subjects::new(args.app.clone());
    // A look must not make what it looks for.
    if !exists(transport, &format!("KV_{}", subjects.ownership_bucket())).await? {
        bail!("no node of the app {} has ever run on this broker; name another with --app", args.app);
    }
    let mut done = Done { said: String::new(), missed: Vec::new() };
    if !exists(transport, &subjects.dead_stream()).await? {
        done.said = match &args.command {
            Command::Ls { json: true, .. } => "[]\n".to_owned(),
            _ => format!("no dead letters in {}\n", args.app),
        };
        return Ok(done);
    }
    let dead = DeadLetters::of(transport.clone(), args.app.as_str()).await?;
    match &args.command {
        Command::Ls { actor, limit, json } => {
            let letters = list(&dead, actor.as_ref(), *limit).await?;
            done.said = if *json { as_json(letters.iter().map(json_of)) } else { table(&letters, &args.app) };
        }
        Command::Show { sequence, json } => match dead.get(*sequence).await? {
            Some(letter) if *json => done.said = format!("{:#}\n", json_of(&letter)),
            Some(letter) => done.said = whole(&letter),
            None => done.missed.push(missing(*sequence)),
        },
        Command::Replay { sequences, all, actor } => {
            let mut wanted = sequences.clone();
            if *all {
                wanted = list(&dead, actor.as_ref(), usize::MAX).await?.iter().map(|letter| letter.sequence).collect();
            }
            for sequence in wanted {
                note(&mut done, "replayed", sequence, dead.replay(sequence).await?);
            }
        }
        Command::Discard { sequences } => {
            for sequence in sequences {
                note(&mut done, "discarded", *sequence, dead.discard(*sequence).await?);
            }
        }
    }
    Ok(done)
}

fn note(done: &mut Done, what: &str, sequence: u64, was_there: bool) {
    if was_there {
        done.said.push_str(&format!("{what} {sequence}\n"));
    } else {
        done.missed.push(missing(sequence));
    }
}

fn missing(sequence: u64) -> String {
    format!("there is no dead letter {sequence}; `greenroom dead ls` lists those that there are")
}

async fn exists(transport: &NatsTransport, stream: &str) -> anyhow::Result<bool> {
    const STREAM_NOT_FOUND: u64 = 10_059;
    let subject = transport.jetstream_subject(&format!("STREAM.INFO.{stream}"))?;
    let answer: Value = serde_json::from_slice(&transport.request(&subject, "").await?)
        .with_context(|| format!("the answer to {subject} is no JSON"))?;
    match answer["error"]["err_code"].as_u64() {
        None => Ok(true),
        Some(STREAM_NOT_FOUND) => Ok(false),
        Some(_) => bail!("the stream {stream} cannot be looked at: {}", answer["error"]["description"]),
    }
}

async fn list(dead: &DeadLetters, actor: Option<&Name>, limit: usize) -> anyhow::Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    let mut from = 1;
    while letters.len() < limit
        && let Some(letter) = dead.next(actor.map(Name::as_str), from).await?
    {
        from = letter.sequence + 1;
        letters.push(letter);
    }
    Ok(letters)
}

fn as_json(values: impl Iterator<Item = Value>) -> String {
    format!("{:#}\n", Value::Array(values.collect()))
}

fn json_of(letter: &DeadLetter) -> Value {
    let body = serde_json::from_slice::<Value>(&letter.body);
    json!({
        "sequence": letter.sequence,
        "actor": letter.actor,
        "key": letter.key,
        "verb": letter.verb,
        "kind": letter.kind,
        "cause": letter.cause,
        "attempts": letter.attempts,
        "at": letter.at,
        "id": letter.id,
        "subject": letter.subject,
        "body": body.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&letter.body).into_owned())),
    })
}

fn table(letters: &[DeadLetter], app: &Name) -> String {
    if letters.is_empty() {
        return format!("no dead letters in {app}\n");
    }
    let mut said =
        format!("{:>6}  {:<19}  {:<12} {:>5}  {}\n", "number", "given up (UTC)", "kind", "tries", "for, and why");
    for letter in letters {
        let DeadLetter { sequence, actor, key, verb, kind, attempts, at, cause, .. } = letter;
        let at = moment(*at);
        said.push_str(&format!("{sequence:>6}  {at:<19}  {kind:<12} {attempts:>5}  {actor}/{key} {verb}: {cause}\n"));
    }
    said
}

fn whole(letter: &DeadLetter) -> String {
    let DeadLetter { sequence, actor, key, verb, kind, cause, attempts, at, id, subject, body, headers, .. } = letter;
    let mut said = format!(
        "dead letter {sequence}\n  for       {actor}/{key}, {verb}\n  kind      {kind}\n  cause     {cause}\n  attempts  {attempts}\n  \
         given up  {}\n  id        {id}\n  subject   {subject}\n",
        moment(*at)
    );
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with("Greenroom-Dead-")) {
        said.push_str(&format!("  {name}: {value}\n"));
    }
    said.push_str(&format!("\n{}\n", String::from_utf8_lossy(body)));
    said
}

/// Milliseconds since 1970 as people read them.
fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02}")
}
