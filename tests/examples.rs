//! The examples and the documentation's excerpts: that they run, and say what they say they do.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xtask::process::{Group, Launch, Process, Signal};

use crate::harness::{Profile, Server, eventually, example, nats};

/// None of them works for longer than a second; a busy machine may.
const LIMIT: Duration = Duration::from_secs(60);

/// Those that end by themselves, and what they print among other lines.
const BY_THEMSELVES: [(&str, &[&str]); 10] = [
    ("hello", &["ada greets Bob: greeting 1", "ada greets Eve: greeting 2"]),
    ("keyed", &["ada has 500 cents, bob 0", "refused: short by 400 cents"]),
    ("events", &["front #1: Tried { code: 1234 }", "front #2: Opened"]),
    ("follows", &["elm: books (from desk north), tea (from desk north)"]),
    ("tells", &["ada has tea #1, jam #2, bread #3"]),
    ("pool", &["12 pictures of 100 ms each in", "9000 wide: refused: at most 4096 wide"]),
    ("supervision", &["source: Running after 2 restarts", "in quarantine: [\"divider/bad\"]", "released, it says 20"]),
    ("local", &["two nodes: {\"east-", "one node:  {\"west-"]),
    ("ractor", &["tea: Some(350)", "gold: None"]),
    ("axum", &["HTTP/1.0 200 OK: 1", "HTTP/1.0 409 Conflict: {\"left\":1}"]),
];

/// An example as a process. Killed when dropped.
struct Example {
    process: Process,
    _dir: TempDir,
}

impl Example {
    async fn start(name: &str, args: &[&str], nats_url: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(example(name).await);
        let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("NATS_"));
        command.env_clear().envs(inherited).env("XDG_CONFIG_HOME", dir.path()).env_remove("RUST_LOG");
        command.env("NATS_URL", nats_url).args(args);
        let log = dir.path().join("log");
        let launch = Launch { name: name.to_owned(), command, log: Some(&log), group: Group::Shared, scratch: None };
        Self { process: Process::spawn(launch).expect("it starts"), _dir: dir }
    }

    /// The rest of the first line that begins so.
    async fn line(&mut self, begins: &str) -> String {
        eventually(LIMIT, &format!("a line that begins with {begins:?}"), async || {
            let output = self.process.output();
            let status = self.process.status().expect("it can be looked at");
            assert!(status.is_none(), "it has ended ({status:?}): {output}");
            // The last line may not be whole.
            let whole = output.rsplit_once('\n').map(|(whole, _)| whole.to_owned()).unwrap_or_default();
            whole.lines().find_map(|line| line.strip_prefix(begins)).map(str::to_owned).ok_or(output)
        })
        .await
    }

    async fn ended(&mut self) -> (ExitStatus, String) {
        let status = eventually(LIMIT, "it ends", async || {
            self.process.status().expect("it can be looked at").ok_or_else(|| self.process.output())
        })
        .await;
        (status, self.process.output())
    }

    /// Sends a signal that must end it in order.
    async fn stopped_by(&mut self, signal: Signal) -> String {
        self.process.signal(signal).expect("it can be signalled");
        let (status, output) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {output}");
        output
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_every_example_that_needs_no_server_runs() {
    for (name, said) in BY_THEMSELVES {
        // Nobody listens there: one that did look for a broker would fail.
        let mut example = Example::start(name, &[], "nats://127.0.0.1:1").await;
        let (status, output) = example.ended().await;
        assert_eq!(status.code(), Some(0), "{name}: {output}");
        for expected in said {
            assert!(output.contains(expected), "{name} does not say {expected:?}: {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_no_example_is_forgotten() {
    let mut names: Vec<_> = fs::read_dir(root().join("examples"))
        .expect("examples")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "lib")
        .collect();
    names.sort();
    let mut tested: Vec<_> =
        BY_THEMSELVES.iter().map(|(name, _)| *name).chain(["serve", "shelf", "reminders"]).collect();
    tested.sort_unstable();
    assert_eq!(names, tested);
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_c4_serve_answers_the_cli_and_drains_at_either_signal() {
    let server = Server::start(Profile::Plain).await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut serve = Example::start("serve", &[], server.url()).await;
        serve.line("ready ").await;
        let greeted = nats(&server, &["req", "demo.greeter.ada.hello", r#"{"from":"you"}"#]).await;
        assert_eq!(greeted.reply(), json!("ada greets you: greeting 1"));
        // As the README shows it.
        let mistaken = nats(&server, &["req", "demo.greeter.ada.hello", r#"{"form":"you"}"#]).await.body();
        let said = "greeter.hello takes {from: string}: missing field `from` at line 1 column 14";
        assert_eq!((&mistaken["code"], &mistaken["message"]), (&json!(400), &json!(said)), "{mistaken}");
        let output = serve.stopped_by(signal).await;
        assert!(output.ends_with("drained\n"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_c4_the_guides_program_answers_as_the_guide_says() {
    let server = Server::start(Profile::Plain).await;
    let mut shelf = Example::start("shelf", &[], server.url()).await;
    shelf.line("ready ").await;
    let req = async |verb: &str, body: &str| nats(&server, &["req", &format!("pantry.shelf.jam.{verb}"), body]).await;
    let guide = fs::read_to_string(root().join("docs/guide/start.md")).expect("the guide");
    for (verb, body) in [("put", r#"{"jars":3}"#), ("take", r#"{"jars":5}"#), ("look", ""), ("put", r#"{"jar":3}"#)] {
        let command = format!("$ nats req pantry.shelf.jam.{verb} '{body}'\n");
        let (_, said) = guide.split_once(&command).unwrap_or_else(|| panic!("not in the guide: {command}"));
        let said = said.lines().next().expect("an answer");
        let answer = req(verb, body).await;
        // What it leaves out at the end it marks.
        let shown = said.strip_suffix(",…}").unwrap_or(said);
        assert!(answer.stdout.starts_with(shown), "the guide says {said}: {answer:?}");
    }
    shelf.stopped_by(Signal::TERM).await;
}

/// Killed with a reminder armed, which falls due while nobody is there: done once, as soon as somebody is.
#[tokio::test(flavor = "multi_thread")]
async fn e5_a_reminder_outlives_kill_9_and_is_done_once() {
    let server = Server::start(Profile::Shop).await;
    let mut invoices = Example::start("reminders", &[], server.url()).await;
    invoices.line("ready ").await;
    let req = async |key: &str, verb: &str, body: &str| {
        nats(&server, &["req", &format!("shop.invoice.{key}.{verb}"), body]).await
    };
    for key in ["17", "18"] {
        // Two seconds.
        let opened = req(key, "open", r#"{"days":0.00002315}"#).await;
        assert!(opened.stdout.contains("a letter follows in 2.0"), "{opened:?}");
    }
    assert_eq!(req("18", "pay", "").await.reply(), json!(true));
    let wakes = nats(&server, &["stream", "subjects", "shop-rem", "--names"]).await;
    assert!(wakes.stdout.contains("shop.rem.s.invoice.17.payment."), "people can see it: {wakes:?}");
    invoices.process.signal(Signal::KILL).expect("it is killed");
    invoices.ended().await;
    eventually(LIMIT, "its time comes, with nobody there", async || {
        let due = nats(&server, &["stream", "subjects", "shop-rem", "--names"]).await;
        if due.stdout.contains("shop.rem.f.") { Ok(()) } else { Err(due.stdout) }
    })
    .await;
    let mut invoices = Example::start("reminders", &[], server.url()).await;
    assert_eq!(invoices.line("letter ").await, "1 for invoice 17");
    assert_eq!(req("17", "look", "").await.reply(), json!(1));
    assert_eq!(req("18", "look", "").await.reply(), json!(0), "it was paid");
    assert_eq!(req("17", "pay", "").await.reply(), json!(true), "the next letter is cancelled");
    let output = invoices.stopped_by(Signal::TERM).await;
    assert_eq!(output.matches("letter ").count(), 1, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_the_http_server_answers_until_it_is_told_to_stop() {
    let mut axum = Example::start("axum", &["127.0.0.1:0"], "nats://127.0.0.1:1").await;
    let address = axum.line("listening on http://").await;
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    let head = "POST /tickets/opera HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n";
    stream.write_all(format!("{head}{{\"seats\":2}}").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await;
    read.expect("it answers in time").expect("it answers");
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("\r\n\r\n1"), "{answer}");
    axum.stopped_by(Signal::TERM).await;
}

#[test]
fn the_readme_shows_hello_as_it_is() {
    let hello = fs::read_to_string(root().join("examples/hello.rs")).expect("the example");
    let code = &hello[hello.find("use greenroom").expect("an import")..];
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    assert!(readme.contains(&format!("```rust\n{code}```\n")), "the README shows another program than hello.rs");
    // What its head says of it.
    let lines = code.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//")).skip(1);
    let attributes = lines.clone().filter(|line| line.trim().starts_with("#[")).count();
    assert_eq!((lines.count(), attributes), (23, 6));
}

/// Whole programs in the documentation are its own tests. Parts of programs stand in examples, which compile.
#[test]
fn every_excerpt_of_the_guide_stands_in_an_example() {
    let read = |path: &Path| fs::read_to_string(path).expect("a file");
    let in_dir = |dir: &str| fs::read_dir(root().join(dir)).expect("a directory").map(|e| e.expect("an entry").path());
    let examples: Vec<_> =
        in_dir("examples").filter(|path| path.extension().is_some_and(|e| e == "rs")).map(|path| read(&path)).collect();
    let mut seen = 0;
    for page in in_dir("docs/guide") {
        for block in read(&page).split("```rust,ignore\n").skip(1) {
            let block = block.split("```").next().expect("an end");
            seen += 1;
            // Parts between blank lines may be apart in the example.
            let holds = |example: &&String| block.trim().split("\n\n").all(|part| example.contains(part));
            assert!(examples.iter().any(|example| holds(&example)), "{}: no example has\n{block}", page.display());
        }
    }
    assert_eq!(seen, 5, "excerpts in the guide");
}

fn root() -> std::path::PathBuf {
    xtask::workspace_root()
}
