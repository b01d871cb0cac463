//! `greenroom doctor`: what it says of brokers that are well, and of such as are not.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use xtask::broker::Cluster;

use crate::harness::{LEASE, Profile, Server, ShopNode, eventually, holds, nats, program, tools};

/// Long past the two seconds for which it waits for the broker's word.
const LIMIT: Duration = Duration::from_secs(30);
const USER_LINE: &str = r#""shop.user.*.*": "shop.@.{{partition(64,1)}}.user.{{wildcard(1)}}.{{wildcard(2)}}""#;

/// What a run of it printed.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Of each check the worst verdict, from the JSON.
    fn verdicts(&self) -> BTreeMap<String, String> {
        let report = self.json();
        let checks = report["checks"].as_array().expect("checks").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        worst(checks.map(|check| (text(&check["check"]), text(&check["verdict"]))))
    }

    /// The same, from what people read.
    fn verdicts_in_text(&self) -> BTreeMap<String, String> {
        let lines = self.stdout.lines().filter(|line| ["ok ", "warn ", "fail "].iter().any(|v| line.starts_with(v)));
        // "warn  direct reads   on: …"
        worst(lines.map(|line| {
            let mut parts = line.splitn(2, ' ');
            let verdict = parts.next().unwrap_or_default().to_owned();
            let rest = parts.next().unwrap_or_default().trim_start();
            (rest.split("  ").next().unwrap_or_default().to_owned(), verdict)
        }))
    }

    /// All that is said of a check that has this verdict.
    #[track_caller]
    fn of(&self, check: &str, verdict: &str) -> String {
        let report = self.json();
        let mut all = report["checks"].as_array().expect("checks").iter();
        let found = all.find(|found| found["check"] == check && found["verdict"] == verdict);
        let Some(found) = found else { panic!("{check} is not {verdict}: {report:#}") };
        ["found", "costs", "mend"].map(|part| found[part].as_str().unwrap_or_default()).join("\n")
    }
}

fn worst(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let rank = |verdict: &str| ["ok", "warn", "fail"].iter().position(|known| *known == verdict).expect("a verdict");
    let mut all = BTreeMap::new();
    for (check, verdict) in pairs {
        let slot = all.entry(check).or_insert_with(|| verdict.clone());
        if rank(&verdict) > rank(slot) {
            *slot = verdict;
        }
    }
    all
}

/// Which checks have that verdict.
fn with(verdicts: &BTreeMap<String, String>, verdict: &str) -> Vec<String> {
    verdicts.iter().filter(|(_, found)| *found == verdict).map(|(check, _)| check.clone()).collect()
}

async fn run(url: &str, args: &[&str]) -> Said {
    let mut command = Command::new(program("greenroom").await);
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("NATS_"));
    command.env_clear().envs(inherited).env("NATS_URL", url).env("XDG_CONFIG_HOME", "/nonexistent");
    command.arg("doctor").args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {args:?}")).expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// With the server's own monitoring port, as JSON.
async fn doctor(server: &Server, args: &[&str]) -> Said {
    let monitor = server.monitor_url();
    let all: Vec<&str> = ["--monitor", &monitor, "--json"].iter().chain(args).copied().collect();
    run(server.url(), &all).await
}

async fn custom(config: &str) -> Server {
    Server::start(Profile::Custom(config.to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repositorys_broker_with_a_node_has_nothing_but_known_warnings() {
    let server = Server::start(Profile::Shop).await;
    let node = ShopNode::spawn(&server, "all", &["--lease", LEASE]).await;
    let said = doctor(&server, &[]).await;
    let verdicts = said.verdicts();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(with(&verdicts, "fail"), Vec::<String>::new(), "{said:?}");
    // It runs on one server, which syncs every two minutes.
    assert_eq!(with(&verdicts, "warn"), ["replicas", "sync_interval"], "{said:?}");
    for check in
        ["server", "jetstream", "max_payload", "permissions", "forgery", "disconnects", "direct reads", "clock"]
    {
        assert_eq!(verdicts.get(check).map(String::as_str), Some("ok"), "{check}: {said:?}");
    }
    let mapping = said.of("mapping", "ok");
    assert!(mapping.contains("inventory, notification, order, payment, user go to 64 partitions"), "{mapping}");
    assert!(said.of("replicas", "warn").contains("nats stream edit KV_shop-own --replicas 3"), "{said:?}");
    assert!(said.of("sync_interval", "warn").contains("120 s"), "{said:?}");

    // People read the same.
    let text = run(server.url(), &["--monitor", &server.monitor_url()]).await;
    assert_eq!((text.verdicts_in_text(), text.code), (verdicts, Some(0)), "{text:?}");
    assert!(text.stdout.ends_with("0 failed, 2 warned, 10 ok\n"), "{text:?}");
    assert_eq!(doctor(&server, &["--strict"]).await.code, Some(1), "warnings count when asked to");

    // It has left nothing, and nobody has minded it.
    let all = r#"{"subjects_filter":">"}"#;
    let bucket = nats(&server, &["req", "$JS.API.STREAM.INFO.KV_shop-own", all]).await.body().to_string();
    let streams = nats(&server, &["req", "$JS.API.STREAM.NAMES", ""]).await.body().to_string();
    assert!(bucket.contains("member.") && !bucket.contains("doctor") && !streams.contains("doctor"), "{streams}");
    assert!(!node.log().contains(" WARN ") && !node.log().contains(" ERROR "), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_broker_works_at_a_cost_and_that_is_said() {
    let server = Server::start(Profile::Plain).await;
    // Nothing has run: nothing to say of the app, and no bucket is made by looking.
    let said = doctor(&server, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(0), vec![]), "{said:?}");
    assert!(said.of("streams", "ok").contains("no node of this app has run"), "{said:?}");
    let names = nats(&server, &["req", "$JS.API.STREAM.NAMES", ""]).await.body();
    assert_eq!(names["total"], json!(0), "{names}");

    let _node = ShopNode::spawn(&server, "user", &["--lease", LEASE]).await;
    let said = doctor(&server, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(0), vec![]), "{said:?}");
    assert!(said.of("mapping", "warn").contains(USER_LINE), "{said:?}");
    assert!(said.of("disconnects", "warn").contains("shop.node.sys.disconnect"), "{said:?}");
    assert!(said.of("forgery", "warn").contains(r#"deny: "shop.node.sys.>""#), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mapping_is_a_failure_with_the_right_line() {
    let wrong = USER_LINE.replace("(64,1)", "(32,1)");
    let server = custom(&format!("jetstream: enabled\nmappings: {{\n  {wrong}\n}}\n")).await;
    // Before anything has run.
    let said = doctor(&server, &["--actor", "user"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.of("mapping", "fail").contains(USER_LINE), "{said:?}");

    let mut node = ShopNode::launch(&server, "user", &[]).await;
    assert_eq!(node.exit(LIMIT).await.code(), Some(1), "{}", node.log());
    // A member that began under a mapping which was right then.
    let member = r#"{"id":"x-1","name":"x","hosts":{"user":{"version":"1","weight":1}},"started_ms":1}"#;
    let put = nats(&server, &["kv", "put", "shop-own", "member.x-1", member]).await;
    assert!(put.status.success(), "{put:?}");
    let said = doctor(&server, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["mapping".to_owned()]), "{said:?}");
    assert!(said.of("mapping", "fail").contains(USER_LINE), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_costs_is_said() {
    let mistaken = custom("jetstream { sync_interval: 2m }").await;
    let said = doctor(&mistaken, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["sync_interval".to_owned()]), "{said:?}");
    assert!(said.of("sync_interval", "fail").contains("two million seconds"), "{said:?}");

    let always = custom("jetstream { sync_interval: always }").await;
    assert!(doctor(&always, &[]).await.of("sync_interval", "ok").starts_with("always"));

    // Another server's settings are not taken for this one's.
    let unseen = run(mistaken.url(), &["--json"]).await;
    let how = unseen.of("sync_interval", "warn");
    assert!(unseen.code == Some(0) && how.contains("cannot be seen") && how.contains("--monitor"), "{unseen:?}");
    let other = run(always.url(), &["--json", "--monitor", &mistaken.monitor_url()]).await;
    assert!(other.of("sync_interval", "fail").contains("of the server"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_or_without_jetstream_it_says_so_in_one_sentence() {
    let mut server = custom("").await;
    let said = doctor(&server, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["jetstream".to_owned()]), "{said:?}");

    server.stop().await;
    let said = run(server.url(), &[]).await;
    assert_eq!((said.code, said.stdout.lines().count()), (Some(1), 1), "{said:?}");
    assert!(said.stdout.starts_with("fail  server  cannot connect to NATS at "), "{said:?}");
    assert!(said.stdout.contains(server.url()), "{said:?}");
    assert!(said.stderr.contains("connecting to the broker"), "what takes long is named: {said:?}");
    let json = run(server.url(), &["--json"]).await;
    assert_eq!((json.code, json.verdicts().get("server").map(String::as_str)), (Some(1), Some("fail")), "{json:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_as_typed_exits_with_2() {
    for args in [
        &["--nats", "http://127.0.0.1:4222"] as &[&str],
        &["--app", "Shop"],
        &["--actor", "order.*"],
        &["--monitor", "127.0.0.1:8222"],
        &["--loud"],
    ] {
        let said = run("nats://127.0.0.1:1", args).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{args:?}: {said:?}");
        assert!(said.stderr.contains(args[0]), "{args:?}: {said:?}");
    }
    let help = run("nats://127.0.0.1:1", &["--help"]).await;
    assert!(help.code == Some(0) && help.stdout.contains("NATS_URL") && help.stdout.contains("Examples:"), "{help:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_do_is_named() {
    let server = custom(
        r#"
        jetstream: enabled
        max_payload: 262144
        authorization {
            users: [{ user: u, password: p, permissions: {
                publish: { deny: ["shop.evt.>", "shop.node.sys.>"] }
                subscribe: { deny: ["$SRV.>"] }
            } }]
        }
        "#,
    )
    .await;
    let url = server.url().replace("nats://", "nats://u:p@");
    let said = doctor(&server, &["--nats", &url]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["permissions".to_owned()]), "{said:?}");
    let refused = said.of("permissions", "fail");
    assert!(refused.contains("publish to shop.evt.greenroom_doctor.doctor-"), "{refused}");
    assert!(refused.contains("subscribe to $SRV.PING") && refused.matches(" to ").count() < 8, "{refused}");
    said.of("forgery", "ok");
    assert!(said.of("max_payload", "warn").contains("196608"), "{said:?}");

    let inboxes = custom(
        r#"
        jetstream: enabled
        authorization { users: [{ user: u, password: p, permissions: { subscribe: { deny: "_INBOX.>" } } }] }
        "#,
    )
    .await;
    let url = inboxes.url().replace("nats://", "nats://u:p@");
    let said = doctor(&inboxes, &["--nats", &url]).await;
    assert!(said.code == Some(1) && said.of("server", "fail").contains("subscribe to _INBOX."), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_in_memory_or_with_direct_reads_is_named() {
    let server = Server::start(Profile::Plain).await;
    for (name, more) in [("order", r#""storage":"memory""#), ("user", r#""storage":"file","allow_direct":true"#)] {
        let config = format!(r#"{{"name":"shop-evt-{name}","subjects":["shop.evt.{name}.*"],{more}}}"#);
        nats(&server, &["req", &format!("$JS.API.STREAM.CREATE.shop-evt-{name}"), &config]).await.reply();
    }
    let said = doctor(&server, &[]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["storage".to_owned()]), "{said:?}");
    assert!(said.of("storage", "fail").contains("in memory: shop-evt-order\n"), "{said:?}");
    assert!(said.of("direct reads", "warn").contains("on: shop-evt-user\n"), "{said:?}");
    assert!(said.of("replicas", "warn").contains("shop-evt-order, shop-evt-user"), "{said:?}");
}

/// A server that says it is of another version.
struct Disguise {
    url: String,
    _links: JoinSet<()>,
}

impl Disguise {
    async fn of(server: &Server, version: &'static str) -> Self {
        let broker = server.url().trim_start_matches("nats://").to_owned();
        let own = server.monitor("/varz").await["version"].as_str().expect("a version").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        let mut links = JoinSet::new();
        links.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                all.spawn(disguise(client, broker.clone(), format!("\"version\":\"{own}\""), version));
            }
        });
        Self { url, _links: links }
    }
}

async fn disguise(client: TcpStream, broker: String, own: String, version: &str) {
    let Ok(broker) = TcpStream::connect(&broker).await else { return };
    let ((mut from_client, mut to_client), (mut from_broker, mut to_broker)) =
        (client.into_split(), broker.into_split());
    let other = format!("\"version\":\"{version}\"");
    let down = async {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_broker.read(&mut chunk).await {
            // Only what the server says of itself is text with such a field, and it comes in one piece.
            let told = match std::str::from_utf8(&chunk[..read]) {
                Ok(text) if text.starts_with("INFO ") => text.replace(&own, &other).into_bytes(),
                _ => chunk[..read].to_vec(),
            };
            if to_client.write_all(&told).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = down => {}
        _ = copy(&mut from_client, &mut to_broker) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_a_failure_and_a_node_warns_of_it() {
    let server = custom("jetstream { sync_interval: always }").await;
    let old = Disguise::of(&server, "2.14.8").await;
    let monitor = server.monitor_url();
    let said = run(&old.url, &["--json", "--monitor", &monitor]).await;
    assert_eq!((said.code, with(&said.verdicts(), "fail")), (Some(1), vec!["server".to_owned()]), "{said:?}");
    assert!(said.of("server", "fail").contains("2.14.9"), "{said:?}");
    let mut node = ShopNode::launch_with("user", &["--lease", LEASE], &[("NATS_URL", &old.url)]).await;
    node.ready().await;
    let warned = node.log().lines().filter(|line| line.contains(" WARN ") && line.contains("2.14.9")).count();
    assert_eq!(warned, 1, "{}", node.log());

    // Two versions in which `always` means less.
    let relaxed = Disguise::of(&server, "2.15.1").await;
    let said = run(&relaxed.url, &["--json", "--monitor", &monitor]).await;
    assert!(said.code == Some(0) && said.of("server", "warn").contains("2.15.2 or newer"), "{said:?}");
    doctor(&server, &[]).await.of("server", "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_warns_of_one_replica_in_a_cluster() {
    let cluster = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start(tools(), 3).expect("a cluster starts");
        cluster.wait_for_meta_leader(Duration::from_secs(60)).expect("a leader");
        cluster
    });
    let cluster = cluster.await.expect("no panic");
    let mut node = ShopNode::launch_with("user", &["--lease", LEASE], &[("NATS_URL", &cluster.urls())]).await;
    node.ready().await;
    eventually(Duration::from_secs(20), "it warns of its bucket, once", async || {
        let log = node.log();
        let warned = log.lines().filter(|line| line.contains(" WARN ") && line.contains("one replica in a cluster"));
        holds(warned.filter(|line| line.contains("KV_shop-own")).count() == 1, || log.clone())
    })
    .await;
    drop(node);
    tokio::task::spawn_blocking(move || drop(cluster)).await.expect("no panic");
}
