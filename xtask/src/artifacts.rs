//! The workspace's own programs, built by cargo when they are needed.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Builds what cargo is told to, and gives the programs of these names.
pub(crate) fn build<const N: usize>(args: &[&str], names: [&str; N]) -> Result<[PathBuf; N]> {
    let output = crate::cargo()
        .args(["build", "--message-format=json-render-diagnostics"])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "{} cannot be built ({})", names.join(" and "), output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    // Cargo says where it put things; guessing would miss a target directory or a target of the user's own.
    let artifacts: Vec<Artifact> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut found = names.map(|_| PathBuf::new());
    for (place, name) in found.iter_mut().zip(names) {
        let mut programs = artifacts.iter().filter(|artifact| artifact.target.name == name);
        let program = programs.find_map(|artifact| artifact.executable.clone());
        *place = program.with_context(|| format!("cargo built no program named {name}"))?;
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
