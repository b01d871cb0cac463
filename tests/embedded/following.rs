//! Subscriptions that drive actors: every event comes to whom it is for, in order, with effect once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use greenroom::HostOptions;
use greenroom::prelude::*;
use greenroom::tell::DeadLetter;
use greenroom::transport::{Bucket, Headers, Retention, StreamConfig, Transport};
use serde_json::{Value, json};

use super::ground::{Ground, QUIET, on_both, settled, soon};
use super::newsroom::{
    self, Length, Paper, PaperActor, Print, Printed, Reader, ReaderActor, Stories, Tape, TapeActor, Tone,
};
use crate::harness::{eventually, holds};

on_both!(
    e1_events_drive_the_actors_that_they_are_for_in_order,
    e1_a_subscription_goes_on_where_it_stopped,
    e1_what_happened_before_anybody_asked_comes_too_unless_it_is_not_wanted,
    e3_an_event_that_is_sent_twice_takes_effect_once,
    e3_nodes_that_die_over_and_over_lose_no_event_and_repeat_none,
    e2_a_poisoned_event_is_a_dead_letter_and_the_others_go_on,
    e2_an_event_that_cannot_be_addressed_is_a_dead_letter_and_can_be_replayed,
    e1_two_nodes_share_the_work_and_one_takes_it_over,
    e1_journals_that_were_made_anew_are_not_taken_for_the_old_ones,
    e1_readers_of_one_name_take_turns_and_keep_the_order,
    e1_a_journal_with_much_to_tell_stops_nothing_behind_many_others,
);

async fn paper(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<PaperActor>().start().await.expect("a node starts");
    settled("paper", &[&node], &[]).await;
    node
}

async fn readers(ground: &Ground, name: &str) -> Node {
    let options = HostOptions::new().tell_attempts(2);
    let node = ground.node(name).host_with::<ReaderActor>(options).start().await.expect("a node starts");
    settled("reader", &[&node], &[]).await;
    node
}

async fn print(node: &Node, paper: &str, to: &[&str], numbers: std::ops::Range<u32>, tone: Tone) {
    let to = to.iter().map(|to| (*to).to_owned()).collect();
    let message = Print { to, numbers: numbers.collect(), tone };
    node.actor::<Paper>(paper).within(Duration::from_secs(20)).ask(message).await.expect("printed");
}

fn stories(paper: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{paper} {number}")).collect()
}

/// Waits until a reader has exactly these.
async fn has(node: &Node, reader: &str, expected: &[String]) {
    eventually(Duration::from_secs(30), "the stories have come", async || {
        let found = node.actor::<Reader>(reader).ask(Stories).await.map_err(|error| error.to_string())?;
        holds(found == expected, || format!("{reader}: {} of {}: {found:?}", found.len(), expected.len()))
    })
    .await;
}

/// Waits until there are so many dead letters.
async fn dead(node: &Node, count: usize) -> Vec<DeadLetter> {
    let dead = node.dead_letters();
    eventually(Duration::from_secs(20), "so many dead letters", async || {
        let (mut found, mut from) = (Vec::new(), 1);
        while let Some(letter) = dead.next(None, from).await.map_err(|error| error.to_string())? {
            from = letter.sequence + 1;
            found.push(letter);
        }
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// How far a subscription is, as it is kept.
struct Place {
    bucket: Box<dyn Bucket>,
    _transport: Arc<dyn Transport>,
    key: &'static str,
}

impl Place {
    async fn of(ground: &Ground, key: &'static str) -> Self {
        let transport = ground.connect("outside").await;
        let bucket = transport.bucket(&ground.subjects().relay_bucket()).await.expect("a bucket");
        Self { bucket, _transport: transport, key }
    }

    async fn at(&self) -> u64 {
        let kept = self.bucket.get(self.key).await.expect("an answer").and_then(|record| record.value.ok());
        kept.map_or(0, |value| serde_json::from_slice::<Value>(&value).expect("json")["at"].as_u64().expect("a number"))
    }

    /// As after a death before anything was written down.
    async fn back_to(&self, at: u64) {
        let kept = self.bucket.get(self.key).await.expect("an answer");
        let revision = kept.map_or(0, |record| record.revision);
        let value = json!({ "at": at, "epoch": 0 }).to_string();
        self.bucket.write(self.key, value.into(), Some(revision), None).await.expect("written");
    }
}

async fn e1_events_drive_the_actors_that_they_are_for_in_order(ground: Ground) {
    let (press, node) = (paper(&ground, "press").await, readers(&ground, "one").await);
    for round in 0..5 {
        print(&press, "p", &["a", "b c.*"], round * 4..round * 4 + 4, Tone::Plain).await;
        print(&press, "q", &["a"], round..round + 1, Tone::Plain).await;
        print(&press, "p", &["a"], 900..901, Tone::Idle).await;
    }
    has(&node, "b c.*", &stories("p", 0..20)).await;
    let all = eventually(Duration::from_secs(20), "both papers", async || {
        let found = node.actor::<Reader>("a").ask(Stories).await.map_err(|error| error.to_string())?;
        if found.len() >= 25 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    // Of each paper in its order, whatever comes of the other in between.
    for (paper, count) in [("p", 20), ("q", 5)] {
        let of: Vec<String> = all.iter().filter(|story| story.starts_with(paper)).cloned().collect();
        assert_eq!(of, stories(paper, 0..count));
    }
    assert_eq!(all.len(), 25, "{all:?}");
}

/// What is sent may be a few hundred records ahead of the oldest that is not. That one must not stand behind others then.
async fn e1_a_journal_with_much_to_tell_stops_nothing_behind_many_others(ground: Ground) {
    let press = paper(&ground, "press").await;
    for round in 0..4 {
        print(&press, "p", &["a"], round..round + 1, Tone::Plain).await;
    }
    let others: Vec<String> = (0..400).map(|number| format!("q-{number:03}")).collect();
    join_all(others.iter().map(|other| print(&press, other, &["b"], 0..1, Tone::Plain))).await;
    print(&press, "p", &["a"], 4..5, Tone::Plain).await;
    let node = readers(&ground, "one").await;
    has(&node, "a", &stories("p", 0..5)).await;
    eventually(Duration::from_secs(30), "all the others", async || {
        let mut found = node.actor::<Reader>("b").ask(Stories).await.map_err(|error| error.to_string())?;
        found.sort();
        let expected = others.iter().map(|other| format!("{other} 0"));
        holds(found.iter().cloned().eq(expected), || format!("{} of {}", found.len(), others.len()))
    })
    .await;
}

async fn e1_a_subscription_goes_on_where_it_stopped(ground: Ground) {
    let press = paper(&ground, "press").await;
    let place = Place::of(&ground, "reader.story_printed").await;
    for round in 0..3 {
        let node = readers(&ground, &format!("n-{round}")).await;
        print(&press, "p", &["a"], round * 10..round * 10 + 5, Tone::Plain).await;
        has(&node, "a", &stories("p", (0..=round).flat_map(|of| of * 10..of * 10 + if of == round { 5 } else { 10 })))
            .await;
        node.drain().await.expect("drained");
        assert_eq!(place.at().await, u64::from(round) * 2 + 1, "a drain writes down how far it has come");
        // While nobody is there to be told.
        print(&press, "p", &["a"], round * 10 + 5..round * 10 + 10, Tone::Plain).await;
    }
    let node = readers(&ground, "last").await;
    has(&node, "a", &stories("p", 0..30)).await;
}

async fn e1_what_happened_before_anybody_asked_comes_too_unless_it_is_not_wanted(ground: Ground) {
    let press = paper(&ground, "press").await;
    print(&press, "p", &["a"], 0..3, Tone::Plain).await;
    let node = readers(&ground, "one").await;
    let tapes = ground.node("tapes").host::<TapeActor>().start().await.expect("a node starts");
    settled("tape", &[&tapes], &[&press]).await;
    has(&node, "a", &stories("p", 0..3)).await;
    let place = Place::of(&ground, "tape.printed").await;
    eventually(Duration::from_secs(20), "its beginning is remembered", async || {
        holds(place.at().await == 1, || "not yet".to_owned())
    })
    .await;
    // Nothing has come yet, and the node dies: what comes now is still behind the beginning.
    drop(tapes);
    print(&press, "p", &["a"], 3..5, Tone::Plain).await;
    let tapes = ground.node("tapes").host::<TapeActor>().start().await.expect("a node starts");
    settled("tape", &[&tapes], &[&press]).await;
    eventually(Duration::from_secs(20), "what is new has come", async || {
        let places = press.actor::<Tape>("p").ask(Length).await.map_err(|error| error.to_string())?;
        // A volatile actor may get one twice, and here nothing makes it so.
        holds(places == [7, 8, 9, 10], || format!("{places:?}"))
    })
    .await;
}

async fn e3_an_event_that_is_sent_twice_takes_effect_once(ground: Ground) {
    let press = paper(&ground, "press").await;
    let node = readers(&ground, "one").await;
    print(&press, "p", &["a", "b"], 0..10, Tone::Plain).await;
    has(&node, "a", &stories("p", 0..10)).await;
    has(&node, "b", &stories("p", 0..10)).await;
    drop(node);
    let place = Place::of(&ground, "reader.story_printed").await;
    place.back_to(0).await;
    let heir = readers(&ground, "two").await;
    print(&press, "p", &["a", "b"], 10..11, Tone::Plain).await;
    has(&heir, "a", &stories("p", 0..11)).await;
    has(&heir, "b", &stories("p", 0..11)).await;
    // And where the broker does not know it any more: its actor does.
    let outside = ground.connect("copier").await;
    let (body, id) = last_event(&ground, &*outside, "a").await;
    let commands = StreamConfig::new([ground.subjects().commands()]).retention(Retention::WorkQueue);
    let commands = outside.stream(&ground.subjects().command_stream(), commands).await.expect("the stream");
    let subject = ground.subjects().command("reader", &Key::new("a").expect("a key"), "story_printed");
    let mut headers = Headers::new();
    headers.push("Greenroom-Id", id);
    headers.push("Greenroom-Schema", "none");
    commands.append(&subject, None, headers, body.into()).await.expect("stored");
    print(&press, "p", &["a"], 11..12, Tone::Plain).await;
    has(&heir, "a", &stories("p", 0..12)).await;
}

/// The body of the event that a reader was told of last, and its id.
async fn last_event(ground: &Ground, outside: &dyn Transport, reader: &str) -> (String, String) {
    let last = async |actor: &str, key: &str| {
        let journals = StreamConfig::new([ground.subjects().journals(actor)]);
        let stream = outside.stream(&ground.subjects().journal_stream(actor), journals).await.expect("the stream");
        let subject = ground.subjects().journal(actor, &Key::new(key).expect("a key"));
        let record = stream.last(&subject).await.expect("an answer").expect("a record");
        serde_json::from_slice::<Value>(&record.body).expect("json")
    };
    let (taken, printed) = (last("reader", reader).await, last("paper", "p").await);
    let id = taken["commands"][0]["id"].as_str().unwrap_or_else(|| panic!("no id: {taken}")).to_owned();
    let event = &printed["events"][0];
    let body = json!({
        "key": "p", "sequence": printed["first"], "name": event["name"], "version": 1, "event": event["body"],
    });
    (body.to_string(), id)
}

async fn e3_nodes_that_die_over_and_over_lose_no_event_and_repeat_none(ground: Ground) {
    let press = paper(&ground, "press").await;
    for round in 0..4 {
        let node = readers(&ground, &format!("n-{round}")).await;
        print(&press, "p", &["a"], round * 10..round * 10 + 10, Tone::Plain).await;
        // Cut off in the midst: some are sent and nowhere written down, some are not sent.
        eventually(Duration::from_secs(20), "some of it has come", async || {
            let found = node.actor::<Reader>("a").ask(Stories).await.map_err(|error| error.to_string())?;
            holds(found.len() > round as usize * 10, || format!("{found:?}"))
        })
        .await;
        drop(node);
    }
    let node = readers(&ground, "last").await;
    has(&node, "a", &stories("p", 0..40)).await;
}

async fn e2_a_poisoned_event_is_a_dead_letter_and_the_others_go_on(ground: Ground) {
    let (press, node) = (paper(&ground, "press").await, readers(&ground, "one").await);
    print(&press, "p", &["a"], 0..1, Tone::Plain).await;
    print(&press, "p", &["a"], 1..2, Tone::Shrill).await;
    print(&press, "p", &["a", "b"], 2..4, Tone::Plain).await;
    has(&node, "b", &stories("p", 2..4)).await;
    has(&node, "a", &stories("p", [0, 2, 3])).await;
    let letters = dead(&node, 1).await;
    let poison = &letters[0];
    assert_eq!((poison.kind.as_str(), poison.attempts), ("panicked", 2), "{poison:?}");
    assert!(poison.cause.contains("the reader falls at 1"), "{poison:?}");
    let place = (poison.actor.as_str(), poison.key.as_str(), poison.verb.as_str());
    assert_eq!(place, ("reader", "a", "story_printed"), "{poison:?}");
    let body: Value = serde_json::from_slice(&poison.body).expect("json");
    let event = json!({ "story": { "to": "a", "number": 1, "tone": "shrill" } });
    assert_eq!(body, json!({ "key": "p", "sequence": 3, "name": "story", "version": 1, "event": event }));
    assert_eq!(poison.headers.get("Greenroom-From"), Some("paper/p"), "{poison:?}");
}

async fn e2_an_event_that_cannot_be_addressed_is_a_dead_letter_and_can_be_replayed(ground: Ground) {
    let (press, node) = (paper(&ground, "press").await, readers(&ground, "one").await);
    let own = format!("garbled-{}", ground.app().len() + usize::from(ground.is_memory()));
    print(&press, &own, &["a"], 0..1, Tone::Garbled).await;
    print(&press, &own, &[""], 1..2, Tone::Plain).await;
    print(&press, &own, &["a"], 2..3, Tone::Plain).await;
    has(&node, "a", &stories(&own, [2])).await;
    let letters = dead(&node, 2).await;
    assert_eq!((letters[0].kind.as_str(), letters[0].key.as_str()), ("panicked", own.as_str()), "{letters:?}");
    assert!(letters[0].cause.contains("story 0 is garbled"), "{letters:?}");
    assert_eq!((letters[1].kind.as_str(), letters[1].key.as_str()), ("bad_key", own.as_str()), "{letters:?}");
    // Mended and replayed it finds the one whom it is for.
    newsroom::mend(&own);
    assert!(node.dead_letters().replay(letters[0].sequence).await.expect("an answer"));
    has(&node, "a", &stories(&own, [2, 0])).await;
}

async fn e1_two_nodes_share_the_work_and_one_takes_it_over(ground: Ground) {
    let press = paper(&ground, "press").await;
    let (one, two) = (readers(&ground, "one").await, ground.node("two").host::<ReaderActor>());
    let two = two.start().await.expect("a node starts");
    settled("reader", &[&one, &two], &[&press]).await;
    let keys: Vec<String> = (0..12).map(|number| format!("r-{number}")).collect();
    let to: Vec<&str> = keys.iter().map(String::as_str).collect();
    for round in 0..10 {
        print(&press, "p", &to, round * 2..round * 2 + 2, Tone::Plain).await;
    }
    for key in &to {
        has(&press, key, &stories("p", 0..20)).await;
    }
    // One leaves in order, then the other is alone with it.
    one.drain().await.expect("drained");
    print(&press, "p", &to, 20..24, Tone::Plain).await;
    for key in &to {
        has(&press, key, &stories("p", 0..24)).await;
    }
    let three = readers_beside(&ground, "three", &two).await;
    drop(two);
    print(&press, "p", &to, 24..30, Tone::Plain).await;
    for key in &to {
        has(&three, key, &stories("p", 0..30)).await;
    }
}

/// Another node for readers.
async fn readers_beside(ground: &Ground, name: &str, other: &Node) -> Node {
    let node = ground.node(name).host::<ReaderActor>().start().await.expect("a node starts");
    settled("reader", &[other, &node], &[]).await;
    node
}

async fn e1_journals_that_were_made_anew_are_not_taken_for_the_old_ones(ground: Ground) {
    let press = paper(&ground, "press").await;
    let node = readers(&ground, "one").await;
    print(&press, "p", &["a"], 0..3, Tone::Plain).await;
    has(&node, "a", &stories("p", 0..3)).await;
    drop(node);
    let place = Place::of(&ground, "reader.story_printed").await;
    place.back_to(1_000).await;
    let node = readers(&ground, "two").await;
    print(&press, "p", &["a"], 3..4, Tone::Plain).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(place.at().await, 1_000, "it waits for somebody who knows what has happened");
    // Begun anew, as the message says: what had its effect has none now.
    let kept = place.bucket.get(place.key).await.expect("an answer").expect("a record");
    place.bucket.delete(place.key, kept.revision).await.expect("deleted");
    soon("the rest comes", has(&node, "a", &stories("p", 0..4))).await;
}

async fn e1_readers_of_one_name_take_turns_and_keep_the_order(ground: Ground) {
    let press = paper(&ground, "press").await;
    for number in 0..4 {
        print(&press, "p", &[], number..number + 1, Tone::Plain).await;
    }
    let reader = async || press.subscribe::<Printed>().journal("clerk").await.expect("a reading");
    let (mut one, mut two) = (reader().await, reader().await);
    let first = soon("the first", one.next()).await.expect("the node runs");
    assert_eq!(first.sequence, 1);
    let early = tokio::time::timeout(QUIET, two.next()).await;
    assert!(early.is_err(), "nothing passes what is not dealt with: {early:?}");
    drop(one);
    for sequence in 1..=4 {
        let next = soon("the next", two.next()).await.expect("the node runs");
        assert_eq!(next.sequence, sequence, "what was given back comes first, then the rest in order");
    }
}

/// With brokers of their own, which they restart.
mod restarted {
    use super::*;

    on_both!(
        alone:
        e3_what_a_restarted_broker_does_not_know_any_more_takes_effect_once,
    );

    /// The stream of tells knows the ids of what it has, and a server that was restarted those of nothing else: so of what is
    /// sent again, the receiver must know all.
    async fn e3_what_a_restarted_broker_does_not_know_any_more_takes_effect_once(mut ground: Ground) {
        const AGAIN: u32 = 250;
        let press = paper(&ground, "press").await;
        let node = readers(&ground, "one").await;
        for number in 0..AGAIN {
            print(&press, "p", &["a"], number..number + 1, Tone::Plain).await;
        }
        has(&node, "a", &stories("p", 0..AGAIN)).await;
        drop(node);
        ground.stop().await;
        ground.start().await;
        Place::of(&ground, "reader.story_printed").await.back_to(0).await;
        let heir = readers(&ground, "two").await;
        print(&press, "p", &["a"], AGAIN..AGAIN + 1, Tone::Plain).await;
        has(&heir, "a", &stories("p", 0..=AGAIN)).await;
    }
}
