//! What a stream keeps: once, until it is removed, and from one consumer to the next.

use super::streams::{append, body, last, on, open, see};
use super::work::take;
use super::*;
use crate::error::ErrorKind;
use crate::transport::{ConsumerConfig, Headers, Retention, Start, WriteError};

pub(super) async fn follow_headers(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-headers", on("k1.>")).await;
    assert_eq!(stream.end().await.expect("an answer"), 0);
    let mut marked = Headers::new();
    marked.push("Shop-Mark", "7");
    append(&*stream, "k1.a", None, "plain").await;
    stream.append(&subject("k1.b"), None, marked.clone(), "marked".into()).await.expect("stored");
    let mut follow = soon("follow", stream.follow_headers(Vec::new(), Start::At(1))).await.expect("a follower");
    for (sequence, name, mark, size) in [(1, "k1.a", None, "5"), (2, "k1.b", Some("7"), "6")] {
        let record = see(&mut follow, "the headers").await;
        assert_eq!((record.sequence, record.subject.as_str()), (sequence, name));
        assert_eq!((record.headers.get("Shop-Mark"), record.headers.get("Nats-Msg-Size")), (mark, Some(size)));
        assert!(record.body.is_empty(), "no payload: {record:?}");
    }
    stream.append(&subject("k1.a"), None, marked, "new".into()).await.expect("stored");
    let record = see(&mut follow, "a new one").await;
    assert_eq!((record.sequence, record.headers.get("Shop-Mark")), (3, Some("7")));
    assert_eq!(body(&last(&*stream, "k1.a").await.expect("a record")), "new", "the stream has it all the same");
    assert_eq!(stream.end().await.expect("an answer"), 3);
}

pub(super) async fn sent_again(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-sent-again", on("k2.*")).await;
    let with_id = |id: &str| {
        let mut headers = Headers::new();
        headers.push("Nats-Msg-Id", id);
        headers
    };
    let put = async |name: &str, id: &str, text: &'static str| {
        let appended = stream.append(&subject(name), None, with_id(id), text.into());
        soon("append", appended).await.expect("stored")
    };
    assert_eq!(put("k2.a", "one", "first").await, 1);
    assert_eq!(put("k2.b", "two", "second").await, 2);
    assert_eq!(put("k2.a", "one", "first").await, 1, "it is the same");
    assert_eq!(put("k2.b", "one", "elsewhere").await, 1, "an id is the stream's, not the subject's");
    assert_eq!(put("k2.a", "three", "third").await, 3);
    let again = stream.append(&subject("k2.a"), Some(1), with_id("four"), "refused".into()).await;
    assert!(matches!(again, Err(WriteError::Conflict)), "{again:?}");
    assert_eq!(put("k2.a", "four", "fourth").await, 4, "what was refused is not known");
    assert_eq!(body(&last(&*stream, "k2.b").await.expect("a record")), "second");
    assert_eq!(stream.end().await.expect("an answer"), 4);
}

pub(super) async fn remove(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-remove", on("k3.*").deletable()).await;
    for text in ["1", "2", "3"] {
        append(&*stream, "k3.a", None, text).await;
    }
    assert!(soon("remove", stream.remove(2)).await.expect("removed"));
    assert!(!soon("remove", stream.remove(2)).await.expect("it is not there"), "once");
    assert!(!soon("remove", stream.remove(77)).await.expect("it is not there"));
    assert!(soon("remove", stream.remove(3)).await.expect("removed"));
    assert_eq!(last(&*stream, "k3.a").await.map(|record| record.sequence), Some(1));
    assert_eq!(append(&*stream, "k3.a", Some(1), "4").await, 4, "sequences are never used twice");
    let (_transport, kept) = open(harness, "suite-no-remove", on("k4.*")).await;
    append(&*kept, "k4.a", None, "1").await;
    let refused = soon("remove", kept.remove(1)).await;
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Unavailable), "nobody may");
    assert!(last(&*kept, "k4.a").await.is_some());
}

pub(super) async fn next_consumer(harness: &mut dyn Harness) {
    let config = on("k5.*").retention(Retention::WorkQueue);
    let (_transport, stream) = open(harness, "suite-next-consumer", config).await;
    for number in 1..=6 {
        append(&*stream, "k5.a", None, number.to_string()).await;
    }
    assert_eq!(soon("names", stream.consumers()).await.expect("an answer"), Vec::<String>::new());
    let wanted = || ConsumerConfig::new([Filter::of("k5.*")]).ack_wait(Duration::from_secs(600));
    let mut first = soon("open", stream.consumer("one-1", wanted())).await.expect("a consumer");
    for sequence in 1..=3 {
        let delivery = take(&mut first, "work").await;
        assert_eq!(delivery.record.sequence, sequence);
        // The second is never acknowledged.
        if sequence != 2 {
            delivery.ack().await.expect("confirmed");
        }
    }
    let clash = soon("open", stream.consumer("one-2", wanted())).await;
    assert!(clash.is_err_and(|error| error.kind() == ErrorKind::Unavailable), "another has these records");
    assert_eq!(stream.consumers().await.expect("an answer"), ["one-1"]);
    soon("remove", stream.remove_consumer("one-1")).await.expect("removed");
    soon("remove", stream.remove_consumer("one-1")).await.expect("it is removed already");
    let mut second = soon("open", stream.consumer("one-2", wanted())).await.expect("a consumer");
    assert_eq!(stream.consumers().await.expect("an answer"), ["one-2"]);
    // What was given out comes at once, in its place: nobody waits for the first one's time.
    for sequence in [2, 4, 5, 6] {
        let delivery = take(&mut second, "what was left").await;
        assert_eq!((delivery.record.sequence, delivery.delivered), (sequence, 1));
        delivery.ack().await.expect("confirmed");
    }
}
