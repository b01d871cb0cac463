//! `cargo xtask`: the project's own commands. What they do is in the library.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use xtask::demo::DemoOptions;
use xtask::failover::{self, FailoverOptions, Variant};
use xtask::faults::{self, Fault, FaultsOptions};
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
    /// Measure how long actors are out of reach when their node is killed, frozen or stopped, and that nothing is lost
    Failover(FailoverArgs),
    /// Kill, freeze and cut off nodes and brokers, and judge by porcupine what callers saw
    Faults(FaultsArgs),
    /// Run every test; what follows `--` goes to `cargo test`
    Test {
        /// Arguments of `cargo test`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check format, clippy, documentation, nats.conf and dependencies
    Lint,
    /// Measure: `local`, `compare`, `durable` and more, see `--help`; `--quick` for less of it, `--json PATH` for programs
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
  durable    durable commands beside the appends that they stand on, and activations; --only abcd
  follow     events per second that a reader of journals follows, and that drive actors
  recovery   how long it takes until many durable actors answer again after their node was killed; --actors N
  remote     asks from one process to another beside requests of the client library; --cases 1024x256
  compare    the same beside gRPC, HTTP, MQTT and other actor libraries too: a table, a picture and goals, which a run
             of everything (a quarter of an hour) writes to docs/benchmarks; --only SYSTEMS, --cases 1024x256,100x1,
             --rounds N, --out DIR. MQTT needs a `mosquitto`

Options of all:
  --json PATH  write the figures here too
Of all but footprint:
  --quick      fewer and shorter rounds: half a minute to two minutes in all

  cargo xtask bench durable --quick --only a --json figures.json";

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
    /// Say which there are, and what each breaks
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

#[derive(clap::Args)]
struct FailoverArgs {
    /// Runs of kill9 and of sigterm, 100 by default; the other variants have a fifth or a tenth of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Few runs: some minutes in all
    #[arg(long)]
    quick: bool,
    /// Only this variant; can be given several times
    #[arg(long, value_name = "VARIANT")]
    only: Vec<Variant>,
    /// What victims and moments follow from; by default another one each time, and it is printed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep what the processes wrote, and say where
    #[arg(long)]
    keep: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct FaultsArgs {
    /// How many runs, 200 by default; they take the faults in turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Few runs: some minutes in all
    #[arg(long)]
    quick: bool,
    /// One server with one copy of everything, instead of three
    #[arg(long)]
    one_server: bool,
    /// Only this fault; can be given several times
    #[arg(long, value_name = "FAULT")]
    only: Vec<Fault>,
    /// What faults, victims, moments and calls follow from; by default another one each time, and it is printed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
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
        Some(Command::Demo(DemoArgs { stay, orders, calm, json })) => {
            return demo::run(&DemoOptions { stay, orders, calm, json }, progress);
        }
        Some(Command::Failover(FailoverArgs { runs, quick, only, seed, keep, json })) => {
            return failover::run(&FailoverOptions { runs, quick, variants: only, seed, json, keep }, progress);
        }
        Some(Command::Faults(FaultsArgs { runs, quick, one_server, only, seed, json })) => {
            return faults::run(&FaultsOptions { runs, quick, one_server, faults: only, seed, json }, progress);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        cli.command.ok_or_else(|| "no command".to_owned())
    }

    #[test]
    fn f3_the_arguments_of_failover() {
        let line = "xtask failover --quick --runs 7 --seed 9 --only kill9 --only rolling-cli --json f.json";
        let Ok(Command::Failover(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.runs, args.seed, args.quick, args.keep), (Some(7), Some(9), true, false));
        assert_eq!(args.only, [Variant::Kill9, Variant::RollingCli]);
        assert_eq!(args.json, Some(PathBuf::from("f.json")));
        for wrong in ["--runs 0", "--only kill8", "--seed x"] {
            assert!(parse(&format!("xtask failover {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn e1_the_arguments_of_faults() {
        let line = "xtask faults --one-server --quick --runs 7 --seed 9 --only pause --json f.json";
        let Ok(Command::Faults(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.runs, args.seed, args.quick, args.one_server), (Some(7), Some(9), true, true));
        assert_eq!((args.only, args.json), (vec![Fault::Pause], Some(PathBuf::from("f.json"))));
        for wrong in ["--runs 0", "--only flood", "--seed x"] {
            assert!(parse(&format!("xtask faults {wrong}")).is_err(), "{wrong}");
        }
    }
}
