//! The demo's customers as a process.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::{Server, program, tools};

/// A thousand orders take seconds; on a busy machine, many.
const LIMIT: Duration = Duration::from_secs(120);

/// What `shop-demo` printed and wrote.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The figures that it wrote for programs; null if it wrote none.
    pub(crate) figures: Value,
}

impl Demo {
    /// Runs `shop-demo` with the repository's data to its end.
    pub(crate) async fn run(server: &Server, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let json = dir.path().join("figures.json");
        let mut command = Command::new(program("shop-demo").await);
        command.current_dir(xtask::workspace_root()).args(["--nats", server.url()]);
        command.arg("--nats-cli").arg(&tools().nats).arg("--json").arg(&json).args(args);
        command.env("XDG_CONFIG_HOME", dir.path()).env_remove("NATS_CONTEXT").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("shop-demo did not end within {LIMIT:?}"));
        let output = output.expect("shop-demo can be run");
        let figures = std::fs::read(&json).ok().and_then(|figures| serde_json::from_slice(&figures).ok());
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            figures: figures.unwrap_or_default(),
        }
    }
}
