//! `greenroom`: what an operator asks of a broker and of the apps on it.
//!
//! One command so far, `doctor`. Nothing here is needed to run nodes, and nothing here changes what is stored.

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
}

/// The command cannot be carried out as it was typed.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Doctor(args) = Args::parse().command;
    match doctor::run(&args).await {
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
