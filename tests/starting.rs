//! Starting a node: the command line, the environment, and what it refuses.

use std::time::{Duration, Instant};

use greenroom::{ErrorKind, Node};
use serde_json::json;

use crate::harness::{Info, LEASE, Profile, Server, ShopNode, all_partitions, eventually, holds, nats};

/// A mistake must not be waited for; a broker that is not there is waited for, but not for ever.
const ENDS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_node_says_what_is_wrong_with_its_command_line() {
    let server = Server::start(Profile::Plain).await;
    for (hosts, args, code, said) in [
        ("orders", &[][..], 2, "user, order, payment, inventory, notification"),
        ("order", &["--lease", "1500ms"], 1, "whole seconds"),
        ("order", &["--lease", "soon"], 2, "30s"),
        ("order", &["--name", "a b"], 1, "letters, digits"),
        ("order", &["--app", "Shop"], 1, "lower-case"),
        ("order", &["--nats", "http://127.0.0.1:1"], 1, "nats://"),
    ] {
        let mut node = ShopNode::launch(&server, hosts, args).await;
        let status = node.exit(ENDS).await;
        assert_eq!(status.code(), Some(code), "{hosts} {args:?}: {}", node.log());
        assert!(node.log().contains(said), "{hosts} {args:?}: {}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_node_without_a_broker_says_so_and_ends() {
    let mut server = Server::start(Profile::Plain).await;
    let url = server.url().to_owned();
    server.stop().await;
    let mut node = ShopNode::launch(&server, "order", &["--nats", &url]).await;
    let status = node.exit(ENDS).await;
    assert_eq!(status.code(), Some(1), "{}", node.log());
    assert!(node.log().contains(&url.replace("nats://", "")), "it names the broker: {}", node.log());

    let server = Server::start(Profile::Custom("max_payload: 1MB\n".to_owned())).await;
    let mut node = ShopNode::launch(&server, "order", &[]).await;
    let status = node.exit(ENDS).await;
    assert_eq!(status.code(), Some(1), "{}", node.log());
    assert!(node.log().contains("JetStream"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_node_finds_its_broker_as_the_cli_does() {
    let server = Server::start(Profile::Plain).await;
    // The flag wins over the variable.
    let mut by_flag =
        ShopNode::launch_with("user", &["--nats", server.url()], &[("NATS_URL", "nats://127.0.0.1:1")]).await;
    let by_flag = by_flag.ready().await;

    // A context that the CLI itself has saved, by name and then as the selected one.
    let config = tempfile::tempdir().expect("a directory");
    let dir = config.path().to_string_lossy().into_owned();
    let save = ["context", "save", "here", "--server", server.url(), "--description", "a test's", "--select"];
    let saved = std::process::Command::new(&crate::harness::tools().nats)
        .env("XDG_CONFIG_HOME", &dir)
        .args(save)
        .output()
        .expect("the CLI runs");
    assert!(saved.status.success(), "{saved:?}");
    let named = [("XDG_CONFIG_HOME", &*dir), ("NATS_CONTEXT", "here")];
    let mut by_context = ShopNode::launch_with("user", &[], &named).await;
    let by_context = by_context.ready().await;
    let mut by_selection = ShopNode::launch_with("user", &[], &[("XDG_CONFIG_HOME", &dir)]).await;
    let by_selection = by_selection.ready().await;

    // All three have found the same broker, and so each other.
    let listed = nats(&server, &["req", "shop.node.any.info", ""]).await.reply();
    for id in [by_flag, by_context, by_selection] {
        assert!(listed.to_string().contains(&id), "{id}: {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_any_number_of_nodes_with_nothing_but_the_url_make_one_app() {
    let server = Server::start(Profile::Plain).await;
    let variables = [("NATS_URL", server.url())];
    let mut nodes = Vec::new();
    for hosts in ["user", "all", "user,order", "all"] {
        let mut node = ShopNode::launch_with(hosts, &["--name", "member"], &variables).await;
        node.ready().await;
        nodes.push(node);
    }
    eventually(Duration::from_secs(10), "the users are shared by all four, the payments by two", async || {
        let info = Info::of(&server, "any").await;
        let sharing = |actor: &str| nodes.iter().filter(|node| !info.owned_by(actor, &node.id()).is_empty()).count();
        let complete = info.owned("user") == all_partitions() && info.owned("payment") == all_partitions();
        holds(complete && (sharing("user"), sharing("order"), sharing("payment")) == (4, 3, 2), || info.0.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_two_apps_share_a_broker_and_nothing_else() {
    let server = Server::start(Profile::Shop).await;
    let (shop, bazaar) = tokio::join!(
        ShopNode::spawn(&server, "user", &["--lease", LEASE]),
        ShopNode::spawn(&server, "user", &["--lease", LEASE, "--app", "bazaar"])
    );
    let ada = r#"{"name":"Ada","email":"ada@example.com"}"#;
    nats(&server, &["req", "shop.user.u-1.register", ada]).await.reply();
    let elsewhere = nats(&server, &["req", "bazaar.user.u-1.get", ""]).await;
    assert_eq!(elsewhere.header("Nats-Service-Error-Code").as_deref(), Some("404"), "{elsewhere:?}");
    assert_eq!(Info::of(&server, "any").await.nodes(), [shop.id()]);
    let other = nats(&server, &["req", "bazaar.node.any.info", ""]).await.reply();
    assert_eq!((&other["app"], &other["node"]), (&json!("bazaar"), &json!(bazaar.id())), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_node_with_other_partitions_than_the_app_refuses_to_start() {
    let server = Server::start(Profile::Plain).await;
    let mut born = ShopNode::spawn(&server, "user", &[]).await;
    let node = async |partitions| Node::builder("shop").connect(server.url()).partitions(partitions).start().await;
    let refused = node(32).await.expect_err("the app has 64");
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    for part in ["born with 64", "has 32"] {
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    // Whoever says the same, or nothing, joins.
    node(64).await.expect("it joins").drain().await.expect("it leaves");
    let silent = Node::builder("shop").connect(server.url()).start().await.expect("it joins");
    silent.drain().await.expect("it leaves");

    // The number outlives all nodes: it is the app's.
    assert!(born.terminate().await.success(), "{}", born.log());
    let began = Instant::now();
    let refused = node(32).await.expect_err("the app still has 64");
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
