//! The broker's clock beside the local one.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::app::App;
use super::monitor::Seen;
use super::report::Finding;

/// Seconds by which the clocks may differ.
const APART_MAX: f64 = 5.0;

pub(super) fn check(app: &App, seen: &Seen) -> Finding {
    let shown = match seen {
        Seen::Pages { now: Some(now), .. } => Some(now),
        _ => None,
    };
    match app.time.as_ref().or(shown).and_then(|(theirs, ours)| apart(theirs, *ours)) {
        Some(seconds) => judge(seconds),
        None => Finding::ok("clock", "the broker's clock cannot be seen: it has no stream of this app and no monitor"),
    }
}

/// By how much the broker is ahead, in seconds.
fn apart(theirs: &str, ours: SystemTime) -> Option<f64> {
    let theirs = OffsetDateTime::parse(theirs, &Rfc3339).ok()?;
    Some((theirs - OffsetDateTime::from(ours)).as_seconds_f64())
}

fn judge(seconds: f64) -> Finding {
    if seconds.abs() <= APART_MAX {
        return Finding::ok("clock", format!("the broker's differs from this machine's by {:.3} s", seconds.abs()));
    }
    let which = if seconds > 0.0 { "ahead of" } else { "behind" };
    Finding::warn(
        "clock",
        format!("the broker's is {:.1} s {which} this machine's", seconds.abs()),
        "commands are too old too early, or repeated ones are not known any more; what is to happen at a time happens at \
         another",
        "keep the time of every machine by NTP (`timedatectl set-ntp true`)",
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn clocks_are_compared_in_both_directions() {
        let ours = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(apart("2023-11-14T22:13:26.5Z", ours), Some(6.5));
        assert_eq!(apart("2023-11-14T23:13:10+01:00", ours), Some(-10.0));
        assert_eq!(apart("yesterday", ours), None);
        assert_eq!(judge(4.9).verdict, Verdict::Ok);
        assert!(judge(6.5).found.contains("6.5 s ahead of"));
        assert!(judge(-10.0).found.contains("10.0 s behind"));
        assert_eq!(judge(-10.0).verdict, Verdict::Warn);
    }
}
