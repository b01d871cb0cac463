//! `cargo xtask bench`: the measurements, on the same tools as everything else.
//!
//! They are a workspace of their own, so that the systems greenroom is compared
//! with never enter its lock file. This only builds and runs them.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::artifacts;
use crate::tools::{self, NATS_CLI_VARIABLE, NATS_SERVER_VARIABLE};

/// Builds `bench/` for release and runs it with these arguments.
pub fn run(args: &[OsString], progress: &mut dyn FnMut(&str)) -> Result<()> {
    let manifest = manifest()?;
    let tools = tools::provision(progress)?;
    let status = crate::cargo()
        .args(["run", "--release", "--manifest-path"])
        .arg(&manifest)
        .arg("--")
        .args(args)
        .env(NATS_SERVER_VARIABLE, &tools.nats_server)
        .env(NATS_CLI_VARIABLE, &tools.nats)
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "the measurements failed ({status})");
    Ok(())
}

/// Builds the servers and clients of the systems that greenroom is compared with over the network, and says where they
/// are.
///
/// It is an invocation of its own: in one with `bench/` itself, cargo would turn on their features of ractor and kameo
/// for what is measured on one node too.
pub fn build_peers() -> Result<PathBuf> {
    const NAME: &str = "greenroom-bench-peers";
    let manifest = manifest()?;
    let manifest = manifest.to_str().context("the path of the workspace is not UTF-8")?;
    let [program] = artifacts::build(&["--release", "--manifest-path", manifest, "--package", NAME], [NAME])?;
    Ok(program)
}

fn manifest() -> Result<PathBuf> {
    let manifest = crate::workspace_root().join("bench/Cargo.toml");
    ensure!(manifest.is_file(), "there is nothing to measure with: {} does not exist", manifest.display());
    Ok(manifest)
}
