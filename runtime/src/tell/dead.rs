//! Dead letters: durable tells that could not be delivered, kept with their cause until somebody deals with them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::command::{self, Stored, Told};
use super::delivery::Death;
use crate::call::wall_ms;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::node::Surroundings;
use crate::subject::{Call as Asked, Filter, Name, Subjects};
use crate::transport::{Headers, Record, Stream, StreamConfig, Transport, WriteError};
use crate::wire::{COMMAND, MESSAGE_ID};

/// What kind of error it was, as on the wire; `refused` if the actor said no.
const KIND: &str = "Greenroom-Dead-Kind";
const CAUSE: &str = "Greenroom-Dead-Cause";
/// How often it was tried.
const ATTEMPTS: &str = "Greenroom-Dead-Attempts";
/// When it was given up, in ms since 1970.
const AT: &str = "Greenroom-Dead-At";
/// Where it was published.
const SUBJECT: &str = "Greenroom-Dead-Subject";
/// Its place in the command stream; 0 if it never came there.
const SEQUENCE: &str = "Greenroom-Dead-Sequence";
/// All of these begin so.
const PREFIX: &str = "Greenroom-Dead-";
/// The longest cause that is kept, in bytes.
const CAUSE_MAX: usize = 2_048;

/// What the stream of dead letters is like.
fn config(subjects: &Subjects) -> StreamConfig {
    StreamConfig::new([subjects.deads(None)]).deletable()
}

/// Keeps a tell that could not be delivered. The same again changes nothing.
pub(super) async fn bury(around: &Surroundings, tell: &Stored, death: &Death) -> Result<(), Error> {
    let record = &tell.record;
    let asked = tell.asked().ok_or_else(|| Error::new(ErrorKind::Internal, "its subject is none of a durable tell"))?;
    let mut headers = Headers::new();
    for (name, value) in record.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(MESSAGE_ID)) {
        headers.push(name.to_owned(), value);
    }
    headers.set(COMMAND, tell.id.to_string());
    let published = command::published(&around.subjects, &asked)?;
    describe(&mut headers, death, published.as_str(), record.sequence);
    keep(around, &asked, headers, record.body.clone()).await?;
    tracing::warn!(
        subject = published.as_str(),
        kind = death.kind,
        attempts = death.attempts,
        cause = death.cause,
        "a durable tell could not be delivered; it is among the dead letters"
    );
    Ok(())
}

/// Keeps a tell that the command stream does not take.
pub(super) async fn unsent(around: &Surroundings, told: &Told, why: &Error) -> Result<(), Error> {
    let (subject, token) = (around.subjects.command(&told.actor, &told.key, &told.verb), told.key.token());
    let asked = Asked { actor: &told.actor, token: &token, verb: &told.verb };
    let mut headers = Headers::new();
    headers.push(COMMAND, told.id.to_string());
    let death = Death { kind: why.kind().name(), cause: why.message().to_owned(), attempts: 1 };
    describe(&mut headers, &death, subject.as_str(), 0);
    keep(around, &asked, headers, told.body.clone()).await
}

fn describe(headers: &mut Headers, death: &Death, subject: &str, sequence: u64) {
    let mut end = death.cause.len().min(CAUSE_MAX);
    while !death.cause.is_char_boundary(end) {
        end -= 1;
    }
    headers.set(KIND, death.kind.clone());
    headers.set(CAUSE, &death.cause[..end]);
    headers.set(ATTEMPTS, death.attempts.to_string());
    headers.set(AT, wall_ms().to_string());
    headers.set(SUBJECT, subject);
    headers.set(SEQUENCE, sequence.to_string());
}

async fn keep(around: &Surroundings, asked: &Asked<'_>, mut headers: Headers, body: Bytes) -> Result<(), Error> {
    let stream = around.transport.stream(&around.subjects.dead_stream(), config(&around.subjects)).await?;
    let subject = around.subjects.dead(asked)?;
    // Tells of one key end one after the other: if this one is kept already, it is the last of its subject.
    let same = |last: &Record| [COMMAND, SEQUENCE].iter().all(|name| last.headers.get(name) == headers.get(name));
    if stream.last(&subject).await?.as_ref().is_some_and(same) {
        return Ok(());
    }
    let id = format!("dead {} {}", headers.get(COMMAND).unwrap_or_default(), headers.get(SEQUENCE).unwrap_or_default());
    headers.set(MESSAGE_ID, id);
    match stream.append(&subject, None, headers, body).await {
        Ok(_) => Ok(()),
        Err(error) => Err(unwritten(error)),
    }
}

fn unwritten(error: WriteError) -> Error {
    match error {
        WriteError::NotSent(error) | WriteError::Unknown(error) => error,
        WriteError::Conflict => Error::new(ErrorKind::Internal, "the broker expects what nobody has asked for"),
    }
}

/// A durable tell that could not be delivered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place among the dead letters, by which it is named.
    pub sequence: u64,
    /// The actor type that it was for.
    pub actor: String,
    /// The key; its token as it came, if that is none of a key.
    pub key: String,
    /// The verb.
    pub verb: String,
    /// The kind of the error, as on the wire; `refused` if the actor said no.
    pub kind: String,
    /// What happened at the last attempt.
    pub cause: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up, in ms since 1970.
    pub at: u64,
    /// The id of its command, 32 hex digits: the same when it is replayed.
    pub id: String,
    /// Where it was published.
    pub subject: String,
    /// What it says.
    pub body: Bytes,
    /// All headers that it has.
    pub headers: Headers,
}

impl DeadLetter {
    fn of(record: Record) -> Option<Self> {
        let asked = Asked::kept(&record.subject)?;
        let header = |name: &str| record.headers.get(name).unwrap_or_default().to_owned();
        let number = |name: &str| header(name).parse().unwrap_or(0);
        Some(Self {
            sequence: record.sequence,
            actor: asked.actor.to_owned(),
            key: Key::from_token(asked.token).map_or_else(|_| asked.token.to_owned(), |key| key.as_str().to_owned()),
            verb: asked.verb.to_owned(),
            kind: header(KIND),
            cause: header(CAUSE),
            attempts: u32::try_from(number(ATTEMPTS)).unwrap_or(u32::MAX),
            at: number(AT),
            id: header(COMMAND),
            subject: header(SUBJECT),
            body: record.body.clone(),
            headers: record.headers.clone(),
        })
    }
}

/// The dead letters of an app: to look at, to deliver again, to throw away. See [`Node::dead_letters`](crate::Node::dead_letters).
pub struct DeadLetters {
    transport: Arc<dyn Transport>,
    subjects: Subjects,
    partitions: u16,
    dead: OnceCell<Box<dyn Stream>>,
}

impl DeadLetters {
    pub(crate) fn new(transport: Arc<dyn Transport>, subjects: Subjects, partitions: u16) -> Self {
        Self { transport, subjects, partitions, dead: OnceCell::new() }
    }

    /// The dead letters of an app, over a connection of one's own. For programs that are no node.
    ///
    /// # Errors
    /// `Config` for a name that is none, `NoHost` if no app of that name ever ran on this broker, `Unavailable` if it
    /// does not answer.
    pub async fn of(transport: Arc<dyn Transport>, app: &str) -> Result<Self, Error> {
        let subjects = Subjects::new(Name::new(app)?);
        let partitions = crate::node::partitions_of(&*transport, &subjects).await?;
        Ok(Self::new(transport, subjects, partitions))
    }

    /// The first dead letter from this place on: of one actor type, or of all. `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer.
    pub async fn next(&self, actor: Option<&str>, from: u64) -> Result<Option<DeadLetter>, Error> {
        let filter = self.filter(actor)?;
        let mut from = from;
        while let Some(record) = self.dead().await?.next(&filter, from).await? {
            from = record.sequence + 1;
            // Whatever else stands there is no letter.
            if let Some(letter) = DeadLetter::of(record) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// The dead letter at this place; `None` if it is not there any more.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer.
    pub async fn get(&self, sequence: u64) -> Result<Option<DeadLetter>, Error> {
        Ok(self.next(None, sequence).await?.filter(|letter| letter.sequence == sequence))
    }

    /// Puts a dead letter back into the command stream, under the id that it had, behind whatever waits there for its
    /// actor now; then it is removed here. `false` if it is not there any more. A durable actor lets it take effect
    /// once, however often it is replayed.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown` if the broker does not answer: the letter is still there then, and replaying it
    /// again is safe.
    pub async fn replay(&self, sequence: u64) -> Result<bool, Error> {
        let Some(letter) = self.get(sequence).await? else { return Ok(false) };
        let mut headers = Headers::new();
        for (name, value) in letter.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX)) {
            headers.push(name.to_owned(), value);
        }
        // Not the one under which it came here: the broker would take it for a copy of that.
        headers.set(MESSAGE_ID, format!("replay {sequence} {}", letter.id));
        let asked = Asked { actor: &letter.actor, token: &token_of(&letter), verb: &letter.verb };
        let subject = command::published(&self.subjects, &asked)?;
        let config = command::config(&self.subjects, self.partitions);
        let commands = self.transport.stream(&self.subjects.command_stream(), config).await?;
        commands.append(&subject, None, headers, letter.body.clone()).await.map_err(unwritten)?;
        self.dead().await?.remove(sequence).await?;
        Ok(true)
    }

    /// Throws a dead letter away. `false` if it is not there any more.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer: it may be gone then or not.
    pub async fn discard(&self, sequence: u64) -> Result<bool, Error> {
        self.dead().await?.remove(sequence).await
    }

    fn filter(&self, actor: Option<&str>) -> Result<Filter, Error> {
        if let Some(actor) = actor {
            Name::new(actor)?;
        }
        Ok(self.subjects.deads(actor))
    }

    async fn dead(&self) -> Result<&dyn Stream, Error> {
        let open = async || self.transport.stream(&self.subjects.dead_stream(), config(&self.subjects)).await;
        Ok(&**self.dead.get_or_try_init(open).await?)
    }
}

/// The token that stands in the letter's subject.
fn token_of(letter: &DeadLetter) -> String {
    let published = letter.subject.rsplit('.').nth(1).filter(|token| Key::from_token(token).is_err());
    published.map_or_else(|| Key::new(&letter.key).map(|key| key.token()).unwrap_or_default(), str::to_owned)
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("app", self.subjects.app()).finish_non_exhaustive()
    }
}
