//! One small run of each rig: what `cargo xtask failover` and `cargo xtask faults` do a hundred times.

use std::time::Duration;

use xtask::failover::{self, FailoverOptions, Row, Variant};
use xtask::faults::{self, Fault, FaultsOptions};
use xtask::rig::{Programs, Speed};

use crate::harness::SLACK;

/// How long a call of the load may take.
const BUDGET: Duration = Duration::from_secs(5);

async fn programs() -> Programs {
    let build = || Programs::build(Speed::Debug, &mut |line| eprintln!("{line}"));
    tokio::task::spawn_blocking(build).await.expect("no panic").expect("the rig's program is built")
}

fn measure(programs: &Programs, variant: Variant, seed: u64) -> Row {
    let options =
        FailoverOptions { runs: Some(1), variants: vec![variant], seed: Some(seed), ..FailoverOptions::default() };
    let rows = failover::measure(&options, programs, &mut |line| println!("{line}"));
    rows.expect("the rig runs").remove(0)
}

/// Calls that are on their way at a kill -9 all end with their answer, within their budget, and are counted.
#[tokio::test(flavor = "multi_thread")]
async fn f3_failover_counts_calls_in_flight() {
    let programs = programs().await;
    // There are moments at which nothing is on its way.
    let measure =
        move || (1..=6).map(|seed| measure(&programs, Variant::Kill9, seed)).find(|row| row.in_flight().count > 0);
    let row = tokio::task::spawn_blocking(measure).await.expect("no panic").expect("calls are on their way");
    let (gaps, in_flight) = (row.gaps(), row.in_flight());
    println!("{gaps:?}; in flight {in_flight:?}");
    assert!(row.is_clean(), "{row}: {:?}", row.verdict);
    assert_eq!(gaps.count, 4, "each measured key was served by another node");
    assert!(gaps.p50_ms > 10.0, "nobody may take over before a read that was permitted has ended: {gaps:?}");
    assert!(in_flight.max_ms <= (BUDGET + SLACK).as_secs_f64() * 1e3, "{in_flight:?}");
    assert!(row.calls > 500, "the others were called too: {}", row.calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_rolling_restart_fails_no_call_and_loses_none() {
    let programs = programs().await;
    let row = tokio::task::spawn_blocking(move || measure(&programs, Variant::Rolling, 1)).await.expect("no panic");
    assert!(row.is_clean(), "{row}: {:?}", row.verdict);
    assert_eq!(row.gaps().count, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_what_callers_see_through_faults_is_linearizable() {
    let programs = programs().await;
    let campaign = move || {
        let faults = vec![Fault::Kill9, Fault::Broker];
        let options =
            FaultsOptions { runs: Some(2), one_server: true, faults, seed: Some(1), ..FaultsOptions::default() };
        faults::campaign(&options, &programs, &mut |line| println!("{line}"))
    };
    let tallies = tokio::task::spawn_blocking(campaign).await.expect("no panic").expect("the rig runs");
    for tally in tallies {
        assert!(tally.misses().is_empty(), "{tally:?}");
        assert_eq!((tally.runs, tally.discounted), (1, 0), "it says something: {tally:?}");
        assert!(tally.answered > 100, "{tally:?}");
    }
}
