//! The measurements in their order, and what they come to.

use std::time::{Duration, Instant};

use greenroom_bench_load::Order;
use serde::Serialize;

use super::Case;
use super::stage::{Measured, Stage};
use super::system::System;

/// What is measured, how often and for how long.
pub struct Plan {
    pub cases: Vec<Case>,
    pub rounds: u32,
    pub spell: Duration,
}

/// One round of one case of one system.
#[derive(Clone, Copy)]
pub struct Sample {
    pub rps: f64,
    pub p50: f64,
    pub p99: f64,
    pub client: f64,
    pub server: f64,
    pub broker: f64,
}

impl Sample {
    /// Processor time of all processes for one call, in microseconds.
    pub fn cpu(&self) -> f64 {
        self.client + self.server + self.broker
    }

    fn of(Measured { spell, cpu }: &Measured) -> Self {
        let count = spell.count as f64;
        let [client, server, broker] = cpu.map(|ns| ns / 1e3 / count);
        Self { rps: count / spell.seconds, p50: spell.p50_us, p99: spell.p99_us, client, server, broker }
    }
}

/// All rounds of all cases.
pub struct Results {
    pub systems: Vec<System>,
    pub cases: Vec<Case>,
    pub rounds: u32,
    pub spell: Duration,
    /// In the order of systems within that of cases; each has a sample of every round.
    samples: Vec<Vec<Sample>>,
}

/// One case of one system, over all rounds: a line of the JSON.
#[derive(Serialize)]
pub struct Row {
    pub system: &'static str,
    pub payload_bytes: usize,
    pub in_flight: usize,
    pub rps_median: f64,
    pub rps_min: f64,
    pub rps_max: f64,
    pub p50_us: f64,
    pub p50_us_min: f64,
    pub p50_us_max: f64,
    pub p99_us: f64,
    /// User and system time of client, server and broker, for one call.
    pub cpu_us_per_op: f64,
    pub cpu_us_per_op_min: f64,
    pub cpu_us_per_op_max: f64,
    /// The same, of each of them.
    pub client_us: f64,
    pub server_us: f64,
    pub broker_us: f64,
    pub rounds: usize,
}

impl Results {
    /// The rounds of one case of one system, if it was measured.
    pub fn samples(&self, system: &str, case: Case) -> Option<&[Sample]> {
        let system = self.systems.iter().position(|known| known.name == system)?;
        let case = self.cases.iter().position(|known| *known == case)?;
        self.samples.get(case * self.systems.len() + system).map(Vec::as_slice)
    }

    /// A row for each system within each case.
    pub fn rows(&self) -> Vec<Row> {
        let places = self.cases.iter().flat_map(|case| self.systems.iter().map(|system| (*system, *case)));
        places.zip(&self.samples).map(|((system, case), samples)| row(system, case, samples)).collect()
    }
}

fn row(system: System, case: Case, samples: &[Sample]) -> Row {
    let of = |figure: fn(&Sample) -> f64| spread(samples.iter().map(figure).collect());
    let (rate, p50, cpu) = (of(|sample| sample.rps), of(|sample| sample.p50), of(Sample::cpu));
    Row {
        system: system.name,
        payload_bytes: case.payload,
        in_flight: case.in_flight,
        rps_median: rate.median,
        rps_min: rate.min,
        rps_max: rate.max,
        p50_us: p50.median,
        p50_us_min: p50.min,
        p50_us_max: p50.max,
        p99_us: of(|sample| sample.p99).median,
        cpu_us_per_op: cpu.median,
        cpu_us_per_op_min: cpu.min,
        cpu_us_per_op_max: cpu.max,
        client_us: of(|sample| sample.client).median,
        server_us: of(|sample| sample.server).median,
        broker_us: of(|sample| sample.broker).median,
        rounds: samples.len(),
    }
}

/// A median, and what it lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// The median of these, and what it lies between. Of an even number it is the middle of the two in the middle.
pub fn spread(mut all: Vec<f64>) -> Spread {
    all.sort_by(f64::total_cmp);
    let at = |place: usize| all.get(place).copied().unwrap_or(f64::NAN);
    let (low, high) = (all.len().saturating_sub(1) / 2, all.len() / 2);
    Spread { median: (at(low) + at(high)) / 2.0, min: at(0), max: at(all.len().saturating_sub(1)) }
}

/// Goes through all rounds; what is left is told on the standard error.
pub fn measure(stage: &mut Stage, plan: &Plan) -> anyhow::Result<Results> {
    let systems = stage.systems();
    let Plan { cases, rounds, spell } = plan;
    let millis = u64::try_from(spell.as_millis())?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len() * systems.len()];
    warm_up(stage, &systems, millis.min(300))?;
    let (began, total) = (Instant::now(), f64::from(*rounds) * cases.len() as f64);
    for round in 0..*rounds {
        for (number, case) in cases.iter().enumerate() {
            let Case { payload, in_flight } = *case;
            let done = f64::from(round) * cases.len() as f64 + number as f64;
            let left = left(began.elapsed(), spell.mul_f64(systems.len() as f64), done, total);
            eprintln!("round {} of {rounds}: {payload} bytes, {in_flight} in flight; {left} left", round + 1);
            for turn in 0..systems.len() {
                let place = (turn + usize::try_from(round)?) % systems.len();
                let measured = stage.measure(place, Order { payload, in_flight, millis })?;
                samples[number * systems.len() + place].push(Sample::of(&measured));
            }
        }
    }
    Ok(Results { systems, cases: cases.clone(), rounds: *rounds, spell: *spell, samples })
}

/// So that the first round is not that of cold caches and small buffers.
fn warm_up(stage: &mut Stage, systems: &[System], millis: u64) -> anyhow::Result<()> {
    eprintln!("warming up");
    for place in 0..systems.len() {
        stage.measure(place, Order { payload: 1_024, in_flight: 256, millis })?;
    }
    Ok(())
}

/// What is left, from what was done; before anything was, from how long it should take.
fn left(took: Duration, expected: Duration, done: f64, total: f64) -> String {
    let each = if done > 0.0 { took.as_secs_f64() / done } else { expected.as_secs_f64() };
    let seconds = each * (total - done);
    if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert!(spread(Vec::new()).median.is_nan());
    }
}
