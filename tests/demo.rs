//! A thousand orders of the demo's data, and what must add up afterwards.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use xtask::process::{Group, Launch, Process, Signal};

use crate::harness::{
    Audit, Demo, LEASE, Listener, Profile, Server, Shop, ShopNode, eventually, holds, program, shell, tools,
};

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_thousand_orders_add_up() {
    let shop = Shop::open().await;
    let demo = Demo::run(&shop.server, &["--cli-sample", "10"]).await;
    assert!(demo.status.success(), "{demo:?}");
    let figures = &demo.figures;
    assert_eq!((&figures["orders"], &figures["cli_orders"]), (&json!(1000), &json!(10)), "{demo:?}");
    assert_eq!(figures["failed"], json!(0), "{demo:?}");
    for holds in ["stock_adds_up", "money_adds_up", "answers_hold", "streams_add_up"] {
        assert_eq!(figures[holds], json!(true), "{holds}: {demo:?}");
    }
    let refused = figures["refused"].as_object().expect("by reason");
    for reason in ["out_of_stock", "card_declined"] {
        assert!(refused.get(reason).and_then(|count| count.as_u64()) > Some(0), "{reason}: {demo:?}");
    }
    let all: u64 = refused.values().filter_map(|count| count.as_u64()).sum();
    assert_eq!(figures["confirmed"].as_u64().map(|confirmed| confirmed + all), Some(1000), "{demo:?}");
    // The same for people.
    assert!(demo.stdout.contains("failed     0") && demo.stdout.contains("\nstreams    prove it: "), "{demo:?}");
    // The audit alone finds what the demo has told.
    let audit = Audit::of(&shop.server).await.adds_up();
    assert_eq!((&audit["confirmed"], &audit["stuck"]), (&figures["confirmed"], &json!(0)), "{audit}");
    let net = audit["charged_cents"].as_u64().zip(audit["refunded_cents"].as_u64());
    assert_eq!(net.map(|(charged, refunded)| charged - refunded), figures["net_cents"].as_u64(), "{audit}");
    let everywhere = ["free", "reserved", "sold"].iter().filter_map(|what| audit[what].as_u64()).sum::<u64>();
    assert_eq!(audit["restocked"].as_u64(), Some(everywhere), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_the_demo_says_when_orders_fail() {
    let server = Server::start(Profile::Shop).await;
    // Nobody charges cards.
    let _shop = ShopNode::spawn(&server, "user,order,inventory,notification", &["--lease", LEASE]).await;
    let demo = Demo::run(&server, &["--count", "20", "--cli-sample", "1", "--patience", "2"]).await;
    assert_eq!(demo.status.code(), Some(1), "{demo:?}");
    assert!(format!("{}{}", demo.stdout, demo.stderr).contains("payment"), "it names what is missing: {demo:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_whatever_the_demo_says_to_try_succeeds() {
    let shop = Shop::open().await;
    let few = ["--count", "20", "--cli-sample", "1"];
    let demo = Demo::run(&shop.server, &few).await;
    assert!(demo.status.success(), "{demo:?}");
    for line in xtask::demo::COMMANDS {
        if let Some(subject) = line.strip_prefix("nats sub '").and_then(|rest| rest.strip_suffix('\'')) {
            // It ends with Ctrl-C, so it is listened to while something happens.
            let mut events = Listener::start(&shop.server, subject, &["--subjects-only"]).await;
            shell(&shop.server, xtask::demo::COMMANDS[3]).await.reply();
            events.line("an event", |line| line.contains("shop.on.inventory.")).await;
            continue;
        }
        let output = shell(&shop.server, line).await;
        assert!(output.status.success() && !output.no_responders(), "{line}: {output:?}");
        assert_eq!(output.header("Nats-Service-Error-Code"), None, "{line}: {output:?}");
    }
    // Nor does what a person has tried disturb a demo that comes after.
    let demo = Demo::run(&shop.server, &few).await;
    assert!(demo.status.success(), "{demo:?}");
}

/// Where each of its children is known by: every path that they are given lies below it.
fn running_below(dir: &str) -> Vec<String> {
    let listed = Command::new("ps").args(["-e", "-ww", "-o", "pid=,args="]).output().expect("ps can be run");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().filter(|line| line.contains(dir)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_ctrl_c_ends_the_demo_and_all_that_it_has_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_string_lossy().into_owned();
    // A cargo that has built everything already, in a directory of this test's.
    let mut artifacts = String::new();
    for name in ["shop-node", "shop-demo"] {
        let here = dir.path().join(name);
        std::os::unix::fs::symlink(program(name).await, &here).expect("a link");
        artifacts += &format!("echo '{}'\n", json!({ "target": { "name": name }, "executable": here }));
    }
    let cargo = dir.path().join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\n{artifacts}")).expect("a file");
    fs::set_permissions(&cargo, Permissions::from_mode(0o755)).expect("executable");
    let server = dir.path().join("nats-server");
    std::os::unix::fs::symlink(&tools().nats_server, &server).expect("a link");

    let mut command = Command::new(program("xtask").await);
    command.arg("demo").env("CARGO", cargo).env("TMPDIR", dir.path());
    command.env("GREENROOM_NATS_SERVER", server).env("GREENROOM_NATS_CLI", &tools().nats);
    let log = dir.path().join("demo.log");
    let launch = Launch { name: "xtask demo".to_owned(), command, log: Some(&log), group: Group::Own, scratch: None };
    let mut demo = Process::spawn(launch).expect("it starts");
    eventually(Duration::from_secs(60), "customers place orders", async || {
        assert!(demo.status().expect("it can be looked at").is_none(), "too early: {}", demo.output());
        let running = running_below(&path);
        let placing = running.iter().any(|line| line.contains("/shop-demo ") && line.contains("--orders"));
        holds(placing, || format!("{running:?} {}", demo.output()))
    })
    .await;
    let nodes = running_below(&path).iter().filter(|line| line.contains("/shop-node ")).count();
    assert!(nodes >= 6, "they can be seen: {:?}", running_below(&path));

    demo.signal(Signal::INT).expect("it can be signalled");
    let status = eventually(Duration::from_secs(40), "it ends", async || {
        demo.status().expect("it can be looked at").ok_or_else(|| demo.output())
    })
    .await;
    assert_eq!(status.code(), Some(130), "{}", demo.output());
    assert!(demo.output().contains("all nodes drained, broker stopped"), "{}", demo.output());
    eventually(Duration::from_secs(20), "nothing of it is left", async || {
        let left = running_below(&path);
        holds(left.is_empty(), || format!("{left:?}"))
    })
    .await;
}
