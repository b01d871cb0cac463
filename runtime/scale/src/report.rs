//! The figures, for people.

use crate::cases::{Case, Figures, Size};

/// Prints the case that was measured last, and before the first one what they have in common. Each as soon as it is
/// known: with many nodes one case takes minutes.
pub(crate) fn print_last(figures: &Figures) {
    match figures.cases.as_slice() {
        [] => {}
        [rest] => head(figures, rest),
        [.., last] => row(last),
    }
}

fn head(figures: &Figures, rest: &Case) {
    let Size { nodes, partitions, types } = figures.size;
    println!(
        "\n{nodes} nodes, {partitions} partitions, {types} actor types: {} claims",
        usize::from(partitions) * types
    );
    println!("  {:.1} MB a node; reading a claim takes {} ns", mega(figures.bytes_per_node), figures.parse_claim_ns);
    let (traffic, seconds) = (&rest.traffic, figures.rest_seconds.max(1));
    let per_node = |count: u64| count as f64 / seconds as f64 / nodes as f64;
    println!(
        "  at rest, a node and second: {:.2} renewals, {:.1} changes shown, {:.1} round trips, {:.3} ms in the machine, longest {:.2} ms in one go",
        per_node(traffic.renewals),
        per_node(traffic.shown_renewals + traffic.shown),
        per_node(traffic.round_trips),
        per_node(rest.spent_us) / 1_000.0,
        milli(rest.longest_us)
    );
    println!(
        "  at rest, all, a second: {} writes, {} changes shown",
        (traffic.renewals + traffic.claims + traffic.records) / seconds,
        (traffic.shown_renewals + traffic.shown) / seconds
    );
    println!(
        "  {:<22} {:>6} {:>9} {:>7} {:>8} {:>8} {:>10} {:>7} {:>8} {:>10} {:>9}",
        "", "moves", "settled", "claims", "records", "refused", "shown", "words", "notices", "busiest", "longest"
    );
}

fn row(case: &Case) {
    let traffic = &case.traffic;
    println!(
        "  {:<22} {:>6} {:>6} ms {:>7} {:>8} {:>8} {:>10} {:>7} {:>8} {:>7.1} ms {:>6.2} ms",
        case.name,
        case.moves,
        case.settled_ms,
        traffic.claims,
        traffic.records,
        traffic.refused,
        traffic.shown,
        traffic.words,
        traffic.notices,
        milli(case.busiest_us),
        milli(case.longest_us)
    );
}

fn milli(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
