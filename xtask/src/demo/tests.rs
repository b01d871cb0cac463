//! The stage with a real broker, and shell scripts for the shop's programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const GOOD_NODE: &str = "trap 'echo drained >>\"$0.log\"; exit 0' TERM
echo \"ready $*\"
while :; do sleep 0.02; done";

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("executable");
    path
}

fn stage(dir: &TempDir, node: &str, demo: &str) -> (Stage, Interrupt) {
    let tools = tools::provision(&mut |line| eprintln!("{line}")).expect("tools");
    let programs = Programs { node: script(dir.path(), "node", node), demo: script(dir.path(), "demo", demo) };
    let interrupt = Interrupt::default();
    (Stage::new(tools, programs, interrupt.clone()).expect("a stage"), interrupt)
}

#[test]
fn nodes_start_the_demo_gets_its_arguments_and_all_of_them_drain() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (mut stage, _) = stage(&dir, GOOD_NODE, "echo \"$*\" >\"$0.args\"");
    assert_eq!(stage.open(false, &mut |_| {}).expect("it opens"), Outcome::Done);
    let url = stage.url().expect("a broker");
    let options = DemoOptions { orders: Some(7), json: Some("figures.json".into()), ..DemoOptions::default() };
    assert_eq!(stage.play(&options, &mut |_| {}).expect("it plays"), Outcome::Done);
    stage.close(&mut |_| {}).expect("it closes");

    let args = fs::read_to_string(dir.path().join("demo.args")).expect("written by the demo");
    for expected in [format!("--nats {url} "), "examples/data/orders.jsonl --nats-cli /".into(), "--count 7".into()] {
        assert!(args.contains(&expected), "{expected:?} is missing in {args:?}");
    }
    assert!(args.contains("--json figures.json"), "{args}");
    let drained = fs::read_to_string(dir.path().join("node.log")).expect("written by the nodes");
    assert_eq!(drained.lines().count(), 6);
}

#[test]
fn a_node_and_the_broker_are_killed_on_the_way_and_come_back() {
    let dir = tempfile::tempdir().expect("a temp dir");
    // The file it writes its progress to stands behind the option of that name.
    let demo = "while [ \"$1\" != --progress ]; do shift; done
for done in 39 40 60 75 100; do echo \"$done of 100\" >\"$2\"; sleep 1; done";
    let (mut stage, _) = stage(&dir, GOOD_NODE, demo);
    stage.open(false, &mut |_| {}).expect("it opens");
    let mut told = Vec::new();
    let played = stage.play(&DemoOptions::default(), &mut |line| told.push(line.to_owned())).expect("it plays");
    assert_eq!(played, Outcome::Done);
    let expected = [
        "killed   shop-node 2 (order) with SIGKILL",
        "started  shop-node 2 (order) again",
        "killed   the broker with SIGKILL",
        "started  the broker again, on the same store",
    ];
    assert_eq!(told, expected);
    stage.close(&mut |_| {}).expect("it closes");
    let drained = fs::read_to_string(dir.path().join("node.log")).expect("written by the nodes");
    assert_eq!(drained.lines().count(), 6, "the one that was killed drains when it is back");
}

#[test]
fn a_node_that_ends_early_is_named_with_its_last_words() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (mut stage, _) = stage(&dir, "echo 'no such stream' >&2; exit 3", "exit 0");
    let error = stage.open(false, &mut |_| {}).expect_err("it cannot open").to_string();
    assert!(error.contains("shop-node 1 (user)") && error.contains("exit status: 3"), "{error}");
    assert!(error.contains("no such stream"), "{error}");
}

#[test]
fn a_failing_demo_and_a_node_that_drains_badly_are_errors() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let node = GOOD_NODE.replace("exit 0", "echo lost an actor; exit 4");
    let (mut stage, _) = stage(&dir, &node, "exit 5");
    stage.open(false, &mut |_| {}).expect("it opens");
    let error = stage.play(&DemoOptions::default(), &mut |_| {}).expect_err("it fails").to_string();
    assert!(error.contains("shop-demo failed (exit status: 5)"), "{error}");
    let error = stage.close(&mut |_| {}).expect_err("they fail").to_string();
    assert_eq!(error.matches("exit status: 4").count(), 6, "{error}");
    assert!(error.contains("lost an actor"), "{error}");
}

#[test]
fn an_interrupt_ends_every_phase() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (mut stage, interrupt) = stage(&dir, GOOD_NODE, "sleep 60; true");
    stage.open(false, &mut |_| {}).expect("it opens");
    interrupt.raise();
    assert_eq!(stage.play(&DemoOptions::default(), &mut |_| {}).expect("it is cut short"), Outcome::Interrupted);
    stage.stay().expect("that is how it ends");
    stage.close(&mut |_| {}).expect("it closes");
    assert_eq!(stage.open(false, &mut |_| {}).expect("it is cut short"), Outcome::Interrupted);
}

#[test]
fn the_invitation_can_be_copied_as_it_stands() {
    let plain = invitation("nats://127.0.0.1:4222", None);
    assert!(COMMANDS.iter().all(|command| plain.contains(command)) && !plain.contains("--server"), "{plain}");
    let elsewhere = invitation("nats://127.0.0.1:24222", Some(Path::new("/cache/nats")));
    assert_eq!(elsewhere.matches("\n  nats --server nats://127.0.0.1:24222 ").count(), COMMANDS.len(), "{elsewhere}");
    assert!(elsewhere.contains("alias nats='/cache/nats'\n") && !plain.contains("alias"), "{elsewhere}");
}
