//! `cargo xtask`: the project's own commands. What they do is in the library.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use xtask::demo::DemoOptions;
use xtask::mutants::{self, MutantsOptions};
use xtask::sim::SimOptions;
use xtask::tools::{self, Version};
use xtask::{bench, checks, demo, orders, scale, sim, workspace_root};

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
    /// Run the shop: a broker, six nodes, a thousand orders, and a node and the broker killed on the way
    Demo(DemoArgs),
    /// Run every test; what follows `--` goes to `cargo test`
    Test {
        /// Arguments of `cargo test`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check format, clippy, documentation, nats.conf and dependencies
    Lint,
    /// Measure: `local`, `footprint`; `--quick` for less of it, `--json PATH` for programs
    #[command(after_help = BENCH_HELP)]
    Bench {
        /// Which measurements, and their options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Seed bugs into a copy of the tree: the tests that each one names must fail. Takes minutes for each
    Mutants(MutantsArgs),
    /// Simulate whole nodes, and ownership alone, under as many seeds as you like: crashes, pauses, cuts, lost answers
    Sim(SimArgs),
    /// Measure the ownership machine with a thousand nodes in one process; `--quick` for a hundred, `--help` for more
    #[command(disable_help_flag = true)]
    Scale {
        /// `--nodes N`, `--partitions N`, `--types N`, `--quick`, `--json PATH`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Find or fetch nats-server and the nats CLI, and say where they are
    Tools,
    /// Write the demo's data to `examples/data` again
    Orders,
}

const BENCH_HELP: &str = "\
Measurements:
  local      ask and tell on one node beside ractor, kameo and a bare tokio channel; bytes per idle actor
  footprint  bytes per idle keyed actor, and activations per second; --actors N

Options of both:
  --json PATH  write the figures here too
Option of local:
  --quick      fewer and shorter rounds: half a minute in all

  cargo xtask bench local --quick --json figures.json";

#[derive(clap::Args)]
struct DemoArgs {
    /// Keep the shop open afterwards, until Ctrl-C, and show commands to try
    #[arg(long)]
    stay: bool,
    /// Place only the first N orders
    #[arg(long, value_name = "N")]
    orders: Option<u32>,
    /// Kill neither a node nor the broker on the way
    #[arg(long)]
    calm: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct MutantsArgs {
    /// Only those with NAME in their name; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Say which there are, what each breaks, and which are not possible yet
    #[arg(long)]
    list: bool,
    /// Only try whether every patch applies
    #[arg(long)]
    check: bool,
    /// Do not run the tests without a mutant first
    #[arg(long)]
    no_baseline: bool,
    /// Write what came of each to this file
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct SimArgs {
    /// How many seeds to try, from 0 on
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// Replay this seed of the whole nodes alone, with its trace
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Leave the simulation of ownership alone out
    #[arg(long)]
    nodes_only: bool,
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
        Some(Command::Demo(DemoArgs { stay, orders, calm, json })) => {
            return demo::run(&DemoOptions { stay, orders, calm, json }, progress);
        }
        Some(Command::Test { args }) => checks::test(&args, progress)?,
        Some(Command::Lint) => checks::lint(progress)?,
        Some(Command::Bench { args }) => bench::run(&args, progress)?,
        Some(Command::Mutants(MutantsArgs { only, list, check, no_baseline, json })) => {
            mutants::run(&MutantsOptions { only, list, check, no_baseline, json }, progress)?;
        }
        Some(Command::Sim(SimArgs { seeds, seed, nodes_only })) => {
            sim::run(&SimOptions { seeds, seed, nodes_only }, progress)?;
        }
        Some(Command::Scale { args }) => scale::run(&args)?,
        Some(Command::Tools) => {
            let tools = tools::provision(progress)?;
            for (name, program) in [("nats-server", &tools.nats_server), ("nats", &tools.nats)] {
                println!("{name:<11} {}  {}", Version::of(program)?, program.display());
            }
            if let Some(line) = tools.export(&std::env::var_os("PATH").unwrap_or_default()) {
                println!("\nA shell does not find them by itself. To type `nats` there:\n\n{line}");
            }
        }
        Some(Command::Orders) => orders::write(&workspace_root().join("examples/data"))?,
    }
    Ok(ExitCode::SUCCESS)
}
