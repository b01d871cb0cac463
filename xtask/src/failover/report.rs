//! The figures, for people and for programs.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Variant;
use super::run::Measured;
use crate::rig::{Spread, Verdict};

/// All runs of one variant.
#[derive(Debug)]
pub struct Row {
    /// What happened in each.
    pub variant: Variant,
    /// How many there were.
    pub runs: u32,
    /// Calls that were not answered.
    pub failed: u64,
    /// What the journals say.
    pub verdict: Verdict,
    /// All calls.
    pub calls: u64,
    gaps_us: Vec<u64>,
    in_flight_us: Vec<u64>,
}

/// A row as programs read it.
#[derive(Serialize)]
struct Figures {
    variant: &'static str,
    lease_s: u64,
    runs: u32,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    failed: u64,
    lost: u64,
    duplicated: u64,
    wrong: u64,
    calls: u64,
    in_flight: usize,
    in_flight_p50_ms: f64,
    in_flight_p99_ms: f64,
    in_flight_max_ms: f64,
}

impl Row {
    pub(super) fn new(variant: Variant) -> Self {
        let verdict = Verdict::default();
        Self { variant, runs: 0, failed: 0, verdict, calls: 0, gaps_us: Vec::new(), in_flight_us: Vec::new() }
    }

    /// Adds a run, and gives what there is to complain of in it.
    pub(super) fn add(&mut self, run: Measured) -> Vec<String> {
        let Measured { gaps_us, in_flight_us, calls, failed, failures, verdict } = run;
        self.runs += 1;
        self.calls += calls;
        self.failed += failed;
        self.gaps_us.extend(gaps_us);
        self.in_flight_us.extend(in_flight_us);
        let bad = failures.into_iter().chain(verdict.complaints.iter().cloned()).collect();
        self.verdict.add(verdict);
        bad
    }

    /// How long cells were out of reach.
    pub fn gaps(&self) -> Spread {
        Spread::of(self.gaps_us.clone())
    }

    /// How long calls took that were on their way when it happened.
    pub fn in_flight(&self) -> Spread {
        Spread::of(self.in_flight_us.clone())
    }

    /// Whether every call was answered, and nothing lost or done twice.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.verdict.is_clean()
    }

    /// What is not as it should be, in words.
    pub fn misses(&self) -> Vec<String> {
        let name = self.variant.name();
        let counts = [
            (self.failed, "calls failed"),
            (self.verdict.lost, "acknowledged appends are lost"),
            (self.verdict.duplicated, "appends took effect twice"),
            (self.verdict.wrong, "times something else was wrong"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut misses: Vec<_> = counts.map(|(count, what)| format!("{name}: {count} {what}")).collect();
        let gaps = self.gaps();
        let (p50, p99) = match self.variant {
            Variant::Kill9 => (Some(30.0), Some(300.0)),
            Variant::Sigterm => (None, Some(100.0)),
            _ => (None, None),
        };
        for (what, is, goal) in [("p50", gaps.p50_ms, p50), ("p99", gaps.p99_ms, p99)] {
            if let Some(goal) = goal.filter(|goal| is > *goal) {
                misses.push(format!("{name}: {what} is {is} ms, and at most {goal} ms is the goal"));
            }
        }
        misses
    }

    fn figures(&self) -> Figures {
        let (gaps, in_flight) = (self.gaps(), self.in_flight());
        Figures {
            variant: self.variant.name(),
            lease_s: self.variant.lease_s(),
            runs: self.runs,
            p50_ms: gaps.p50_ms,
            p99_ms: gaps.p99_ms,
            max_ms: gaps.max_ms,
            failed: self.failed,
            lost: self.verdict.lost,
            duplicated: self.verdict.duplicated,
            wrong: self.verdict.wrong,
            calls: self.calls,
            in_flight: in_flight.count,
            in_flight_p50_ms: in_flight.p50_ms,
            in_flight_p99_ms: in_flight.p99_ms,
            in_flight_max_ms: in_flight.max_ms,
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.figures().serialize(serializer)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { p50_ms, p99_ms, max_ms, failed, lost, duplicated, wrong, .. } = self.figures();
        write!(f, "p50 {p50_ms} ms, p99 {p99_ms} ms, max {max_ms} ms; failed {failed}, lost {lost}, ")?;
        write!(f, "twice {duplicated}, wrong {wrong}")
    }
}

/// The rows as Markdown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| variant | lease | runs | p50 | p99 | max | in flight: p50, p99, max | calls | failed | lost | twice | wrong |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows.iter().map(Row::figures) {
        text.push_str(&format!(
            "| {} | {} s | {} | {} ms | {} ms | {} ms | {} of {}, {}, {} ms | {} | {} | {} | {} | {} |\n",
            row.variant,
            row.lease_s,
            row.runs,
            row.p50_ms,
            row.p99_ms,
            row.max_ms,
            row.in_flight,
            row.in_flight_p50_ms,
            row.in_flight_p99_ms,
            row.in_flight_max_ms,
            row.calls,
            row.failed,
            row.lost,
            row.duplicated,
            row.wrong
        ));
    }
    text
}
