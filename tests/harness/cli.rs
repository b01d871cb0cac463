//! The stock `nats` CLI, as a person runs it: no context, no credentials, only the address.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Server, eventually, holds, tools};

/// Longer than any command here may take; the CLI's own timeout is 5 s.
const LIMIT: Duration = Duration::from_secs(20);

/// What a command of the CLI printed.
#[derive(Clone, Debug)]
pub(crate) struct CliOutput {
    /// Of a request: the body of the answer, and nothing else.
    pub(crate) stdout: String,
    /// Of a request: what was sent, how long it took, and the headers of the answer.
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
    /// How long the command took, with the start of its process.
    pub(crate) took: Duration,
}

impl CliOutput {
    /// The headers of the answer to a request, in the order in which they were printed.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        // "14:40:14 Nats-Service-Error-Code: 404"
        let printed = self.stderr.lines().filter_map(|line| line.split_once(' ').map(|(_time, rest)| rest));
        let pairs = printed.filter_map(|line| line.split_once(": "));
        let named = pairs.filter(|(name, _)| !name.is_empty() && !name.contains(' '));
        named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// One header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self.headers().into_iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// The body of the answer as JSON.
    #[track_caller]
    pub(crate) fn body(&self) -> Value {
        match serde_json::from_str(self.stdout.trim()) {
            Ok(body) => body,
            Err(error) => panic!("the answer is not JSON ({error}): {self:?}"),
        }
    }

    /// The body of an answer that must not be an error.
    #[track_caller]
    pub(crate) fn reply(&self) -> Value {
        assert!(self.status.success(), "{self:?}");
        assert_eq!(self.header("Nats-Service-Error-Code"), None, "{self:?}");
        self.body()
    }

    /// Whether the broker said at once that nobody listens there: its 503.
    pub(crate) fn no_responders(&self) -> bool {
        self.stderr.contains("No responders are available")
    }
}

/// Runs the CLI: `nats(&server, &["req", "shop.order.o-1.get", ""])`. Bounded in time.
pub(crate) async fn nats(server: &Server, args: &[&str]) -> CliOutput {
    run(command(server, args), LIMIT).await
}

/// Sends so many requests one right after the other; `{{Count}}` in subject and body numbers them.
/// Gives the answers that came, each a line.
pub(crate) async fn nats_many(server: &Server, subject: &str, body: &str, count: usize) -> Vec<String> {
    let all = command(server, &["req", subject, body, "--raw", "--count", &count.to_string()]);
    // One is over within a millisecond, where nothing else runs.
    let limit = LIMIT + Duration::from_millis(100) * u32::try_from(count).expect("not that many");
    let output = run(all, limit).await;
    let answers: Vec<_> = output.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    assert_eq!(answers.len(), count, "calls without an answer: {}{}", output.stdout, output.stderr);
    answers
}

/// Runs a line that begins with `nats` as a shell would that finds the CLI on its `PATH`. Bounded in time.
pub(crate) async fn shell(server: &Server, line: &str) -> CliOutput {
    let script = format!("nats() {{ \"$NATS_PROGRAM\" \"$@\"; }}\n{line}");
    let mut command = started(server, "/bin/sh");
    command.arg("-c").arg(script).env("NATS_PROGRAM", &tools().nats);
    run(command, LIMIT).await
}

fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = started(server, &tools().nats);
    command.args(args);
    command
}

fn started(server: &Server, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("NATS_"));
    command
        .env_clear()
        .envs(inherited)
        .env("NATS_URL", server.url())
        // No context that the developer has selected.
        .env("XDG_CONFIG_HOME", no_config())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A directory that does not exist. The CLI only reads from it here.
fn no_config() -> PathBuf {
    std::env::temp_dir().join("greenroom-no-nats-config")
}

async fn run(mut command: Command, limit: Duration) -> CliOutput {
    let began = Instant::now();
    let child = command.spawn().expect("the nats CLI starts");
    let ended = child.wait_with_output();
    let shown = format!("{:?}", command.as_std());
    let output = match tokio::time::timeout(limit, ended).await {
        Ok(output) => output.expect("the CLI can be waited for"),
        Err(_) => panic!("not within {limit:?}: {shown}"),
    };
    CliOutput {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status,
        took: began.elapsed(),
    }
}

/// A `nats sub` that runs until it is dropped.
pub(crate) struct Listener {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Listener {
    /// Subscribes, and returns when the server knows of the subscription. Each line it prints is
    /// one message's subject or body, as `args` say: `["--subjects-only"]` or `["--raw"]`.
    pub(crate) async fn start(server: &Server, subject: &str, args: &[&str]) -> Self {
        let all: Vec<&str> = ["sub", subject].iter().chain(args).copied().collect();
        let mut child = command(server, &all).stderr(Stdio::null()).spawn().expect("the nats CLI starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        eventually(LIMIT, "the CLI's subscription is there", async || {
            let connections = server.monitor("/connz?subs=1").await.to_string();
            holds(connections.contains(&format!("\"{subject}\"")), || connections)
        })
        .await;
        Self { _child: child, lines, seen: Vec::new() }
    }

    /// The first line from here on that `wanted` accepts; bounded in time.
    pub(crate) async fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let search = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                self.seen.push(line.clone());
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        };
        match tokio::time::timeout(LIMIT, search).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the CLI ended before it printed {what}; it printed {:#?}", self.seen),
            Err(_) => panic!("not within {LIMIT:?}: {what}; the CLI printed {:#?}", self.seen),
        }
    }

    /// The lines that come until nothing has come for `quiet`.
    pub(crate) async fn lines_until_quiet(&mut self, quiet: Duration) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(Ok(Some(line))) = tokio::time::timeout(quiet, self.lines.next_line()).await {
            all.push(line);
        }
        all
    }
}
