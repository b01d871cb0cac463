//! The command stream: durable tells on their way, whoever sent them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::marks::Mark;
use crate::call::{TurnId, wall_ms};
use crate::error::{Error, ErrorKind};
use crate::journal::StoredTell;
use crate::key::Key;
use crate::node::{Surroundings, duty};
use crate::pauses::Pauses;
use crate::subject::{Call as Asked, Subject, Subjects};
use crate::transport::{Headers, Record, Retention, Stream, StreamConfig, WriteError};
use crate::wire::{BORN, COMMAND, EXPIRES, FROM, MESSAGE_ID, SCHEMA, TRACE};

/// Says that a program wrote it, of which nobody knows the form.
const NO_FORM: &str = "none";
/// The first pause before what was not stored is sent again, and the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// A durable tell on its way into the stream.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) actor: String,
    pub(crate) key: Key,
    pub(crate) verb: String,
    pub(crate) body: Bytes,
    /// Of the command.
    pub(crate) id: TurnId,
    pub(crate) born: u64,
    /// The actor whose turn sent it.
    pub(crate) from: Option<String>,
    pub(crate) trace: Option<String>,
}

impl Told {
    /// What a turn has sent, as its record has it.
    ///
    /// # Errors
    /// If the record names an actor that cannot be.
    pub(super) fn of(tell: &StoredTell, from: &str) -> Result<Self, Error> {
        Ok(Self {
            actor: tell.actor.clone(),
            key: Key::new(&tell.key)?,
            verb: tell.verb.clone(),
            body: Bytes::from(tell.body.get().to_owned()),
            id: tell.id,
            born: tell.born,
            from: Some(from.to_owned()),
            trace: tell.trace.clone(),
        })
    }

    fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        headers.push(MESSAGE_ID, self.message_id());
        headers.push(COMMAND, self.id.to_string());
        headers.push(SCHEMA, NO_FORM);
        if self.born > 0 {
            headers.push(BORN, self.born.to_string());
        }
        if let Some(from) = &self.from {
            headers.push(FROM, from.clone());
        }
        if let Some(trace) = &self.trace {
            headers.push(TRACE, trace.clone());
        }
        headers
    }

    /// What the broker knows it by, so that it is stored once if it is sent twice. All actors share the stream, and an
    /// id is for one message to one actor: so what it is for, and what it says, belong to it.
    fn message_id(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.actor.as_bytes(), self.key.as_str().as_bytes(), self.verb.as_bytes(), &self.body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash = hash.finalize();
        let short: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{short}", self.id)
    }
}

/// What the command stream is like.
pub(super) fn config(subjects: &Subjects, partitions: u16) -> StreamConfig {
    let (source, destination) = subjects.command_transform(duty::lanes(partitions));
    StreamConfig::new([subjects.commands()]).retention(Retention::WorkQueue).deletable().transform(source, destination)
}

/// Opens the command stream, made if there is none.
pub(super) async fn open(around: &Surroundings) -> Result<Arc<dyn Stream>, Error> {
    let name = around.subjects.command_stream();
    let config = config(&around.subjects, around.settings.partitions);
    Ok(Arc::from(around.transport.stream(&name, config).await?))
}

/// Sends a durable tell, again and again under its id until the stream has it or the time is over. Nobody need be
/// there to receive it.
///
/// # Errors
/// `Unavailable` if it is certainly not stored, `Unknown` if that is not known, `PayloadTooLarge`.
pub(crate) async fn send(around: &Surroundings, told: &Told, deadline: Instant) -> Result<(), Error> {
    let mut pauses = Pauses::new(AGAIN_FIRST, AGAIN_MAX);
    let mut open = false;
    loop {
        around.check_running()?;
        let error = match send_once(around, told).await {
            Ok(()) => return Ok(()),
            Err(WriteError::NotSent(error)) if !error.is_retryable() => return Err(error),
            Err(WriteError::NotSent(error)) => error,
            Err(WriteError::Unknown(error)) => {
                open = true;
                error
            }
            Err(WriteError::Conflict) => {
                Error::new(ErrorKind::Internal, "the command stream expects what nobody has asked for")
            }
        };
        let next = Instant::now() + pauses.next();
        if next >= deadline {
            let (kind, fate) = match open {
                true => (ErrorKind::Unknown, "it is not known whether it is stored"),
                false => (ErrorKind::Unavailable, "nothing was stored"),
            };
            let why = format!("a durable tell for {}/{} was not acknowledged in time; {fate}", told.actor, told.key);
            return Err(Error::new(kind, why).with_source(error));
        }
        around.until(next, std::future::pending::<()>()).await;
    }
}

/// Sends it once.
pub(super) async fn send_once(around: &Surroundings, told: &Told) -> Result<(), WriteError> {
    around.marks.set(around, Mark::Told, &told.actor, async { Ok(None) }).await.map_err(WriteError::NotSent)?;
    let stream = around.commands.get_or_try_init(|| open(around)).await.map_err(WriteError::NotSent)?;
    let subject = around.subjects.command(&told.actor, &told.key, &told.verb);
    stream.append(&subject, None, told.headers(), told.body.clone()).await.map(drop)
}

/// A durable tell as the stream has it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) id: TurnId,
    pub(super) born: u64,
    /// After which wall time its turn must not start; 0 if that does not matter.
    pub(super) expires: u64,
    /// Whether a person wrote it.
    pub(super) by_hand: bool,
}

impl Stored {
    /// Reads what a record says about itself. One whose headers make no sense is as if it had none.
    pub(super) fn of(record: Record) -> Self {
        let header = |name: &str| record.headers.get(name);
        let number = |name: &str| header(name).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let id = header(COMMAND).and_then(TurnId::parse).or_else(|| header(MESSAGE_ID).map(TurnId::named));
        let id = id.unwrap_or_else(|| {
            // By its place, and the time at which it came there: a stream that is made anew counts anew.
            let since = record.time.duration_since(UNIX_EPOCH).unwrap_or_default();
            TurnId::named(&format!("{} {} {}", record.subject, record.sequence, since.as_nanos()))
        });
        let (born, expires, by_hand) = (number(BORN), number(EXPIRES), header(SCHEMA).is_none());
        Self { id, born, expires, by_hand, record }
    }

    /// What it asks for.
    pub(super) fn asked(&self) -> Option<Asked<'_>> {
        Asked::kept(&self.record.subject)
    }

    pub(super) fn has_expired(&self) -> bool {
        self.expires != 0 && self.expires <= wall_ms()
    }
}

/// Where a tell that was stored is published again.
pub(super) fn published(subjects: &Subjects, asked: &Asked<'_>) -> Result<Subject, Error> {
    Subject::parse(&format!("{}.cmd.{}.{}.{}", subjects.app(), asked.actor, asked.token, asked.verb))
}
