//! The judge of journals says no to everything that must not be.

use super::*;

fn entry(sequence: u64, epoch: u64, node: &str, value: u64) -> Entry {
    Entry { sequence, key: "k".to_owned(), epoch, node: node.to_owned(), changes: vec![Change::Appended(value)] }
}

fn journal() -> Vec<Entry> {
    vec![entry(1, 5, "a-1", 7), entry(2, 5, "a-1", 8), entry(3, 6, "b-1", 9)]
}

fn append(value: u64, outcome: Outcome, length: Option<u64>) -> Call {
    Call { outcome, length, ..Call::begin(1, "k", Operation::Append { value }) }
}

fn answered() -> Vec<Call> {
    let values = [(7, 1), (8, 2), (9, 3)];
    values.map(|(value, length)| append(value, Outcome::Ok, Some(length))).into()
}

fn digest(values: &[u64]) -> u64 {
    values.iter().fold(0, |digest, value| extend(digest, *value))
}

#[test]
fn s3_a_journal_that_matches_is_no_reason_to_complain() {
    let mut calls = answered();
    // Nobody knows what became of it, so both are fine: it is there, or it is not.
    calls[2].outcome = Outcome::Info;
    calls.push(append(99, Outcome::Info, None));
    calls.push(append(98, Outcome::Failed, None));
    let (length, digest) = (Some(2), Some(digest(&[7, 8])));
    calls.push(Call { outcome: Outcome::Ok, length, digest, ..Call::begin(2, "k", Operation::Get) });
    let verdict = judge(&calls, &journal());
    assert!(verdict.is_clean(), "{verdict:?}");
}

#[test]
fn e1_an_acknowledged_append_that_is_not_there_is_lost() {
    let mut entries = journal();
    entries.remove(2);
    let verdict = judge(&answered(), &entries);
    assert_eq!((verdict.lost, verdict.duplicated, verdict.wrong), (1, 0, 0), "{verdict:?}");
    assert!(verdict.complaints[0].contains("9 was acknowledged and is not there"), "{verdict:?}");
}

#[test]
fn e1_an_append_that_is_there_again_was_done_twice() {
    let mut entries = journal();
    entries.push(entry(4, 6, "b-1", 7));
    let verdict = judge(&answered(), &entries);
    assert_eq!((verdict.lost, verdict.duplicated), (0, 1), "{verdict:?}");
}

#[test]
fn s3_what_else_must_not_be_is_wrong() {
    let calls = answered();
    let mut late = journal();
    late.push(entry(4, 5, "a-1", 10));
    let mut two = journal();
    two.push(entry(4, 6, "c-1", 10));
    let elsewhere = vec![append(8, Outcome::Ok, Some(3))];
    let after_all = vec![append(8, Outcome::Failed, None)];
    let never = Call { outcome: Outcome::Ok, length: Some(2), digest: Some(1), ..Call::begin(2, "k", Operation::Get) };
    let cases = [
        (&calls, late, "has epoch 5, after 6"),
        (&calls, two, "both b-1 and c-1 wrote in epoch 6"),
        (&elsewhere, journal(), "8 is number 2, and its reply said 3"),
        (&after_all, journal(), "answered as not run, and is there"),
        (&vec![never], journal(), "never such a list"),
    ];
    for (calls, entries, expected) in cases {
        let verdict = judge(calls, &entries);
        assert_eq!((verdict.lost, verdict.duplicated, verdict.wrong), (0, 0, 1), "{expected}: {verdict:?}");
        assert!(verdict.complaints[0].contains(expected), "{expected}: {verdict:?}");
    }
}

#[test]
fn a_spread_is_of_the_times_that_there_were() {
    let spread = Spread::of((1..=200).rev().map(|ms| ms * 1_000).collect());
    assert_eq!(spread, Spread { count: 200, p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
    assert_eq!(Spread::of(Vec::new()), Spread::default());
}
