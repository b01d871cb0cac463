//! A bell: an actor with reminders, and what a test sees of them at the broker.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenroom::prelude::*;
use greenroom::subject::{Subject, Subjects};
use greenroom::transport::{Headers, Record, Retention, Stream, StreamConfig, Transport};

use super::ground::{Ground, SOON, settled};
use crate::harness::{eventually, holds};

/// Rings when it is told to, and remembers that.
#[contract(name = "bell", messages(Arm, ArmMany, Cancel, List, Ring, Rung), event = Rang)]
pub(super) struct Bell;

#[message(Bell, ask, reply = String)]
pub(super) struct Arm {
    pub(super) name: String,
    pub(super) when: When,
    pub(super) tag: u32,
    #[serde(default)]
    pub(super) then: Then,
}

/// Arms so many, under one tag each.
#[message(Bell, ask, reply = String)]
pub(super) struct ArmMany {
    pub(super) count: u32,
    pub(super) ms: u64,
}

#[message(Bell, ask, reply = bool)]
pub(super) struct Cancel {
    pub(super) name: String,
}

#[message(Bell, ask, reply = Vec<Listed>)]
pub(super) struct List;

#[message(Bell, tell)]
pub(super) struct Ring {
    pub(super) tag: u32,
    pub(super) then: Then,
}

#[message(Bell, read, reply = Vec<Rang>)]
pub(super) struct Rung;

#[data]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) schedule: String,
    pub(super) due: u64,
}

#[data]
pub(super) enum When {
    /// In so many milliseconds.
    In(u64),
    Every(u64),
    Cron(String, String),
}

/// What the turn of the reminder does beside ringing.
#[data]
#[derive(Default, PartialEq)]
pub(super) enum Then {
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
pub(super) enum Rang {
    At { tag: u32, ms: u64 },
}

#[data]
#[derive(Default)]
pub(super) struct Book {
    pub(super) rung: Vec<Rang>,
}

impl State for Book {
    type Event = Rang;

    fn apply(&mut self, event: &Rang) {
        self.rung.push(event.clone());
    }
}

pub(super) struct BellActor {
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

pub(super) fn now() -> u64 {
    ms(SystemTime::now())
}

pub(super) fn ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

pub(super) fn said(armed: Result<(), Error>) -> String {
    armed.map_or_else(|error| error.to_string(), |()| "armed".to_owned())
}

pub(super) fn arm(name: &str, when: When, tag: u32) -> Arm {
    Arm { name: name.to_owned(), when, tag, then: Then::Nothing }
}

pub(super) async fn bell(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<BellActor>().start().await.expect("a node starts");
    settled("bell", &[&node], &[]).await;
    node
}

pub(super) async fn armed(node: &Node, key: &str, arm: Arm) {
    assert_eq!(node.actor::<Bell>(key).ask(arm).await.expect("an answer"), "armed");
}

pub(super) async fn tags(node: &Node, key: &str) -> Vec<u32> {
    let rung = node.actor::<Bell>(key).within(SOON).ask(Rung).await.expect("an answer");
    rung.into_iter().map(|Rang::At { tag, .. }| tag).collect()
}

pub(super) async fn rings(node: &Node, key: &str, expected: &[u32]) {
    eventually(SOON, &format!("{key} rings {expected:?}"), async || {
        let rung = node.actor::<Bell>(key).ask(Rung).await.map_err(|error| error.to_string())?;
        let rung: Vec<u32> = rung.into_iter().map(|Rang::At { tag, .. }| tag).collect();
        holds(rung == expected, || format!("{rung:?}"))
    })
    .await;
}

pub(super) async fn listed(node: &Node, key: &str) -> Vec<String> {
    let listed = node.actor::<Bell>(key).ask(List).await.expect("an answer");
    listed.into_iter().map(|one| one.name).collect()
}

/// The stream of the wake-ups, and the connection it is read by.
pub(super) struct Wakes {
    stream: Box<dyn Stream>,
    subjects: Subjects,
    _connection: Arc<dyn Transport>,
}

impl Wakes {
    pub(super) async fn of(ground: &Ground) -> Self {
        let connection = ground.connect("watcher").await;
        let subjects = ground.subjects();
        let config = StreamConfig::new([subjects.reminders()]).retention(Retention::WorkQueue).schedules();
        let stream = connection.stream(&subjects.reminder_stream(), config).await.expect("the stream");
        Self { stream, subjects, _connection: connection }
    }

    /// The wake-up of a reminder, if it stands.
    pub(super) async fn standing(&self, key: &str, name: &str) -> Option<Record> {
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

    pub(super) async fn put(&self, subject: &str, headers: Headers) {
        let subject = Subject::parse(subject).expect("a subject");
        self.stream.append(&subject, None, headers, Default::default()).await.expect("stored");
    }

    /// Waits until every firing that came has been dealt with.
    pub(super) async fn are_dealt_with(&self) {
        eventually(SOON, "no firing waits", async || {
            let waits = self.stream.next(&self.subjects.firings(), 1).await.expect("an answer");
            holds(waits.is_none(), || format!("{waits:?}"))
        })
        .await;
    }

    /// Waits until the wake-up of a reminder is gone: it has fired, or was taken away.
    pub(super) async fn gone(&self, key: &str, name: &str) {
        eventually(SOON, "the wake-up is gone", async || {
            let stands = self.standing(key, name).await;
            holds(stands.is_none(), || format!("{stands:?}"))
        })
        .await;
    }
}

/// The headers of a wake-up, for another time.
pub(super) fn at(record: &Record, ms: u64) -> Headers {
    let time: time::OffsetDateTime = (UNIX_EPOCH + Duration::from_millis(ms)).into();
    let time = time.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let mut headers = record.headers.clone();
    headers.set("Nats-Schedule", format!("@at {time}"));
    headers
}
