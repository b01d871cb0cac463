//! What greenroom wants to reach beside others, and whether it did.

use super::Case;
use super::ratio::{Figure, ratio};
use super::rounds::{Results, Spread};
use super::system::System;

/// One thing that is wanted of greenroom.
pub struct Goal {
    pub case: Case,
    pub figure: Figure,
    pub against: &'static str,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// How it came out.
pub struct Verdict {
    pub ratio: Spread,
    pub met: bool,
}

impl Goal {
    /// What is wanted, in words: `at least 5.00 ×`.
    pub fn wanted(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {bound:.2} ×"),
            Bound::AtMost(bound) => format!("at most {bound:.2} ×"),
        }
    }

    /// The median over the rounds decides. `None` if either system, or the case, was left out.
    pub fn judge(&self, results: &Results) -> Option<Verdict> {
        let ratio = ratio(results, self.figure, self.case, System::GREENROOM.name, self.against)?;
        let met = match self.bound {
            Bound::AtLeast(bound) => ratio.median >= bound,
            Bound::AtMost(bound) => ratio.median <= bound,
        };
        Some(Verdict { ratio, met })
    }
}

/// All of them.
pub fn all() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Figure::{Cpu, P50, Rate};

    let (library, grpc, stream) = (System::ASYNC_NATS.name, System::TONIC_X4.name, System::TONIC_STREAM.name);
    let goals = [
        ((100, 256), Rate, grpc, AtLeast(7.0)),
        ((1_024, 1), P50, library, AtMost(1.05)),
        ((1_024, 1), Cpu, library, AtMost(1.0)),
        ((1_024, 256), Rate, grpc, AtLeast(5.0)),
        ((1_024, 256), Rate, library, AtLeast(2.0)),
        ((1_024, 256), Rate, System::RACTOR_CLUSTER.name, AtLeast(2.5)),
        ((1_024, 256), Rate, stream, AtLeast(0.6)),
        ((10_240, 64), Rate, grpc, AtLeast(1.3)),
        ((10_240, 64), Rate, library, AtLeast(1.0)),
        ((102_400, 64), Rate, library, AtLeast(1.0)),
        ((102_400, 64), Cpu, library, AtMost(0.95)),
    ];
    goals
        .into_iter()
        .map(|((payload, in_flight), figure, against, bound)| Goal {
            case: Case { payload, in_flight },
            figure,
            against,
            bound,
        })
        .collect()
}
