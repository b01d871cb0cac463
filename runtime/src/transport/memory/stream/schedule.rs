//! Records that are to be published later: what their headers say.

use std::time::{Duration, SystemTime};

use super::unavailable;
use crate::error::Error;
use crate::subject::Subject;
use crate::transport::Headers;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// When, as a server reads it: `@at` with a time, `@every` with seconds. (It knows cron as well.)
pub(super) const SCHEDULE: &str = "Nats-Schedule";
/// Under which subject.
const TARGET: &str = "Nats-Schedule-Target";
/// In what was published: by which schedule. In what ends a schedule: which one.
pub(super) const SCHEDULER: &str = "Nats-Scheduler";
/// When it is published the next time, or `purge` if there is none.
pub(super) const NEXT: &str = "Nats-Schedule-Next";
pub(super) const PURGE: &str = "purge";

/// What a record that is a schedule asks for.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) first: Duration,
    pub(super) every: Option<Duration>,
    pub(super) target: Subject,
}

impl Schedule {
    /// The schedule that the headers of a record on this subject ask for, if they do.
    pub(super) fn of(subject: &str, headers: &Headers, now: SystemTime) -> Result<Option<Self>, Error> {
        let Some(pattern) = headers.get(SCHEDULE) else { return Ok(None) };
        let target = headers.get(TARGET).and_then(|target| Subject::parse(target).ok());
        let target = target.filter(|target| target.as_str() != subject).ok_or_else(|| {
            unavailable(format!("a schedule needs the header {TARGET}, another subject of the stream"))
        })?;
        let bad = || {
            unavailable(format!("{pattern:?} is no schedule of the memory broker: write @at and a time, or @every 1s"))
        };
        if let Some(at) = pattern.strip_prefix("@at ") {
            let at: SystemTime = OffsetDateTime::parse(at.trim(), &Rfc3339).map_err(|_| bad())?.into();
            let first = at.duration_since(now).unwrap_or_default();
            return Ok(Some(Self { first, every: None, target }));
        }
        let every = pattern.strip_prefix("@every ").and_then(|every| every.trim().strip_suffix('s'));
        let seconds = every.and_then(|every| every.parse::<u64>().ok()).filter(|seconds| *seconds > 0);
        let every = Duration::from_secs(seconds.ok_or_else(bad)?);
        Ok(Some(Self { first: every, every: Some(every), target }))
    }

    /// The headers of what is published: those of the schedule that are not about it.
    pub(super) fn fired(&self, subject: &str, headers: &Headers, now: SystemTime) -> Headers {
        let mut fired = Headers::new();
        for (name, value) in headers.iter().filter(|(name, _)| !name.to_ascii_lowercase().starts_with("nats-")) {
            fired.push(name.to_owned(), value);
        }
        let next = self.every.map(|every| OffsetDateTime::from(now + every).format(&Rfc3339));
        fired.push(SCHEDULER, subject);
        fired.push(NEXT, next.and_then(Result::ok).unwrap_or_else(|| PURGE.to_owned()));
        fired
    }
}
