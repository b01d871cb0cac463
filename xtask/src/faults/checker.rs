//! Porcupine, as a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::rig::Call;
use crate::tools;

/// The judge of histories.
#[derive(Clone, Debug)]
pub struct Porcupine {
    program: PathBuf,
}

/// What it says.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    /// Whether the calls of every key are linearizable.
    pub ok: bool,
    /// How many calls that rests on.
    pub operations: u64,
    /// Of each key: `ok`, `illegal`, or `unknown` if the search took too long.
    pub keys: BTreeMap<String, String>,
    /// Pictures of those that are not.
    #[serde(default)]
    pub pictures: Vec<PathBuf>,
}

impl Judged {
    /// Whether that is said of a key.
    pub fn says(&self, word: &str) -> bool {
        self.keys.values().any(|key| key == word)
    }
}

impl Porcupine {
    /// Finds it, or builds it.
    pub fn find(progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Ok(Self { program: tools::porcupine(progress)? })
    }

    /// Judges these calls, key by key, with so much time for each. The history, and pictures of what is not linearizable
    /// or could not be decided in that time, are written to `dir`.
    pub fn judge(&self, calls: &[Call], patience: Duration, dir: &Path) -> Result<Judged> {
        let mut lines = String::new();
        for call in calls {
            lines.push_str(&serde_json::to_string(call)?);
            lines.push('\n');
        }
        let history = dir.join("history.jsonl");
        fs::write(&history, lines).with_context(|| format!("cannot write {}", history.display()))?;
        let mut command = Command::new(&self.program);
        command.arg("--timeout").arg(format!("{}s", patience.as_secs()));
        command.arg("--visual").arg(dir).arg(&history).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("{} cannot be run", self.program.display()))?;
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "the history cannot be judged ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("what the judge says cannot be read")
    }
}
