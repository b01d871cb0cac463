//! `cargo xtask test` and `cargo xtask lint`: what has to pass before a change goes in.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::tools::{self, NATS_CLI_VARIABLE, NATS_SERVER_VARIABLE, Tools};

/// The list of advisories is a small repository.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(3 * 60);

/// Runs every test of the workspace, documentation included, with the tools in place. `args` go to `cargo test`.
pub fn test(args: &[OsString], progress: &mut dyn FnMut(&str)) -> Result<()> {
    let tools = tools::provision(progress)?;
    let mut command = crate::cargo();
    command.arg("test");
    // --workspace would overrule a choice of packages.
    let chosen = args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
    if !chosen.into_iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        // The tests run them as processes. They would build what is missing, in the middle of a test.
        succeed(crate::cargo().args(["build", "--workspace", "--bins"]))?;
        command.arg("--workspace");
    }
    command.args(args).env(NATS_SERVER_VARIABLE, &tools.nats_server).env(NATS_CLI_VARIABLE, &tools.nats);
    succeed(&mut command)
}

/// Runs every check that is not a test, all of them even if one fails, and names those that failed.
pub fn lint(progress: &mut dyn FnMut(&str)) -> Result<()> {
    let tools = tools::provision(progress)?;
    let checks: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("format", &|| succeed(crate::cargo().args(["fmt", "--all", "--", "--check"]))),
        ("clippy", &|| {
            succeed(crate::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        }),
        ("documentation", &|| {
            succeed(crate::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
        }),
        ("nats.conf", &|| nats_conf(&tools)),
        ("dependencies", &dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("==> {name}");
        if let Err(error) = check() {
            println!("{error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "these checks failed: {}", failed.join(", "));
    Ok(())
}

/// The server must accept `nats.conf` and have nothing to remark on it: a setting that it misreads is only a warning
/// when it starts.
fn nats_conf(tools: &Tools) -> Result<()> {
    let mut command = Command::new(&tools.nats_server);
    command.arg("-t").arg("-c").arg(crate::workspace_root().join("nats.conf"));
    let finished = process::run(&mut command, Duration::from_secs(30), &mut || {})?;
    let remarks = finished.output.lines().filter(|line| !line.contains("is valid")).count();
    ensure!(finished.status.success() && remarks == 0, "{}", finished.output.trim_end());
    Ok(())
}

fn dependencies() -> Result<()> {
    let installed = crate::cargo()
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        println!(
            "NOT RUN: cargo-deny is not installed, so licences, advisories and sources were not checked. \
             `cargo install cargo-deny --locked` installs it."
        );
        return Ok(());
    }
    succeed(crate::cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;

    // Without a network there is no new list of advisories: that says nothing about the dependencies.
    let mut command = crate::cargo();
    command.args(["deny", "check", "advisories"]);
    let finished = process::run(&mut command, ADVISORIES_LIMIT, &mut || {})?;
    if finished.output.contains("failed to fetch advisory database") {
        println!("NOT RUN: the list of advisories cannot be fetched, so they were not checked.");
        return Ok(());
    }
    ensure!(finished.status.success(), "{}", finished.output.trim_end());
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once("cargo".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}
