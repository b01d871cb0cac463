//! `greenroom`: what an operator asks of a broker and of the apps on it.
//!
//! `doctor` looks, and changes nothing; `dead` deals with durable tells that could not be delivered. Nothing here is
//! needed to run nodes.

mod dead;
mod doctor;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks after apps that run on greenroom.
#[derive(Debug, Parser)]
#[command(name = "greenroom", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a broker, and an app on it: what is wrong, what it costs, how to mend it.
    Doctor(doctor::Args),
    /// Shows and replays durable tells that could not be delivered.
    Dead(dead::Args),
}

/// The command cannot be carried out as it was typed.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match Args::parse().command {
        Command::Doctor(args) => doctor(&args).await,
        Command::Dead(args) => dead(&args).await,
    }
}

async fn dead(args: &dead::Args) -> ExitCode {
    match dead::run(args).await {
        Ok(done) => {
            std::io::stdout().write_all(done.said.as_bytes()).ok();
            done.missed.iter().for_each(|missed| eprintln!("greenroom dead: {missed}"));
            if done.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("greenroom dead: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

async fn doctor(args: &doctor::Args) -> ExitCode {
    match doctor::run(args).await {
        Ok(report) => {
            let text = if args.json { format!("{:#}\n", report.json()) } else { report.text() };
            // Whoever reads may have gone, as `head` does: the verdict stands all the same.
            std::io::stdout().write_all(text.as_bytes()).ok();
            if report.is_passed(args.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("greenroom doctor: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}
