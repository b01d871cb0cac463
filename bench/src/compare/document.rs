//! The comparison as Markdown.

use std::fmt::Write as _;

use super::Case;
use super::facts::{Facts, version};
use super::goals;
use super::ratio::{Figure, ratio};
use super::rounds::{Results, Row};
use super::system::System;

/// Those whose rate the others' is set against, and what they are called there.
const AGAINST: [&str; 2] = [System::TONIC_X4.name, System::ASYNC_NATS.name];

/// The whole page.
pub fn whole(results: &Results, facts: &Facts) -> String {
    let mut page = String::from("# Requests and replies between processes\n\n");
    page += &introduction(results, facts);
    page += "\n![Requests per second against calls in flight, and against the size of the payload](compare.svg)\n\n";
    page += "## Goals\n\n";
    page += &goals(results);
    page += &tables(results);
    page += "\n## How each system is used\n\n";
    page += &systems(results);
    page
}

fn introduction(results: &Results, facts: &Facts) -> String {
    let Facts { cores, processor, kernel, compiler, brokers } = facts;
    let brokers = brokers.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ");
    format!(
        "`cargo xtask bench compare` measures greenroom beside other ways for one process to ask another, and writes this \
         page.\n\n\
         A client process sends opaque bytes to a server process, which gives back the same bytes. So many callers as are \
         *in flight* each wait for their reply before they ask again; each checks its length. Client, server and, where \
         there is one, the broker are processes on one machine, over its loopback. Both sides have a tokio runtime with \
         two threads, jemalloc, a release build with thin LTO, and TCP without delay. Connections are open before \
         anything is measured.\n\n\
         Figures are medians of {} rounds of {} ms for each case, with minimum and maximum in brackets. Each round goes \
         through all cases, and each case through all systems, whose order moves on by one from round to round. A ratio \
         is the median of the ratios within each round. Processor time is that of all processes together, user and \
         system, for one request; it is counted in ticks of 10 ms.\n\n\
         Machine: {cores} cores ({processor}), Linux {kernel}, {compiler}{}{brokers}. Client, server and broker share the \
         cores, so what one of them saves another gains. On a shared machine trust processor time before rates, and \
         ratios before either.\n",
        results.rounds,
        results.spell.as_millis(),
        if brokers.is_empty() { "" } else { ", " },
    )
}

/// A table for each payload.
pub fn tables(results: &Results) -> String {
    let rows = results.rows();
    let mut payloads: Vec<usize> = results.cases.iter().map(|case| case.payload).collect();
    payloads.dedup();
    let mut text = String::new();
    for payload in payloads {
        let _ = write!(
            text,
            "\n## {}\n\n\
             | in flight | system | requests/s | p50 µs | p99 µs | CPU µs/request | client + server + broker | {} |\n\
             |---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
            bytes(payload),
            AGAINST.map(|peer| format!("rate to {peer}")).join(" | ")
        );
        for row in rows.iter().filter(|row| row.payload_bytes == payload) {
            text += &line(results, row);
        }
    }
    text
}

fn line(results: &Results, row: &Row) -> String {
    let case = Case { payload: row.payload_bytes, in_flight: row.in_flight };
    let rates = AGAINST.map(|peer| {
        let found = ratio(results, Figure::Rate, case, row.system, peer);
        found.map_or_else(|| "–".to_owned(), |found| format!("{:.2}", found.median))
    });
    let name = if row.system == System::GREENROOM.name { format!("**{}**", row.system) } else { row.system.to_owned() };
    format!(
        "| {} | {name} | {} [{}–{}] | {} | {} | {} [{}–{}] | {} + {} + {} | {} |\n",
        row.in_flight,
        rate(row.rps_median),
        rate(row.rps_min),
        rate(row.rps_max),
        digits(row.p50_us),
        digits(row.p99_us),
        digits(row.cpu_us_per_op),
        digits(row.cpu_us_per_op_min),
        digits(row.cpu_us_per_op_max),
        digits(row.client_us),
        digits(row.server_us),
        if row.broker_us > 0.0 { digits(row.broker_us) } else { "–".to_owned() },
        rates.join(" | "),
    )
}

/// What is wanted of greenroom, and what came of it.
pub fn goals(results: &Results) -> String {
    let mut text = String::from(
        "| bytes | in flight | greenroom's | beside | wanted | measured | |\n|---:|---:|---|---|---|---|---|\n",
    );
    for goal in goals::all() {
        let (measured, verdict) = match goal.judge(results) {
            Some(verdict) => {
                let ratio = verdict.ratio;
                let measured = format!("{:.2} [{:.2}–{:.2}]", ratio.median, ratio.min, ratio.max);
                (measured, if verdict.met { "met" } else { "**missed**" })
            }
            None => ("–".to_owned(), "not measured"),
        };
        let Case { payload, in_flight } = goal.case;
        let (figure, against, wanted) = (goal.figure.name(), goal.against, goal.wanted());
        let _ =
            writeln!(text, "| {payload} | {in_flight} | {figure} | {against} | {wanted} | {measured} | {verdict} |");
    }
    text
}

fn systems(results: &Results) -> String {
    let mut text = String::from("| system | versions | use |\n|---|---|---|\n");
    for system in &results.systems {
        let versions: Vec<String> = system.crates.iter().map(|name| format!("{name} {}", version(name))).collect();
        let _ = writeln!(text, "| {} | {} | {} |", system.name, versions.join(", "), system.how);
    }
    text
}

/// `1 KiB`, or `100 bytes`.
pub fn bytes(payload: usize) -> String {
    if payload >= 1_024 && payload.is_multiple_of(1_024) {
        format!("{} KiB", payload / 1_024)
    } else {
        format!("{payload} bytes")
    }
}

/// `1.25 M`, `125 k`, `12.5 k`, `125`.
fn rate(rps: f64) -> String {
    match rps {
        rps if rps >= 1e6 => format!("{:.2} M", rps / 1e6),
        rps if rps >= 1e5 => format!("{:.0} k", rps / 1e3),
        rps if rps >= 1e3 => format!("{:.1} k", rps / 1e3),
        rps => format!("{rps:.0}"),
    }
}

/// Three digits that count.
fn digits(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([1.25e6, 125e3, 12.5e3, 125.0].map(rate), ["1.25 M", "125 k", "12.5 k", "125"]);
        assert_eq!([1234.5, 12.34, 1.234].map(digits), ["1234", "12.3", "1.23"]);
        assert_eq!([100, 1_024, 102_400].map(bytes), ["100 bytes", "1 KiB", "100 KiB"]);
    }
}
