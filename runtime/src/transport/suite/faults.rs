//! The broker goes away and comes back.

use super::*;
use crate::error::ErrorKind;
use crate::transport::{ConsumerConfig, Gone, Headers, Start, WriteError};

fn number(transport: &dyn Transport) -> Status {
    transport.status().borrow().clone()
}

async fn stop(harness: &mut dyn Harness, transports: &[&Arc<dyn Transport>]) {
    harness.stop_broker().await;
    for transport in transports {
        wait_for(&***transport, "the loss is noticed", |status| *status == Status::Disconnected).await;
    }
}

async fn start(harness: &mut dyn Harness, transports: &[&Arc<dyn Transport>]) {
    harness.start_broker().await;
    for transport in transports {
        wait_for(&***transport, "the connection comes back", Status::is_connected).await;
    }
}

pub(super) async fn broker_away(harness: &mut dyn Harness) {
    let (one, two) = (harness.connect("one").await, harness.connect("two").await);
    let mut plain = listen(&*one, "away.*", None).await;
    let mut group = listen(&*one, "away.shared", Some("group")).await;
    let bucket = one.bucket("suite-away").await.expect("a bucket");
    let kept = bucket.write("kept", "x".into(), Some(0), None).await.expect("written");
    let before = number(&*one);
    assert!(before.is_connected());
    for round in 0..2 {
        stop(harness, &[&one, &two]).await;
        let began = std::time::Instant::now();
        let refused = two.publish(say("away.lost", "lost")).expect_err("no broker");
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        let refused = one.subscribe(&Filter::of("away.more"), None, 1).await.expect_err("no broker");
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(one.flush().await.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
        let refused = bucket.write("kept", "y".into(), Some(kept), None).await;
        assert!(
            matches!(&refused, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::Unavailable),
            "{refused:?}"
        );
        assert!(bucket.get("kept").await.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
        assert!(one.bucket("suite-away-too").await.is_err());
        assert!(began.elapsed() < Duration::from_millis(200), "refusals took {:?}", began.elapsed());

        start(harness, &[&one, &two]).await;
        assert_ne!(number(&*one), before, "another connection");
        two.publish(say("away.shared", format!("round {round}"))).expect("sent");
        let message = hear(&mut plain, "a message after the reconnect").await;
        assert_eq!((message.subject.as_str(), text(&message)), ("away.shared", format!("round {round}")));
        assert_eq!(text(&hear(&mut group, "a message in the group").await), format!("round {round}"));
        hear_nothing(&mut plain, "what was refused is not delivered late").await;
        let entry = eventually("read a record", || bucket.get("kept")).await.expect("the record");
        assert_eq!((entry.revision, entry.value), (kept, Ok("x".into())), "records survive");
    }
}

pub(super) async fn watch_survives(harness: &mut dyn Harness) {
    let one = harness.connect("watcher").await;
    let bucket = one.bucket("suite-survive").await.expect("a bucket");
    let a = bucket.write("a", "1".into(), Some(0), None).await.expect("written");
    let short = bucket.write("short", "1".into(), Some(0), Some(Duration::from_secs(1))).await.expect("written");
    let mut watch = bucket.watch(Vec::new()).await.expect("a watch");
    assert_eq!(see_entry(&mut watch, "a").await.revision, a);
    assert_eq!(see_entry(&mut watch, "short").await.revision, short);
    assert_eq!(see(&mut watch, "current").await, Change::Current);

    stop(harness, &[&one]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    start(harness, &[&one]).await;
    let b = loop {
        match bucket.write("b", "1".into(), Some(0), None).await {
            Ok(revision) => break revision,
            Err(WriteError::NotSent(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other:?}"),
        }
    };
    // What was there may come again; what changed must come, and Current must not.
    let (mut expired, mut written) = (false, false);
    while !(expired && written) {
        let entry = see_entry(&mut watch, "what changed while the broker was away, and after").await;
        match entry.key.as_str() {
            "a" => assert_eq!(entry.revision, a),
            "short" => expired |= entry.value == Err(Gone::Expired),
            "b" => written |= entry.revision == b,
            _ => panic!("nobody wrote {entry:?}"),
        }
    }
    let a = bucket.write("a", "2".into(), Some(a), None).await.expect("written");
    while see_entry(&mut watch, "a change after the reconnect").await.revision != a {}
}

pub(super) async fn streams_survive(harness: &mut dyn Harness) {
    let (one, stream) = streams::open(harness, "suite-lives", streams::on("f1.>")).await;
    let mut follow = stream.follow(Vec::new(), Start::New).await.expect("a follower");
    let config = ConsumerConfig::new([]).ack_wait(Duration::from_secs(2)).fetch(1);
    let mut consumer = stream.consumer("one", config).await.expect("a consumer");
    let name = subject("f1.a");
    let mut expect = 0;
    for round in 0..2 {
        expect = eventually("append", || async {
            match stream.append(&name, Some(expect), Headers::new(), "x".into()).await {
                Ok(sequence) => Ok(sequence),
                Err(WriteError::NotSent(error)) => Err(error),
                Err(other) => panic!("round {round}: {other:?}"),
            }
        })
        .await;
        assert_eq!(
            streams::see(&mut follow, "a record").await.sequence,
            expect,
            "round {round}: none twice, none left out"
        );
        let delivery = work::take(&mut consumer, "a delivery").await;
        assert_eq!(delivery.record.sequence, expect, "round {round}");
        eventually("acknowledge", || delivery.ack()).await;

        stop(harness, &[&one]).await;
        let began = std::time::Instant::now();
        let refused = stream.append(&name, Some(expect), Headers::new(), "lost".into()).await;
        assert!(
            matches!(&refused, Err(WriteError::NotSent(error)) if error.kind() == ErrorKind::Unavailable),
            "{refused:?}"
        );
        assert!(stream.last(&name).await.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
        assert!(delivery.ack().await.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
        assert!(began.elapsed() < Duration::from_millis(200), "refusals took {:?}", began.elapsed());
        start(harness, &[&one]).await;
        let last = eventually("read", || stream.last(&name)).await.expect("a record");
        assert_eq!(
            (last.sequence, streams::body(&last).as_str()),
            (expect, "x"),
            "what was refused is not stored late"
        );
    }
    assert!(follow.try_next().is_none());
}

pub(super) async fn leave_after_reconnect(harness: &mut dyn Harness) {
    let one = harness.connect("one").await;
    let mut subscription = listen(&*one, "relapse.*", Some("group")).await;
    for _ in 0..2_000 {
        one.publish(say("relapse.before", "")).expect("sent");
    }
    for _ in 0..2_000 {
        hear(&mut subscription, "messages before").await;
    }
    stop(harness, &[&one]).await;
    start(harness, &[&one]).await;
    for number in 0..100 {
        one.publish(say("relapse.after", number.to_string())).expect("sent");
    }
    let began = std::time::Instant::now();
    soon("leave", subscription.leave(subject("relapse.=flush"))).await;
    for number in 0..100 {
        assert_eq!(text(&hear(&mut subscription, "messages after").await), number.to_string());
    }
    assert!(soon("it ends", subscription.next()).await.is_none());
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}: it timed out", began.elapsed());
}

/// Tries until it succeeds: just after its start a broker has its records, but no leader for them.
async fn eventually<T, F: Future<Output = Result<T, crate::error::Error>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    soon(what, async {
        loop {
            match attempt().await {
                Ok(outcome) => return outcome,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}
