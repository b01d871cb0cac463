//! Durable consumers: what is given out, to whom, how often.

use super::streams::{append, body, last, on, open};
use super::*;
use crate::error::ErrorKind;
use crate::transport::{Consumer, ConsumerConfig, Delivery, Headers, Retention, Start, Stream};

pub(super) async fn take(consumer: &mut Consumer, what: &str) -> Delivery {
    match soon(what, consumer.next()).await {
        Some(delivery) => delivery,
        None => panic!("the consumer ended instead of: {what}"),
    }
}

async fn take_nothing(consumer: &mut Consumer, why: &str) {
    if let Ok(delivery) = tokio::time::timeout(QUIET, consumer.next()).await {
        panic!("{why}, but this came: {delivery:?}");
    }
}

fn place(delivery: &Delivery) -> (u64, u64) {
    (delivery.record.sequence, delivery.delivered)
}

fn all() -> ConsumerConfig {
    ConsumerConfig::new([])
}

async fn hold(stream: &dyn Stream, name: &str, config: ConsumerConfig) -> Consumer {
    soon("open a consumer", stream.consumer(name, config)).await.expect("a consumer")
}

pub(super) async fn acknowledge(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-ack", on("w1.>")).await;
    for number in 1..=40 {
        append(&*stream, if number % 2 == 0 { "w1.even" } else { "w1.odd" }, None, number.to_string()).await;
    }
    let mut consumer = hold(&*stream, "one", ConsumerConfig::new([Filter::of("w1.even")]).fetch(4)).await;
    for number in (2..=30).step_by(2) {
        let delivery = take(&mut consumer, "even").await;
        assert_eq!(place(&delivery), (number, 1));
        assert_eq!(body(&delivery.record), number.to_string());
        delivery.ack().await.expect("confirmed");
        delivery.ack().await.expect("and again, which changes nothing");
    }
    // What waited in the old one is given back.
    drop(consumer);
    let mut consumer = hold(&*stream, "one", ConsumerConfig::new([Filter::of("w1.even")]).fetch(1)).await;
    for number in (32..=40).step_by(2) {
        let delivery = take(&mut consumer, "the rest").await;
        assert_eq!(delivery.record.sequence, number);
        delivery.ack().await.expect("confirmed");
    }
    take_nothing(&mut consumer, "all are acknowledged").await;
    append(&*stream, "w1.even", None, "41").await;
    let delivery = take(&mut consumer, "a new one").await;
    assert_eq!(place(&delivery), (41, 1));
    delivery.term("it makes no sense").await.expect("confirmed");
    assert!(consumer.try_next().await.expect("an answer").is_none());

    let mut new = hold(&*stream, "new", all().start(Start::New).headers_only()).await;
    let mut later = hold(&*stream, "later", all().start(Start::At(40))).await;
    append(&*stream, "w1.odd", None, "four").await;
    let delivery = take(&mut new, "what is new").await;
    assert_eq!(place(&delivery), (42, 1));
    assert_eq!((delivery.record.headers.get("Nats-Msg-Size"), delivery.record.body.len()), (Some("4"), 0));
    assert_eq!(take(&mut later, "from 40 on").await.record.sequence, 40);
    let refused = stream.consumer("a.b", all()).await;
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Config));
}

pub(super) async fn redelivery(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-again", on("w2.>")).await;
    for number in 1..=3 {
        append(&*stream, "w2.a", None, number.to_string()).await;
    }
    let wait = Duration::from_secs(2);
    let mut consumer = hold(&*stream, "one", all().ack_wait(wait).fetch(1)).await;
    let first = take(&mut consumer, "the first").await;
    let given = tokio::time::Instant::now();
    let second = take(&mut consumer, "the second").await;
    assert_eq!((place(&first), place(&second)), ((1, 1), (2, 1)));
    // Given back at once, and after a time.
    second.nak(Duration::ZERO).await.expect("confirmed");
    let second = take(&mut consumer, "the second again").await;
    assert_eq!(place(&second), (2, 2));
    second.nak(Duration::from_millis(600)).await.expect("confirmed");
    let back = tokio::time::Instant::now();
    let third = take(&mut consumer, "the third meanwhile").await;
    assert_eq!(place(&third), (3, 1));
    third.ack().await.expect("confirmed");
    let second = take(&mut consumer, "the second after its time").await;
    assert_eq!(place(&second), (2, 3));
    assert!(back.elapsed() >= Duration::from_millis(500), "after {:?}", back.elapsed());
    second.ack().await.expect("confirmed");
    // Not acknowledged, so it comes again; one acknowledgement ends that.
    let again = take(&mut consumer, "the first, unacknowledged").await;
    assert_eq!(place(&again), (1, 2));
    let took = given.elapsed();
    assert!(took > wait - wait / 4 && took < 2 * wait, "it came again after {took:?}");
    // The time begins anew as long as somebody works on it.
    for _ in 0..3 {
        tokio::time::sleep(wait / 2).await;
        again.in_progress().await.expect("confirmed");
    }
    assert!(consumer.try_next().await.expect("an answer").is_none(), "it is being worked on");
    again.ack().await.expect("confirmed");
    tokio::time::sleep(wait + wait / 4).await;
    assert!(consumer.try_next().await.expect("an answer").is_none(), "an acknowledgement of a redelivery counts");
}

pub(super) async fn max_deliver(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-often", on("w3.>")).await;
    append(&*stream, "w3.bad", None, "x").await;
    append(&*stream, "w3.good", None, "x").await;
    let config = all().ack_wait(Duration::from_secs(1)).max_deliver(3).fetch(1);
    let mut consumer = hold(&*stream, "one", config).await;
    assert_eq!(place(&take(&mut consumer, "once").await), (1, 1));
    let good = take(&mut consumer, "the other").await;
    assert_eq!(place(&good), (2, 1));
    good.ack().await.expect("confirmed");
    assert_eq!(place(&take(&mut consumer, "twice").await), (1, 2));
    let bad = take(&mut consumer, "three times").await;
    assert_eq!(place(&bad), (1, 3));
    bad.nak(Duration::ZERO).await.expect("confirmed");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(consumer.try_next().await.expect("an answer").is_none(), "never a fourth time");
    assert!(last(&*stream, "w3.bad").await.is_some(), "it stays where it is");
}

pub(super) async fn bounds(harness: &mut dyn Harness) {
    let (_transport, stream) = open(harness, "suite-bounds", on("w4.>")).await;
    for number in 1..=10 {
        append(&*stream, "w4.a", None, number.to_string()).await;
    }
    let mut consumer = hold(&*stream, "one", all().max_ack_pending(3)).await;
    let mut given = Vec::new();
    for number in 1..=3 {
        given.push(take(&mut consumer, "up to the bound").await);
        assert_eq!(place(&given[number - 1]), (number as u64, 1));
    }
    take_nothing(&mut consumer, "three are given out").await;
    given[1].ack().await.expect("confirmed");
    assert_eq!(place(&take(&mut consumer, "one more").await), (4, 1));
    take_nothing(&mut consumer, "three are given out again").await;
    assert!(consumer.try_next().await.expect("an answer").is_none(), "three are given out still");
}

pub(super) async fn work_queue(harness: &mut dyn Harness) {
    let config = on("w5.*.*").retention(Retention::WorkQueue);
    let (_transport, stream) = open(harness, "suite-queue", config).await;
    for (number, name) in ["w5.1.a", "w5.2.a", "w5.1.b", "w5.1.a"].into_iter().enumerate() {
        append(&*stream, name, None, number.to_string()).await;
    }
    let share = |number: u32| ConsumerConfig::new([Filter::of(format!("w5.{number}.*"))]);
    let mut one = hold(&*stream, "one", share(1)).await;
    let mut two = hold(&*stream, "two", share(2)).await;
    let clash = stream.consumer("three", share(1)).await;
    assert!(clash.is_err_and(|error| error.kind() == ErrorKind::Unavailable), "another has these records");
    let clash = stream.consumer("four", share(3).start(Start::New)).await;
    assert!(clash.is_err_and(|error| error.kind() == ErrorKind::Config), "a work queue begins at its beginning");
    let followed = stream.follow(Vec::new(), Start::At(1)).await;
    assert!(followed.is_err_and(|error| error.kind() == ErrorKind::Config), "a work queue cannot be followed");
    for (sequence, name, left) in [(1, "w5.1.a", Some(4)), (3, "w5.1.b", None), (4, "w5.1.a", None)] {
        let delivery = take(&mut one, "work").await;
        assert_eq!((place(&delivery), delivery.record.subject.as_str()), ((sequence, 1), name));
        delivery.ack().await.expect("confirmed");
        forgotten(&*stream, name, left).await;
    }
    let delivery = take(&mut two, "work").await;
    assert_eq!(delivery.record.sequence, 2);
    assert!(last(&*stream, "w5.2.a").await.is_some(), "not before it is done");
    delivery.term("cannot be").await.expect("confirmed");
    forgotten(&*stream, "w5.2.a", None).await;
}

/// What is done goes just after that was confirmed.
async fn forgotten(stream: &dyn Stream, name: &str, left: Option<u64>) {
    let gone = async {
        while last(stream, name).await.map(|record| record.sequence) != left {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("what is done is forgotten", gone).await;
}

pub(super) async fn shared(harness: &mut dyn Harness) {
    const RECORDS: usize = 300;
    let (_one, stream) = open(harness, "suite-shared", on("w6.>")).await;
    let (_two, other) = open(harness, "suite-shared", on("w6.>")).await;
    let consumers = [hold(&*stream, "same", all().fetch(2)).await, hold(&*other, "same", all().fetch(2)).await];
    let (seen, mut done) = tokio::sync::mpsc::channel(RECORDS);
    let workers = consumers.map(|mut consumer| {
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                delivery.ack().await.expect("confirmed");
                if seen.send(delivery.record.sequence).await.is_err() {
                    return;
                }
            }
        })
    });
    for number in 0..RECORDS {
        append(&*stream, "w6.a", None, number.to_string()).await;
    }
    let mut all = Vec::new();
    for _ in 0..RECORDS {
        all.push(soon("every record", done.recv()).await.expect("somebody works"));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=RECORDS as u64).collect::<Vec<_>>(), "each of them once");
    for worker in workers {
        worker.abort();
    }
}

pub(super) async fn schedules(harness: &mut dyn Harness) {
    let config = on("w8.>").retention(Retention::WorkQueue).schedules();
    let (_transport, stream) = open(harness, "suite-work-schedules", config).await;
    let plan = async |name: &str, pattern: String| {
        let mut headers = Headers::new();
        headers.push("Nats-Schedule", pattern);
        headers.push("Nats-Schedule-Target", format!("w8.fired.{name}"));
        headers.push("Shop-Id", name);
        stream.append(&subject(&format!("w8.plan.{name}")), None, headers, Bytes::new()).await.expect("stored")
    };
    let at = |time: time::OffsetDateTime| {
        let text = time.format(&time::format_description::well_known::Rfc3339);
        format!("@at {}", text.expect("a time"))
    };
    let now = time::OffsetDateTime::now_utc();
    let later = plan("later", at(now + Duration::from_secs(600))).await;
    plan("none", at(now + Duration::from_secs(600))).await;
    plan("over", at(now - Duration::from_secs(600))).await;
    plan("again", "@every 1s".to_owned()).await;
    let mut cancel = Headers::new();
    cancel.push("Nats-Schedule-Next", "purge");
    cancel.push("Nats-Scheduler", "w8.plan.none");
    cancel.push("Nats-TTL", "1s");
    stream.append(&subject("w8.cancel"), None, cancel, Bytes::new()).await.expect("stored");
    assert!(last(&*stream, "w8.plan.none").await.is_none(), "it was cancelled");
    let mut fired = hold(&*stream, "fired", ConsumerConfig::new([Filter::of("w8.fired.>")])).await;
    let (mut again, mut over) = (0, 0);
    while again < 2 || over < 1 {
        let delivery = take(&mut fired, "what is due").await;
        match delivery.record.headers.get("Shop-Id") {
            Some("again") => again += 1,
            Some("over") => over += 1,
            other => panic!("{other:?} was not due"),
        }
        delivery.ack().await.expect("confirmed");
        assert!(last(&*stream, delivery.record.subject.as_str()).await.is_none(), "it is done with");
    }
    assert!(last(&*stream, "w8.plan.over").await.is_none(), "it is spent");
    assert_eq!(last(&*stream, "w8.plan.later").await.map(|record| record.sequence), Some(later));
    // What cancelled goes by itself.
    let gone = async {
        while last(&*stream, "w8.cancel").await.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the cancel goes", gone).await;
}
