//! The broker's mapping of calls to partitions: with it, without it, and with a wrong one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    CliOutput, Info, LEASE, Listener, Profile, Server, ShopNode, all_partitions, eventually, holds, key_in, nats,
};

/// Where a node is handed a call that came to another one.
const PASSED_ON: &str = "shop.node.*.call";

/// Two nodes that share the users, each with its half: nothing changes hands any more.
async fn two_nodes(server: &Server) -> (ShopNode, ShopNode) {
    let node = async || ShopNode::spawn(server, "user", &["--lease", LEASE]).await;
    let (first, second) = tokio::join!(node(), node());
    eventually(Duration::from_secs(10), "each partition has one owner that listens", async || {
        let info = Info::of(server, "any").await;
        let shared = [&first, &second].iter().all(|node| info.owned_by("user", &node.id()).len() > 16);
        let subscriptions = subscriptions(server).await;
        let listening = subscriptions.iter().filter(|(subject, _)| subject.starts_with("shop.@.")).count();
        let settled = shared && info.owned("user") == all_partitions() && listening == all_partitions().len();
        holds(settled, || format!("{listening} listen; {}", info.0))
    })
    .await;
    (first, second)
}

/// Registers a user in every partition and gives what the CLI was told.
async fn register_everywhere(server: &Server) -> Vec<CliOutput> {
    let mut answers = Vec::new();
    for partition in all_partitions() {
        let subject = format!("shop.user.{}.register", key_in(partition, "u"));
        let ada = r#"{"name":"Ada","email":"ada@example.com"}"#;
        answers.push(nats(server, &["req", &subject, ada]).await);
    }
    answers
}

/// Subject and queue group of every subscription on the server.
async fn subscriptions(server: &Server) -> Vec<(String, String)> {
    let connections = server.monitor("/connz?subs=detail&limit=1000").await;
    let connections = connections["connections"].as_array().into_iter().flatten();
    let details = connections.filter_map(|connection| connection["subscriptions_list_detail"].as_array()).flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    details.map(|detail| (text(&detail["subject"]), text(&detail["qgroup"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_with_the_mapping_calls_reach_their_owner_without_a_hop() {
    let server = Server::start(Profile::Shop).await;
    let _nodes = two_nodes(&server).await;
    // The mapping covers it and nobody hosts it: 503 at once, not a time-out.
    let nobody = nats(&server, &["req", "shop.payment.o-1.get", ""]).await;
    assert!(nobody.no_responders() && nobody.took < Duration::from_secs(4), "{nobody:?}");

    let mut passed_on = Listener::start(&server, PASSED_ON, &["--subjects-only"]).await;
    for answer in register_everywhere(&server).await {
        assert_eq!(answer.reply()["name"], json!("Ada"), "{answer:?}");
    }
    assert_eq!(passed_on.lines_until_quiet(Duration::from_millis(500)).await, Vec::<String>::new());

    let subscriptions = subscriptions(&server).await;
    assert!(!subscriptions.iter().any(|(_, group)| group == "forward"), "{subscriptions:?}");
    for partition in all_partitions() {
        let owner = format!("shop.@.{partition}.user.");
        let owners = subscriptions.iter().filter(|(subject, _)| subject.starts_with(&owner)).count();
        assert_eq!(owners, 1, "{owner}: {subscriptions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_without_a_mapping_any_host_passes_calls_on() {
    let server = Server::start(Profile::Plain).await;
    let (first, second) = two_nodes(&server).await;
    let mut passed_on = Listener::start(&server, PASSED_ON, &["--subjects-only"]).await;
    let answers = register_everywhere(&server).await;
    for answer in &answers {
        assert_eq!(answer.reply()["name"], json!("Ada"), "{answer:?}");
    }
    let passed_on = passed_on.lines_until_quiet(Duration::from_millis(500)).await;
    let to = |node: &ShopNode| passed_on.iter().filter(|line| line.contains(&node.id())).count();
    // Either host gets about half, and owns about half of those.
    assert!(to(&first) > 0 && to(&second) > 0 && passed_on.len() < answers.len(), "{passed_on:#?}");

    let subscriptions = subscriptions(&server).await;
    let forwarders = subscriptions.iter().filter(|(subject, group)| subject == "shop.user.*.*" && group == "forward");
    assert_eq!(forwarders.count(), 2, "{subscriptions:?}");
    // What is wrong with a call is said all the same.
    let wrong = nats(&server, &["req", "shop.user.=41.get", ""]).await;
    assert_eq!(wrong.header("Nats-Service-Error-Code").as_deref(), Some("400"), "{wrong:?}");
    let wrong = nats(&server, &["req", "shop.user.u-1.got", ""]).await;
    assert_eq!(wrong.header("Nats-Service-Error-Code").as_deref(), Some("404"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_wrong_mapping_is_refused_at_the_start_with_the_right_line() {
    // Other partitions than the app's; the verb hashed as well; another actor's keys.
    for partition in ["partition(32,1)", "partition(64,1,2)"] {
        let line =
            format!(r#""shop.user.*.*": "shop.@.{{{{{partition}}}}}.user.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}""#);
        let config = format!("jetstream: enabled\nmappings: {{\n  {line}\n}}\n");
        let server = Server::start(Profile::Custom(config)).await;
        let mut node = ShopNode::launch(&server, "user", &[]).await;
        let status = node.exit(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(1), "{partition}: {}", node.log());
        let right = r#""shop.user.*.*": "shop.@.{{partition(64,1)}}.user.{{wildcard(1)}}.{{wildcard(2)}}""#;
        assert!(node.log().contains(right), "{partition}: {}", node.log());
        assert!(node.ids().is_empty(), "{partition}: {}", node.log());
        // It left nothing that others would wait for.
        let listed = nats(&server, &["req", "shop.node.any.info", ""]).await;
        assert!(listed.no_responders(), "{partition}: {listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_mapping_of_some_actors_leaves_the_others_to_be_passed_on() {
    let line = r#""shop.user.*.*": "shop.@.{{partition(64,1)}}.user.{{wildcard(1)}}.{{wildcard(2)}}""#;
    let config = format!("jetstream: enabled\nmappings: {{\n  {line}\n}}\n");
    let server = Server::start(Profile::Custom(config)).await;
    let _node = ShopNode::spawn(&server, "user,payment", &["--lease", LEASE]).await;
    let subscriptions = subscriptions(&server).await;
    let forwards: Vec<_> = subscriptions.iter().filter(|(_, group)| group == "forward").collect();
    assert_eq!(forwards, [&("shop.payment.*.*".to_owned(), "forward".to_owned())], "{subscriptions:?}");
    eventually(Duration::from_secs(20), "both answer", async || {
        let user = nats(&server, &["req", "shop.user.u-1.get", ""]).await;
        let payment = nats(&server, &["req", "shop.payment.o-1.get", ""]).await;
        let absent = |output: &CliOutput| output.header("Nats-Service-Error-Code").as_deref() == Some("404");
        holds(absent(&user) && absent(&payment), || format!("{user:?} {payment:?}"))
    })
    .await;
}

/// A host that passes calls on may find their owner dead. Nobody is left without an answer for it.
#[tokio::test(flavor = "multi_thread")]
async fn c3_c5_without_a_mapping_a_dead_owner_leaves_no_call_without_an_answer() {
    let server = Server::start(Profile::Plain).await;
    let (mut first, second) = two_nodes(&server).await;
    let owned = Info::of(&server, "any").await.owned_by("user", &first.id());
    first.kill9();
    let calls = owned.iter().map(async |partition| {
        let subject = format!("shop.user.{}.register", key_in(*partition, "u"));
        nats(&server, &["req", &subject, r#"{"name":"Ada","email":"ada@example.com"}"#]).await
    });
    // A few at a time: the CLI's own start is not what is looked at.
    let answers: Vec<CliOutput> = futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(calls),
        6,
    ))
    .await;
    let silent: Vec<_> = answers.iter().filter(|answer| answer.stdout.trim().is_empty()).collect();
    assert!(silent.is_empty(), "{} of {}: {:?}\n{}", silent.len(), answers.len(), silent[0], second.log());
    for answer in &answers {
        let code = answer.header("Nats-Service-Error-Code");
        assert!(matches!(code.as_deref(), None | Some("503" | "504")), "{answer:?}");
    }
    assert!(answers.iter().any(|answer| answer.header("Nats-Service-Error-Code").is_none()), "{answers:?}");
}
