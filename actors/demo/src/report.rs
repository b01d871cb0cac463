//! What the demo says at its end, to people and to programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::audit::{Audit, Complaints};
use crate::place::{Outcome, Placing, reason};
use crate::proof::Proof;

/// Everything that the demo found.
pub(crate) struct Report {
    figures: Figures,
    audit: Audit,
    /// What the streams prove, where they were read.
    proof: Option<Proof>,
    /// The first failures, in words.
    failures: Vec<String>,
}

/// The figures for programs, each with its unit in its name.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) orders: usize,
    pub(crate) confirmed: usize,
    /// By reason.
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) failed: usize,
    /// How many orders needed more than one try.
    pub(crate) retried: usize,
    /// How many of the orders went through the stock `nats` CLI; they count everywhere but in the
    /// rate and the latencies, as starting a process takes longer than an order.
    pub(crate) cli_orders: usize,
    pub(crate) in_flight: usize,
    pub(crate) elapsed_ms: u128,
    pub(crate) orders_per_s: f64,
    pub(crate) p50_us: u128,
    pub(crate) p99_us: u128,
    pub(crate) max_us: u128,
    pub(crate) net_cents: u64,
    pub(crate) stock_adds_up: bool,
    pub(crate) money_adds_up: bool,
    pub(crate) answers_hold: bool,
    /// Whether the streams prove it; null if they were not read.
    pub(crate) streams_add_up: Option<bool>,
}

/// How many failures are told in words.
const FAILURES_MAX: usize = 5;

impl Report {
    pub(crate) fn new(
        by_node: &[Placing<'_>],
        by_cli: &[Placing<'_>],
        elapsed: Duration,
        in_flight: usize,
        audit: Audit,
    ) -> Self {
        let mut refused = BTreeMap::new();
        let (mut confirmed, mut failed, mut failures) = (0, 0, Vec::new());
        for placing in by_node.iter().chain(by_cli) {
            match &placing.outcome {
                Outcome::Confirmed { .. } => confirmed += 1,
                Outcome::Refused(refusal) => *refused.entry(reason(refusal)).or_default() += 1,
                Outcome::Failed(error) => {
                    failed += 1;
                    if failures.len() < FAILURES_MAX {
                        failures.push(format!("order {}: {error}", placing.order.id));
                    }
                }
            }
        }
        let mut took: Vec<u128> = by_node.iter().map(|placing| placing.took.as_micros()).collect();
        took.sort_unstable();
        let figures = Figures {
            orders: by_node.len() + by_cli.len(),
            confirmed,
            refused,
            failed,
            retried: by_node.iter().chain(by_cli).filter(|placing| placing.tries > 1).count(),
            cli_orders: by_cli.len(),
            in_flight,
            elapsed_ms: elapsed.as_millis(),
            orders_per_s: (by_node.len() as f64 / elapsed.as_secs_f64().max(1e-6)).round(),
            p50_us: percentile(&took, 50),
            p99_us: percentile(&took, 99),
            max_us: took.last().copied().unwrap_or_default(),
            net_cents: audit.net_cents,
            stock_adds_up: audit.stock.is_empty(),
            money_adds_up: audit.money.is_empty(),
            answers_hold: audit.answers.is_empty(),
            streams_add_up: None,
        };
        Self { figures, audit, proof: None, failures }
    }

    /// Adds what the streams prove.
    pub(crate) fn with_proof(mut self, proof: Proof) -> Self {
        self.figures.streams_add_up = Some(proof.adds_up);
        self.proof = Some(proof);
        self
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Whether no order failed and everything adds up.
    pub(crate) fn is_fine(&self) -> bool {
        self.figures.failed == 0 && self.audit.is_fine() && self.proof.as_ref().is_none_or(|proof| proof.adds_up)
    }

    /// What is wrong, in a line.
    pub(crate) fn complaint(&self) -> String {
        let Audit { stock, money, answers, .. } = &self.audit;
        let mut wrong = Vec::new();
        for (count, what) in [
            (self.figures.failed, "orders failed"),
            (stock.count, "times the stock does not add up"),
            (money.count, "times the money does not add up"),
            (answers.count, "orders are not as their customers were told"),
            (self.proof.as_ref().map_or(0, |proof| proof.complaints.count), "times the streams do not add up"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        wrong.join(", ")
    }
}

/// The smallest value that is no less than so many percent of all; 0 of none.
fn percentile(sorted: &[u128], percent: usize) -> u128 {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1).and_then(|at| sorted.get(at)).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { orders, confirmed, refused, failed, retried, cli_orders, in_flight, .. } = &self.figures;
        let reasons: Vec<_> = refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let refused: usize = refused.values().sum();
        let seconds = self.figures.elapsed_ms as f64 / 1e3;
        let ms = |us: u128| us as f64 / 1e3;
        writeln!(f, "orders     {orders} in {seconds:.2} s, {in_flight} in flight, {cli_orders} by the nats CLI")?;
        writeln!(f, "rate       {:.0} orders/s", self.figures.orders_per_s)?;
        let [p50, p99, max] = [self.figures.p50_us, self.figures.p99_us, self.figures.max_us].map(ms);
        writeln!(f, "latency    p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
        writeln!(f, "confirmed  {confirmed}")?;
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
        writeln!(f, "refused    {refused}{reasons}")?;
        writeln!(f, "failed     {failed}, {retried} retried")?;
        for failure in &self.failures {
            writeln!(f, "           {failure}")?;
        }
        let Audit { stock, money, answers, products, sold, net_cents, .. } = &self.audit;
        let money_all = format!("{}.{:02} paid", net_cents / 100, net_cents % 100);
        told(f, "stock", stock, &format!("adds up: {products} products, {sold} sold"))?;
        told(f, "money", money, &format!("adds up: {money_all}"))?;
        told(f, "answers", answers, "hold: every order is as its customer was told")?;
        self.proof.as_ref().map_or(Ok(()), |proof| proof.fmt(f))
    }
}

pub(crate) fn told(f: &mut fmt::Formatter<'_>, what: &str, wrong: &Complaints, fine: &str) -> fmt::Result {
    if wrong.is_empty() {
        return writeln!(f, "{what:<10} {fine}");
    }
    writeln!(f, "{what:<10} WRONG, {} times:", wrong.count)?;
    for complaint in &wrong.first {
        writeln!(f, "           {complaint}")?;
    }
    Ok(())
}
