//! Hot keys: turns that run while an append is under way share the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use futures_util::future::join_all;
use greenroom::ErrorKind;
use greenroom::prelude::*;
use greenroom::transport::{Headers, MemoryBroker};
use serde_json::json;

use super::bypass::own_messages;
use super::gate::Gate;
use super::ground::{Ground, SOON, bounded, on_both, settled, soon};
use super::outsiders::Outsider;
use super::tally::{Add, AddLater, Added, End, Journals, No, Sum, Tally, TallyActor};
use super::tally::{add, ending, json_of, later, list, numbers, rival, sums_of, tally};
use crate::harness::{eventually, holds};

on_both!(
    f3_turns_that_come_together_share_an_append,
    e1_a_no_and_a_fall_amid_a_group_leave_no_trace,
    e1_groups_are_bounded_in_turns_and_bytes,
    e1_a_hot_key_changes_hands_without_loss,
    e1_window_of_four_replays_first,
);

/// Asks all of these while another turn runs, so that all of them wait; what each came to.
async fn together(actor: &Ref<Tally>, turns: impl IntoIterator<Item = Add>) -> Vec<Result<u64, AskError<No>>> {
    let gate = Gate::closed();
    let held = actor.ask(AddLater { number: 0, gate: gate.name() });
    let opened = async {
        gate.arrived(1).await;
        let (outcomes, ()) = futures_util::join!(join_all(turns.into_iter().map(|turn| actor.ask(turn))), async {
            gate.open(1);
        });
        outcomes
    };
    let (held, outcomes) = futures_util::join!(held, opened);
    held.expect("an answer");
    outcomes
}

async fn f3_turns_that_come_together_share_an_append(ground: Ground) {
    let node = tally(&ground, "one").await;
    let actor = node.actor::<Tally>("hot").within(Duration::from_secs(20));
    actor.ask(add(1)).await.expect("an answer");
    let sums = together(&actor, (0..200).map(|_| add(1))).await;
    for (number, sum) in sums.into_iter().enumerate() {
        assert_eq!(sum.expect("an answer"), number as u64 + 2, "in the order in which they were asked");
    }
    // One that may wait, and a look, keep their places.
    let (before, later, look, after) =
        futures_util::join!(actor.ask(add(1)), actor.ask(later(1)), actor.ask(Sum), actor.ask(add(1)));
    let sums = [before, later, after].map(|sum| sum.expect("an answer"));
    assert_eq!((sums, look.expect("an answer")), ([202, 203, 204], 203));
    let records = Journals::of(&ground, "hot").await.records().await;
    let kept = numbers(&records);
    assert_eq!((kept.len(), kept.iter().sum::<u64>()), (205, 204));
    assert!(records.len() < 20, "{} appends for 205 turns", records.len());
}

async fn e1_a_no_and_a_fall_amid_a_group_leave_no_trace(ground: Ground) {
    let node = tally(&ground, "one").await;
    for end in [End::Refuse, End::Undo, End::Fall] {
        let key = format!("hot-{end:?}");
        let actor = node.actor::<Tally>(&key).within(Duration::from_secs(20));
        actor.ask(add(1)).await.expect("an answer");
        let turns = [1, 1, 50, 1, 1].map(|number| if number > 1 { ending(number, end) } else { add(number) });
        let sums = together(&actor, turns).await;
        let told: Vec<String> = sums
            .iter()
            .map(|sum| match sum {
                Ok(sum) => sum.to_string(),
                Err(AskError::Refused(no)) => no.to_string(),
                Err(AskError::Failed(error)) => format!("{}: {}", error.kind(), error.message()),
            })
            .collect();
        let no = match end {
            End::Fall => {
                format!("panicked: tally/{key} panicked in this turn, which left no trace: the tally falls at 3")
            }
            _ => "not added to 3".to_owned(),
        };
        assert_eq!(told, ["2", "3", &no, "4", "5"], "{end:?}");
        let records = Journals::of(&ground, &key).await.records().await;
        assert_eq!(numbers(&records), [1, 0, 1, 1, 1, 1], "{end:?}");
        assert_eq!(actor.ask(Sum).await.expect("an answer"), 5);
    }
}

async fn e1_groups_are_bounded_in_turns_and_bytes(ground: Ground) {
    let node = ground.node("one").payload_max(128 * 1024).host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&node], &[]).await;
    let many = node.actor::<Tally>("many").within(Duration::from_secs(30));
    for sum in together(&many, (0..700).map(|_| add(1))).await {
        sum.expect("an answer");
    }
    let records = Journals::of(&ground, "many").await.records().await;
    assert_eq!(numbers(&records).len(), 701);
    let most = records.iter().map(|record| list(record, "commands").len()).max();
    assert!((33..=256).contains(&most.unwrap_or(0)), "{most:?}");

    // Large ones, and one amid them that no record can hold: it alone is refused, those behind it are asked again.
    let large = node.actor::<Tally>("large").within(Duration::from_secs(30));
    let noted = |bytes: usize| Add { number: 1, end: End::Accept, note: "n".repeat(bytes) };
    let sizes = (0..40).map(|number| if number == 20 { 131_000 } else { 9_000 + number * 100 });
    let sums = together(&large, sizes.map(noted)).await;
    for (number, sum) in sums.into_iter().enumerate() {
        match (number, sum) {
            (20, sum) => {
                let error = sum.expect_err("it fits into no record");
                assert_eq!(error.failure().map(Error::kind), Some(ErrorKind::PayloadTooLarge), "{error:?}");
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => panic!("{number}: {error:?}"),
        }
    }
    let journals = Journals::of(&ground, "large").await;
    let records = journals.records().await;
    assert_eq!(numbers(&records).len(), 40);
    for record in &records {
        let bytes = record["events"].to_string().len();
        assert!(bytes <= 64 * 1024, "a record with {bytes} bytes of events");
    }
    assert!(records.len() < 20, "{} appends for 40 turns", records.len());
}

async fn e1_a_hot_key_changes_hands_without_loss(ground: Ground) {
    let one = tally(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a client starts");
    settled("tally", &[&one], &[&client]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..24_u64)
        .map(|caller| {
            let through_one = caller % 4 == 1;
            let (node, stop) = (if through_one { one.clone() } else { client.clone() }, stop.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = 1 + caller + 24 * told.len() as u64;
                    let actor = node.actor::<Tally>("hot").within(Duration::from_secs(20));
                    match actor.ask(add(number)).await {
                        Ok(sum) => told.push((number, sum)),
                        // The node that it asked through has left.
                        Err(AskError::Failed(error))
                            if through_one && matches!(error.kind(), ErrorKind::Stopped | ErrorKind::Unknown) =>
                        {
                            break;
                        }
                        Err(error) => panic!("{number}: {error:?}"),
                    }
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let two = ground.node("two").host::<TallyActor>().start().await.expect("a node starts");
    settled("tally", &[&one, &two], &[&client]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = BTreeMap::new();
    for caller in join_all(callers).await {
        told.extend(caller.expect("a caller does not panic"));
    }
    let records = Journals::of(&ground, "hot").await.records().await;
    let kept = numbers(&records);
    assert!(records.len() < kept.len(), "some of them shared an append");
    let sums: BTreeMap<u64, u64> = sums_of(&kept);
    for (number, sum) in &told {
        assert_eq!(sums.get(number), Some(sum), "{number} was answered");
    }
    // One that was on its way through a node which stopped may be there without an answer.
    assert!(kept.len() - told.len() <= 24, "{} kept, {} answered", kept.len(), told.len());
}

fn command(id: &str, attempt: u32, born: u64) -> Headers {
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", id);
    headers.push("Greenroom-Attempt", attempt.to_string());
    headers.push("Greenroom-Born", born.to_string());
    headers
}

/// Rule 11: what may have been forgotten is never run again, wherever the actor lives by then.
async fn e1_window_of_four_replays_first(ground: Ground) {
    let node = |name: &str| {
        let node = ground.node(name).remembers(4).passivate_after(Duration::from_secs(1));
        node.host::<TallyActor>()
    };
    let one = node("one").start().await.expect("a node starts");
    settled("tally", &[&one], &[]).await;
    let mut outsider = Outsider::on(&ground).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis() as u64;
    let body = |number: u64| json!({ "number": number, "note": "n".repeat(1_500) }).to_string();
    for number in 1..=5 {
        let id = format!("c-{number}");
        let answer = outsider.ask_with("tally.w.add", &body(number), command(&id, 1, now - 1_000 + number)).await;
        assert_eq!(json_of(&answer.body), json!(number * (number + 1) / 2), "{answer:?}");
    }
    let journals = Journals::of(&ground, "w").await;
    let replays = async |outsider: &mut Outsider, when: &str| {
        let answer = outsider.ask_with("tally.w.add", &body(1), command("c-1", 2, now - 999)).await;
        let error = json_of(&answer.body);
        assert_eq!((&error["kind"], &error["details"]["born_after"]), (&json!("expired"), &json!(now - 999)), "{when}");
        // The second is remembered still.
        let answer = outsider.ask_with("tally.w.add", &body(2), command("c-2", 2, now - 998)).await;
        assert_eq!(json_of(&answer.body), json!(3), "{when}");
        assert_eq!(numbers(&journals.records().await), [1, 2, 3, 4, 5], "{when}");
    };
    let has_snapshot = async || {
        let records = journals.records().await;
        records.iter().skip(4).any(|record| record.get("snapshot").is_some())
    };
    assert!(!has_snapshot().await, "the fifth command is in no snapshot yet");
    replays(&mut outsider, "at once").await;
    let gone = async || {
        eventually(Duration::from_secs(15), "nothing is in memory", async || {
            let resident = one.info().resident;
            holds(resident["tally"] == 0, || format!("{resident:?}"))
        })
        .await;
    };
    gone().await;
    replays(&mut outsider, "after passivation, from the records").await;
    // More commands without a birth, until there is a snapshot: they push none of the others out.
    let mut sum = 15;
    while !has_snapshot().await {
        sum += 1;
        let plain = json!({ "number": 1, "note": "n".repeat(1_500) }).to_string();
        let answer = outsider.ask_with("tally.w.add", &plain, Headers::new()).await;
        assert_eq!(json_of(&answer.body), json!(sum), "{answer:?}");
    }
    gone().await;
    let more = usize::try_from(sum - 15).expect("few");
    let expired = async |outsider: &mut Outsider, when: &str| {
        let answer = outsider.ask_with("tally.w.add", &body(1), command("c-1", 2, now - 999)).await;
        assert_eq!(json_of(&answer.body)["kind"], json!("expired"), "{when}");
        assert_eq!(numbers(&journals.records().await).len(), 5 + more, "{when}");
    };
    expired(&mut outsider, "from the snapshot").await;
    let two = node("two").start().await.expect("a node starts");
    settled("tally", &[&one, &two], &[]).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    expired(&mut outsider, "after a handover").await;
    drop(two);
    let three = node("three").start().await.expect("a node starts");
    settled("tally", &[&three], &[]).await;
    expired(&mut outsider, "after a take-over").await;
}

/// Another owner has written: the first turn is not kept, and asked again. What its caller asked next stood behind it,
/// and stands behind it still. On one thread, so that all of them have been asked before the first is answered.
#[tokio::test]
async fn e1_what_stood_behind_a_lost_turn_does_not_overtake_it() {
    bounded(behind_a_lost_turn(Ground::nats().await)).await;
}

async fn behind_a_lost_turn(ground: Ground) {
    let node = tally(&ground, "one").await;
    for round in 0..20 {
        let key = format!("lost-{round}");
        let actor = node.actor::<Tally>(&key).within(Duration::from_secs(20));
        actor.ask(add(1)).await.expect("an answer");
        let journals = Journals::of(&ground, &key).await;
        rival(&journals, 5).await;
        let sums = join_all((2..8).map(|number| actor.ask(add(number)))).await;
        assert!(sums.iter().all(Result::is_ok), "{sums:?}");
        let kept = numbers(&journals.records().await);
        assert_eq!(kept.len(), 8, "{kept:?}");
        assert_eq!(kept[2..], [2, 3, 4, 5, 6, 7], "in the order in which they were asked");
    }
}

/// While an append is under way for long, as many turns run behind it as the next one may hold, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_what_runs_behind_a_slow_append_is_bounded() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let node = tally(&ground, "one").await;
        let actor = node.actor::<Tally>("slow").within(Duration::from_secs(20));
        let (behind, first) = (Gate::closed(), Gate::closed());
        let held = actor.ask(AddLater { number: 1, gate: behind.name() });
        let blocked = actor.ask(Add { note: first.name(), ..add(1) });
        let (broker, stream) = (broker.clone(), ground.subjects().journal_stream("tally"));
        let slow = async move {
            // It is the first of those that share an append. That is sent again until it is there.
            first.arrived(1).await;
            broker.faults(&stream).delay_next(Duration::from_millis(700));
            first.open(1);
        };
        let slow = tokio::spawn(Box::pin(slow));
        let others = join_all((0..900).map(|_| actor.ask(add(1))));
        // Only when all of them wait.
        let opened = async {
            behind.arrived(1).await;
            behind.open(1);
        };
        let sums = futures_util::join!(held, blocked, others, opened);
        slow.await.expect("no panic");
        for (number, sum) in [sums.0, sums.1].into_iter().chain(sums.2).enumerate() {
            assert_eq!(sum.expect("an answer"), number as u64 + 1);
        }
        let records = Journals::of(&ground, "slow").await.records().await;
        assert_eq!(numbers(&records).len(), 902);
        let most = records.iter().map(|record| list(record, "commands").len()).max();
        assert!((128..=256).contains(&most.unwrap_or(0)), "{most:?}: as many as a record may hold, since all waited");
    })
    .await;
}

/// Whoever blocks a thread in a turn holds up nobody but those who wait for that turn: what settles the turns of others
/// runs no handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_turns_that_block_hold_up_no_other_actor() {
    bounded(async {
        let ground = Ground::nats().await;
        let node = tally(&ground, "one").await;
        let actor = |key: &str| node.actor::<Tally>(key).within(Duration::from_secs(50));
        let gate = Gate::closed();
        let keys: Vec<String> = (0..8).map(|number| format!("blocked-{number}")).collect();
        let mut blocked = Vec::new();
        for key in &keys {
            let (actor, note) = (actor(key), gate.name());
            actor.ask(add(1)).await.expect("an answer");
            blocked.push(tokio::spawn(async move {
                // The second comes while the first is being kept.
                futures_util::join!(actor.ask(add(1)), actor.ask(Add { note, ..add(1) }))
            }));
        }
        // Whatever comes of it: a runtime with threads that wait for ever does not end, and may have no clock either.
        let (done, is_done) = mpsc::sync_channel::<()>(0);
        let opens = std::thread::spawn({
            let (gate, handlers) = (gate.clone(), keys.len());
            move || {
                let stuck = is_done.recv_timeout(SOON * 2) == Err(RecvTimeoutError::Timeout);
                gate.open(handlers);
                stuck
            }
        });
        gate.arrived(keys.len()).await;
        let others = join_all((0..20).map(async |number| {
            let free = actor(&format!("free-{number}"));
            (free.ask(add(1)).await, free.ask(add(1)).await)
        }));
        let others = tokio::time::timeout(SOON, others).await;
        drop(done);
        assert!(!opens.join().expect("no panic"), "turns that block held up those that do not");
        for (first, second) in others.expect("others are answered") {
            assert_eq!((first.expect("an answer"), second.expect("an answer")), (1, 2));
        }
        for turns in blocked {
            let (first, second) = turns.await.expect("no panic");
            assert_eq!((first.expect("an answer"), second.expect("an answer")), (2, 3));
        }
    })
    .await;
}

/// While a node tells thousands of events a second, those that nobody hears are not sent; whoever begins to listen hears
/// them soon, and then all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_in_a_rush_what_nobody_hears_is_not_sent() {
    bounded(async {
        let ground = Ground::nats_alone().await;
        let server = ground.server().expect("a server of its own");
        let node = tally(&ground, "one").await;
        let actor = node.actor::<Tally>("hot").within(Duration::from_secs(20));
        let rush = async || together(&actor, (0..1_000).map(|_| add(1))).await;
        eventually(Duration::from_secs(60), "events that nobody hears are not sent", async || {
            let before = own_messages(server).await;
            // The last one's events may follow its answers.
            for _ in 0..3 {
                assert!(rush().await.iter().all(Result::is_ok));
            }
            let sent = own_messages(server).await - before;
            holds(sent < 1_800, || format!("{sent} messages for 3,000 turns that share their appends"))
        })
        .await;
        let mut events = node.subscribe::<Added>().key("hot").live().await.expect("a subscription");
        let heard = tokio::spawn(async move {
            let mut last = 0;
            while let Some(event) = events.next().await {
                assert!(last == 0 || event.sequence == last + 1, "{} after {last}", event.sequence);
                last = event.sequence;
                if matches!(event.event, Added::Number { number: 2, .. }) {
                    break;
                }
            }
            last
        });
        for _ in 0..5 {
            assert!(rush().await.iter().all(Result::is_ok));
        }
        actor.ask(add(2)).await.expect("an answer");
        let last = soon("the last event is heard", heard).await.expect("no gap");
        let kept = numbers(&Journals::of(&ground, "hot").await.records().await);
        assert_eq!(last, kept.len() as u64);
    })
    .await;
}
