//! Wake-ups: what stands at the broker for a reminder that is armed.
//!
//! A schedule of the stream `{app}-rem`, one for each arming, under a subject that no other arming ever has: so
//! whoever still writes under an epoch that is over replaces nobody's. It is stored before the record that arms the
//! reminder, and taken away after the one that does not need it any more. When it is time, the broker turns it into a
//! firing in the lane of its actor's key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{OnceCell, Semaphore};

use super::draft::Due;
use super::schedule::rfc3339;
use crate::call::wall_ms;
use crate::error::{Error, ErrorKind};
use crate::journal::{Armed, Reminders};
use crate::key::Key;
use crate::node::Surroundings;
use crate::subject::{Subject, Subjects};
use crate::tell::Mark;
use crate::transport::{Headers, Record, Retention, Stream, StreamConfig, WriteError};

/// The number under which the reminder was armed.
const NUMBER: &str = "Greenroom-Reminder";
/// When it is due, in ms since 1970.
const DUE: &str = "Greenroom-Due";
/// How often its turn has failed.
const FAILED: &str = "Greenroom-Failed";
/// The birth of its turn: the same however often that is tried.
const BORN: &str = "Greenroom-Born";
/// How long what takes a schedule away is kept; the broker knows no shorter time.
const CANCEL_TTL: &str = "1s";
/// How many wake-ups of one turn are stored at a time.
const AT_ONCE: usize = 16;
/// How many turns may have their old wake-ups taken away at a time. Beyond that they stay, and are dropped when they
/// fire.
const REMOVALS_MAX: usize = 64;
/// The pauses after a turn of a reminder that failed; the last one from then on. It is longer than panics count
/// together, so that a reminder by itself does not put its actor into quarantine.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(120)];

/// A node's hold on the stream of wake-ups.
pub(crate) struct Wakes {
    stream: OnceCell<Arc<dyn Stream>>,
    removals: Arc<Semaphore>,
}

/// A wake-up whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Firing {
    pub(crate) actor: String,
    pub(crate) key: Key,
    pub(crate) due: Due,
    /// When the broker said so for the first time, in ms since 1970.
    pub(crate) born: u64,
    /// How often its turn has failed.
    failed: u32,
    /// By which schedule.
    schedule: Subject,
}

impl Default for Wakes {
    fn default() -> Self {
        Self { stream: OnceCell::new(), removals: Arc::new(Semaphore::new(REMOVALS_MAX)) }
    }
}

impl Wakes {
    /// The stream, made if there is none.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer or has no JetStream.
    pub(crate) async fn stream(&self, around: &Surroundings) -> Result<Arc<dyn Stream>, Error> {
        let open = async || {
            // What was acknowledged goes; schedules stay, because nobody consumes them.
            let config = StreamConfig::new([around.subjects.reminders()]).retention(Retention::WorkQueue).schedules();
            around.transport.stream(&around.subjects.reminder_stream(), config).await.map(Arc::from)
        };
        self.stream.get_or_try_init(open).await.cloned()
    }

    /// Stores the wake-ups that `after` needs and `before` did not.
    ///
    /// # Errors
    /// `Unavailable` if one is not known to be stored. Those that are do no harm.
    pub(crate) async fn store(
        &self,
        around: &Surroundings,
        actor: &str,
        key: &Key,
        before: &Reminders,
        after: &Reminders,
    ) -> Result<(), Error> {
        let new: Vec<&Armed> = only_in(after, before).collect();
        if new.is_empty() {
            return Ok(());
        }
        // Whoever serves the lanes must know of it first.
        around.marks.set(around, Mark::Reminds, actor, async { Ok(None) }).await?;
        let stream = self.stream(around).await?;
        if wake_all(around, &*stream, actor, key, &new).await.is_ok() {
            return Ok(());
        }
        // It may be gone: somebody deleted it, or the broker has lost it. Then it is made anew.
        wake_all(around, &*open(around).await?, actor, key, &new).await
    }

    /// Takes away the wake-ups that `before` needed and `after` does not, without waiting. One that stays, because
    /// the broker is away or too many are on their way, is dropped when it fires.
    pub(crate) fn remove(
        &self,
        around: &Arc<Surroundings>,
        actor: &'static str,
        key: &Key,
        before: &Reminders,
        after: &Reminders,
    ) {
        let now = wall_ms();
        // What is due has fired, or is just about to.
        let old: Vec<Armed> = only_in(before, after).filter(|armed| armed.due > now).cloned().collect();
        if old.is_empty() {
            return;
        }
        let Ok(place) = self.removals.clone().try_acquire_owned() else { return };
        let (around, key) = (around.clone(), key.clone());
        around.clone().runtime.spawn(async move {
            let _place = place;
            let Ok(stream) = around.wakes.stream(&around).await else { return };
            for armed in old {
                let schedule = schedule_of(&around.subjects, actor, &key, &armed);
                let cancel = around.subjects.reminder_cancel(actor, &key, &token(&armed.name));
                let mut headers = Headers::new();
                headers.push("Nats-Schedule-Next", "purge");
                headers.push("Nats-Scheduler", schedule.as_str());
                headers.push("Nats-TTL", CANCEL_TTL);
                if let Err(error) = put(&*stream, &cancel, headers).await {
                    tracing::debug!(%schedule, %error, "a wake-up that nobody needs stays until it fires");
                }
            }
        });
    }

    /// Has a firing come again later, because its turn failed with this error: the later the more often it did. What
    /// was not run is not counted.
    ///
    /// # Errors
    /// `Unavailable` if that is not known to be stored.
    pub(crate) async fn again(&self, around: &Surroundings, firing: &Firing, error: &Error) -> Result<(), Error> {
        let failed = firing.failed.saturating_add(u32::from(!error.is_retryable()));
        let stream = self.stream(around).await?;
        let target = target_of(around, &firing.actor, &firing.key, &firing.due.name)?;
        let pause = AGAIN[AGAIN.len().min(failed.max(1) as usize) - 1];
        let at = wall_ms() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let mut headers = headers(&target, &firing.due, at);
        headers.push(FAILED, failed.to_string());
        headers.push(BORN, firing.born.to_string());
        put(&*stream, &firing.schedule, headers).await
    }
}

impl Firing {
    /// Reads a record of a lane; `None` if it is none of ours.
    pub(crate) fn read(record: &Record) -> Option<Self> {
        let mut tokens = record.subject.split('.').skip(4);
        let (actor, key, name) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let number = |name| record.headers.get(name).and_then(|value| value.parse::<u64>().ok());
        let name = Key::from_token(name).ok()?.as_str().to_owned();
        let taken = record.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Some(Self {
            actor: actor.to_owned(),
            key: Key::from_token(key).ok()?,
            due: Due { name, number: number(NUMBER)?, due: number(DUE)? },
            born: number(BORN).unwrap_or_else(|| u64::try_from(taken.as_millis()).unwrap_or(u64::MAX)),
            failed: number(FAILED).map_or(0, |failed| u32::try_from(failed).unwrap_or(u32::MAX)),
            schedule: record.headers.get("Nats-Scheduler").and_then(|schedule| Subject::parse(schedule).ok())?,
        })
    }
}

/// What is armed in `these` and not in `those`.
fn only_in<'a>(these: &'a Reminders, those: &'a Reminders) -> impl Iterator<Item = &'a Armed> {
    these.armed().iter().filter(|armed| !those.get(&armed.name).is_some_and(|other| other.is(armed)))
}

async fn open(around: &Surroundings) -> Result<Arc<dyn Stream>, Error> {
    // What was acknowledged goes; schedules stay, because nobody consumes them.
    let config = StreamConfig::new([around.subjects.reminders()]).retention(Retention::WorkQueue).schedules();
    around.transport.stream(&around.subjects.reminder_stream(), config).await.map(Arc::from)
}

async fn wake_all(
    around: &Surroundings,
    stream: &dyn Stream,
    actor: &str,
    key: &Key,
    new: &[&Armed],
) -> Result<(), Error> {
    for some in new.chunks(AT_ONCE) {
        let stored: Vec<_> = some.iter().map(|armed| wake(around, stream, actor, key, armed)).collect();
        try_join_all(stored).await?;
    }
    Ok(())
}

async fn wake(around: &Surroundings, stream: &dyn Stream, actor: &str, key: &Key, armed: &Armed) -> Result<(), Error> {
    let schedule = schedule_of(&around.subjects, actor, key, armed);
    let target = target_of(around, actor, key, &armed.name)?;
    put(stream, &schedule, headers(&target, &Due::of(armed), armed.due)).await
}

fn schedule_of(subjects: &Subjects, actor: &str, key: &Key, armed: &Armed) -> Subject {
    subjects.reminder_schedule(actor, key, &token(&armed.name), armed.epoch, armed.number)
}

fn target_of(around: &Surroundings, actor: &str, key: &Key, name: &str) -> Result<Subject, Error> {
    Ok(around.subjects.reminder_firing(around.lane_of(key), actor, key, &token(name)))
}

/// A name as a subject's token: written as a key is.
fn token(name: &str) -> String {
    Key::new(name).map(|name| name.token()).unwrap_or_default()
}

fn headers(target: &Subject, due: &Due, at: u64) -> Headers {
    let mut headers = Headers::new();
    headers.push("Nats-Schedule", format!("@at {}", rfc3339(at)));
    headers.push("Nats-Schedule-Target", target.as_str());
    headers.push(NUMBER, due.number.to_string());
    headers.push(DUE, due.due.to_string());
    headers
}

async fn put(stream: &dyn Stream, subject: &Subject, headers: Headers) -> Result<(), Error> {
    match stream.append(subject, None, headers, Bytes::new()).await {
        Ok(_) => Ok(()),
        Err(WriteError::NotSent(error)) => Err(error),
        Err(WriteError::Unknown(error)) => {
            let why = format!("whether the wake-up {subject} is stored is not known; nothing was kept");
            Err(Error::new(ErrorKind::Unavailable, why).with_source(error))
        }
        Err(WriteError::Conflict) => Err(Error::new(ErrorKind::Internal, "a wake-up expects no other before it")),
    }
}
