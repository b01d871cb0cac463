//! Buckets: compare-and-set, time to live, watches.

use super::*;
use crate::error::ErrorKind;
use crate::transport::{Bucket, Gone, WriteError};

const SECOND: Duration = Duration::from_secs(1);

async fn open(harness: &mut dyn Harness, name: &str) -> (Arc<dyn Transport>, Box<dyn Bucket>) {
    let transport = harness.connect(name).await;
    let bucket = soon("open a bucket", transport.bucket(name)).await.expect("a bucket");
    (transport, bucket)
}

async fn put(bucket: &dyn Bucket, key: &str, value: &'static str, expect: u64, ttl: Option<Duration>) -> u64 {
    match soon("write", bucket.write(key, value.into(), Some(expect), ttl)).await {
        Ok(revision) => revision,
        Err(error) => panic!("{key} = {value} over revision {expect} was refused: {error:?}"),
    }
}

async fn read(bucket: &dyn Bucket, key: &str) -> Option<Entry> {
    soon("read", bucket.get(key)).await.unwrap_or_else(|error| panic!("{key} cannot be read: {error}"))
}

fn entry(key: &str, revision: u64, value: &'static str) -> Entry {
    Entry { key: key.to_owned(), revision, value: Ok(value.into()) }
}

fn is_conflict<T: std::fmt::Debug>(outcome: Result<T, WriteError>, why: &str) {
    assert!(matches!(outcome, Err(WriteError::Conflict)), "{why}, but: {outcome:?}");
}

pub(super) async fn compare_and_set(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-cas").await;
    let key = "part.order.7=2E";
    assert_eq!(read(&*bucket, key).await, None);
    let first = put(&*bucket, key, "one", 0, None).await;
    assert_eq!(read(&*bucket, key).await, Some(entry(key, first, "one")));
    is_conflict(bucket.write(key, "two".into(), Some(0), None).await, "it exists");
    is_conflict(bucket.write(key, "two".into(), Some(first + 7), None).await, "the revision is another");
    let other = put(&*bucket, "another", "x", 0, None).await;
    let second = put(&*bucket, key, "two", first, None).await;
    assert!(first < other && other < second, "revisions grow: {first} {other} {second}");
    is_conflict(bucket.write(key, "three".into(), Some(first), None).await, "it was updated");
    assert_eq!(read(&*bucket, key).await, Some(entry(key, second, "two")));
    // A second opening is the same bucket.
    let again = soon("open again", _transport.bucket("suite-cas")).await.expect("a bucket");
    assert_eq!(read(&*again, key).await, Some(entry(key, second, "two")));
}

pub(super) async fn delete_then_create(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-delete").await;
    let first = put(&*bucket, "k", "one", 0, None).await;
    is_conflict(bucket.delete("k", first + 1).await, "the revision is another");
    let marker = bucket.delete("k", first).await.expect("deleted");
    assert!(marker > first);
    let gone = Entry { key: "k".to_owned(), revision: marker, value: Err(Gone::Deleted) };
    assert_eq!(read(&*bucket, "k").await, Some(gone));
    is_conflict(bucket.write("k", "two".into(), Some(0), None).await, "the marker counts");
    let second = put(&*bucket, "k", "two", marker, None).await;
    assert_eq!(read(&*bucket, "k").await, Some(entry("k", second, "two")));
}

pub(super) async fn expiry(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-expiry").await;
    let mut watch = bucket.watch(Vec::new()).await.expect("a watch");
    assert_eq!(see(&mut watch, "an empty bucket is current").await, Change::Current);
    let mut expect = 0;
    for round in 0..2 {
        let written = put(&*bucket, "lease", "held", expect, Some(SECOND)).await;
        assert_eq!(see_entry(&mut watch, "the lease").await, entry("lease", written, "held"), "round {round}");
        let began = tokio::time::Instant::now();
        let marker = see_entry(&mut watch, "its end").await;
        let took = began.elapsed();
        assert_eq!((marker.key.as_str(), &marker.value), ("lease", &Err(Gone::Expired)), "round {round}");
        assert!(marker.revision > written, "round {round}");
        assert!(took > SECOND / 2 && took < 3 * SECOND, "round {round}: expired after {took:?}");
        assert_eq!(read(&*bucket, "lease").await, Some(marker.clone()), "round {round}");
        expect = marker.revision;
    }
    // Without a time to live, it stays.
    put(&*bucket, "lease", "for ever", expect, None).await;
    tokio::time::sleep(2 * SECOND).await;
    assert!(read(&*bucket, "lease").await.is_some_and(|entry| entry.value.is_ok()));
}

pub(super) async fn renewal(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-renewal").await;
    let mut revision = put(&*bucket, "lease", "0", 0, Some(2 * SECOND)).await;
    let immortal = put(&*bucket, "other", "0", 0, Some(SECOND)).await;
    put(&*bucket, "other", "1", immortal, None).await;
    for _ in 0..3 {
        tokio::time::sleep(SECOND).await;
        revision = put(&*bucket, "lease", "renewed", revision, Some(2 * SECOND)).await;
    }
    assert_eq!(read(&*bucket, "lease").await, Some(entry("lease", revision, "renewed")));
    tokio::time::sleep(3 * SECOND).await;
    let lease = read(&*bucket, "lease").await.expect("a marker");
    assert_eq!(lease.value, Err(Gone::Expired), "a renewed lease expires as well");
    let other = read(&*bucket, "other").await.expect("a record");
    assert!(other.value.is_ok(), "an update without a time to live takes it away");
}

pub(super) async fn bad_input(harness: &mut dyn Harness) {
    let (transport, bucket) = open(harness, "suite-bad").await;
    for key in ["", ".", "a..b", "a b", "a.*", ">", "ä", "a."] {
        let refused = bucket.write(key, "x".into(), Some(0), None).await;
        assert!(
            matches!(&refused, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::BadRequest),
            "{key:?}: {refused:?}"
        );
        let refused = bucket.get(key).await;
        assert!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::BadRequest), "{key:?}: {refused:?}");
    }
    let refused = bucket.write("k", "x".into(), Some(0), Some(Duration::from_millis(500))).await;
    assert!(matches!(&refused, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::Config), "{refused:?}");
    for name in ["", "a.b", "a b", "*"] {
        assert!(transport.bucket(name).await.is_err_and(|error| error.kind() == ErrorKind::Config), "{name:?}");
    }
    assert_eq!(read(&*bucket, "k").await, None);
}

pub(super) async fn watch(harness: &mut dyn Harness) {
    let (transport, bucket) = open(harness, "suite-watch").await;
    let other = harness.connect("other").await;
    let a = put(&*bucket, "a", "1", 0, None).await;
    let b = put(&*bucket, "b", "1", 0, None).await;
    let c = put(&*bucket, "c", "1", 0, None).await;
    let a = put(&*bucket, "a", "2", a, None).await;
    let b = bucket.delete("b", b).await.expect("deleted");
    let mut watch = bucket.watch(Vec::new()).await.expect("a watch");
    assert_eq!(see_entry(&mut watch, "c").await, entry("c", c, "1"));
    assert_eq!(see_entry(&mut watch, "a").await, entry("a", a, "2"));
    let gone = Entry { key: "b".to_owned(), revision: b, value: Err(Gone::Deleted) };
    assert_eq!(see_entry(&mut watch, "b").await, gone);
    assert_eq!(see(&mut watch, "that was all").await, Change::Current);

    let others = other.bucket("suite-watch").await.expect("a bucket");
    let mut expect = c;
    for value in ["2", "3", "4"] {
        expect = put(&*others, "c", value, expect, None).await;
        assert_eq!(see_entry(&mut watch, "a change").await, entry("c", expect, value));
    }
    let marker = others.delete("c", expect).await.expect("deleted");
    let gone = Entry { key: "c".to_owned(), revision: marker, value: Err(Gone::Deleted) };
    assert_eq!(see_entry(&mut watch, "a deletion").await, gone);
    let again = put(&*bucket, "c", "5", marker, None).await;
    assert_eq!(see_entry(&mut watch, "a new record").await, entry("c", again, "5"));
    drop(transport);
}

pub(super) async fn watch_many(harness: &mut dyn Harness) {
    const RECORDS: usize = 1_500;
    let (_transport, bucket) = open(harness, "suite-many").await;
    for number in 0..RECORDS {
        put(&*bucket, &format!("k.{number}"), "x", 0, None).await;
    }
    let mut watch = bucket.watch(Vec::new()).await.expect("a watch");
    // Nobody reads for a while: nothing may be lost for that.
    tokio::time::sleep(QUIET).await;
    for number in 0..RECORDS {
        assert_eq!(see_entry(&mut watch, "all records").await.key, format!("k.{number}"));
    }
    assert_eq!(see(&mut watch, "then it is current").await, Change::Current);
    let revision = put(&*bucket, "last", "x", 0, None).await;
    assert_eq!(see_entry(&mut watch, "the last").await, entry("last", revision, "x"));
}

pub(super) async fn races(harness: &mut dyn Harness) {
    let (_one, first) = open(harness, "suite-races").await;
    let (_two, second) = open(harness, "suite-races").await;
    let (mut revision, mut wins) = (0, [0, 0]);
    for round in 0..300 {
        let (one, two) = tokio::join!(
            first.write("k", "first".into(), Some(revision), Some(30 * SECOND)),
            second.write("k", "second".into(), Some(revision), Some(30 * SECOND)),
        );
        let (winner, value) = match (one, two) {
            (Ok(revision), Err(WriteError::Conflict)) => (revision, "first"),
            (Err(WriteError::Conflict), Ok(revision)) => (revision, "second"),
            other => panic!("round {round}: not exactly one winner: {other:?}"),
        };
        wins[usize::from(value == "second")] += 1;
        revision = winner;
        assert_eq!(read(&*second, "k").await, Some(entry("k", revision, value)), "round {round}");
    }
    tracing::info!(?wins, "races");
}

pub(super) async fn markers_go(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-markers").await;
    let first = put(&*bucket, "deleted", "x", 0, None).await;
    let marker = bucket.delete("deleted", first).await.expect("deleted");
    put(&*bucket, "expired", "x", 0, Some(SECOND)).await;
    tokio::time::sleep(14 * SECOND).await;
    assert_eq!(read(&*bucket, "expired").await, None, "the marker of what expired goes");
    let again = put(&*bucket, "expired", "y", 0, None).await;
    assert!(again > marker, "revisions are never used twice");
    let gone = Entry { key: "deleted".to_owned(), revision: marker, value: Err(Gone::Deleted) };
    assert_eq!(read(&*bucket, "deleted").await, Some(gone), "that of a deletion stays for long");
}

/// Some of the keys: what else is written is not shown, and what there is of those comes first.
pub(super) async fn watch_some(harness: &mut dyn Harness) {
    let (_transport, bucket) = open(harness, "suite-some").await;
    let filters = |keys: &[&str]| keys.iter().map(|key| crate::subject::Filter::of(*key)).collect::<Vec<_>>();
    let one = put(&*bucket, "a.one", "1", 0, None).await;
    put(&*bucket, "a.two", "1", 0, None).await;
    let deep = put(&*bucket, "b.x.y", "1", 0, None).await;
    let mut none = bucket.watch(filters(&["c"])).await.expect("a watch");
    assert_eq!(see(&mut none, "there is nothing").await, Change::Current);
    let mut watch = bucket.watch(filters(&["a.one", "b.>"])).await.expect("a watch");
    assert_eq!(see_entry(&mut watch, "a key").await, entry("a.one", one, "1"));
    assert_eq!(see_entry(&mut watch, "a pattern").await, entry("b.x.y", deep, "1"));
    assert_eq!(see(&mut watch, "that was all").await, Change::Current);
    // Whatever the record is by now.
    let any = bucket.write("a.two", "2".into(), None, None).await.expect("written");
    let any = [any, bucket.write("a.one", "2".into(), None, Some(SECOND)).await.expect("written")];
    assert!(one < any[0] && any[0] < any[1], "{any:?}");
    assert_eq!(see_entry(&mut watch, "a change").await, entry("a.one", any[1], "2"));
    let c = put(&*bucket, "c", "1", 0, None).await;
    assert_eq!(see_entry(&mut none, "its key").await, entry("c", c, "1"));
    let marker = see_entry(&mut watch, "an end").await;
    assert_eq!((marker.key.as_str(), &marker.value), ("a.one", &Err(Gone::Expired)));
}
