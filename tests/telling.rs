//! Durable tells between processes that are killed, and what the stock CLI and `greenroom dead` show of them.

use std::process::Stdio;
use std::time::Duration;

use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Connect, NatsTransport, StreamConfig, Transport};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use xtask::process::{Group, Launch, Process};

use crate::harness::{CliOutput, Profile, Server, eventually, example, holds, nats, program};

/// Longer than a lease of three seconds, and all that follows its end.
const LIMIT: Duration = Duration::from_secs(40);

/// The example `tells` as a node. Killed when dropped.
struct Tills {
    process: Process,
    _dir: TempDir,
}

impl Tills {
    async fn serve(server: &Server) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = std::process::Command::new(example("tells").await);
        let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("NATS_"));
        command.env_clear().envs(inherited).env("XDG_CONFIG_HOME", dir.path()).env_remove("RUST_LOG");
        command.env("NATS_URL", server.url()).arg("serve");
        let log = dir.path().join("log");
        let launch = Launch { name: "tells".into(), command, log: Some(&log), group: Group::Shared, scratch: None };
        let mut tills = Self { process: Process::spawn(launch).expect("it starts"), _dir: dir };
        eventually(LIMIT, "it is ready", async || {
            let status = tills.process.status().expect("it can be looked at");
            assert!(status.is_none(), "it has ended ({status:?}): {}", tills.process.output());
            holds(tills.process.output().contains("ready "), || tills.process.output())
        })
        .await;
        tills
    }

    fn kill9(&mut self) {
        self.process.kill().expect("it can be killed");
    }
}

async fn buy(server: &Server, what: &str) -> Value {
    let body = json!({ "what": what, "by": "ada" }).to_string();
    let mut last = None;
    for _ in 0..40 {
        // The same id each time: a sale whose answer was lost is made once.
        let id = format!("Nats-Msg-Id:{what}");
        let output = nats(server, &["req", "demo.till.1.buy", &body, "--raw", "-H", &id]).await;
        match serde_json::from_str(output.stdout.trim()) {
            Ok(Value::Number(number)) => return Value::Number(number),
            _ => last = Some(output),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("nothing was sold: {last:?}");
}

async fn receipts(server: &Server) -> CliOutput {
    nats(server, &["req", "demo.drawer.ada.receipts", "", "--raw"]).await
}

async fn until_receipts(server: &Server, expected: &[String]) {
    eventually(LIMIT, "the receipts have come", async || {
        let output = receipts(server).await;
        let found: Vec<String> =
            serde_json::from_str(output.stdout.trim()).map_err(|error| format!("{error}: {output:?}"))?;
        holds(found == expected, || format!("{found:?}"))
    })
    .await;
}

/// The node dies between the acknowledgement of the turn and the sending of what it sent: that comes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_saved_but_not_announced_cannot_happen() {
    let server = Server::start(Profile::Plain).await;
    // Nobody can make the command stream while another has its subjects: so nothing can be sent.
    let settings = Connect::try_from(server.url()).expect("an address").name("blocker");
    let transport = NatsTransport::connect(settings).await.expect("a connection");
    let taken = StreamConfig::new([Subjects::new(Name::new("demo").expect("a name")).commands()]);
    transport.stream("blocker", taken).await.expect("a stream");
    let mut tills = Tills::serve(&server).await;
    assert_eq!(buy(&server, "tea").await, json!(1));
    tills.kill9();
    // Saved:
    let record = nats(&server, &["stream", "get", "demo-evt-till", "--last-for", "demo.evt.till.1"]).await;
    assert!(record.stdout.contains("Greenroom-Outbox: 1"), "{record:?}");
    // and not announced.
    let streams = nats(&server, &["stream", "ls", "-n"]).await;
    assert!(!streams.stdout.contains("demo-cmd"), "{streams:?}");
    assert!(nats(&server, &["stream", "rm", "blocker", "-f"]).await.status.success());
    let _heir = Tills::serve(&server).await;
    until_receipts(&server, &["tea #1".to_owned()]).await;
    let queue = nats(&server, &["stream", "info", "demo-cmd", "--json"]).await;
    let info: Value = serde_json::from_str(&queue.stdout).expect("json");
    assert_eq!((&info["config"]["retention"], &info["state"]["messages"]), (&json!("workqueue"), &json!(0)), "{info}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_nodes_killed_again_and_again_announce_everything_once() {
    let server = Server::start(Profile::Plain).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let mut tills = Tills::serve(&server).await;
        for number in 0..6 {
            let what = format!("thing-{round}-{number}");
            let sold = buy(&server, &what).await;
            expected.push(format!("{what} #{sold}"));
        }
        tills.kill9();
    }
    let _last = Tills::serve(&server).await;
    until_receipts(&server, &expected).await;
}

async fn dead(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program("greenroom").await);
    command.args(["dead", "--app", "demo", "--nats", server.url()]).args(args);
    command.stdin(Stdio::null()).env_remove("NATS_CONTEXT").kill_on_drop(true);
    let output =
        tokio::time::timeout(Duration::from_secs(30), command.output()).await.expect("it ends").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// By hand: a message for the stream, what it comes to, and what is left of one that cannot be delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_dead_letters_are_seen_and_replayed_by_hand() {
    let server = Server::start(Profile::Plain).await;
    let (code, _, stderr) = dead(&server, &["ls"]).await;
    assert!(code == Some(2) && stderr.contains("no node of the app demo has ever run"), "{stderr}");
    let _tills = Tills::serve(&server).await;
    let (code, stdout, stderr) = dead(&server, &["ls"]).await;
    assert!(code == Some(0) && stdout.contains("no dead letters"), "{stdout}{stderr}");
    buy(&server, "tea").await;
    until_receipts(&server, &["tea #1".to_owned()]).await;
    // Anybody may publish there.
    let put = async |verb: &str, body: &str| {
        let output = nats(&server, &["req", &format!("demo.cmd.drawer.ada.{verb}"), body, "--raw"]).await;
        assert!(output.stdout.contains("\"stream\":\"demo-cmd\""), "the stream acknowledges it: {output:?}");
    };
    put("receipt", r#"{"what":"by hand","number":7}"#).await;
    put("receit", r#"{"what":"misspelt","number":8}"#).await;
    put("receipt", "no json").await;
    put("receipt", r#"{"what":"by hand","number":9}"#).await;
    until_receipts(&server, &["tea #1", "by hand #7", "by hand #9"].map(str::to_owned)).await;
    let seen = nats(&server, &["stream", "get", "demo-dead", "1"]).await;
    assert!(seen.stdout.contains("misspelt") && seen.stdout.contains("Greenroom-Dead-Kind: unknown_verb"), "{seen:?}");
    let (_, stdout, stderr) = dead(&server, &["ls", "--json"]).await;
    let letters: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let kinds: Vec<&str> = letters.as_array().expect("a list").iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds, ["unknown_verb", "bad_request"], "{letters:#}");
    let (_, stdout, _) = dead(&server, &["show", "1"]).await;
    for part in
        ["drawer/ada", "receit", "unknown_verb", "it has receipt, receipts", "misspelt", "demo.cmd.drawer.ada.receit"]
    {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    // It comes back for the same reason: replaying mends nothing.
    let (code, stdout, stderr) = dead(&server, &["replay", "1"]).await;
    assert!(code == Some(0) && stdout.contains("replayed 1"), "{stdout}{stderr}");
    eventually(LIMIT, "it is back among the dead letters", async || {
        let (_, stdout, _) = dead(&server, &["ls", "--json"]).await;
        let letters: Value = serde_json::from_str(&stdout).map_err(|error| error.to_string())?;
        let sequences: Vec<_> =
            letters.as_array().into_iter().flatten().filter_map(|one| one["sequence"].as_u64()).collect();
        holds(sequences == [2, 3], || letters.to_string())
    })
    .await;
    let (code, _, stderr) = dead(&server, &["replay", "1"]).await;
    assert!(code == Some(1) && stderr.contains("there is no dead letter 1"), "{stderr}");
    let (code, stdout, _) = dead(&server, &["discard", "2", "3"]).await;
    assert!(code == Some(0) && stdout.contains("discarded 2") && stdout.contains("discarded 3"), "{stdout}");
    let (_, stdout, _) = dead(&server, &["ls"]).await;
    assert!(stdout.contains("no dead letters"), "{stdout}");
}
