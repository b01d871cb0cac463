//! What one append makes permanent: a record, as JSON, under the actor's own subject.
//!
//! Readable by people (`nats stream view`), by other languages, and by later versions: unknown fields are tolerated,
//! and what is absent has its default.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{self, Written};
use super::outbox::StoredTell;
use super::reminders::{Change, Reminders};
use super::window::{Remembered, Window};
use crate::error::{Error, ErrorKind};
use crate::state::Committed;

/// The version of this form.
pub(crate) const FORM: u32 = 1;

/// One append: of one turn, or of several that ran one after the other while the append before them was under way.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    /// The version of the form, [`FORM`].
    pub(crate) form: u32,
    /// Tells this append apart from every other: the only thing by which a node knows its own.
    pub(crate) id: String,
    /// The epoch of the claim under which it was written; never lower than that of the record before.
    pub(crate) epoch: u64,
    /// What happened, in order.
    #[serde(default)]
    pub(crate) events: Vec<StoredEvent>,
    /// The number of the first of the events in the actor's whole life, from 1; of the next one if there are none.
    pub(crate) first: u64,
    /// The commands whose turns wrote it, in order: those that had an id.
    #[serde(default)]
    pub(crate) commands: Vec<Remembered>,
    /// What the turn sends, in order, now that it is kept.
    #[serde(default)]
    pub(crate) tells: Vec<StoredTell>,
    /// What its turn changed about the actor's reminders, in order.
    #[serde(default)]
    pub(crate) reminders: Vec<Change>,
    /// The state that this record leaves, if it holds one.
    #[serde(default)]
    pub(crate) snapshot: Option<Snapshot>,
    /// The sequence of the last record before this one that holds a snapshot; 0 if none does.
    #[serde(default)]
    pub(crate) base: u64,
    /// Bytes of records since that snapshot, this one not counted.
    #[serde(default)]
    pub(crate) since: u64,
}

/// An event at rest.
#[derive(Debug, Deserialize)]
pub struct StoredEvent {
    pub(crate) name: Cow<'static, str>,
    /// The version of the events' form when it was written.
    pub(crate) version: u32,
    pub(crate) body: Box<RawValue>,
}

impl StoredEvent {
    /// The same, as it is told to whoever watches, with its place in the actor's whole life.
    pub(crate) fn committed(self, actor: &'static str, sequence: u64) -> Committed {
        let body = String::from(Box::<str>::from(self.body)).into_bytes();
        Committed { actor, name: self.name, version: self.version, sequence, body, question: None }
    }

    fn write(&self, to: &mut Vec<u8>) -> Written {
        json::value(to, r#"{"name":"#, &self.name)?;
        json::value(to, r#","version":"#, &self.version)?;
        json::raw(to, r#","body":"#, &self.body);
        to.push(b'}');
        Ok(())
    }
}

/// Everything an activation needs, instead of all that came before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) state: Box<RawValue>,
    /// A [`Window`], as it was written: most are never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Reminders::is_untouched")]
    pub(crate) reminders: Reminders,
}

impl Snapshot {
    /// # Errors
    /// Never with these types; the signature is serde's.
    pub(crate) fn of(state: Box<RawValue>, window: &Window, reminders: Reminders) -> Result<Self, Error> {
        let window = if window.is_empty() { None } else { Some(window.write()?) };
        Ok(Self { state, window, reminders })
    }

    /// What it adds to a record, about.
    pub(crate) fn bytes(&self) -> usize {
        self.state.get().len() + self.window.as_ref().map_or(0, |window| window.get().len()) + self.reminders.bytes()
    }

    /// The commands that the actor remembered.
    ///
    /// # Errors
    /// `Internal` if what was written is no window.
    pub(crate) fn window(&self) -> Result<Window, Error> {
        let Some(window) = &self.window else { return Ok(Window::default()) };
        serde_json::from_str(window.get()).map_err(|error| {
            Error::new(ErrorKind::Internal, "the commands of a snapshot cannot be read").with_source(error)
        })
    }
}

impl Record {
    /// How many things it has to send, of every kind.
    pub(crate) fn sends(&self) -> usize {
        self.tells.len()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Internal` if it is none, or one of a later form.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record of a journal cannot be read").with_source(error)
        })?;
        if record.form > FORM {
            let why = format!("a record of a journal has form {}, and this version reads up to {FORM}", record.form);
            return Err(Error::new(ErrorKind::Internal, why));
        }
        Ok(record)
    }

    /// The record as it is stored; it has about so many bytes.
    ///
    /// # Errors
    /// Never with these types; the signature is serde's.
    pub(crate) fn write(&self, about: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(about);
        self.write_to(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record cannot be written as JSON").with_source(error)
        })?;
        Ok(bytes)
    }

    fn write_to(&self, to: &mut Vec<u8>) -> Written {
        json::value(to, r#"{"form":"#, &self.form)?;
        json::value(to, r#","id":"#, &self.id)?;
        json::value(to, r#","epoch":"#, &self.epoch)?;
        if !self.events.is_empty() {
            json::list(to, r#","events":"#, &self.events, |to, event| event.write(to))?;
        }
        json::value(to, r#","first":"#, &self.first)?;
        if !self.commands.is_empty() {
            json::list(to, r#","commands":"#, &self.commands, |to, command| command.write(to))?;
        }
        if !self.tells.is_empty() {
            json::value(to, r#","tells":"#, &self.tells)?;
        }
        if !self.reminders.is_empty() {
            json::value(to, r#","reminders":"#, &self.reminders)?;
        }
        if let Some(snapshot) = &self.snapshot {
            json::value(to, r#","snapshot":"#, snapshot)?;
        }
        json::value(to, r#","base":"#, &self.base)?;
        json::value(to, r#","since":"#, &self.since)?;
        to.push(b'}');
        Ok(())
    }
}

/// A value as JSON that is stored as it stands.
pub(crate) fn raw(value: &impl Serialize, what: &str) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("{what} cannot be written as JSON")).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::super::window::Fate;
    use super::*;
    use crate::call::TurnId;

    #[test]
    fn a_record_has_its_shape_at_rest() {
        let event = StoredEvent { name: "placed".into(), version: 2, body: raw(&[1, 2], "").expect("json") };
        let record = Record {
            form: FORM,
            id: "n1-7".into(),
            epoch: 3,
            events: vec![event],
            first: 5,
            commands: Vec::new(),
            tells: Vec::new(),
            reminders: Vec::new(),
            snapshot: None,
            base: 17,
            since: 120,
        };
        let bytes = record.write(0).expect("json");
        assert_eq!(
            String::from_utf8(bytes.clone()).expect("text"),
            r#"{"form":1,"id":"n1-7","epoch":3,"events":[{"name":"placed","version":2,"body":[1,2]}],"first":5,"base":17,"since":120}"#
        );
        let back = Record::read(&bytes).expect("a record");
        assert_eq!((back.id.as_str(), back.first, back.events[0].body.get()), ("n1-7", 5, "[1,2]"));
    }

    #[test]
    fn commands_have_their_shape_at_rest_in_records_and_in_snapshots() {
        let command = |id: u128, born: u64, stored: bool, fate: Fate| {
            let (id, verb) = (TurnId(id), "pay".into());
            Remembered { id, born, at: 9, verb, digest: 5, stored, fate }
        };
        let refused = Fate::Refused(raw(&"no \"money\"", "").expect("json"));
        let commands = vec![
            command(0x0123_4567_89ab_cdef_0011_2233_4455_6677, 8, false, Fate::Replied(raw(&(), "").expect("json"))),
            command(1, 0, false, refused),
            command(2, 8, true, Fate::Begun(3)),
        ];
        let texts = [
            r#"{"id":"0123456789abcdef0011223344556677","born":8,"at":9,"verb":"pay","digest":5,"fate":{"replied":null}}"#,
            r#"{"id":"00000000000000000000000000000001","at":9,"verb":"pay","digest":5,"fate":{"refused":"no \"money\""}}"#,
            r#"{"id":"00000000000000000000000000000002","born":8,"at":9,"verb":"pay","digest":5,"stored":true,"fate":{"begun":3}}"#,
        ];
        let mut window = Window::default();
        commands.iter().for_each(|command| window.remember(command));
        let snapshot = Snapshot::of(raw(&7, "").expect("json"), &window, Reminders::default()).expect("json");
        let record = Record {
            form: FORM,
            id: "n\"1-7".into(),
            epoch: 3,
            events: Vec::new(),
            first: 5,
            commands,
            tells: Vec::new(),
            reminders: vec![Change::Cancelled { name: "later".into() }],
            snapshot: Some(snapshot),
            base: 0,
            since: 0,
        };
        let bytes = record.write(0).expect("json");
        let [born, unborn, stored] = texts;
        assert_eq!(
            String::from_utf8(bytes.clone()).expect("text"),
            format!(
                r#"{{"form":1,"id":"n\"1-7","epoch":3,"first":5,"commands":[{}],"reminders":[{{"cancelled":{{"name":"later"}}}}],"snapshot":{{"state":7,"window":{{"low":0,"born":[{born}],"unborn":[{unborn}],"stored":[{stored}]}}}},"base":0,"since":0}}"#,
                texts.join(",")
            )
        );
        let back = Record::read(&bytes).expect("a record");
        assert_eq!(back.write(0).expect("json"), bytes);
        let window = back.snapshot.expect("a snapshot").window().expect("a window");
        assert_eq!(
            window.write().expect("json").get(),
            format!(r#"{{"low":0,"born":[{born}],"unborn":[{unborn}],"stored":[{stored}]}}"#)
        );
    }

    #[test]
    fn newer_fields_are_tolerated_and_newer_forms_are_not() {
        assert!(Record::read(br#"{"form":1,"id":"a","epoch":1,"first":1,"new":{}}"#).is_ok());
        let newer = Record::read(br#"{"form":2,"id":"a","epoch":1,"first":1}"#).expect_err("a later form");
        assert!(newer.message().contains("form 2"), "{newer}");
        assert!(Record::read(b"{}").is_err());
        assert!(Record::read(b"").is_err());
    }
}
