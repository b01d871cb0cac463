//! Reminders: what an actor asked to be told later it is told, once, whatever happens meanwhile.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenroom::prelude::*;
use greenroom::subject::{Subject, Subjects};
use greenroom::transport::{Headers, Record, Retention, Stream, StreamConfig, Transport};

use super::ground::{Ground, SOON, on_both, settled, soon};
use crate::harness::{eventually, holds};

/// Rings when it is told to, and remembers that.
#[contract(name = "bell", messages(Arm, ArmMany, Cancel, List, Ring, Rung), event = Rang)]
struct Bell;

#[message(Bell, ask, reply = String)]
struct Arm {
    name: String,
    when: When,
    tag: u32,
    #[serde(default)]
    then: Then,
}

/// Arms so many, under one tag each.
#[message(Bell, ask, reply = String)]
struct ArmMany {
    count: u32,
    ms: u64,
}

#[message(Bell, ask, reply = bool)]
struct Cancel {
    name: String,
}

#[message(Bell, ask, reply = Vec<Listed>)]
struct List;

#[message(Bell, tell)]
struct Ring {
    tag: u32,
    then: Then,
}

#[message(Bell, read, reply = Vec<Rang>)]
struct Rung;

#[data]
struct Listed {
    name: String,
    schedule: String,
    due: u64,
}

#[data]
enum When {
    /// In so many milliseconds.
    In(u64),
    Every(u64),
    Cron(String, String),
}

/// What the turn of the reminder does beside ringing.
#[data]
#[derive(Default, PartialEq)]
enum Then {
    #[default]
    Nothing,
    /// It panics, until so many milliseconds since 1970.
    FallUntil(u64),
    /// It keeps the ringing, and panics.
    KeepAndFall,
    /// It arms itself again, under the same name, until its tag is so high.
    Again(u32),
}

#[event(Bell)]
#[derive(PartialEq, Clone)]
enum Rang {
    At { tag: u32, ms: u64 },
}

#[data]
#[derive(Default)]
struct Book {
    rung: Vec<Rang>,
}

impl State for Book {
    type Event = Rang;

    fn apply(&mut self, event: &Rang) {
        self.rung.push(event.clone());
    }
}

struct BellActor {
    book: Durable<Book>,
}

#[actor(Bell, state = book, durable)]
impl BellActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { book: ctx.durable().await? })
    }

    #[ask]
    fn arm(&mut self, msg: Arm, ctx: &mut Context<'_, Self>) -> String {
        let schedule = match msg.when {
            When::In(ms) => Schedule::after(Duration::from_millis(ms)),
            When::Every(ms) => Schedule::every(Duration::from_millis(ms)),
            When::Cron(pattern, zone) => Schedule::cron(pattern, zone),
        };
        said(ctx.remind(&msg.name, schedule, Ring { tag: msg.tag, then: msg.then }))
    }

    #[ask]
    fn arm_many(&mut self, msg: ArmMany, ctx: &mut Context<'_, Self>) -> String {
        for tag in 0..msg.count {
            let schedule = Schedule::after(Duration::from_millis(msg.ms));
            if let Err(error) = ctx.remind(format!("many-{tag}"), schedule, Ring { tag, then: Then::Nothing }) {
                return error.to_string();
            }
        }
        "armed".to_owned()
    }

    #[ask]
    fn cancel(&mut self, msg: Cancel, ctx: &mut Context<'_, Self>) -> bool {
        ctx.cancel_reminder(&msg.name).expect("it has reminders")
    }

    #[ask]
    fn list(&mut self, _: List, ctx: &mut Context<'_, Self>) -> Vec<Listed> {
        let listed = |one: greenroom::reminder::Reminder| Listed {
            name: one.name,
            schedule: one.schedule.to_string(),
            due: ms(one.due),
        };
        ctx.reminders().expect("it has reminders").into_iter().map(listed).collect()
    }

    #[tell]
    async fn ring(&mut self, msg: Ring, ctx: &mut Context<'_, Self>) {
        match msg.then {
            Then::FallUntil(until) => assert!(now() >= until, "not yet"),
            Then::Again(most) if msg.tag < most => {
                let again = Ring { tag: msg.tag + 1, then: Then::Again(most) };
                ctx.remind("again", Schedule::after(Duration::ZERO), again).expect("armed again");
            }
            _ => {}
        }
        self.book.emit(Rang::At { tag: msg.tag, ms: now() });
        if msg.then == Then::KeepAndFall {
            ctx.commit(&mut self.book).await.expect("kept");
            panic!("after one step");
        }
    }

    #[read]
    fn rung(&self, _: Rung, ctx: &mut Context<'_, Self>) -> Vec<Rang> {
        assert!(ctx.reminders().is_err(), "a read knows none");
        self.book.rung.clone()
    }
}

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
    use super::*;
    on_both!(alone: e5_what_falls_due_in_an_outage_fires_after_it);
    use super::e5_what_falls_due_in_an_outage_fires_after_it;
}

fn now() -> u64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn said(armed: Result<(), Error>) -> String {
    armed.map_or_else(|error| error.to_string(), |()| "armed".to_owned())
}

fn arm(name: &str, when: When, tag: u32) -> Arm {
    Arm { name: name.to_owned(), when, tag, then: Then::Nothing }
}

async fn bell(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<BellActor>().start().await.expect("a node starts");
    settled("bell", &[&node], &[]).await;
    node
}

async fn armed(node: &Node, key: &str, arm: Arm) {
    assert_eq!(node.actor::<Bell>(key).ask(arm).await.expect("an answer"), "armed");
}

async fn tags(node: &Node, key: &str) -> Vec<u32> {
    let rung = node.actor::<Bell>(key).within(SOON).ask(Rung).await.expect("an answer");
    rung.into_iter().map(|Rang::At { tag, .. }| tag).collect()
}

async fn rings(node: &Node, key: &str, expected: &[u32]) {
    eventually(SOON, &format!("{key} rings {expected:?}"), async || {
        let rung = node.actor::<Bell>(key).ask(Rung).await.map_err(|error| error.to_string())?;
        let rung: Vec<u32> = rung.into_iter().map(|Rang::At { tag, .. }| tag).collect();
        holds(rung == expected, || format!("{rung:?}"))
    })
    .await;
}

async fn listed(node: &Node, key: &str) -> Vec<String> {
    let listed = node.actor::<Bell>(key).ask(List).await.expect("an answer");
    listed.into_iter().map(|one| one.name).collect()
}

/// The stream of the wake-ups, and the connection it is read by.
struct Wakes {
    stream: Box<dyn Stream>,
    subjects: Subjects,
    _connection: Arc<dyn Transport>,
}

impl Wakes {
    async fn of(ground: &Ground) -> Self {
        let connection = ground.connect("watcher").await;
        let subjects = ground.subjects();
        let config = StreamConfig::new([subjects.reminders()]).retention(Retention::WorkQueue).schedules();
        let stream = connection.stream(&subjects.reminder_stream(), config).await.expect("the stream");
        Self { stream, subjects, _connection: connection }
    }

    /// The wake-up of a reminder, if it stands.
    async fn standing(&self, key: &str, name: &str) -> Option<Record> {
        let filter = self.subjects.wake_ups("bell", &Key::new(key).expect("a key"));
        let mut from = 1;
        loop {
            let record = self.stream.next(&filter, from).await.expect("an answer")?;
            if record.subject.split('.').nth(5) == Some(name) {
                return Some(record);
            }
            from = record.sequence + 1;
        }
    }

    async fn put(&self, subject: &str, headers: Headers) {
        let subject = Subject::parse(subject).expect("a subject");
        self.stream.append(&subject, None, headers, Default::default()).await.expect("stored");
    }

    /// Waits until every firing that came has been dealt with.
    async fn are_dealt_with(&self) {
        eventually(SOON, "no firing waits", async || {
            let waits = self.stream.next(&self.subjects.firings(), 1).await.expect("an answer");
            holds(waits.is_none(), || format!("{waits:?}"))
        })
        .await;
    }

    /// Waits until the wake-up of a reminder is gone: it has fired, or was taken away.
    async fn gone(&self, key: &str, name: &str) {
        eventually(SOON, "the wake-up is gone", async || {
            let stands = self.standing(key, name).await;
            holds(stands.is_none(), || format!("{stands:?}"))
        })
        .await;
    }
}

/// The headers of a wake-up, for another time.
fn at(record: &Record, ms: u64) -> Headers {
    let time: time::OffsetDateTime = (UNIX_EPOCH + Duration::from_millis(ms)).into();
    let time = time.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let mut headers = record.headers.clone();
    headers.set("Nats-Schedule", format!("@at {time}"));
    headers
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
    armed(&one, "v", arm("often", When::Every(2_000), 3)).await;
    armed(&one, "v", arm("once", When::In(1_000), 4)).await;
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
    let due = now() + 2_000;
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
        // Each time once: no two ringings belong to one second.
        let rung = two.actor::<Bell>(key).ask(Rung).await.expect("an answer");
        let times: Vec<u64> = rung.into_iter().map(|Rang::At { ms, .. }| ms).collect();
        assert_eq!(listed(&two, key).await, ["often"], "{times:?}");
    }
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
