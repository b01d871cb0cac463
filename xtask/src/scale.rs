//! `cargo xtask scale`: what ownership costs with many nodes.
//!
//! The measurement is a program of its own, `runtime/scale`; it needs neither a
//! server nor the network. This only builds and runs it.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

/// Builds the measurement for release and runs it with these arguments.
pub fn run(args: &[OsString]) -> Result<()> {
    let status = crate::cargo()
        .args(["run", "--quiet", "--release", "--package", "greenroom-scale", "--"])
        .args(args)
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "the measurement failed ({status})");
    Ok(())
}
