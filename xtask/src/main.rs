//! `cargo xtask`: the project's own commands. What they do is in the library.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use xtask::demo::DemoOptions;
use xtask::tools::{self, Version};
use xtask::{bench, checks, demo, orders, workspace_root};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "greenroom's own commands",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the shop: a broker, six nodes, a thousand orders
    Demo(DemoArgs),
    /// Run every test; what follows `--` goes to `cargo test`
    Test {
        /// Arguments of `cargo test`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check format, clippy, documentation, nats.conf and dependencies
    Lint,
    /// Measure; the arguments go to the program in `bench/`
    Bench {
        /// Arguments of the measurements
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Find or fetch nats-server and the nats CLI, and say where they are
    Tools,
    /// Write the demo's data to `examples/data` again
    Orders,
}

#[derive(clap::Args)]
struct DemoArgs {
    /// Keep the shop open afterwards, until Ctrl-C, and show commands to try
    #[arg(long)]
    stay: bool,
    /// Place only the first N orders
    #[arg(long, value_name = "N")]
    orders: Option<u32>,
    /// Write the figures to this file
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let progress = &mut |line: &str| eprintln!("{line}");
    match cli.command {
        None => Cli::command().print_help()?,
        Some(Command::Demo(DemoArgs { stay, orders, json })) => {
            return demo::run(&DemoOptions { stay, orders, json }, progress);
        }
        Some(Command::Test { args }) => checks::test(&args, progress)?,
        Some(Command::Lint) => checks::lint(progress)?,
        Some(Command::Bench { args }) => bench::run(&args, progress)?,
        Some(Command::Tools) => {
            let tools = tools::provision(progress)?;
            for (name, program) in [("nats-server", &tools.nats_server), ("nats", &tools.nats)] {
                println!("{name:<11} {}  {}", Version::of(program)?, program.display());
            }
        }
        Some(Command::Orders) => orders::write(&workspace_root().join("examples/data"))?,
    }
    Ok(ExitCode::SUCCESS)
}
