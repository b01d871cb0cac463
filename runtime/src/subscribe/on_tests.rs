//! The form of an event on its way, and whom it is for.

use serde_json::value::RawValue;

use super::*;
use crate::codec::{Fingerprint, from_person};
use crate::prelude::*;

#[contract(messages(Open), event = DoorEvent)]
struct Door;

#[message(Door, tell)]
struct Open;

/// Its second form: the first had no hand.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DoorEvent {
    Opened { hand: String },
}

impl Event for DoorEvent {
    const ACTOR: &'static str = "door";
    const NAMES: &'static [&'static str] = &["opened"];
    const VERSION: u32 = 2;

    fn name(&self) -> &'static str {
        "opened"
    }

    fn upcast(name: &str, version: u32, _: serde_json::Value) -> Result<serde_json::Value, Error> {
        assert_eq!((name, version), ("opened", 1));
        Ok(serde_json::json!({ "opened": { "hand": "nobody's" } }))
    }
}

#[contract(messages(Count))]
struct Counter;

#[message(Counter, read, reply = u32)]
struct Count;

#[derive(Default)]
struct CounterActor {
    opened: u32,
}

fn of_the_hand(happened: &Received<DoorEvent>) -> Option<String> {
    let DoorEvent::Opened { hand } = &happened.event;
    assert_ne!(hand, "burnt", "it cannot be held");
    (hand != "nobody's").then(|| hand.clone())
}

#[actor(Counter)]
impl CounterActor {
    #[on(key = of_the_hand)]
    fn door_moved(&mut self, _: Received<DoorEvent>) {
        self.opened += 1;
    }

    #[read]
    fn count(&self, _: Count) -> u32 {
        self.opened
    }
}

type Moved = Happened<CounterActor, DoorEvent>;

fn happening(version: u32, body: &str) -> Happening {
    let body = RawValue::from_string(body.to_owned()).expect("json");
    Happening::of(&Key::new("front").expect("a key"), 7, &StoredEvent { name: "opened".into(), version, body })
}

#[test]
fn e1_an_event_travels_as_its_journal_has_it_and_is_brought_up_to_date_on_arrival() {
    let old = happening(1, r#"{"opened":{}}"#);
    let written = r#"{"key":"front","sequence":7,"name":"opened","version":1,"event":{"opened":{}}}"#;
    assert_eq!(old.body().expect("json"), written);
    let moved: Moved = serde_json::from_str(written).expect("it can be read");
    assert_eq!((moved.happened.key.as_str(), moved.happened.sequence), ("front", 7));
    assert_eq!(moved.happened.event, DoorEvent::Opened { hand: "nobody's".into() });
    assert_eq!(serde_json::to_string(&moved).expect("json"), written, "passed on as it came");
    // By hand without what nobody cares for; a slip is found.
    let by_hand: Moved = from_person(br#"{"key":"front","event":{"opened":{"hand":"left"}}}"#).expect("it can be read");
    assert_eq!(by_hand.happened.event, DoorEvent::Opened { hand: "left".into() });
    assert!(from_person::<Moved>(br#"{"key":"front","evnt":{}}"#).is_err());
    assert!(Fingerprint::of::<Moved>().is_none(), "it never travels as bincode");
}

#[test]
fn e1_whom_an_event_is_for_is_asked_behind_a_boundary() {
    let follows = Follows::of::<CounterActor, DoorEvent>();
    assert_eq!((follows.source, follows.from), ("door", Beginning::First));
    let receiver = |version, body| (follows.receiver)(&happening(version, body));
    let found = receiver(2, r#"{"opened":{"hand":"left"}}"#).expect("it is known");
    assert_eq!(found.as_ref().map(Key::as_str), Some("left"));
    assert!(receiver(1, r#"{"opened":{}}"#).expect("it is known").is_none());
    for (body, kind, why) in [
        (r#"{"opened":{"hand":"burnt"}}"#, ErrorKind::Panicked, "it cannot be held"),
        (r#"{"opened":{"hand":""}}"#, ErrorKind::BadKey, "key"),
        (r#"{"closed":{}}"#, ErrorKind::Internal, "opened of door, version 2"),
    ] {
        let error = receiver(2, body).expect_err("nobody can be found");
        assert!(error.kind() == kind && error.message().contains(why), "{error}");
    }
}
