//! What the project's own commands are made of.
//!
//! `cargo xtask` is the thin binary over this library; the integration tests use
//! the library itself, so that a test, the demo and a developer's shell all get
//! the same server from the same place.
//!
//! - [`tools`] finds or fetches `nats-server` and the `nats` CLI.
//! - [`broker`] runs a real server, or a cluster of them, in a directory of its own.
//! - [`process`] starts child processes that cannot outlive their owner.
//! - [`orders`] generates the data of the demo.
//! - [`rig`] is what `failover` and `faults` stand on: nodes and callers that write down every call.
//! - [`failover`], [`faults`], [`demo`], [`checks`], [`mod@bench`], [`sim`], [`scale`] and [`mutants`] are the commands
//!   themselves.
//!
//! It needs a Unix: processes are stopped with signals. It knows nothing of the
//! runtime crate, so it still builds when that one does not.

pub mod tools;

pub mod broker;

pub mod process;

pub mod orders;

pub mod rig;

pub mod failover;

pub mod faults;

pub mod demo;

pub mod checks;

pub mod bench;

pub mod sim;

pub mod scale;

pub mod mutants;

mod artifacts;

mod interrupt;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace, where `nats.conf` and the root `Cargo.toml` lie.
pub fn workspace_root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}

/// The cargo that runs us, or else the one on `PATH`, to be run in the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` tells us of this package is not for build scripts of others: some would build anew because of it.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(workspace_root());
    command
}
