//! `cargo xtask demo`: the shop on this machine, a broker and six nodes, and a thousand orders through it.
//!
//! On the way one of the nodes that share the orders is killed and started again, and then the broker.
//!
//! This is only the stage: it builds, starts, waits, stops. What is placed and
//! what must hold afterwards is the business of `shop-demo`. Whatever happens in
//! between, nothing is left running.

mod stage;
#[cfg(test)]
mod tests;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::artifacts;
use crate::interrupt::Interrupt;
use crate::tools;
use stage::{Outcome, Stage};

/// What a developer would try first, while the shop stays open.
pub const COMMANDS: [&str; 14] = [
    r#"nats req shop.order.o-1.place '{"user":"u-7","lines":[{"sku":"tea-01","qty":2}],"card":"tok_ok"}'"#,
    "nats req shop.order.o-1.get ''",
    "nats stream get shop-evt-order -S shop.evt.order.o-1",
    r#"nats req shop.inventory.tea-01.restock '{"qty":100}'"#,
    "nats req shop.inventory.tea-01.get ''",
    r#"nats req shop.user.u-7.register '{"name":"Ada","email":"ada@example.com"}'"#,
    "nats req shop.payment.o-1.get ''",
    "nats sub 'shop.on.>'",
    r#"nats pub shop.notification.u-7.notify '{"text":"hello"}'"#,
    "nats micro ls",
    "nats micro info shop-order",
    "nats micro stats shop-order",
    "nats micro ping",
    "nats req shop.node.any.info ''",
];

/// What of the demo can be chosen.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    /// Keep the shop open afterwards, until Ctrl-C.
    pub stay: bool,
    /// Place only so many orders.
    pub orders: Option<u32>,
    /// Kill nothing on the way.
    pub calm: bool,
    /// Write the figures to this file.
    pub json: Option<PathBuf>,
}

/// Runs the demo. The exit code is 0 if it succeeded, or if it stayed open and was ended by Ctrl-C; 130 if it was
/// interrupted before it was through.
pub fn run(options: &DemoOptions, progress: &mut dyn FnMut(&str)) -> Result<ExitCode> {
    let tools = tools::provision(progress)?;
    let programs = build()?;
    // Not before: until here Ctrl-C may simply end us, and does.
    let interrupt = Interrupt::listen().context("cannot listen for Ctrl-C")?;

    let mut stage = Stage::new(tools, programs, interrupt)?;
    let outcome = stage.open(options.stay, progress).and_then(|outcome| match outcome {
        Outcome::Done => stage.play(options, progress),
        Outcome::Interrupted => Ok(Outcome::Interrupted),
    });
    let outcome = match outcome {
        Ok(Outcome::Done) if options.stay => {
            let cli = Some(stage.cli()).filter(|cli| !is_on_path(cli));
            print!("{}", invitation(&stage.url()?, cli));
            // Only Ctrl-C ends this, and that is how it is meant to end.
            stage.stay().map(|()| Outcome::Done)
        }
        outcome => outcome,
    };
    let closed = stage.close(progress);
    // What went wrong first is the cause; what goes wrong while closing may follow from it.
    let outcome = outcome?;
    closed?;
    Ok(match outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Interrupted => ExitCode::from(130),
    })
}

/// The two programs of the shop.
#[derive(Clone, Debug)]
struct Programs {
    node: PathBuf,
    demo: PathBuf,
}

/// Builds them in the profile that the tests use too, so that nothing is compiled twice.
fn build() -> Result<Programs> {
    let [node, demo] = artifacts::build(&["--workspace", "--bins"], ["shop-node", "shop-demo"])?;
    Ok(Programs { node, demo })
}

/// The commands to try, such that they can be copied as they stand. `cli` is where `nats` lies if a shell would not
/// find it.
fn invitation(url: &str, cli: Option<&Path>) -> String {
    let default = url.ends_with(":4222");
    let mut text = String::from("\nThe shop stays open until Ctrl-C. In another terminal:\n\n");
    if let Some(cli) = cli {
        text.push_str(&format!("  alias nats='{}'\n", cli.display()));
    }
    for command in COMMANDS {
        let command =
            if default { command.to_owned() } else { command.replacen("nats ", &format!("nats --server {url} "), 1) };
        text.push_str(&format!("  {command}\n"));
    }
    if !default {
        text.push_str("\n(Port 4222 is taken by another process, hence --server.)\n");
    }
    text.push('\n');
    text
}

fn is_on_path(program: &Path) -> bool {
    let dirs = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&dirs).any(|dir| Some(dir.as_path()) == program.parent())
}

/// Where the orders lie; they are generated data, so they may be missing from a partial checkout.
fn orders_file() -> Result<PathBuf> {
    let path = crate::workspace_root().join("examples/data/orders.jsonl");
    ensure!(fs::exists(&path)?, "{} is missing: `cargo xtask orders` writes it", path.display());
    Ok(path)
}
