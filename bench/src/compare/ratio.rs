//! One system's figures beside another's.

use super::Case;
use super::rounds::{Results, Sample, Spread, spread};

/// What is set against what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Rate,
    P50,
    Cpu,
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Figure::Rate => sample.rps,
            Figure::P50 => sample.p50,
            Figure::Cpu => sample.cpu(),
        }
    }

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Rate => "rate",
            Figure::P50 => "p50",
            Figure::Cpu => "processor time",
        }
    }
}

/// How often one system's figure contains that of another. The quotient is taken within each round, as both were
/// measured within seconds there; `None` if either was not measured.
pub fn ratio(results: &Results, figure: Figure, case: Case, system: &str, against: &str) -> Option<Spread> {
    let (own, peer) = (results.samples(system, case)?, results.samples(against, case)?);
    let quotients: Vec<f64> = own.iter().zip(peer).map(|(own, peer)| figure.of(own) / figure.of(peer)).collect();
    (!quotients.is_empty()).then(|| spread(quotients))
}
