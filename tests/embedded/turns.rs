//! Turns of one actor: one at a time, in order, and held by nobody who has stopped to care.

use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use greenroom::Node;

use super::gate::Gate;
use super::ground::{Ground, QUIET, bounded, on_both, settled, soon};
use super::probe::{Add, AddAsync, Note, NoteAtGate, Notes, Peek, Probe, ProbeActor, Total, Wait, keys_on};

async fn local() -> Node {
    Node::local("demo").host::<ProbeActor>().start().await.expect("a node starts")
}

on_both!(
    r1_turns_of_one_key_run_one_at_a_time,
    r1_messages_of_one_sender_run_in_their_order,
    r1_asks_of_one_caller_run_in_the_order_they_were_made,
);

async fn r1_turns_of_one_key_run_one_at_a_time(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    let gate = Gate::closed();
    gate.open(usize::MAX >> 4);
    let asks = 25;
    let askers = (0..32).map(|asker| {
        let node = if asker % 2 == 0 { one.clone() } else { two.clone() };
        let gate = gate.name();
        tokio::spawn(async move {
            for ask in 0..asks {
                let actor = node.actor::<Probe>("hot");
                let added = match (asker + ask) % 4 {
                    0 => actor.ask(Add { by: 1 }).await,
                    1 => actor.ask(AddAsync { by: 1 }).await,
                    _ => actor.ask(Wait { gate: gate.clone(), by: 1 }).await,
                };
                added.expect("an answer");
            }
        })
    });
    for asker in join_all(askers).await {
        asker.expect("no panic");
    }
    assert_eq!(gate.most(), 1, "two turns of one actor ran at the same time");
    assert_eq!(one.actor::<Probe>("hot").ask(Total).await.expect("an answer"), 32 * asks);
}

async fn r1_messages_of_one_sender_run_in_their_order(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    let keys = [keys_on(&one, &one, 1).await.remove(0), keys_on(&two, &one, 1).await.remove(0)];
    let (gate, numbers) = (Gate::closed(), 0..200);
    for key in &keys {
        // Behind this one the others queue up, so that there is an order to get wrong.
        one.actor::<Probe>(key).tell(NoteAtGate { gate: gate.name(), text: "first".to_owned() }).await.expect("told");
    }
    gate.arrived(2).await;
    let senders = [&one, &two].into_iter().flat_map(|node| keys.iter().map(move |key| (node, key)));
    let sent = senders.map(|(node, key)| {
        let numbers = numbers.clone();
        async move {
            for number in numbers {
                let text = format!("{}/{number}", node.id());
                node.actor::<Probe>(key).tell(Note { text }).await.expect("told");
            }
        }
    });
    soon("all are told", join_all(sent)).await;
    gate.open(2);
    for key in &keys {
        let notes = one.actor::<Probe>(key).ask(Notes).await.expect("an answer");
        assert_eq!(notes.len(), 1 + 2 * numbers.len());
        for node in [&one, &two] {
            let own: Vec<_> = notes.iter().filter_map(|note| note.strip_prefix(&format!("{}/", node.id()))).collect();
            assert!(own.iter().map(|number| number.parse::<i32>().expect("a number")).eq(numbers.clone()), "{own:?}");
        }
    }
}

async fn r1_asks_of_one_caller_run_in_the_order_they_were_made(ground: Ground) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    for key in [keys_on(&one, &one, 1).await.remove(0), keys_on(&two, &one, 1).await.remove(0)] {
        let (actor, gate) = (one.actor::<Probe>(&key), Gate::closed());
        let mut asks = Vec::new();
        for number in 0..200 {
            // Those that wait and those that do not, mixed: neither kind may overtake the other.
            let (actor, gate) = (&actor, gate.name());
            let ask = async move {
                match number % 3 {
                    0 => actor.ask(AddAsync { by: 1 }).await,
                    1 => actor.ask(Wait { gate, by: 1 }).await,
                    _ => actor.ask(Add { by: 1 }).await,
                }
            };
            let mut ask = Box::pin(ask);
            let polled = futures_util::poll!(ask.as_mut());
            asks.push(async move { if let std::task::Poll::Ready(reply) = polled { reply } else { ask.await } });
        }
        gate.open(200);
        let replies = soon("all are answered", join_all(asks)).await;
        let replies: Vec<u64> = replies.into_iter().map(|reply| reply.expect("an answer")).collect();
        assert!(replies.iter().copied().eq(1..=200), "{key}: {replies:?}");
    }
}

/// Polls a future once and keeps it.
macro_rules! poll_once {
    ($future:expr) => {
        futures_util::poll!($future.as_mut())
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unpolled_caller_does_not_hold_actor() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("held");
        // Once for an actor that is activated first, and once for one that is there.
        for round in 1..=2 {
            let mut unpolled = pin!(actor.ask(Wait { gate: gate.name(), by: 1 }));
            assert!(poll_once!(unpolled).is_pending());
            gate.arrived(round).await;
            gate.open(1);
            let total = soon("others are answered", actor.ask(Total)).await.expect("an answer");
            assert_eq!(total, round as u64, "the turn that nobody polls has ended");
            assert_eq!(unpolled.await.expect("its answer is kept"), round as u64);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losers_of_a_select_do_not_hold_their_actor() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("raced");
        let mut loser = pin!(actor.ask(Wait { gate: gate.name(), by: 1 }));
        tokio::select! {
            biased;
            _ = &mut loser => panic!("the gate is closed"),
            () = gate.arrived(1) => {}
        }
        let mut queued = pin!(actor.ask(Add { by: 10 }));
        tokio::select! {
            biased;
            _ = &mut queued => panic!("a turn is at the gate"),
            () = tokio::time::sleep(QUIET) => {}
        }
        gate.open(1);
        assert_eq!(soon("others are answered", actor.ask(Total)).await.expect("an answer"), 11);
        assert_eq!((loser.await.ok(), queued.await.ok()), (Some(1), Some(11)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_that_waits_for_its_reader_does_not_hold_actors() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let asks = iter(0..8).map(|number| {
            let (node, gate) = (node.clone(), gate.name());
            async move { node.actor::<Probe>(format!("b-{number}")).ask(Wait { gate, by: 1 }).await }
        });
        let mut buffered = pin!(asks.buffer_unordered(8));
        assert!(futures_util::poll!(buffered.next()).is_pending());
        gate.arrived(8).await;
        gate.open(8);
        // Nobody polls the buffer, and every actor answers.
        for number in 0..8 {
            let actor = node.actor::<Probe>(format!("b-{number}"));
            assert_eq!(soon("others are answered", actor.ask(Total)).await.expect("an answer"), 1);
        }
        for _ in 0..8 {
            let reply = soon("the buffer gives its answers", buffered.next()).await.expect("eight of them");
            assert_eq!(reply.expect("an answer"), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn an_ask_that_is_ready_ends_in_its_callers_poll() {
    // One thread, and no await: nothing that was spawned can have run in between.
    let node = local().await;
    let actor = node.actor::<Probe>("ready");
    assert_eq!(actor.ask(Add { by: 1 }).await.expect("activated"), 1);
    tokio::time::sleep(QUIET).await;
    for round in 2..=100 {
        let reply = actor.ask(Add { by: 1 }).now_or_never();
        assert_eq!(reply.and_then(Result::ok), Some(round), "a plain fn, ask {round}");
    }
    for round in 101..=200 {
        let reply = actor.ask(AddAsync { by: 1 }).now_or_never();
        assert_eq!(reply.and_then(Result::ok), Some(round), "an async fn that does not wait, ask {round}");
    }
    let fresh = node.actor::<Probe>("fresh");
    for round in 1..=3 {
        assert_eq!(fresh.ask(Add { by: 1 }).now_or_never().and_then(Result::ok), Some(round), "from its activation on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_does_not_cut_a_turn_that_has_started() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("dropped");
        {
            let mut ask = pin!(actor.ask(Wait { gate: gate.name(), by: 5 }));
            assert!(poll_once!(ask).is_pending());
        }
        gate.arrived(1).await;
        gate.open(1);
        gate.passed(1).await;
        assert_eq!(actor.ask(Total).await.expect("an answer"), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_whose_caller_has_gone_is_not_started() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("gone");
        let mut first = pin!(actor.ask(Wait { gate: gate.name(), by: 1 }));
        assert!(poll_once!(first).is_pending());
        gate.arrived(1).await;
        for _ in 0..10 {
            let mut unstarted = pin!(actor.ask(Add { by: 100 }));
            assert!(poll_once!(unstarted).is_pending());
        }
        gate.open(1);
        assert_eq!(first.await.expect("an answer"), 1);
        assert_eq!(actor.ask(Total).await.expect("an answer"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_one_actor_run_together_and_a_writer_between_them() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        let actor = node.actor::<Probe>("read");
        let peek = || {
            let (node, gate) = (node.clone(), gate.name());
            tokio::spawn(async move { node.actor::<Probe>("read").ask(Peek { gate }).await })
        };
        let mut readers = vec![peek(), peek(), peek()];
        gate.arrived(3).await;
        assert_eq!(gate.most(), 3, "reads overlap");
        let mut writer = pin!(actor.ask(Add { by: 1 }));
        assert!(poll_once!(writer).is_pending(), "a writer waits for the reads that run");
        // Reads that come after it wait for it, so that it is not starved.
        for _ in 0..4 {
            readers.push(peek());
        }
        assert_eq!(gate.arrivals_after_quiet().await, 3);
        gate.open(3);
        assert_eq!(soon("the writer's turn", writer).await.expect("an answer"), 1);
        gate.arrived(7).await;
        gate.open(4);
        let mut seen = Vec::new();
        for reader in readers {
            seen.push(reader.await.expect("no panic").expect("an answer"));
        }
        assert_eq!(seen, [0, 0, 0, 1, 1, 1, 1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_reads_does_not_starve_a_writer() {
    bounded(async {
        let node = local().await;
        let gate = Gate::closed();
        gate.open(usize::MAX >> 4);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let readers = (0..16).map(|_| {
            let (node, gate, stopped) = (node.clone(), gate.name(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    let read = node.actor::<Probe>("busy").ask(Peek { gate: gate.clone() }).await;
                    assert!(read.is_ok_and(|total| total <= 100));
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        gate.arrived(100).await;
        for round in 1..=100 {
            let added = soon("a writer's turn", node.actor::<Probe>("busy").ask(Add { by: 1 })).await;
            assert_eq!(added.map_err(|error| error.failure().map(greenroom::Error::kind)), Ok(round));
        }
        stop.send_replace(true);
        for reader in readers {
            reader.await.expect("no panic");
        }
    })
    .await;
}
