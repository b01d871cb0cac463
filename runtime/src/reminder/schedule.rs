//! When a reminder is due: at one time, every so often, or by a cron pattern in a time zone.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::wall_ms;
use crate::error::{Error, ErrorKind};

/// The shortest time between two firings of [`Schedule::every`].
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// The last moment that can be written: the end of the year 9999.
const LATEST_MS: u64 = 253_402_300_799_999;
/// The longest cron pattern and the longest name of a zone, in bytes.
const TEXT_MAX: usize = 256;
const FIELDS: [&str; 6] = ["seconds", "minutes", "hours", "days of the month", "months", "days of the week"];

/// When a reminder is due.
///
/// What it says is checked when the reminder is armed, by
/// [`Context::remind`](crate::Context::remind).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedule(When);

/// Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    At(u64),
    Every(u64),
    Cron { pattern: String, zone: String },
}

impl Schedule {
    /// Once, at this time; at once if it is over already. Of a time only the milliseconds count.
    pub fn at(time: SystemTime) -> Self {
        Self(When::At(ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())))
    }

    /// Once, so long from now.
    pub fn after(time: Duration) -> Self {
        Self(When::At(wall_ms().saturating_add(ms(time))))
    }

    /// Again and again, the first time so long after it was armed. At least a second.
    ///
    /// What fell due while nobody could serve it fires once; the next firing comes at the next
    /// multiple of the time since the first.
    pub fn every(time: Duration) -> Self {
        Self(When::Every(ms(time)))
    }

    /// Again and again, by the clock on a wall of this time zone (`Europe/Amsterdam`, `UTC`).
    ///
    /// Five fields (minutes, hours, days of the month, months, days of the week) or six with
    /// seconds before them. A field is `*`, or numbers, ranges and steps (`1,15`, `9-17`, `*/5`);
    /// months and days of the week have names (`JAN`, `MON-FRI`; Sunday is 0 or 7). If both kinds
    /// of days are given, either suffices. `@hourly`, `@daily`, `@weekly`, `@monthly` and
    /// `@yearly` stand for what they say.
    ///
    /// Where the clock is put forward, a time of day that does not exist that day fires at the first
    /// moment after the gap. Where it is put back, a pattern with one time of day fires the first
    /// time only; one with many (`*/15 * * * *`) fires in both hours. What fell due while nobody
    /// could serve it fires once, and then goes on with the next.
    pub fn cron(pattern: impl Into<String>, zone: impl Into<String>) -> Self {
        Self(When::Cron { pattern: pattern.into(), zone: zone.into() })
    }

    /// When it is due first, if it is armed `now`.
    ///
    /// # Errors
    /// `Config` for what can never be due.
    pub(crate) fn first(&self, now: u64) -> Result<u64, Error> {
        match &self.0 {
            When::At(at) if *at > LATEST_MS => Err(config("the time of a reminder lies before the year 10000")),
            When::At(at) => Ok(*at),
            When::Every(every) if *every < ms(EVERY_MIN) => {
                Err(config(format!("a reminder fires every second at most, and {every} ms are less")))
            }
            When::Every(every) => match now.checked_add(*every).filter(|due| *due <= LATEST_MS) {
                Some(due) => Ok(due),
                None => Err(config("the time of a reminder lies before the year 10000")),
            },
            When::Cron { pattern, zone } => Pattern::read(pattern, zone)?.after(now),
        }
    }

    /// When it is due again after it was due at `due`, and is served `now`; `None` if never.
    pub(crate) fn following(&self, due: u64, now: u64) -> Option<u64> {
        let from = due.max(now);
        match &self.0 {
            When::At(_) => None,
            When::Every(every) => {
                let every = (*every).max(1);
                let next = due.saturating_add(((from - due) / every + 1).saturating_mul(every));
                Some(next).filter(|next| *next <= LATEST_MS)
            }
            When::Cron { pattern, zone } => {
                let next = Pattern::read(pattern, zone).and_then(|pattern| pattern.after(from));
                // It was checked when it was armed; a zone may be unknown to another machine.
                next.inspect_err(|error| tracing::error!(%error, "a reminder is not due any more")).ok()
            }
        }
    }
}

impl fmt::Display for Schedule {
    /// As `nats` shows schedules: `@at 2026-01-31T09:00:00Z`, `@every 30s`, or the pattern and its zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            When::At(at) => write!(f, "@at {}", rfc3339(*at)),
            When::Every(every) => write!(f, "@every {:?}", Duration::from_millis(*every)),
            When::Cron { pattern, zone } => write!(f, "{pattern} {zone}"),
        }
    }
}

/// A cron pattern in its time zone.
struct Pattern {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

impl Pattern {
    fn read(pattern: &str, zone: &str) -> Result<Self, Error> {
        if pattern.len() > TEXT_MAX || zone.len() > TEXT_MAX {
            return Err(config(format!("a cron pattern and its time zone have {TEXT_MAX} bytes each at most")));
        }
        let cron = parse(pattern).map_err(|why| match wrong_field(pattern) {
            Some((name, field, why)) => {
                config(format!("the cron pattern {pattern:?} is wrong in its {name}, {field:?}: {why}"))
            }
            None => config(format!("the cron pattern {pattern:?} is wrong: {why}")),
        })?;
        let found = TimeZone::get(zone).map_err(|error| {
            config(format!("{zone:?} is no time zone; write one such as Europe/Amsterdam or UTC")).with_source(error)
        })?;
        Ok(Self { cron, zone: found, text: format!("{pattern} {zone}") })
    }

    fn after(&self, now: u64) -> Result<u64, Error> {
        let never = || config(format!("the cron pattern {} never comes", self.text));
        let now = i64::try_from(now).ok().and_then(|now| Timestamp::from_millisecond(now).ok()).ok_or_else(never)?;
        let next = self.cron.find_next_occurrence(&now.to_zoned(self.zone.clone()), false).map_err(|_| never())?;
        u64::try_from(next.timestamp().as_millisecond()).ok().filter(|due| *due <= LATEST_MS).ok_or_else(never)
    }
}

fn parse(pattern: &str) -> Result<Cron, String> {
    let fields = pattern.split_whitespace().count();
    let nickname = pattern.trim_start().starts_with('@');
    if !(nickname || fields == 5 || fields == 6) {
        return Err(format!("it has {fields} fields; write five, or six with seconds before them"));
    }
    CronParser::builder().year(Year::Disallowed).build().parse(pattern).map_err(|error| error.to_string())
}

/// The first field of a pattern that cannot be read, even alone.
fn wrong_field(pattern: &str) -> Option<(&'static str, &str, String)> {
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    let skipped = FIELDS.len().checked_sub(fields.len()).filter(|skipped| *skipped <= 1)?;
    FIELDS.iter().skip(skipped).zip(&fields).enumerate().find_map(|(at, (name, field))| {
        let mut alone = ["*"; FIELDS.len()];
        alone[at + skipped] = field;
        parse(&alone.join(" ")).err().map(|why| (*name, *field, why))
    })
}

/// A time as it is written in the headers of a schedule.
pub(crate) fn rfc3339(at: u64) -> String {
    let time = OffsetDateTime::from(UNIX_EPOCH + Duration::from_millis(at.min(LATEST_MS)));
    time.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
