//! What counts as a run, and the proof that the judge bites.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::report::Observed;
use super::*;
use crate::rig::{Call, Operation, Outcome, Verdict, extend};

fn observed(fault: Fault) -> Observed {
    let judged = Judged { ok: true, operations: 100, keys: BTreeMap::new(), pictures: Vec::new() };
    let (verdict, number) = (Verdict::default(), 1);
    Observed { fault, number, calls: 100, answered: 60, open: 0, failed: 40, slow: 0, moved: 1, verdict, judged }
}

#[test]
fn e1_a_run_counts_only_if_calls_are_answered_and_the_fault_is_felt() {
    assert!(observed(Fault::Kill9).counts());
    assert!(!Observed { answered: 59, ..observed(Fault::Kill9) }.counts(), "too few answers");
    assert!(!Observed { moved: 0, ..observed(Fault::Cut) }.counts(), "nobody else took over");
    assert!(!Observed { failed: 0, ..observed(Fault::Broker) }.counts(), "nothing was felt");
}

#[test]
fn e1_a_tally_has_the_shape_that_programs_read() {
    let mut tally = Tally::new(Fault::Pause);
    tally.add(&observed(Fault::Pause));
    let mut illegal = observed(Fault::Pause);
    illegal.judged.ok = false;
    illegal.judged.keys.insert("r1-0".to_owned(), "illegal".to_owned());
    assert_eq!(tally.add(&illegal), ["r1-0 is illegal"]);
    let expected = json!({
        "fault": "pause", "runs": 2, "discounted": 0, "calls": 200, "answered": 120, "open": 0,
        "not_linearizable": 1, "undecided": 0, "lost": 0, "duplicated": 0, "wrong": 0,
    });
    assert_eq!(serde_json::to_value(&tally).expect("JSON"), expected);
    assert_eq!(tally.misses(), ["pause: 1 runs are not linearizable"]);
}

/// A call of this caller, from and to that time.
fn call(client: u32, operation: Operation, times: (u64, u64), outcome: Outcome) -> Call {
    let (invoked_us, ended_us) = times;
    Call { invoked_us, ended_us, outcome, ..Call::begin(client, "k", operation) }
}

fn append(value: u64, length: u64, times: (u64, u64)) -> Call {
    Call { length: Some(length), ..call(1, Operation::Append { value }, times, Outcome::Ok) }
}

fn shown(register: u64, values: &[u64], times: (u64, u64)) -> Call {
    let digest = values.iter().fold(0, |digest, value| extend(digest, *value));
    let (register, length, digest) = (Some(register), Some(values.len() as u64), Some(digest));
    Call { register, length, digest, ..call(2, Operation::Get, times, Outcome::Ok) }
}

fn is_linearizable(calls: &[Call]) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let porcupine = Porcupine::find(&mut |line| eprintln!("{line}")).expect("the judge");
    let judged = porcupine.judge(calls, Duration::from_secs(60), dir.path()).expect("a judgement");
    assert_eq!(judged.pictures.iter().filter(|path| path.is_file()).count(), usize::from(!judged.ok), "{judged:?}");
    judged.ok
}

#[test]
fn e1_the_judge_lets_pass_what_one_cell_could_have_answered() {
    let set = |value, times, outcome| call(3, Operation::Set { value }, times, outcome);
    let cas = |expected, value, times, outcome| call(4, Operation::Cas { expected, value }, times, outcome);
    assert!(is_linearizable(&[
        append(7, 1, (1, 10)),
        // It overlaps with the read, which may have come first.
        append(8, 2, (20, 40)),
        shown(0, &[7], (25, 35)),
        shown(0, &[7, 8], (41, 42)),
        set(5, (50, 60), Outcome::Ok),
        Call { register: Some(5), ..cas(4, 6, (61, 70), Outcome::Refused) },
        cas(5, 6, (71, 80), Outcome::Ok),
        // Nobody knows what became of it: it takes effect long after its caller gave up.
        set(9, (81, 90), Outcome::Info),
        shown(6, &[7, 8], (91, 92)),
        shown(9, &[7, 8], (200, 210)),
        // It was not run.
        set(3, (211, 212), Outcome::Failed),
        shown(9, &[7, 8], (213, 214)),
    ]));
}

#[test]
fn e1_the_judge_refuses_a_stale_read() {
    assert!(!is_linearizable(&[append(7, 1, (1, 10)), append(8, 2, (11, 20)), shown(0, &[7], (21, 30))]));
}

#[test]
fn e1_the_judge_refuses_a_lost_acknowledged_append() {
    // The third was answered as the second, and nobody sees what was before it.
    let calls = [append(7, 1, (1, 10)), append(8, 2, (11, 20)), append(9, 2, (21, 30)), shown(0, &[7, 9], (31, 40))];
    assert!(!is_linearizable(&calls));
}

#[test]
fn e1_the_judge_refuses_a_write_that_came_back() {
    let set = |value, times| call(3, Operation::Set { value }, times, Outcome::Ok);
    assert!(!is_linearizable(&[set(1, (1, 2)), set(2, (3, 4)), shown(2, &[], (5, 6)), shown(1, &[], (7, 8))]));
    let failed = call(3, Operation::Set { value: 4 }, (1, 2), Outcome::Failed);
    assert!(!is_linearizable(&[failed, shown(4, &[], (5, 6))]), "what was not run is not seen");
}
