//! Tests of when reminders are due, by a clock of their own.

use super::*;

/// Milliseconds of a time in RFC 3339.
fn at(text: &str) -> u64 {
    let time: SystemTime = OffsetDateTime::parse(text, &Rfc3339).expect("a time").into();
    ms(time.duration_since(UNIX_EPOCH).expect("after 1970"))
}

/// The next times of a schedule that is served as soon as it is due.
fn times(schedule: &Schedule, armed: &str, count: usize) -> Vec<String> {
    let first = schedule.first(at(armed)).expect("it comes");
    let all = std::iter::successors(Some(first), |due| schedule.following(*due, *due));
    all.take(count).map(rfc3339).collect()
}

#[test]
fn e5_a_time_is_due_once_also_when_it_is_over() {
    let schedule = Schedule::at(UNIX_EPOCH + Duration::from_millis(1_500));
    assert_eq!(schedule.first(9_000).expect("it is due"), 1_500);
    assert_eq!(schedule.following(1_500, 9_000), None);
    assert_eq!(schedule.to_string(), "@at 1970-01-01T00:00:01.5Z");
    let far = Schedule::after(Duration::MAX).first(0).expect_err("there is no such time");
    assert_eq!(far.kind(), ErrorKind::Config);
}

#[test]
fn e5_what_was_missed_fires_once_and_keeps_its_beat() {
    let schedule = Schedule::every(Duration::from_secs(10));
    assert_eq!(schedule.first(1_000).expect("it is due"), 11_000);
    assert_eq!(schedule.following(11_000, 11_020), Some(21_000));
    // Served a moment early, by a clock that is behind the broker's: never the same time again.
    assert_eq!(schedule.following(11_000, 10_900), Some(21_000));
    // Served 25 seconds late: two were missed, and the beat is that of the first.
    assert_eq!(schedule.following(11_000, 36_000), Some(41_000));
    assert_eq!(schedule.following(11_000, 41_000), Some(51_000));
    let short = Schedule::every(Duration::from_millis(999)).first(0).expect_err("too often");
    assert!(short.message().contains("999 ms"), "{short}");

    let daily = Schedule::cron("0 9 * * *", "UTC");
    let due = daily.first(at("2026-03-01T12:00:00Z")).expect("it is due");
    let next = daily.following(due, at("2026-03-08T08:59:59Z")).expect("it is due again");
    assert_eq!(rfc3339(next), "2026-03-08T09:00:00Z");
    let early = daily.following(due, due - 100).expect("it is due again");
    assert_eq!(early - due, 24 * 3_600_000, "never the same time again");
}

#[test]
fn e5_cron_goes_by_the_clock_of_its_zone() {
    let office = Schedule::cron("0 9 * * MON-FRI", "Europe/Amsterdam");
    // Friday in winter, Monday in summer: clocks were put forward on Sunday the 29th.
    let expected = ["2026-03-27T08:00:00Z", "2026-03-30T07:00:00Z", "2026-03-31T07:00:00Z"];
    assert_eq!(times(&office, "2026-03-26T12:00:00Z", 3), expected);
    let seconds = Schedule::cron("*/20 * * * * *", "UTC");
    assert_eq!(times(&seconds, "2026-01-01T00:00:05Z", 2), ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]);
    let either = Schedule::cron("0 0 13 * FRI", "UTC");
    assert_eq!(times(&either, "2026-02-11T00:00:00Z", 2), ["2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"]);
    assert_eq!(times(&Schedule::cron("@hourly", "UTC"), "2026-01-01T00:59:59Z", 1), ["2026-01-01T01:00:00Z"]);
    let southern = Schedule::cron("30 18 * * *", "Australia/Lord_Howe");
    assert_eq!(times(&southern, "2026-07-01T00:00:00Z", 1), ["2026-07-01T08:00:00Z"]);
}

#[test]
fn e5_a_time_of_day_that_does_not_exist_fires_after_the_gap_and_one_that_comes_twice_once() {
    // Clocks go from 02:00 to 03:00 on 29 March, and from 03:00 to 02:00 on 25 October.
    let night = Schedule::cron("30 2 * * *", "Europe/Amsterdam");
    let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(times(&night, "2026-03-28T00:00:00Z", 3), spring);
    let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(times(&night, "2026-10-24T00:00:00Z", 3), autumn);
    // One that comes all day comes in both hours.
    let often = Schedule::cron("*/30 * * * *", "Europe/Amsterdam");
    let both = ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
    assert_eq!(times(&often, "2026-10-24T23:59:00Z", 4), both);
    let gap = ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
    assert_eq!(times(&often, "2026-03-29T00:10:00Z", 3), gap);
}

#[test]
fn e5_a_pattern_that_is_wrong_is_told_where() {
    let why = |pattern: &str, zone: &str| {
        let error = Schedule::cron(pattern, zone).first(0).expect_err(pattern);
        assert_eq!(error.kind(), ErrorKind::Config);
        error.message().to_owned()
    };
    for (pattern, part) in [
        ("0 25 * * *", r#"hours, "25""#),
        ("60 * * * *", r#"minutes, "60""#),
        ("0 0 0 32 * *", r#"days of the month, "32""#),
        ("0 9 * * MON-FRIDAY", r#"days of the week, "MON-FRIDAY""#),
        ("x 0 9 * * *", r#"seconds, "x""#),
        ("0 9 * *", "it has 4 fields"),
        ("0 0 9 * * * 2026", "it has 7 fields"),
        ("", "it has 0 fields"),
        ("@fortnightly", "wrong"),
        ("0 0 30 2 *", "never comes"),
    ] {
        let why = why(pattern, "UTC");
        assert!(why.contains(part), "{pattern:?}: {why}");
    }
    assert!(why("0 9 * * *", "Europe/Amsterdan").contains("Amsterdan"), "the zone is named");
    assert!(why(&"1,".repeat(200), "UTC").contains("256 bytes"));
}

#[test]
fn e5_schedules_keep_their_shape_at_rest() {
    for (schedule, json) in [
        (Schedule::at(UNIX_EPOCH + Duration::from_millis(7)), r#"{"at":7}"#),
        (Schedule::every(Duration::from_secs(2)), r#"{"every":2000}"#),
        (Schedule::cron("0 9 * * *", "UTC"), r#"{"cron":{"pattern":"0 9 * * *","zone":"UTC"}}"#),
    ] {
        assert_eq!(serde_json::to_string(&schedule).expect("json"), json);
        assert_eq!(serde_json::from_str::<Schedule>(json).expect("a schedule"), schedule);
    }
}
