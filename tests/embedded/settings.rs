//! Settings that cannot be used: refused before anything runs, by name, and with what would be right.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::{Connect, MemoryBroker};
use greenroom::{HostOptions, NodeBuilder};

use super::desk::DeskService;
use super::ground::bounded;
use super::ledger::LedgerActor;
use super::probe::ProbeActor;

/// What is set, how, and what the refusal must say.
type Wrong = (&'static str, fn(NodeBuilder) -> NodeBuilder, &'static [&'static str]);

const WRONG: &[Wrong] = &[
    ("a lease of no time", |node| node.lease(Duration::ZERO), &["lease", "whole seconds"]),
    ("a lease of half a second", |node| node.lease(Duration::from_millis(500)), &["lease", "500ms", "whole seconds"]),
    ("a lease of 1.5 s", |node| node.lease(Duration::from_millis(1_500)), &["lease", "1.5s", "whole seconds"]),
    ("a renewal of no time", |node| node.renew_every(Duration::ZERO), &["renew", "twice"]),
    (
        "a renewal once in its life",
        |node| node.lease(Duration::from_secs(3)).renew_every(Duration::from_secs(2)),
        &["renew", "2s", "3s", "twice"],
    ),
    ("no partitions", |node| node.partitions(0), &["0", "partitions", "1 to 16,384"]),
    ("too many partitions", |node| node.partitions(20_000), &["20000", "partitions", "1 to 16,384"]),
    ("no mailbox", |node| node.mailbox(0), &["mailbox"]),
    ("no calls in flight", |node| node.in_flight(0), &["in_flight"]),
    ("no payload", |node| node.payload_max(0), &["payload_max"]),
    ("no activations", |node| node.activations(0), &["activations"]),
    ("a mailbox without end", |node| node.mailbox(usize::MAX), &["mailbox", "1,000,000"]),
    ("calls in flight without end", |node| node.in_flight(usize::MAX), &["in_flight", "16,000,000"]),
    ("a lease without end", |node| node.lease(Duration::from_secs(u64::MAX)), &["lease", "24 h"]),
    ("a renewal without end", |node| node.renew_every(Duration::MAX), &["renew", "twice"]),
    ("no budget", |node| node.budget(Duration::ZERO), &["budget"]),
    ("a name with a dot", |node| node.name("a.b"), &["\"a.b\"", "name for a node"]),
    ("an empty name", |node| node.name(""), &["\"\"", "name for a node"]),
    ("a name that is too long", |node| node.name("n".repeat(65)), &["name for a node", "64"]),
    ("an actor twice", |node| node.host::<ProbeActor>().host::<ProbeActor>(), &["probe", "twice"]),
    (
        "no instances",
        |node| node.host_with::<DeskService>(HostOptions::new().pool(0)),
        &["desk", "pool", "1 to 256", "0"],
    ),
    (
        "too many instances",
        |node| node.host_with::<DeskService>(HostOptions::new().pool(257)),
        &["desk", "pool", "1 to 256", "257"],
    ),
    (
        "no weight",
        |node| node.host_with::<ProbeActor>(HostOptions::new().weight(0)),
        &["probe", "weight", "1 to 10,000"],
    ),
    ("an address of another kind", |node| node.connect("http://127.0.0.1:4222"), &["http", "nats://"]),
    ("no address", |node| node.connect(""), &["nats://"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_settings_that_cannot_be_used_are_named() {
    bounded(async {
        for (what, set, told) in WRONG {
            let started = set(Node::local("demo")).start().await;
            let error = started.map(|node| node.id().to_owned()).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Config, "{what}: {error}");
            for text in *told {
                assert!(error.message().contains(text), "{what} must say {text:?}: {error}");
            }
        }
    })
    .await;
}

/// Whatever can be set is either refused or taken: nothing panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_times_and_bounds_without_end_do_no_harm() {
    bounded(async {
        let builder = Node::local("demo").host::<ProbeActor>().host::<DeskService>();
        let builder = builder.budget(Duration::MAX).payload_max(usize::MAX).activations(usize::MAX);
        let node = builder.mailbox(1_000_000).in_flight(16_000_000).start().await.expect("a node starts");
        let client = node.clone();
        client.actor::<super::probe::Probe>("k").ask(super::probe::Add { by: 1 }).await.expect("an answer");
        client.service::<super::desk::Desk>().ask(super::desk::Who).await.expect("an answer");
        tokio::spawn(async move { node.drain_within(Duration::MAX).await }).await.expect("no panic").expect("drained");
    })
    .await;
}

#[tokio::test]
async fn c4_names_that_no_app_can_have_are_refused() {
    for app in ["", "Shop", "shop-2", "shop.x", "2shop", "node", "evt", "@", "*", &"a".repeat(65)] {
        let error = Node::local(app).start().await.map(drop).expect_err(app);
        assert_eq!(error.kind(), ErrorKind::Config, "{app:?}: {error}");
        assert!(error.message().contains(&format!("{app:?}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_an_app_keeps_the_partitions_it_was_born_with() {
    bounded(async {
        let broker = MemoryBroker::new();
        let node = |name: &str| Node::builder("demo").memory(&broker).name(name).host::<ProbeActor>();
        let first = node("first").partitions(16).start().await.expect("a node starts");
        let error = node("other").partitions(32).start().await.map(drop).expect_err("it disagrees");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("16") && error.message().contains("32"), "{error}");
        let second = node("second").start().await.expect("it takes what there is");
        assert_eq!((first.info().partitions, second.info().partitions), (16, 16));
        first.drain().await.expect("drained");
        second.drain().await.expect("drained");
        let third = node("third").start().await.expect("a node starts");
        assert_eq!(third.info().partitions, 16, "also when nobody is there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_mapping_for_other_partitions_is_refused_with_the_line_to_write() {
    bounded(async {
        let broker = MemoryBroker::new();
        broker.map_partitions("demo", "probe", 32);
        let node = |name: &str| Node::builder("demo").memory(&broker).name(name).host::<ProbeActor>();
        let error = node("wrong").partitions(8).start().await.map(drop).expect_err("the broker counts otherwise");
        assert_eq!(error.kind(), ErrorKind::Config);
        let line = r#""demo.probe.*.*": "demo.@.{{partition(8,1)}}.probe.{{wildcard(1)}}.{{wildcard(2)}}""#;
        assert!(error.message().contains(line), "{error}");
        // Another actor has no mapping, and needs none.
        let unmapped = Node::builder("demo").memory(&broker).host::<LedgerActor>().start().await;
        unmapped.expect("a node starts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_broker_that_is_not_there_is_said_with_its_address() {
    bounded(async {
        // Nothing listens on the port of a listener that was closed.
        let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port");
        let url = format!("nats://{address}");
        let settings = Connect::try_from(url.as_str()).expect("an address").timeout(Duration::from_millis(500));
        let error = Node::builder("demo").connect(settings).start().await.map(drop).expect_err("nobody is there");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    })
    .await;
}
