//! The shape of the figures, and what they are judged by.

use serde_json::json;

use super::run::Measured;
use super::*;

fn measured(gaps_ms: &[u64]) -> Measured {
    Measured { gaps_us: gaps_ms.iter().map(|ms| ms * 1_000).collect(), calls: 10, ..Measured::default() }
}

#[test]
fn f3_a_row_has_the_shape_that_programs_read() {
    let mut row = Row::new(Variant::Kill9);
    row.add(Measured { in_flight_us: vec![50_000], ..measured(&[20, 25, 40, 21]) });
    let expected = json!({
        "variant": "kill9", "lease_s": 30, "runs": 1, "p50_ms": 21.0, "p99_ms": 40.0, "max_ms": 40.0,
        "failed": 0, "lost": 0, "duplicated": 0, "wrong": 0, "calls": 10,
        "in_flight": 1, "in_flight_p50_ms": 50.0, "in_flight_p99_ms": 50.0, "in_flight_max_ms": 50.0,
    });
    assert_eq!(serde_json::to_value([row]).expect("JSON"), json!([expected]));
    assert_eq!(Variant::ALL[0], Variant::Kill9, "programs find it first");
}

#[test]
fn f3_what_is_slower_than_the_goal_is_missed() {
    let mut row = Row::new(Variant::Kill9);
    row.add(measured(&[20, 30, 300, 30]));
    assert_eq!(row.misses(), Vec::<String>::new());
    row.add(measured(&[31, 301, 31, 31]));
    assert_eq!(row.misses().len(), 2, "{:?}", row.misses());
    let mut planned = Row::new(Variant::Sigterm);
    planned.add(measured(&[101]));
    assert_eq!(planned.misses(), ["sigterm: p99 is 101 ms, and at most 100 ms is the goal"]);
    let mut untold = Row::new(Variant::Kill9Untold);
    untold.add(measured(&[4_000]));
    assert!(untold.misses().is_empty(), "the lease decides there");
}

#[test]
fn s3_whatever_fails_is_missed() {
    let mut row = Row::new(Variant::Rolling);
    row.add(Measured { failed: 2, failures: vec!["2 × why".to_owned()], ..measured(&[1]) });
    assert!(!row.is_clean());
    assert_eq!(row.misses(), ["rolling: 2 calls failed"]);
}
