//! Dead letters: what cannot be delivered is kept once, with its cause, and can be delivered again.

use std::time::Duration;

use greenroom::HostOptions;
use greenroom::prelude::*;
use greenroom::subject::Subject;
use greenroom::tell::DeadLetter;
use greenroom::transport::{Headers, Retention, StreamConfig};

use super::ground::{Ground, on_both, settled};
use super::letterbox::{self, Letter, Letterbox, LetterboxActor, Letters, Mood};
use crate::harness::{eventually, holds};

on_both!(
    e1_poison_goes_to_the_dead_letters_once_and_the_queue_advances,
    e1_what_can_never_work_is_a_dead_letter_at_once,
    e1_a_replayed_letter_takes_effect_once,
    e1_panics_end_a_tell_before_they_end_its_actor,
);

async fn boxes(ground: &Ground, name: &str, attempts: u32) -> Node {
    let options = HostOptions::new().tell_attempts(attempts);
    let node = ground.node(name).host_with::<LetterboxActor>(options).start().await.expect("a node starts");
    settled("box", &[&node], &[]).await;
    node
}

fn letter(from: &str, number: u32, mood: Mood) -> Letter {
    Letter { from: from.to_owned(), number, mood }
}

async fn holds_letters(node: &Node, key: &str, expected: &[&str]) {
    eventually(Duration::from_secs(20), "the letters have come", async || {
        let found = node.actor::<Letterbox>(key).ask(Letters).await.map_err(|error| error.to_string())?;
        holds(found == expected, || format!("{found:?}"))
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

async fn e1_poison_goes_to_the_dead_letters_once_and_the_queue_advances(ground: Ground) {
    let node = boxes(&ground, "one", 2).await;
    let actor = node.actor::<Letterbox>("a");
    actor.tell_durably(letter("c", 1, Mood::Accept)).await.expect("stored");
    actor.id("poison").tell_durably(letter("c", 2, Mood::Panic)).await.expect("stored");
    let actor = node.actor::<Letterbox>("a");
    actor.tell_durably(letter("c", 3, Mood::Accept)).await.expect("stored");
    node.actor::<Letterbox>("b").tell_durably(letter("c", 4, Mood::Accept)).await.expect("stored");
    // Other keys do not wait for it, and its own goes on.
    holds_letters(&node, "b", &["c 4"]).await;
    holds_letters(&node, "a", &["c 1", "c 3"]).await;
    let letters = dead(&node, 1).await;
    let poison = &letters[0];
    assert_eq!((poison.kind.as_str(), poison.attempts), ("panicked", 2), "{poison:?}");
    assert!(poison.cause.contains("the letterbox falls at 2"), "{poison:?}");
    assert_eq!((poison.actor.as_str(), poison.key.as_str(), poison.verb.as_str()), ("box", "a", "letter"));
    assert_eq!(poison.subject, format!("{}.cmd.box.a.letter", ground.app()));
    assert_eq!(poison.body, r#"{"from":"c","number":2,"mood":"panic"}"#);
    assert_eq!(poison.headers.get("Greenroom-Schema"), Some("none"), "its own headers are kept: {poison:?}");
    // The next owner finds nothing left to do.
    drop(node);
    let heir = boxes(&ground, "two", 2).await;
    heir.actor::<Letterbox>("a").tell_durably(letter("c", 5, Mood::Accept)).await.expect("stored");
    holds_letters(&heir, "a", &["c 1", "c 3", "c 5"]).await;
    dead(&heir, 1).await;
}

async fn e1_what_can_never_work_is_a_dead_letter_at_once(ground: Ground) {
    let node = boxes(&ground, "one", 10).await;
    node.actor::<Letterbox>("a").tell_durably(letter("c", 1, Mood::Accept)).await.expect("stored");
    let outside = ground.connect("outside").await;
    let config = StreamConfig::new([ground.subjects().commands()]).retention(Retention::WorkQueue);
    let stream = outside.stream(&ground.subjects().command_stream(), config).await.expect("the stream");
    let good = r#"{"from":"x","number":2,"mood":"accept"}"#;
    for (rest, body, header) in [
        ("a.nothing", good, None),
        ("a.letter", "no json", None),
        ("a.letter", r#"{"from":"x","number":2,"mood":"accept","more":1}"#, None),
        ("=61.letter", good, None),
        ("a.letter", good, Some(("Greenroom-Expires", "1000"))),
        ("a.letter", good, None),
    ] {
        let mut headers = Headers::new();
        headers.push("Shop-Trace", "kept");
        if let Some((name, value)) = header {
            headers.push(name, value);
        }
        let subject = Subject::parse(&format!("{}.cmd.box.{rest}", ground.app())).expect("a subject");
        stream.append(&subject, None, headers, body.into()).await.expect("stored");
    }
    holds_letters(&node, "a", &["c 1", "x 2"]).await;
    let mut kinds: Vec<_> = dead(&node, 5).await;
    assert!(kinds.iter().all(|letter| letter.attempts == 1 && letter.headers.get("Shop-Trace") == Some("kept")));
    kinds.sort_by(|one, two| (&one.kind, &one.key).cmp(&(&two.kind, &two.key)));
    let kinds: Vec<_> = kinds.iter().map(|letter| (letter.kind.as_str(), letter.key.as_str())).collect();
    let expected = [
        ("bad_key", "=61"),
        ("bad_request", "a"),
        ("bad_request", "a"),
        ("deadline_exceeded", "a"),
        ("unknown_verb", "a"),
    ];
    assert_eq!(kinds, expected);
}

async fn e1_a_replayed_letter_takes_effect_once(ground: Ground) {
    let node = boxes(&ground, "one", 2).await;
    let name = format!("fragile-{}-{}", ground.app(), node.id());
    let fragile = letter(&name, 1, Mood::Fragile);
    node.actor::<Letterbox>("a").tell_durably(fragile).await.expect("stored");
    let dying = dead(&node, 1).await.remove(0);
    letterbox::mend(&name);
    // Two operators at once, and one again.
    let (one, two) = (node.dead_letters(), node.dead_letters());
    let (first, second) = tokio::join!(one.replay(dying.sequence), two.replay(dying.sequence));
    assert!(first.expect("an answer") || second.expect("an answer"));
    let arrived = format!("{name} 1");
    holds_letters(&node, "a", &[&arrived]).await;
    assert!(!one.replay(dying.sequence).await.expect("an answer"), "it is not there any more");
    // One whose removal was lost, long after: the broker does not know it any more, but its actor does.
    let outside = ground.connect("outside").await;
    let config = StreamConfig::new([ground.subjects().commands()]).retention(Retention::WorkQueue);
    let stream = outside.stream(&ground.subjects().command_stream(), config).await.expect("the stream");
    let mut headers = dying.headers.clone();
    headers.set("Nats-Msg-Id", "long after");
    let subject = Subject::parse(&dying.subject).expect("a subject");
    stream.append(&subject, None, headers, dying.body.clone()).await.expect("stored");
    node.actor::<Letterbox>("a").tell_durably(letter("c", 2, Mood::Accept)).await.expect("stored");
    holds_letters(&node, "a", &[&arrived, "c 2"]).await;
    dead(&node, 0).await;
}

async fn e1_panics_end_a_tell_before_they_end_its_actor(ground: Ground) {
    let node = boxes(&ground, "one", 10).await;
    let actor = node.actor::<Letterbox>("a");
    actor.tell_durably(letter("c", 1, Mood::Panic)).await.expect("stored");
    actor.tell_durably(letter("c", 2, Mood::Accept)).await.expect("stored");
    holds_letters(&node, "a", &["c 2"]).await;
    assert_eq!(dead(&node, 1).await[0].attempts, 4);
    assert!(!node.release::<Letterbox>("a").expect("it is hosted"), "it is not in quarantine");
}
