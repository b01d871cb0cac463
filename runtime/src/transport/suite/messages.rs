//! Publish and subscribe.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::error::ErrorKind;
use crate::transport::Headers;

pub(super) async fn in_order(harness: &mut dyn Harness) {
    let (sender, receiver) = (harness.connect("sender").await, harness.connect("receiver").await);
    let mut subscription = listen(&*receiver, "order.one", None).await;
    for number in 0..2_000 {
        sender.publish(say("order.one", number.to_string())).expect("room in the queue");
        if number % 500 == 499 {
            sender.flush().await.expect("a broker");
        }
    }
    for number in 0..2_000 {
        let message = hear(&mut subscription, "2,000 messages").await;
        assert_eq!(text(&message), number.to_string(), "out of order");
        assert_eq!(message.subject, "order.one");
        assert_eq!((message.reply, message.no_responders), (None, false));
    }
    hear_nothing(&mut subscription, "all have been received").await;
    assert_eq!(subscription.dropped(), 0);
}

pub(super) async fn wildcards(harness: &mut dyn Harness) {
    let transport = harness.connect("wildcards").await;
    let filters = ["wild.a.b", "wild.*.b", "wild.a.*", "wild.>", "wild.a.b.>", "wild.*"];
    let subjects = ["wild.a.b", "wild.x.b", "wild.a.b.c.d", "wild.x", "wilder.a.b"];
    let expected = [
        vec!["wild.a.b"],
        vec!["wild.a.b", "wild.x.b"],
        vec!["wild.a.b"],
        vec!["wild.a.b", "wild.x.b", "wild.a.b.c.d", "wild.x"],
        vec!["wild.a.b.c.d"],
        vec!["wild.x"],
    ];
    let mut subscriptions = Vec::new();
    for filter in filters {
        subscriptions.push(listen(&*transport, filter, None).await);
    }
    for subject in subjects {
        transport.publish(say(subject, "")).expect("sent");
    }
    for ((filter, subscription), expected) in filters.iter().zip(&mut subscriptions).zip(expected) {
        for subject in expected {
            let message = hear(subscription, &format!("{subject} through {filter}")).await;
            assert_eq!(message.subject, subject, "through {filter}");
        }
    }
    for (filter, subscription) in filters.iter().zip(&mut subscriptions) {
        hear_nothing(subscription, &format!("{filter} matches no more of them")).await;
    }
}

pub(super) async fn queue_groups(harness: &mut dyn Harness) {
    const MESSAGES: usize = 600;
    let sender = harness.connect("sender").await;
    let other = harness.connect("other").await;
    let mut members = Vec::new();
    for transport in [&sender, &other, &other] {
        members.push(listen(&**transport, "share.*", Some("group")).await);
    }
    let mut plain = listen(&*other, "share.>", None).await;
    let mut second = listen(&*other, "share.work", Some("another")).await;
    for number in 0..MESSAGES {
        sender.publish(say("share.work", number.to_string())).expect("sent");
    }
    for (name, subscription) in [("a plain subscription", &mut plain), ("the only member of a group", &mut second)] {
        for number in 0..MESSAGES {
            assert_eq!(text(&hear(subscription, name).await), number.to_string(), "{name}");
        }
    }
    let mut shares = Vec::new();
    let mut seen = BTreeMap::new();
    for member in &mut members {
        let mut share = 0;
        while let Ok(Some(message)) = tokio::time::timeout(QUIET, member.next()).await {
            *seen.entry(text(&message)).or_insert(0) += 1;
            share += 1;
        }
        shares.push(share);
    }
    assert!(seen.values().all(|count| *count == 1), "given to more than one member: {seen:?}");
    assert_eq!(seen.len(), MESSAGES, "lost; shares are {shares:?}");
    assert!(shares.iter().all(|share| *share > MESSAGES / 10), "not shared: {shares:?}");
}

pub(super) async fn no_responders(harness: &mut dyn Harness) {
    let (asker, other) = (harness.connect("asker").await, harness.connect("other").await);
    let mut inbox = listen(&*asker, "_INBOX.nobody.*", None).await;
    let ask = |number: u32| say("nobody.here", "?").reply_to(subject(&format!("_INBOX.nobody.{number}")));
    asker.publish(ask(1)).expect("sent");
    let answer = hear(&mut inbox, "the broker says that nobody listens").await;
    assert!(answer.no_responders && answer.subject == "_INBOX.nobody.1", "{answer:?}");

    asker.publish(say("nobody.here", "no reply subject")).expect("sent");
    hear_nothing(&mut inbox, "it had no reply subject").await;

    let mut somebody = listen(&*other, "nobody.*", Some("group")).await;
    asker.publish(ask(2)).expect("sent");
    let question = hear(&mut somebody, "the question").await;
    assert_eq!(question.reply.as_deref(), Some("_INBOX.nobody.2"));
    hear_nothing(&mut inbox, "somebody listens").await;

    drop(somebody);
    other.flush().await.expect("a broker");
    asker.publish(ask(3)).expect("sent");
    let answer = hear(&mut inbox, "nobody listens any more").await;
    assert!(answer.no_responders && answer.subject == "_INBOX.nobody.3", "{answer:?}");
}

pub(super) async fn headers(harness: &mut dyn Harness) {
    let transport = harness.connect("headers").await;
    let mut subscription = listen(&*transport, "headers.one", None).await;
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", "7");
    headers.push("Greenroom-Chain", "a/b");
    headers.push("Greenroom-Chain", "ünïcode: and a colon");
    headers.push("X-Broken", "two\r\nlines");
    transport.publish(say("headers.one", Bytes::new()).with_headers(headers)).expect("sent");
    let message = hear(&mut subscription, "a message with headers").await;
    assert_eq!(message.headers.get("nats-msg-id"), Some("7"), "{message:?}");
    assert_eq!(message.headers.get("X-Broken"), Some("two  lines"), "{message:?}");
    let chain: Vec<&str> =
        message.headers.iter().filter(|(name, _)| *name == "Greenroom-Chain").map(|(_, value)| value).collect();
    assert_eq!(chain, ["a/b", "ünïcode: and a colon"], "values of one name keep their order");
    assert!(message.body.is_empty());

    transport.publish(say("headers.one", "bare")).expect("sent");
    assert!(hear(&mut subscription, "a message without headers").await.headers.is_empty());

    let mut headers = Headers::new();
    headers.push("not a name:", "x");
    if let Err(error) = transport.publish(say("headers.one", "").with_headers(headers)) {
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
    } else {
        panic!("a header that cannot be read back was sent");
    }
}

pub(super) async fn payload_limit(harness: &mut dyn Harness) {
    let transport = harness.connect("payload").await;
    let mut subscription = listen(&*transport, "payload.one", None).await;
    let limit = transport.max_payload();
    let refused = transport.publish(say("payload.one", vec![0; limit + 1])).expect_err("one byte too many");
    assert_eq!(refused.kind(), ErrorKind::PayloadTooLarge, "{refused}");
    transport.publish(say("payload.one", vec![7; limit])).expect("the limit itself");
    let message = hear(&mut subscription, "the largest payload").await;
    assert_eq!(message.body.len(), limit);
    let mut headers = Headers::new();
    headers.push("X", "1");
    let refused =
        transport.publish(say("payload.one", vec![0; limit]).with_headers(headers)).expect_err("headers count");
    assert_eq!(refused.kind(), ErrorKind::PayloadTooLarge, "{refused}");
    transport.publish(say("payload.one", "still there")).expect("sent");
    assert_eq!(text(&hear(&mut subscription, "the connection lives").await), "still there");
}

pub(super) async fn flush_is_swallowed(harness: &mut dyn Harness) {
    let transport = harness.connect("flush").await;
    let mut subscription = listen(&*transport, "swallow.*.*", None).await;
    for subject in ["swallow.x.=flush", "swallow.x.y", "swallow.x.=flush", "swallow.=flush.z"] {
        transport.publish(say(subject, "")).expect("sent");
    }
    assert_eq!(hear(&mut subscription, "a message").await.subject, "swallow.x.y");
    assert_eq!(hear(&mut subscription, "a message").await.subject, "swallow.=flush.z");
    hear_nothing(&mut subscription, "the others flush").await;
}

pub(super) async fn close(harness: &mut dyn Harness) {
    let (transport, other) = (harness.connect("closing").await, harness.connect("other").await);
    let mut mine = listen(&*transport, "closing.mine", None).await;
    let mut others = listen(&*other, "closing.others", None).await;
    let bucket = transport.bucket("suite-closing").await.expect("a bucket");
    let mut watch = bucket.watch(Vec::new()).await.expect("a watch");
    assert_eq!(see(&mut watch, "an empty bucket is current").await, Change::Current);
    for number in 0..1_000 {
        transport.publish(say("closing.others", number.to_string())).expect("sent");
    }
    soon("close", transport.close()).await;
    for number in 0..1_000 {
        let message = hear(&mut others, "what was queued is sent").await;
        assert_eq!(text(&message), number.to_string());
    }
    assert!(soon("the subscription ends", mine.next()).await.is_none());
    assert!(soon("the watch ends", watch.next()).await.is_none());
    assert_eq!(*transport.status().borrow(), Status::Closed);
    let refused = transport.publish(say("closing.others", "late")).expect_err("it is closed");
    assert_eq!(refused.kind(), ErrorKind::Stopped, "{refused}");
    let refused = transport.subscribe(&Filter::of("closing.x"), None, 1).await.expect_err("it is closed");
    assert_eq!(refused.kind(), ErrorKind::Stopped, "{refused}");
    soon("a second close", transport.close()).await;
}
