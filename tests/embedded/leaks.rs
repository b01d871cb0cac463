//! What was not kept leaks nowhere: neither into replies, refusals and looks, nor into live events.

use std::time::Duration;

use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::transport::MemoryBroker;
use serde_json::Value;

use super::ground::{Ground, bounded, soon};
use super::tally::{Added, End, Journals, Sum, Tally};
use super::tally::{ending, later, list, numbers, rival, sums_of, tally};

/// What was asked, and what came of it.
enum Told {
    Sum(u64),
    Not(u64),
    Fell(String),
    Looked(u64),
    Failed(Error),
}

/// Rule 8: nothing that saw what was refused gets out. Against the journal, which is the truth: seeded orders of turns
/// of all kinds, appends whose answers are lost or that come late, and a rival that writes in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_refused_append_no_leak() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = tally(&ground, "one").await;
        let mut seen = Seen::default();
        for seed in 1..=60 {
            Box::pin(one_order(&broker, &ground, &node, seed, &mut seen)).await;
        }
        println!("{seen:?}");
        // It is no proof that all went well if nothing went wrong.
        assert!(seen.shared > 50 && seen.rivals > 50 && seen.lost > 50 && seen.seen > 100, "{seen:?}");
    })
    .await;
}

#[derive(Debug, Default)]
struct Seen {
    /// Appends of several turns.
    shared: usize,
    /// Records of the rival, each of which refuses what the node has on its way.
    rivals: usize,
    /// Answers lost, and appends delayed.
    lost: usize,
    /// Refusals, panics and looks that told a sum.
    seen: usize,
}

struct Chance(u64);

impl Chance {
    fn of(&mut self, many: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % many
    }
}

async fn one_order(broker: &MemoryBroker, ground: &Ground, node: &Node, seed: u64, seen: &mut Seen) {
    let key = format!("k-{seed}");
    let journals = Journals::of(ground, &key).await;
    let faults = broker.faults(&ground.subjects().journal_stream("tally"));
    let mut echoes = node.subscribe::<Added>().key(&key).live().await.expect("a subscription");
    let mut chance = Chance(seed);
    let mut asked = Vec::new();
    let mut fallen = false;
    for step in 0..60_u64 {
        let number = 1 << (step % 6) | (step + 1) << 8;
        let actor = node.actor::<Tally>(&key).within(Duration::from_secs(20));
        let end = some_end(&mut chance, &mut fallen);
        let look = end.is_none() && chance.of(2) == 0;
        asked.push((
            number,
            tokio::spawn(async move {
                let outcome = match end {
                    Some(end) => actor.ask(ending(number, end)).await,
                    None if look => return actor.ask(Sum).await.map_or_else(failed, Told::Looked),
                    None => actor.ask(later(number)).await,
                };
                match outcome {
                    Ok(sum) => Told::Sum(sum),
                    Err(AskError::Refused(no)) => Told::Not(no.seen),
                    Err(AskError::Failed(error)) if error.kind() == ErrorKind::Panicked => {
                        Told::Fell(error.message().to_owned())
                    }
                    Err(AskError::Failed(error)) => Told::Failed(error),
                }
            }),
        ));
        match chance.of(14) {
            0 | 1 => {
                faults.lose_next_answer();
                seen.lost += 1;
            }
            2 => {
                faults.delay_next(Duration::from_millis(chance.of(40)));
                seen.lost += 1;
            }
            3 | 4 => {
                // An append of the node waits to be sent again: now a rival is faster.
                faults.delay_next(Duration::from_millis(15));
                seen.lost += 1;
                tokio::time::sleep(Duration::from_millis(chance.of(6))).await;
                rival(&journals, seed * 1_000 + step).await;
            }
            5..=9 => tokio::time::sleep(Duration::from_micros(chance.of(3_000))).await,
            _ => {}
        }
    }
    let mut told = Vec::new();
    for (number, outcome) in asked {
        told.push((number, soon("an answer", outcome).await.expect("a caller does not panic")));
    }
    faults.clear();
    // Whatever is late has arrived.
    node.actor::<Tally>(&key).ask(later(0)).await.expect("an answer");
    let records = journals.records().await;
    seen.shared += records.iter().filter(|record| list(record, "commands").len() > 1).count();
    seen.rivals +=
        records.iter().filter(|record| record["id"].as_str().is_some_and(|id| id.starts_with("rival"))).count();
    check(seed, &records, &told, seen);
    let kept = numbers(&records);
    while let Ok(Some(echo)) = tokio::time::timeout(Duration::from_millis(20), echoes.next()).await {
        let Added::Number { number, .. } = echo.event;
        let place = usize::try_from(echo.sequence - 1).expect("small");
        assert_eq!(kept.get(place), Some(&number), "seed {seed}: an echo of what was not kept");
    }
}

fn failed<R>(error: AskError<R>) -> Told {
    match error {
        AskError::Failed(error) => Told::Failed(error),
        AskError::Refused(_) => unreachable!("a look refuses nothing"),
    }
}

/// How a turn of a plain function ends; `None`: it is another one. Only one of an order falls.
fn some_end(chance: &mut Chance, fallen: &mut bool) -> Option<End> {
    match chance.of(12) {
        0..=5 => Some(End::Accept),
        6 | 7 => Some(End::Refuse),
        8 => Some(End::Undo),
        9 if !std::mem::replace(fallen, true) => Some(End::Fall),
        _ => None,
    }
}

/// Everything that anybody was told is in the journal.
fn check(seed: u64, records: &[Value], told: &[(u64, Told)], seen: &mut Seen) {
    let kept = numbers(records);
    let sums = sums_of(&kept);
    let was = |sum: u64| sum == 0 || sums.values().any(|known| *known == sum);
    for (number, told) in told {
        let stored = kept.iter().filter(|known| *known == number).count();
        match told {
            Told::Sum(sum) => assert_eq!((stored, sums.get(number)), (1, Some(sum)), "seed {seed}, {number}"),
            Told::Not(sum) | Told::Looked(sum) => {
                assert_eq!(stored, 0, "seed {seed}, {number} was refused and is kept");
                assert!(was(*sum), "seed {seed}, {number}: the sum was never {sum}: {sums:?}");
                seen.seen += 1;
            }
            Told::Fell(why) => {
                let sum = why.rsplit(' ').next().and_then(|sum| sum.parse().ok()).expect("a sum");
                assert!(stored == 0 && was(sum), "seed {seed}, {number}: the sum was never {sum}: {sums:?}");
                seen.seen += 1;
            }
            Told::Failed(error) if error.kind() == ErrorKind::Unknown => assert!(stored <= 1),
            Told::Failed(error) => assert_eq!(stored, 0, "seed {seed}, {number} is kept, and was told: {error}"),
        }
    }
}
