//! Reminders: what an actor asked to be told later it is told, once, whatever happens meanwhile.

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::transport::{Headers, MemoryBroker, StreamConfig};

use super::bell::{
    Arm, ArmMany, Bell, BellActor, Cancel, List, Rang, Rung, Then, Wakes, When, arm, armed, at, bell, listed, now,
    rings, tags,
};
use super::ground::{Ground, SOON, bounded, on_both, settled, soon};
use crate::harness::{eventually, holds, nats};

on_both!(
    e5_a_reminder_of_each_kind_fires,
    e5_a_firing_takes_effect_once_however_often_it_comes,
    e5_relay_killed_after_cancel_ack,
    e5_a_reminder_outlives_its_node,
    e5_an_actor_that_has_left_memory_is_woken,
    e5_what_is_overdue_fires_at_the_activation,
    e5_what_is_armed_again_fires_at_the_later_word_only,
    e5_whoever_cancels_in_time_is_told_the_truth,
    e5_a_turn_that_falls_is_tried_again,
    e5_a_turn_that_was_cut_after_a_step_has_fired,
    e5_reminders_are_listed_and_bounded,
    e5_the_turn_of_a_reminder_may_arm_it_again,
    e5_a_lane_reaches_actors_of_other_nodes,
    e5_a_reminder_moves_with_its_actor,
    e5_a_hundred_reminders_fire_once_each_and_how_late,
);

/// With a broker of their own, which they stop.
mod outage {
    use super::{e5_what_falls_due_in_an_outage_fires_after_it, on_both};
    on_both!(alone: e5_what_falls_due_in_an_outage_fires_after_it);
}

async fn e5_a_reminder_of_each_kind_fires(ground: Ground) {
    let one = bell(&ground, "one").await;
    let begun = now();
    armed(&one, "at", arm("once", When::In(300), 7)).await;
    armed(&one, "every", arm("often", When::Every(1_000), 8)).await;
    let pattern = When::Cron("* * * * * *".to_owned(), "Europe/Amsterdam".to_owned());
    armed(&one, "cron", arm("clock", pattern, 9)).await;
    rings(&one, "at", &[7]).await;
    let Rang::At { ms, .. } = one.actor::<Bell>("at").ask(Rung).await.expect("an answer")[0];
    assert!(ms >= begun + 300, "not before its time: {} ms", ms - begun);
    assert!(listed(&one, "at").await.is_empty(), "a single one is gone");
    for (key, name) in [("every", "often"), ("cron", "clock")] {
        eventually(SOON, "it rings again and again", async || {
            let rung = tags(&one, key).await;
            holds(rung.len() >= 3, || format!("{rung:?}"))
        })
        .await;
        assert_eq!(listed(&one, key).await, [name]);
        assert!(one.actor::<Bell>(key).ask(Cancel { name: name.to_owned() }).await.expect("an answer"));
        let after = tags(&one, key).await.len();
        Wakes::of(&ground).await.are_dealt_with().await;
        assert_eq!(tags(&one, key).await.len(), after, "nothing fires after the answer");
    }
    assert_eq!(tags(&one, "at").await, [7]);
}

async fn e5_a_firing_takes_effect_once_however_often_it_comes(ground: Ground) {
    let one = bell(&ground, "one").await;
    armed(&one, "v", arm("often", When::Every(60_000), 1)).await;
    armed(&one, "v", arm("once", When::In(600), 2)).await;
    let wakes = Wakes::of(&ground).await;
    let wake = wakes.standing("v", "once").await.expect("its wake-up stands");
    rings(&one, "v", &[2]).await;
    // The same firing comes again and again, and so does its wake-up.
    let target = wake.headers.get("Nats-Schedule-Target").expect("a target").to_owned();
    let mut again = Headers::new();
    for name in ["Greenroom-Reminder", "Greenroom-Due"] {
        again.push(name, wake.headers.get(name).expect("it says so"));
    }
    again.push("Nats-Scheduler", wake.subject.clone());
    again.push("Nats-Schedule-Next", "purge");
    for _ in 0..5 {
        wakes.put(&target, again.clone()).await;
    }
    wakes.put(&wake.subject, at(&wake, now())).await;
    wakes.gone("v", "once").await;
    // One for a number that was never given, and one that says nothing.
    let mut other = again.clone();
    other.set("Greenroom-Reminder", "77");
    wakes.put(&target.replace("once", "often"), other).await;
    wakes.put(&target, Headers::new()).await;
    wakes.are_dealt_with().await;
    assert_eq!(tags(&one, "v").await, [2]);
    assert_eq!(listed(&one, "v").await, ["often"]);
}

/// Whoever would take the wake-up away is gone after the cancel was acknowledged: the wake-up fires, and nothing comes
/// of it.
async fn e5_relay_killed_after_cancel_ack(ground: Ground) {
    let one = bell(&ground, "one").await;
    armed(&one, "v", arm("late", When::In(60_000), 1)).await;
    let wakes = Wakes::of(&ground).await;
    let wake = wakes.standing("v", "late").await.expect("its wake-up stands");
    assert!(one.actor::<Bell>("v").ask(Cancel { name: "late".to_owned() }).await.expect("an answer"));
    drop(one);
    // It stands as if nobody had taken it away, and its time comes.
    wakes.put(&wake.subject, at(&wake, now() + 200)).await;
    let two = bell(&ground, "two").await;
    wakes.gone("v", "late").await;
    wakes.are_dealt_with().await;
    assert!(tags(&two, "v").await.is_empty(), "it was cancelled");
    // The lane is served: what is armed does fire.
    armed(&two, "v", arm("late", When::In(0), 2)).await;
    rings(&two, "v", &[2]).await;
}

async fn e5_a_reminder_outlives_its_node(ground: Ground) {
    let one = bell(&ground, "one").await;
    for number in 0..10 {
        armed(&one, &format!("v-{number}"), arm("late", When::In(1_000), number)).await;
    }
    // Cut off, as if its process had died.
    drop(one);
    let two = bell(&ground, "two").await;
    for number in 0..10 {
        rings(&two, &format!("v-{number}"), &[number]).await;
    }
    Wakes::of(&ground).await.are_dealt_with().await;
    for number in 0..10 {
        assert_eq!(tags(&two, &format!("v-{number}")).await, [number]);
    }
}

async fn e5_an_actor_that_has_left_memory_is_woken(ground: Ground) {
    let node = ground.node("one").passivate_after(Duration::from_secs(1)).host::<BellActor>();
    let node = node.start().await.expect("a node starts");
    settled("bell", &[&node], &[]).await;
    armed(&node, "v", arm("late", When::In(4_000), 5)).await;
    eventually(SOON, "nothing is in memory", async || {
        let resident = node.info().resident;
        holds(resident["bell"] == 0, || format!("{resident:?}"))
    })
    .await;
    // Nobody asks for it: its event tells that it has rung.
    let mut events = node.subscribe::<Rang>().live().await.expect("a subscription");
    let heard = soon("it rings", events.next()).await.expect("the node runs");
    let Rang::At { tag, .. } = heard.event;
    assert_eq!((heard.key.as_str(), tag), ("v", 5));
}

/// Its wake-up is lost, with the whole stream if need be: it fires as soon as the actor is in memory.
async fn e5_what_is_overdue_fires_at_the_activation(ground: Ground) {
    let one = bell(&ground, "one").await;
    // Late enough that both stand still when they are taken away, on a machine that is busy.
    armed(&one, "v", arm("often", When::Every(5_000), 3)).await;
    armed(&one, "v", arm("once", When::In(4_000), 4)).await;
    let due = now() + 5_000;
    let wakes = Wakes::of(&ground).await;
    drop(one);
    for name in ["often", "once"] {
        let wake = wakes.standing("v", name).await.expect("its wake-up stands");
        let mut cancel = Headers::new();
        cancel.push("Nats-Schedule-Next", "purge");
        cancel.push("Nats-Scheduler", wake.subject);
        cancel.push("Nats-TTL", "1s");
        wakes.put(&format!("{}.rem.c.bell.v.{name}", ground.app()), cancel).await;
    }
    wakes.gone("v", "often").await;
    wakes.gone("v", "once").await;
    let two = bell(&ground, "two").await;
    eventually(SOON, "its time is over", async || holds(now() > due, || "not yet".to_owned())).await;
    // The oldest first, and both before whoever woke it looks.
    assert_eq!(tags(&two, "v").await, [4, 3]);
    // The one that comes again has a wake-up again.
    assert!(wakes.standing("v", "often").await.is_some());
    rings(&two, "v", &[4, 3, 3]).await;
}

async fn e5_what_is_armed_again_fires_at_the_later_word_only(ground: Ground) {
    let one = bell(&ground, "one").await;
    let wakes = Wakes::of(&ground).await;
    for (key, first, second) in [("later", 400, 1_200), ("sooner", 60_000, 500)] {
        armed(&one, key, arm("it", When::In(first), 1)).await;
        armed(&one, key, arm("it", When::In(second), 2)).await;
        assert_eq!(listed(&one, key).await, ["it"]);
    }
    rings(&one, "sooner", &[2]).await;
    rings(&one, "later", &[2]).await;
    wakes.gone("later", "it").await;
    wakes.gone("sooner", "it").await;
    wakes.are_dealt_with().await;
    for key in ["later", "sooner"] {
        assert_eq!(tags(&one, key).await, [2], "{key}");
    }
}

async fn e5_whoever_cancels_in_time_is_told_the_truth(ground: Ground) {
    let one = bell(&ground, "one").await;
    let mut told = Vec::new();
    for number in 0..30 {
        let key = format!("v-{number}");
        armed(&one, &key, arm("it", When::In(number * 30), 1)).await;
        told.push((key, number * 30));
    }
    let cancels = told.iter().map(|(key, after)| {
        let one = &one;
        async move {
            // About when it fires, which may be a quarter of a second late.
            tokio::time::sleep(Duration::from_millis(after / 2)).await;
            one.actor::<Bell>(key).ask(Cancel { name: "it".to_owned() }).await.expect("an answer")
        }
    });
    let cancelled = futures_util::future::join_all(cancels).await;
    let wakes = Wakes::of(&ground).await;
    for ((key, _), cancelled) in told.iter().zip(cancelled) {
        wakes.gone(key, "it").await;
        wakes.are_dealt_with().await;
        let expected: &[u32] = if cancelled { &[] } else { &[1] };
        assert_eq!(tags(&one, key).await, expected, "{key}, cancelled: {cancelled}");
    }
}

async fn e5_a_turn_that_falls_is_tried_again(ground: Ground) {
    let one = bell(&ground, "one").await;
    let until = now() + 1_500;
    let falls = Arm { then: Then::FallUntil(until), ..arm("it", When::In(100), 6) };
    armed(&one, "v", falls).await;
    rings(&one, "v", &[6]).await;
    assert!(listed(&one, "v").await.is_empty());
}

async fn e5_a_turn_that_was_cut_after_a_step_has_fired(ground: Ground) {
    let one = bell(&ground, "one").await;
    armed(&one, "v", Arm { then: Then::KeepAndFall, ..arm("it", When::In(100), 6) }).await;
    eventually(SOON, "it is not armed any more", async || {
        let listed = one.actor::<Bell>("v").ask(List).await.map_err(|error| error.to_string())?;
        holds(listed.is_empty(), || format!("{} are armed", listed.len()))
    })
    .await;
    assert_eq!(tags(&one, "v").await, [6], "its step was kept, and is not run again");
}

async fn e5_reminders_are_listed_and_bounded(ground: Ground) {
    let one = bell(&ground, "one").await;
    let actor = one.actor::<Bell>("v");
    armed(&one, "v", arm("b", When::In(600_000), 1)).await;
    let pattern = When::Cron("0 9 * * MON-FRI".to_owned(), "Europe/Amsterdam".to_owned());
    armed(&one, "v", arm("a", pattern, 2)).await;
    armed(&one, "v", arm("c", When::Every(30_000), 3)).await;
    let listed = actor.ask(List).await.expect("an answer");
    let of = |name: &str| listed.iter().find(|one| one.name == name).expect("it is listed");
    assert_eq!(of("a").schedule, "0 9 * * MON-FRI Europe/Amsterdam");
    assert_eq!(of("c").schedule, "@every 30s");
    assert!(of("b").schedule.starts_with("@at 2"), "{}", of("b").schedule);
    assert!(listed.windows(2).all(|two| two[0].due <= two[1].due), "the next one first");

    for (wrong, part) in [
        (arm("", When::In(1), 1), "1 to 64 bytes"),
        (arm(&"n".repeat(65), When::In(1), 1), "1 to 64 bytes"),
        (arm("x", When::Every(500), 1), "every second at most"),
        (arm("x", When::Cron("0 25 * * *".to_owned(), "UTC".to_owned()), 1), r#"hours, "25""#),
        (arm("x", When::Cron("0 9 * * *".to_owned(), "Mars/Olympus".to_owned()), 1), "Mars/Olympus"),
    ] {
        let why = actor.ask(wrong).await.expect("an answer");
        assert!(why.contains(part), "{why}");
    }
    let why = actor.ask(ArmMany { count: 62, ms: 600_000 }).await.expect("an answer");
    assert!(why.contains("64 reminders"), "{why}");
    assert_eq!(actor.ask(List).await.expect("an answer").len(), 64);
    // All of them are there after a move, and so is the room that a cancel makes.
    drop(one);
    let two = bell(&ground, "two").await;
    let actor = two.actor::<Bell>("v");
    assert_eq!(actor.ask(List).await.expect("an answer").len(), 64);
    assert!(actor.ask(Cancel { name: "b".to_owned() }).await.expect("an answer"));
    assert!(!actor.ask(Cancel { name: "b".to_owned() }).await.expect("an answer"));
    armed(&two, "v", arm("töten wir die Zeit. *", When::In(1_000), 9)).await;
    rings(&two, "v", &[9]).await;
}

async fn e5_the_turn_of_a_reminder_may_arm_it_again(ground: Ground) {
    let one = bell(&ground, "one").await;
    armed(&one, "v", Arm { then: Then::Again(3), ..arm("again", When::In(100), 1) }).await;
    rings(&one, "v", &[1, 2, 3]).await;
    assert!(listed(&one, "v").await.is_empty());
}

/// With more partitions than lanes, the owner of a lane is not always that of the actor.
async fn e5_a_lane_reaches_actors_of_other_nodes(ground: Ground) {
    let start = async |name: &str| {
        let node = ground.node(name).partitions(128).host::<BellActor>().start().await;
        node.expect("a node starts")
    };
    let (one, two) = (start("one").await, start("two").await);
    settled("bell", &[&one, &two], &[]).await;
    let keys: Vec<String> = (0..40).map(|number| format!("v-{number}")).collect();
    for key in &keys {
        armed(&one, key, arm("it", When::In(500), 1)).await;
    }
    for key in &keys {
        rings(&two, key, &[1]).await;
    }
    Wakes::of(&ground).await.are_dealt_with().await;
    for key in &keys {
        assert_eq!(tags(&one, key).await, [1], "{key}");
    }
}

async fn e5_a_reminder_moves_with_its_actor(ground: Ground) {
    let one = bell(&ground, "one").await;
    let keys: Vec<String> = (0..24).map(|number| format!("v-{number}")).collect();
    for key in &keys {
        armed(&one, key, arm("often", When::Every(1_000), 1)).await;
    }
    let two = ground.node("two").host::<BellActor>().start().await.expect("a node starts");
    settled("bell", &[&one, &two], &[]).await;
    soon("it leaves in order", one.drain()).await.expect("drained");
    for key in &keys {
        let before = tags(&two, key).await.len();
        eventually(SOON, "it goes on", async || {
            let rung = tags(&two, key).await;
            holds(rung.len() > before + 1, || format!("{rung:?}"))
        })
        .await;
        assert_eq!(listed(&two, key).await, ["often"]);
        each_arming_rang_once(&ground, key).await;
    }
}

/// Every record with a ringing says which arming has fired, and no two say the same.
async fn each_arming_rang_once(ground: &Ground, key: &str) {
    let (outside, subjects) = (ground.connect("reader").await, ground.subjects());
    let config = StreamConfig::new([subjects.journals("bell")]);
    let stream = outside.stream(&subjects.journal_stream("bell"), config).await.expect("the stream");
    let subject = subjects.journal("bell", &Key::new(key).expect("a key"));
    let last = stream.last(&subject).await.expect("an answer").expect("a record");
    let mut fired = Vec::new();
    for record in stream.read(&subject, 1, last.sequence).await.expect("all of them") {
        let record: serde_json::Value = serde_json::from_slice(&record.body).expect("json");
        if record["events"].is_array() {
            fired.push(record["reminders"][0]["fired"]["number"].as_u64().expect("it says which"));
        }
    }
    assert!(!fired.is_empty() && fired.windows(2).all(|two| two[0] < two[1]), "{key}: {fired:?}");
}

/// A turn whose reminder nobody would be woken for is not kept, and its caller hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_nothing_is_armed_without_a_wake_up() {
    bounded(async {
        let broker = MemoryBroker::new();
        let ground = Ground::on(broker.clone());
        let one = bell(&ground, "one").await;
        armed(&one, "v", arm("first", When::In(600_000), 1)).await;
        let faults = broker.faults(&ground.subjects().reminder_stream());
        faults.no_leader(Duration::from_secs(3_600));
        let actor = one.actor::<Bell>("v").within(Duration::from_secs(1));
        let refused = actor.ask(arm("second", When::In(600_000), 2)).await.expect_err("nobody would be woken");
        assert!(refused.failure().is_some_and(Error::is_retryable), "{refused:?}");
        assert_eq!(listed(&one, "v").await, ["first"]);
        // To cancel one needs nobody.
        assert!(one.actor::<Bell>("v").ask(Cancel { name: "first".to_owned() }).await.expect("an answer"));
        faults.no_leader(Duration::ZERO);
        armed(&one, "v", arm("third", When::In(0), 3)).await;
        rings(&one, "v", &[3]).await;
    })
    .await;
}

/// Somebody deletes the stream of wake-ups: what is armed from then on fires, what was armed before when its actor is
/// asked something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_a_lost_stream_of_wake_ups_is_made_anew() {
    bounded(async {
        let ground = Ground::nats_alone().await;
        let one = bell(&ground, "one").await;
        armed(&one, "before", arm("it", When::In(1_500), 1)).await;
        let server = ground.server().expect("it is its own");
        let stream = ground.subjects().reminder_stream();
        let removed = nats(server, &["stream", "rm", "-f", &stream]).await;
        assert!(removed.stderr.is_empty(), "{removed:?}");
        armed(&one, "after", arm("it", When::In(100), 2)).await;
        rings(&one, "after", &[2]).await;
        let due = now() + 1_500;
        eventually(SOON, "its time is over", async || holds(now() > due, || "not yet".to_owned())).await;
        assert!(tags(&one, "before").await.is_empty(), "nobody woke it");
        drop(one);
        let two = bell(&ground, "two").await;
        rings(&two, "before", &[1]).await;
    })
    .await;
}

/// Prints how late they are, for whoever runs it with `--nocapture`.
async fn e5_a_hundred_reminders_fire_once_each_and_how_late(ground: Ground) {
    let one = bell(&ground, "one").await;
    let keys: Vec<String> = (0..100).map(|number| format!("v-{number}")).collect();
    let mut due = Vec::new();
    for (number, key) in (0..).zip(&keys) {
        armed(&one, key, arm("it", When::In(1_000 + number * 20), 1)).await;
        due.push(one.actor::<Bell>(key).ask(List).await.expect("an answer")[0].due);
    }
    let mut late = Vec::new();
    for (key, due) in keys.iter().zip(due) {
        rings(&one, key, &[1]).await;
        let Rang::At { ms, .. } = one.actor::<Bell>(key).ask(Rung).await.expect("an answer")[0];
        late.push(ms.checked_sub(due).expect("never before its time"));
    }
    late.sort_unstable();
    println!("lateness of 100 reminders: p50 {} ms, p99 {} ms, max {} ms", late[49], late[98], late[99]);
    Wakes::of(&ground).await.are_dealt_with().await;
    for key in &keys {
        assert_eq!(tags(&one, key).await, [1], "{key}");
    }
}

async fn e5_what_falls_due_in_an_outage_fires_after_it(mut ground: Ground) {
    let one = bell(&ground, "one").await;
    let begun = now();
    armed(&one, "once", arm("it", When::In(1_000), 1)).await;
    armed(&one, "often", arm("it", When::Every(1_000), 2)).await;
    ground.stop().await;
    let due = begun + 3_500;
    eventually(SOON, "its time is over", async || holds(now() > due, || "not yet".to_owned())).await;
    ground.start().await;
    let up = now();
    eventually(SOON, "it rings", async || {
        let rung = one.actor::<Bell>("once").ask(Rung).await.map_err(|error| error.to_string())?;
        holds(rung.len() == 1, || format!("{rung:?}"))
    })
    .await;
    eventually(SOON, "it goes on", async || {
        let rung = one.actor::<Bell>("often").ask(Rung).await.map_err(|error| error.to_string())?;
        holds(rung.len() >= 4, || format!("{rung:?}"))
    })
    .await;
    let rung = one.actor::<Bell>("often").ask(Rung).await.expect("an answer");
    let late = rung.iter().filter(|Rang::At { ms, .. }| *ms > due).count();
    assert!(rung.iter().all(|Rang::At { ms, .. }| *ms <= due || *ms >= up), "{rung:?} with the broker up at {up}");
    // Those that were missed came once: the ringings after it are no more than the seconds since, and that one.
    let seconds = usize::try_from((now() - up) / 1_000).expect("few");
    assert!(late <= seconds + 2, "{late} ringings in {seconds} s after the outage: {rung:?}");
    Wakes::of(&ground).await.gone("once", "it").await;
    assert_eq!(tags(&one, "once").await, [1]);
}
