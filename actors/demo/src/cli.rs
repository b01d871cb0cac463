//! Orders as a person places them: by `nats req`, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use greenroom::error::{ErrorBody, REFUSED};
use greenroom::{AskError, Error, ErrorKind, Key};
use shop_contract::order::PlaceRefused;
use tokio::process::Command;

use crate::data::OrderRow;
use crate::place::{Answer, Placing, message, persist};

/// The stock `nats` CLI and where it finds the shop.
pub(crate) struct NatsCli {
    program: PathBuf,
    server: Option<String>,
    app: String,
    /// Tells the ids of this run from those of another.
    run: u128,
}

impl NatsCli {
    /// Without a server it goes by its own environment, as the demo does.
    pub(crate) fn new(program: &Path, server: Option<&str>, app: &str) -> Self {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        Self { program: program.to_owned(), server: server.map(str::to_owned), app: app.to_owned(), run }
    }

    /// Fails early if there is no such program.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let program = self.program.display();
        let hint = || format!("cannot run the nats CLI as {program}; name it by --nats-cli, or say --cli-sample 0");
        let output = Command::new(&self.program).arg("--version").output().await.with_context(hint)?;
        ensure!(output.status.success(), "{}: it ends with {}", hint(), output.status);
        Ok(())
    }

    /// Places an order through the CLI. What is not answered is sent again under the same id, so that it takes effect
    /// once; what was refused for now is another command.
    pub(crate) async fn place<'a>(&self, order: &'a OrderRow, patience: Duration) -> Placing<'a> {
        let mut command = 1;
        let ask = async || {
            let answer = self.request(order, command).await;
            if matches!(answer, Err(AskError::Refused(_))) {
                command += 1;
            }
            Answer::of(answer)
        };
        persist(order, patience, ask).await
    }

    async fn request(
        &self,
        order: &OrderRow,
        command: u32,
    ) -> Result<shop_contract::order::Placed, AskError<PlaceRefused>> {
        let id = format!("Nats-Msg-Id: demo-{}-{}-{command}", self.run, order.id);
        let subject = format!("{}.order.{}.place", self.app, Key::new(&order.id)?.token());
        let body = serde_json::to_string(&message(order)).map_err(unreadable)?;
        let mut command = Command::new(&self.program);
        if let Some(server) = &self.server {
            command.args(["--server", server]);
        }
        command.args(["request", &subject, &body, "--raw", "--no-templates", "--timeout", "4s", "-H", &id]);
        // It would read a body from its input if that were open.
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Error::new(ErrorKind::Config, "the nats CLI cannot be run").with_source(error))?;
        if let Ok(placed) = serde_json::from_slice(&output.stdout) {
            return Ok(placed);
        }
        match serde_json::from_slice::<ErrorBody>(&output.stdout) {
            Ok(body) if body.kind == REFUSED => {
                let refused = serde_json::from_value(body.details.unwrap_or_default());
                Err(AskError::Refused(refused.map_err(unreadable)?))
            }
            Ok(body) => Err(AskError::Failed(body.into())),
            // No answer came: it may be on its way, or nobody was asked. Asking again tells.
            Err(_) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let stdout = String::from_utf8_lossy(&output.stdout);
                let message = format!("nats req {subject}: {} {}", stderr.trim(), stdout.trim());
                Err(AskError::Failed(Error::new(ErrorKind::Unknown, message)))
            }
        }
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadReply, "not what the contract says").with_source(error)
}
