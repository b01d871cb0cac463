//! The broker against the real server, and `nats.conf` against the real server and the real CLI.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use super::*;
use crate::tools;

fn tools() -> Tools {
    tools::provision(&mut |line| eprintln!("{line}")).expect("tools")
}

fn shop() -> (Tools, Broker) {
    let tools = tools();
    let broker = Broker::start(&tools, BrokerOptions { config: Profile::Shop }).expect("it starts");
    (tools, broker)
}

/// What the CLI says and whether it succeeded, with no flags but the address: no user, no context.
fn nats(tools: &Tools, broker: &Broker, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(&tools.nats);
    command.env("NATS_URL", broker.url()).env("XDG_CONFIG_HOME", broker.dir()).args(args);
    let finished = crate::process::run(&mut command, Duration::from_secs(30), &mut || {}).expect("the CLI runs");
    (finished.status.success(), finished.output)
}

/// A CLI process that waits for messages, killed when dropped.
struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Listener {
    /// Returns when the server knows of its subscription.
    fn start(tools: &Tools, broker: &Broker, args: &[&str], subject: &str) -> Self {
        let mut child = Command::new(&tools.nats)
            .env("NATS_URL", broker.url())
            .env("XDG_CONFIG_HOME", broker.dir())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the CLI starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let listener = Self { child, lines };
        wait_for_interest(broker, subject, true);
        listener
    }

    fn line_with(&mut self, text: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.expect("readable"));
        lines.find(|line| line.contains(text)).expect("the CLI ended before it printed that")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_interest(broker: &Broker, subject: &str, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let connections = broker.monitor("/connz?acc=APP&subs=1").expect("the monitor answers");
        if connections.to_string().contains(&format!("\"{subject}\"")) == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "interest in {subject}: still {}", !wanted);
        thread::sleep(POLL);
    }
}

#[test]
fn it_starts_stops_and_cleans_up() {
    let mut broker = Broker::start(&tools(), BrokerOptions::default()).expect("it starts");
    let dir = broker.dir().to_path_buf();
    let (pid, port) = (broker.pid(), broker.port());
    assert!(greeting(port).is_ok());
    assert!(broker.logs().contains("Server is ready"), "{}", broker.logs());
    assert!(broker.stop().expect("it stops").is_some_and(|status| status.success()));
    assert!(is_free(port));

    broker.restart().expect("it starts again");
    assert_ne!(pid, broker.pid());
    assert!(dir.join("store").is_dir());
    drop(broker);
    assert!(is_free(port) && !dir.exists(), "something was left behind");
}

#[test]
fn a_killed_broker_keeps_its_port_and_its_store() {
    let tools = tools();
    let mut broker = Broker::start(&tools, BrokerOptions::default()).expect("it starts");
    let url = broker.url();
    let made = nats(&tools, &broker, &["stream", "add", "kept", "--subjects", "kept.*", "--defaults"]);
    assert!(made.0, "{}", made.1);
    assert!(nats(&tools, &broker, &["req", "kept.a", "x"]).1.contains("\"seq\":1"));
    broker.kill9().expect("it dies");
    assert!(greeting(broker.port()).is_err());
    broker.restart().expect("it starts again");
    assert_eq!(broker.url(), url);
    assert!(nats(&tools, &broker, &["req", "kept.a", "x"]).1.contains("\"seq\":2"));
}

#[test]
fn a_config_the_server_refuses_is_an_error_with_its_words() {
    let config = Profile::Custom("no_such_setting: 1\n".to_owned());
    let error = Broker::start(&tools(), BrokerOptions { config }).expect_err("refused");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn a_taken_port_is_told_apart_from_other_failures() {
    let tools = tools();
    let first = Broker::start(&tools, BrokerOptions::default()).expect("it starts");
    let error =
        Broker::start_detached(&tools, BrokerOptions::default(), Some(first.port())).expect_err("the port is taken");
    assert!(error.is::<PortTaken>(), "{error:#}");
}

#[test]
fn three_servers_elect_a_leader_and_another_when_it_dies() {
    let tools = tools();
    let mut cluster = Cluster::start(&tools, 3).expect("it starts");
    let limit = Duration::from_secs(60);
    let leader = cluster.wait_for_meta_leader(limit).expect("a leader");
    let add = ["stream", "add", "three", "--subjects", "three", "--replicas", "3", "--defaults"];
    let (ok, output) = nats(&tools, &cluster.brokers()[0], &add);
    assert!(ok, "{output}");
    cluster.broker_mut(leader).expect("a member").kill9().expect("it dies");
    assert_ne!(cluster.wait_for_meta_leader(limit).expect("a leader"), leader);
}

#[test]
fn the_shop_needs_no_credentials_and_maps_calls_to_partitions() {
    let (tools, broker) = shop();
    assert!(nats(&tools, &broker, &["pub", "hello", "x"]).0);
    for actor in ["user", "order", "payment", "inventory", "notification"] {
        let owner = format!("shop.@.3.{actor}.42.place");
        let responder = Listener::start(&tools, &broker, &["reply", &owner, "from the owner"], &owner);
        let (ok, output) = nats(&tools, &broker, &["req", &format!("shop.{actor}.42.place"), "x"]);
        assert!(ok && output.contains("from the owner"), "{actor}: {output}");
        drop(responder);
        wait_for_interest(&broker, &owner, false);
    }
    let (_, output) = nats(&tools, &broker, &["req", "shop.order.42.place", "x"]);
    assert!(output.contains("No responders"), "{output}");
}

#[test]
fn the_shop_tells_of_a_killed_client_and_nobody_can_forge_that() {
    let (tools, broker) = shop();
    let notices = "shop.node.sys.disconnect";
    let mut watcher = Listener::start(&tools, &broker, &["sub", notices, "--raw"], notices);
    let args = ["--connection-name", "the-victim", "sub", "anything"];
    let victim = Listener::start(&tools, &broker, &args, "anything");
    drop(victim); // SIGKILL
    let notice = watcher.line_with("the-victim");
    assert!(notice.contains("io.nats.server.advisory.v1.client_disconnect"), "{notice}");

    let (ok, output) = nats(&tools, &broker, &["pub", notices, "forged"]);
    assert!(!ok && output.contains("Permissions Violation"), "{output}");
}
