//! Figures: medians with their spread, as a table and as JSON.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The time of one operation of one system, over all rounds.
#[derive(Serialize)]
pub struct Row {
    pub system: String,
    pub operation: String,
    /// Worker threads of the runtime; 1 is the single-threaded one.
    pub threads: usize,
    pub ns_per_op_median: f64,
    pub ns_per_op_min: f64,
    pub ns_per_op_max: f64,
    /// CPU time of the whole process, in the median round.
    pub cpu_ns_per_op_median: f64,
    pub rounds: usize,
}

/// The memory of idle actors.
#[derive(Serialize, Deserialize)]
pub struct Footprint {
    pub system: String,
    pub actors: u64,
    pub bytes_per_actor: f64,
    pub activations_per_s: f64,
}

/// Everything that `local` measures.
#[derive(Serialize)]
pub struct Local {
    pub cores: usize,
    pub rows: Vec<Row>,
    pub footprint: Footprint,
}

/// One round: wall and CPU time of one operation.
#[derive(Clone, Copy)]
pub struct Sample {
    pub ns: f64,
    pub cpu_ns: f64,
}

impl Row {
    pub fn of(system: &str, operation: &str, threads: usize, samples: &[Sample]) -> Self {
        let mut wall: Vec<f64> = samples.iter().map(|sample| sample.ns).collect();
        let mut cpu: Vec<f64> = samples.iter().map(|sample| sample.cpu_ns).collect();
        wall.sort_by(f64::total_cmp);
        cpu.sort_by(f64::total_cmp);
        Self {
            system: system.to_owned(),
            operation: operation.to_owned(),
            threads,
            ns_per_op_median: wall[wall.len() / 2],
            ns_per_op_min: wall[0],
            ns_per_op_max: wall[wall.len() - 1],
            cpu_ns_per_op_median: cpu[cpu.len() / 2],
            rounds: samples.len(),
        }
    }
}

/// Prints the rows, each operation with its ratio to the given system.
pub fn print(rows: &[Row], against: &[&str]) {
    println!("\n| operation | threads | system | ns median [min–max] | CPU ns | ratio to {} |", against.join(" / "));
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let ratio = |system: &str| {
            let peer = rows
                .iter()
                .find(|peer| peer.system == system && peer.operation == row.operation && peer.threads == row.threads);
            peer.map_or_else(|| "–".to_owned(), |peer| format!("{:.2}", row.ns_per_op_median / peer.ns_per_op_median))
        };
        let ratios: Vec<String> = against.iter().map(|system| ratio(system)).collect();
        println!(
            "| {} | {} | {} | {:.0} [{:.0}–{:.0}] | {:.0} | {} |",
            row.operation,
            row.threads,
            row.system,
            row.ns_per_op_median,
            row.ns_per_op_min,
            row.ns_per_op_max,
            row.cpu_ns_per_op_median,
            ratios.join(" / ")
        );
    }
}

/// Writes figures as JSON.
pub fn write(path: Option<&Path>, figures: &impl Serialize) -> anyhow::Result<()> {
    if let Some(path) = path {
        let text = serde_json::to_string_pretty(figures)?;
        std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))?;
        println!("\nwritten to {}", path.display());
    }
    Ok(())
}

/// CPU time of this process so far, in nanoseconds.
pub fn cpu_ns() -> anyhow::Result<f64> {
    cpu_ns_of(std::process::id())
}

/// CPU time of a process so far, in nanoseconds.
pub fn cpu_ns_of(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: this needs Linux"))?;
    // After the name in parentheses: state is field 3, utime field 14, stime field 15.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // A tick is 10 ms on every Linux that matters here (USER_HZ = 100).
    Ok((ticks(11) + ticks(12)) * 1e7)
}

/// Memory of this process that is in RAM, in bytes.
pub fn resident_bytes() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read: this needs Linux")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmRSS without a number")?.parse()?;
    Ok(kib * 1024)
}
