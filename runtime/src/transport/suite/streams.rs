//! Streams: appends by compare-and-set, reads, following.

use super::*;
use crate::error::ErrorKind;
use crate::transport::{Follow, Headers, READ_RECORDS, Record, Start, Stream, StreamConfig, WriteError};

pub(super) async fn open(
    harness: &mut dyn Harness,
    name: &str,
    config: StreamConfig,
) -> (Arc<dyn Transport>, Box<dyn Stream>) {
    let transport = harness.connect(name).await;
    let stream = soon("open a stream", transport.stream(name, config)).await.expect("a stream");
    (transport, stream)
}

pub(super) fn on(filter: &str) -> StreamConfig {
    StreamConfig::new([Filter::of(filter)])
}

pub(super) async fn append(
    stream: &dyn Stream,
    subject_text: &str,
    expect: Option<u64>,
    body: impl Into<Bytes>,
) -> u64 {
    let appended = stream.append(&subject(subject_text), expect, Headers::new(), body.into());
    match soon("append", appended).await {
        Ok(sequence) => sequence,
        Err(error) => panic!("{subject_text} after {expect:?} was refused: {error:?}"),
    }
}

async fn refused(stream: &dyn Stream, subject_text: &str, expect: u64, why: &str) {
    let outcome = stream.append(&subject(subject_text), Some(expect), Headers::new(), "no".into()).await;
    assert!(matches!(outcome, Err(WriteError::Conflict)), "{why}, but: {outcome:?}");
}

pub(super) async fn last(stream: &dyn Stream, subject_text: &str) -> Option<Record> {
    soon("read", stream.last(&subject(subject_text))).await.unwrap_or_else(|error| panic!("{subject_text}: {error}"))
}

async fn get(stream: &dyn Stream, filter: &str, from: u64) -> Option<(u64, String)> {
    let record = soon("read", stream.next(&Filter::of(filter), from)).await.expect("an answer");
    record.map(|record| (record.sequence, record.subject))
}

pub(super) fn body(record: &Record) -> String {
    String::from_utf8_lossy(&record.body).into_owned()
}

pub(super) async fn compare_and_set(harness: &mut dyn Harness) {
    let (transport, stream) = open(harness, "suite-append", on("s1.>")).await;
    assert_eq!(last(&*stream, "s1.a").await, None);
    let first = append(&*stream, "s1.a", Some(0), "one").await;
    refused(&*stream, "s1.a", 0, "there is one").await;
    refused(&*stream, "s1.a", first + 7, "it is another").await;
    let other = append(&*stream, "s1.b", Some(0), "x").await;
    let second = append(&*stream, "s1.a", Some(first), "two").await;
    assert!(first < other && other < second, "sequences grow: {first} {other} {second}");
    refused(&*stream, "s1.a", first, "it is not the last any more").await;
    refused(&*stream, "s1.b", second, "that is the last of another subject").await;

    let mut headers = Headers::new();
    headers.push("Shop-Id", "4711");
    let before = std::time::SystemTime::now();
    let third = stream.append(&subject("s1.a"), Some(second), headers.clone(), "three".into()).await.expect("appended");
    let record = last(&*stream, "s1.a").await.expect("a record");
    assert_eq!((record.sequence, record.subject.as_str(), body(&record).as_str()), (third, "s1.a", "three"));
    assert_eq!(record.headers, headers, "no expectation among them");
    let apart = record.time.duration_since(before).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(5), "{apart:?}");
    assert_eq!(append(&*stream, "s1.a", None, "four").await, third + 1, "without an expectation, always");
    refused(&*stream, "s1.a", third, "an append without expectation counts").await;

    // A second opening is the same stream.
    let again = soon("open again", transport.stream("suite-append", on("s1.>"))).await.expect("a stream");
    assert_eq!(last(&*again, "s1.a").await.map(|record| record.sequence), Some(third + 1));
}

pub(super) async fn next(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-next", on("s2.>")).await;
    assert_eq!(get(&*stream, "s2.>", 0).await, None);
    for name in ["s2.a.1", "s2.b.1", "s2.a.2", "s2.b.2", "s2.a.1"] {
        append(&*stream, name, None, "x").await;
    }
    let found = |sequence: u64, name: &str| Some((sequence, name.to_owned()));
    for from in [0, 1] {
        assert_eq!(get(&*stream, "s2.>", from).await, found(1, "s2.a.1"));
    }
    assert_eq!(get(&*stream, "s2.a.1", 2).await, found(5, "s2.a.1"));
    assert_eq!(get(&*stream, "s2.b.*", 3).await, found(4, "s2.b.2"));
    assert_eq!(get(&*stream, "s2.b.*", 5).await, None);
    assert_eq!(get(&*stream, "s2.c", 0).await, None);
}

pub(super) async fn run(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-run", on("s3.>")).await;
    let mut mine = Vec::new();
    for number in 0..READ_RECORDS + 50 {
        mine.push(append(&*stream, "s3.mine", None, number.to_string()).await);
        if number % 3 == 0 {
            append(&*stream, "s3.other", None, "x").await;
        }
    }
    let name = subject("s3.mine");
    for (from, to) in [(0, 0), (0, 3), (5, 40), (7, 7), (20, 900)] {
        let read = soon("a run", stream.read(&name, mine[from], mine[to])).await.expect("a run");
        let sequences: Vec<u64> = read.iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, mine[from..=to], "{from} to {to}");
        assert!(read.iter().enumerate().all(|(at, record)| body(record) == (from + at).to_string()));
        let many = soon("the same in one go", stream.read_many(&name, mine[from], mine[to])).await.expect("a run");
        assert_eq!(many, read, "{from} to {to}");
    }
    // Not all at once.
    let to = *mine.last().expect("some");
    let read = soon("a long run", stream.read(&name, 1, to)).await.expect("a run");
    assert_eq!(read.len(), READ_RECORDS);
    let rest = read.last().expect("some").sequence + 1;
    let read = soon("its rest", stream.read(&name, rest, to)).await.expect("a run");
    assert_eq!(read.len(), 50);
    assert_eq!(stream.read(&name, to + 1, to).await.expect("nothing"), []);
    assert_eq!(stream.read_many(&name, to + 1, to).await.expect("nothing"), []);
    let (from, beyond) = (mine[READ_RECORDS], to + 5);
    for short in [
        soon("too short", stream.read(&name, from, beyond)).await,
        soon("too short in one go", stream.read_many(&name, from, beyond)).await,
    ] {
        let unavailable = short.is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        assert!(unavailable, "nobody can prove that nothing is missing");
    }
    // One that lies between two records is passed.
    let read = stream.read(&subject("s3.other"), 1, 5).await.expect("a run");
    assert_eq!(read.iter().map(|record| record.sequence).collect::<Vec<_>>(), [2]);
}

pub(super) async fn bad_input(harness: &mut dyn Harness) {
    let (transport, stream) = open(harness, "suite-refused", on("s4.*")).await;
    for name in ["s4", "s4.a.b", "s5.a"] {
        let outcome = stream.append(&subject(name), None, Headers::new(), "x".into()).await;
        let is_refused = matches!(&outcome, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::BadRequest);
        assert!(is_refused, "{name}: {outcome:?}");
    }
    let large = vec![0_u8; transport.max_payload() + 1];
    let outcome = stream.append(&subject("s4.a"), None, Headers::new(), large.into()).await;
    let is_refused = matches!(&outcome, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::PayloadTooLarge);
    assert!(is_refused, "{outcome:?}");
    let mut headers = Headers::new();
    headers.push("Nats-TTL", "30s");
    let outcome = stream.append(&subject("s4.a"), None, headers, "x".into()).await;
    assert!(matches!(&outcome, Err(WriteError::NotSent(_))), "no times to live here: {outcome:?}");
    for name in ["", "a.b", "a b", "*"] {
        let outcome = transport.stream(name, on("s6.>")).await;
        assert!(outcome.is_err_and(|error| error.kind() == ErrorKind::Config), "{name:?}");
    }
    let outcome = transport.stream("suite-none", StreamConfig::new([])).await;
    assert!(outcome.is_err_and(|error| error.kind() == ErrorKind::Config), "a stream of nothing");
    let outcome = transport.stream("suite-overlap", on("s4.a")).await;
    assert!(outcome.is_err_and(|error| error.kind() == ErrorKind::Unavailable), "another stream has this subject");
    assert_eq!(last(&*stream, "s4.a").await, None);
}

pub(super) async fn races(harness: &mut dyn Harness) {
    let (_one, first) = open(harness, "suite-append-races", on("s7.>")).await;
    let (_two, second) = open(harness, "suite-append-races", on("s7.>")).await;
    let name = subject("s7.k");
    let mut expect = 0;
    for round in 0..200 {
        let (one, two) = tokio::join!(
            first.append(&name, Some(expect), Headers::new(), "first".into()),
            second.append(&name, Some(expect), Headers::new(), "second".into()),
        );
        let (winner, value) = match (one, two) {
            (Ok(sequence), Err(WriteError::Conflict)) => (sequence, "first"),
            (Err(WriteError::Conflict), Ok(sequence)) => (sequence, "second"),
            other => panic!("round {round}: not exactly one winner: {other:?}"),
        };
        expect = winner;
        let record = last(&*second, "s7.k").await.expect("a record");
        assert_eq!((record.sequence, body(&record).as_str()), (winner, value), "round {round}");
    }
}

pub(super) async fn expiry(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-append-expiry", on("s8.>").ttl()).await;
    let mut short = Headers::new();
    short.push("Nats-TTL", "1s");
    let kept = append(&*stream, "s8.k", Some(0), "kept").await;
    let gone = stream.append(&subject("s8.k"), Some(kept), short.clone(), "gone".into()).await.expect("appended");
    stream.append(&subject("s8.other"), Some(0), short, "gone".into()).await.expect("appended");
    assert_eq!(last(&*stream, "s8.k").await.map(|record| record.sequence), Some(gone));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(last(&*stream, "s8.k").await.map(|record| record.sequence), Some(kept), "the one before is the last");
    assert_eq!(last(&*stream, "s8.other").await, None);
    refused(&*stream, "s8.k", gone, "it has gone").await;
    assert!(append(&*stream, "s8.k", Some(kept), "again").await > gone, "sequences are never used twice");
    append(&*stream, "s8.other", Some(0), "again").await;
}

pub(super) async fn transform(harness: &mut dyn Harness) {
    let config = on("s9.*.*").transform("s9.*.*", "s9.{{partition(64,2)}}.{{wildcard(1)}}.{{wildcard(2)}}");
    let (_transport, stream) = open(harness, "suite-transform", config).await;
    let first = append(&*stream, "s9.order.42", Some(0), "one").await;
    assert_eq!(last(&*stream, "s9.3.order.42").await.map(|record| record.sequence), Some(first));
    refused(&*stream, "s9.order.42", 0, "the stored subject counts").await;
    let second = append(&*stream, "s9.order.42", Some(first), "two").await;
    assert_eq!(get(&*stream, "s9.3.>", first + 1).await, Some((second, "s9.3.order.42".to_owned())));
    append(&*stream, "s9.order.abc-1", Some(0), "three").await;
    assert_eq!(get(&*stream, "s9.25.*.*", 1).await.map(|found| found.1).as_deref(), Some("s9.25.order.abc-1"));
}

async fn schedule(stream: &dyn Stream, name: &str, pattern: &str, text: &'static str) -> Result<u64, WriteError> {
    let mut headers = Headers::new();
    headers.push("Nats-Schedule", pattern);
    headers.push("Nats-Schedule-Target", "s12.fired");
    headers.push("Shop-Id", "4711");
    stream.append(&subject(name), None, headers, text.into()).await
}

pub(super) async fn schedules(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-schedules", on("s12.>").schedules()).await;
    let mut fired = stream.follow(vec![Filter::of("s12.fired")], Start::New).await.expect("a follower");
    let at = |time: time::OffsetDateTime| {
        let text = time.format(&time::format_description::well_known::Rfc3339);
        format!("@at {}", text.expect("a time"))
    };
    let now = time::OffsetDateTime::now_utc();
    let soon_due = at(now + Duration::from_millis(1_500));
    let old = schedule(&*stream, "s12.plan.a", &soon_due, "replaced").await.expect("stored");
    let plan = schedule(&*stream, "s12.plan.a", &soon_due, "due").await.expect("stored");
    schedule(&*stream, "s12.plan.b", &soon_due, "cancelled").await.expect("stored");
    schedule(&*stream, "s12.plan.c", &at(now + Duration::from_secs(600)), "later").await.expect("stored");
    assert_eq!(get(&*stream, "s12.plan.a", 0).await.map(|found| found.0), Some(plan), "{old} was replaced");
    let mut cancel = Headers::new();
    cancel.push("Nats-Schedule-Next", "purge");
    cancel.push("Nats-Scheduler", "s12.plan.b");
    stream.append(&subject("s12.done"), None, cancel, Bytes::new()).await.expect("stored");
    assert_eq!(last(&*stream, "s12.plan.b").await, None);
    assert!(fired.try_next().is_none(), "it is not time yet");
    let record = see(&mut fired, "what was due").await;
    assert_eq!(body(&record), "due");
    assert_eq!(record.headers.get("Nats-Scheduler"), Some("s12.plan.a"));
    assert_eq!(record.headers.get("Nats-Schedule-Next"), Some("purge"));
    assert_eq!(record.headers.get("Shop-Id"), Some("4711"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(last(&*stream, "s12.plan.a").await, None, "it is spent");
    assert!(fired.try_next().is_none(), "once, and nothing else");
    assert!(last(&*stream, "s12.plan.c").await.is_some());
    let refused = schedule(&*stream, "s12.plan.d", "@sometime", "x").await;
    assert!(matches!(refused, Err(WriteError::NotSent(_))), "{refused:?}");
    let refused = schedule(&*stream, "s12.fired", &soon_due, "x").await;
    assert!(matches!(refused, Err(WriteError::NotSent(_))), "it would publish itself: {refused:?}");
    schedule(&*stream, "s12.plan.e", "@every 1s", "again").await.expect("stored");
    for _ in 0..2 {
        assert_eq!(body(&see(&mut fired, "again and again").await), "again");
    }
}

pub(super) async fn see(follow: &mut Follow, what: &str) -> Record {
    match soon(what, follow.next()).await {
        Some(record) => record,
        None => panic!("the follower ended instead of: {what}"),
    }
}

pub(super) async fn follow(harness: &mut dyn Harness) {
    let (transport, stream) = open(harness, "suite-follow", on("s10.>")).await;
    for number in 1..=4 {
        append(&*stream, if number % 2 == 0 { "s10.even" } else { "s10.odd" }, None, number.to_string()).await;
    }
    let mut all = stream.follow(Vec::new(), Start::At(0)).await.expect("a follower");
    let mut even = stream.follow(vec![Filter::of("s10.even")], Start::At(3)).await.expect("a follower");
    let two = vec![Filter::of("s10.odd"), Filter::of("s10.else.*")];
    let mut two = stream.follow(two, Start::At(2)).await.expect("a follower");
    let mut new = stream.follow(Vec::new(), Start::New).await.expect("a follower");
    for number in 1..=4_u64 {
        let record = see(&mut all, "all").await;
        assert_eq!((record.sequence, body(&record)), (number, number.to_string()));
        let read = stream.next(&Filter::of("s10.>"), number).await.expect("an answer").expect("a record");
        assert_eq!(record, read, "a follower sees what a reader sees");
    }
    assert_eq!(see(&mut even, "even").await.sequence, 4);
    assert_eq!(see(&mut two, "odd").await.sequence, 3);
    let other = harness.connect("another").await;
    let others = other.stream("suite-follow", on("s10.>")).await.expect("a stream");
    for (number, name) in (5..).zip(["s10.odd", "s10.even", "s10.else.x"]) {
        assert_eq!(append(&*others, name, None, "x").await, number);
    }
    for number in 5..=7 {
        assert_eq!(see(&mut all, "all").await.sequence, number);
        assert_eq!(see(&mut new, "what is new").await.sequence, number);
    }
    assert_eq!(see(&mut even, "even").await.sequence, 6);
    assert_eq!(see(&mut two, "odd").await.sequence, 5);
    assert_eq!(see(&mut two, "else").await.sequence, 7);
    tokio::time::sleep(QUIET).await;
    assert!(all.try_next().is_none() && new.try_next().is_none() && even.try_next().is_none());
    transport.close().await;
    assert!(soon("it ends", all.next()).await.is_none());
}

pub(super) async fn slow_follower(harness: &mut dyn Harness) {
    const RECORDS: u64 = 3_000;
    let (_transport, stream) = open(harness, "suite-slow", on("s11.>")).await;
    let mut follow = stream.follow(Vec::new(), Start::New).await.expect("a follower");
    for number in 1..=RECORDS {
        append(&*stream, &format!("s11.{}", number % 7), None, number.to_string()).await;
    }
    for number in 1..=RECORDS {
        let record = see(&mut follow, "every record").await;
        assert_eq!((record.sequence, body(&record)), (number, number.to_string()));
    }
}
