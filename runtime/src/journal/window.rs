//! The window: which commands have taken effect lately, and what was answered, so that one that comes again does not
//! take effect again.
//!
//! Bounded, and honest about its bound: of commands that say when they were made it keeps the newest, and the newest
//! birth that it has forgotten. A command not born after that cannot be told from one that was forgotten, so it is
//! never run. Of commands that do not say (a person's, with an id of their own) it keeps those of the last ten
//! minutes, and refuses more than it can keep. [`shelf`] finds them by their ids.

mod shelf;

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::value::RawValue;

use self::shelf::Shelf;
use super::json::{self, Written};
use crate::call::TurnId;
use crate::error::{Error, ErrorKind};

/// Commands with a birth that one actor remembers.
pub(crate) const BORN_MAX: usize = 1_024;
/// What they may take as JSON, in bytes; the newest one may be larger.
const BORN_BYTES_MAX: usize = 256 * 1024;
/// Commands without one that it remembers at once, and what those may take.
const UNBORN_MAX: usize = 1_024;
const UNBORN_BYTES_MAX: usize = 256 * 1024;
/// Durable tells that it remembers. They come one by one, and the last is not acknowledged before it is remembered, so
/// one would do for what the broker gives out again; the others are for what was sent into the stream twice.
pub(crate) const STORED_MAX: usize = 1_024;
/// How long it remembers those, in milliseconds of the owner's clock.
const UNBORN_FOR_MS: u64 = 600_000;
/// How far ahead of the owner's clock a birth may lie.
const AHEAD_MAX_MS: u64 = 10_000;
/// What a command takes as JSON beside its verb and its answer; more than it ever does.
const COMMAND_BYTES: usize = 176;

/// A command that took effect.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Remembered {
    #[serde(deserialize_with = "read_id")]
    pub(crate) id: TurnId,
    /// When its id was made, in ms since 1970, by its sender's clock; 0 if it did not say.
    #[serde(default)]
    pub(crate) born: u64,
    /// When it took effect, in ms since 1970, by the owner's clock.
    pub(crate) at: u64,
    pub(crate) verb: Cow<'static, str>,
    /// Tells its message from another one under the same id.
    pub(crate) digest: u64,
    /// Whether it is a durable tell.
    #[serde(default)]
    pub(crate) stored: bool,
    pub(crate) fate: Fate,
}

/// The same, wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    id: TurnId,
    born: u64,
    at: u64,
    verb: &'a str,
    digest: u64,
    stored: bool,
    pub(crate) fate: Fate<Answer<'a>>,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate<A = Box<RawValue>> {
    /// It ended, with this reply.
    Replied(A),
    /// It was refused, for good: a later attempt was told so.
    Refused(A),
    /// So many steps of it were kept. Its turn may still run, or have been cut.
    Begun(u32),
}

/// An answer as JSON, in two parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a>(&'a [u8], &'a [u8]);

impl<'a> Answer<'a> {
    fn of(answer: &'a RawValue) -> Self {
        Self(answer.get().as_bytes(), &[])
    }

    fn len(self) -> usize {
        self.0.len() + self.1.len()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What serde says, if it has another form.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        if self.1.is_empty() {
            serde_json::from_slice(self.0)
        } else {
            serde_json::from_slice(&[self.0, self.1].concat())
        }
    }
}

impl Remembered {
    /// What it takes as JSON, at most.
    pub(crate) fn bytes(&self) -> usize {
        self.view().bytes()
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) -> Written {
        self.view().write(to)
    }

    fn view(&self) -> View<'_> {
        let &Self { id, born, at, digest, stored, .. } = self;
        let fate = match &self.fate {
            Fate::Replied(reply) => Fate::Replied(Answer::of(reply)),
            Fate::Refused(refusal) => Fate::Refused(Answer::of(refusal)),
            Fate::Begun(steps) => Fate::Begun(*steps),
        };
        View { id, born, at, verb: &self.verb, digest, stored, fate }
    }
}

impl View<'_> {
    fn bytes(&self) -> usize {
        let answer = match self.fate {
            Fate::Replied(answer) | Fate::Refused(answer) => answer.len(),
            Fate::Begun(_) => 0,
        };
        COMMAND_BYTES + self.verb.len() + answer
    }

    fn write(&self, to: &mut Vec<u8>) -> Written {
        json::id(to, r#"{"id":"#, self.id);
        if self.born > 0 {
            json::value(to, r#","born":"#, &self.born)?;
        }
        json::value(to, r#","at":"#, &self.at)?;
        json::value(to, r#","verb":"#, self.verb)?;
        json::value(to, r#","digest":"#, &self.digest)?;
        if self.stored {
            json::value(to, r#","stored":"#, &true)?;
        }
        match self.fate {
            Fate::Replied(Answer(front, back)) => json::parts(to, r#","fate":{"replied":"#, [front, back]),
            Fate::Refused(Answer(front, back)) => json::parts(to, r#","fate":{"refused":"#, [front, back]),
            Fate::Begun(steps) => json::value(to, r#","fate":{"begun":"#, &steps)?,
        }
        to.extend_from_slice(b"}}");
        Ok(())
    }
}

/// What is known of a command that arrives.
#[derive(Debug)]
pub(crate) enum Known<'a> {
    /// It never took effect.
    New,
    /// It did, or began to.
    Here(View<'a>),
    /// The id was used for another message.
    Reused,
    /// It may have been forgotten. Whoever has sent it once only may send it again under an id born after this.
    Expired(u64),
    /// It says that it was made in the future.
    Ahead,
    /// Too many of its kind are remembered.
    Full,
}

/// The commands one actor remembers.
#[derive(Debug, Deserialize)]
#[serde(from = "Form")]
pub(crate) struct Window {
    /// The newest birth that was forgotten.
    low: u64,
    born: Shelf,
    /// How many of those; not written down, since nodes may differ.
    most: usize,
    /// Apart, and only if there are any: most actors have none, and what is together in memory is found sooner.
    others: Option<Box<Others>>,
}

/// Commands that are not remembered by their births.
#[derive(Debug, Default)]
struct Others {
    /// Those that do not say when they were made.
    unborn: Shelf,
    /// Durable tells, whatever their births.
    stored: Shelf,
}

/// A window as it stands in a snapshot.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Form {
    low: u64,
    born: Shelf,
    unborn: Shelf,
    stored: Shelf,
}

impl Default for Window {
    fn default() -> Self {
        Self::from(Form::default())
    }
}

impl From<Form> for Window {
    fn from(Form { low, born, unborn, stored }: Form) -> Self {
        let others = Others { unborn, stored };
        Self { low, born, most: BORN_MAX, others: (!others.is_empty()).then(|| others.into()) }
    }
}

impl Others {
    fn is_empty(&self) -> bool {
        self.unborn.is_empty() && self.stored.is_empty()
    }
}

impl Window {
    /// The same, of another length.
    pub(crate) fn of(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self.shorten();
        self
    }

    /// What is known of a command; `now` is the owner's wall clock.
    pub(crate) fn look(&mut self, id: TurnId, born: u64, verb: &str, digest: u64, now: u64) -> Known<'_> {
        let unknown = self.unknown(born, now);
        match self.find(id) {
            Some(known) if known.verb == verb && known.digest == digest => Known::Here(known),
            Some(_) => Known::Reused,
            None => unknown,
        }
    }

    fn find(&mut self, id: TurnId) -> Option<View<'_>> {
        if let Some(place) = self.born.place(id) {
            return self.born.at(place);
        }
        let Others { unborn, stored } = self.others.as_deref_mut()?;
        if let Some(place) = unborn.place(id) {
            return unborn.at(place);
        }
        let place = stored.place(id)?;
        stored.at(place)
    }

    /// What is known of a command that is not remembered.
    fn unknown(&self, born: u64, now: u64) -> Known<'static> {
        if born == 0 {
            let since = now.saturating_sub(UNBORN_FOR_MS);
            let (live, bytes) = self.others.as_ref().map_or((0, 0), |others| others.unborn.since(since));
            return if live >= UNBORN_MAX || bytes >= UNBORN_BYTES_MAX { Known::Full } else { Known::New };
        }
        if born > now.saturating_add(AHEAD_MAX_MS) {
            return Known::Ahead;
        }
        if born <= self.low { Known::Expired(self.low) } else { Known::New }
    }

    /// With their names, those that are there.
    fn shelves(&self) -> impl Iterator<Item = (&'static str, &Shelf)> {
        let others = self.others.iter().flat_map(|others| [("unborn", &others.unborn), ("stored", &others.stored)]);
        [("born", &self.born)].into_iter().chain(others)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.low == 0 && self.shelves().all(|(_, shelf)| shelf.is_empty())
    }

    /// As it stands in a snapshot.
    ///
    /// # Errors
    /// Never with these types; the signature is serde's.
    pub(crate) fn write(&self) -> Result<Box<RawValue>, Error> {
        // All but its own few names.
        let mut to = Vec::with_capacity(self.bytes() + 64);
        self.write_to(&mut to).and_then(|()| serde_json::from_slice(&to)).map_err(|error| {
            let why = "the commands that an actor remembers cannot be written as JSON";
            Error::new(ErrorKind::Internal, why).with_source(error)
        })
    }

    fn write_to(&self, to: &mut Vec<u8>) -> Written {
        // None of them is the first for certain.
        json::value(to, r#"{"low":"#, &self.low)?;
        for (name, shelf) in self.shelves().filter(|(_, shelf)| !shelf.is_empty()) {
            to.extend_from_slice(b",");
            json::list(to, &format!("\"{name}\":"), shelf.iter(), |to, command| command.write(to))?;
        }
        to.push(b'}');
        Ok(())
    }

    /// Whether it hardly adds to a record.
    pub(crate) fn is_small(&self) -> bool {
        self.shelves().map(|(_, shelf)| shelf.len()).sum::<usize>() <= 2
    }

    /// What it takes as JSON, at most.
    pub(crate) fn bytes(&self) -> usize {
        self.shelves().map(|(_, shelf)| shelf.bytes()).sum()
    }

    /// Remembers a command, instead of an earlier step of it; forgets what is over the bounds.
    pub(crate) fn remember(&mut self, command: &Remembered) {
        let now = command.at;
        match command.born {
            _ if command.stored => _ = self.others.get_or_insert_default().stored.put(command, STORED_MAX),
            0 => _ = self.others.get_or_insert_default().unborn.put(command, UNBORN_MAX),
            _ => self.low = self.low.max(self.born.put(command, self.most).unwrap_or(0)),
        }
        if let Some(others) = &mut self.others {
            while others.unborn.begins_at().is_some_and(|at| at + UNBORN_FOR_MS <= now) {
                others.unborn.forget_first();
            }
        }
        self.others.take_if(|others| others.is_empty());
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.born.len() > self.most || (self.born.bytes() > BORN_BYTES_MAX && self.born.len() > 1) {
            if let Some(born) = self.born.forget_first() {
                self.low = self.low.max(born);
            }
        }
    }
}

/// An id as people see it elsewhere.
pub(super) fn write_id<S: Serializer>(id: &TurnId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

pub(super) fn read_id<'de, D: Deserializer<'de>>(from: D) -> Result<TurnId, D::Error> {
    let text = String::deserialize(from)?;
    u128::from_str_radix(&text, 16).map(TurnId).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(id: u128, born: u64, at: u64) -> Remembered {
        let fate = Fate::Replied(serde_json::value::to_raw_value(&id.to_string()).expect("json"));
        Remembered { id: TurnId(id), born, at, verb: "add".into(), digest: 1, stored: false, fate }
    }

    fn look(window: &mut Window, id: u128, born: u64, now: u64) -> String {
        match window.look(TurnId(id), born, "add", 1, now) {
            Known::Here(_) => "here".into(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn e1_a_window_remembers_the_newest_and_never_runs_what_it_may_have_forgotten() {
        let mut window = Window::default();
        for n in 1..=BORN_MAX as u64 + 4 {
            window.remember(&command(u128::from(n), 1_000 + n, 2_000 + n));
        }
        // Four were forgotten: the first of them comes again.
        assert_eq!(look(&mut window, 1, 1_001, 3_000), "Expired(1004)");
        assert_eq!(look(&mut window, 5, 1_005, 3_000), "here");
        // One that was delayed, and is older than what was forgotten: nobody knows.
        assert_eq!(look(&mut window, 99_999, 1_004, 3_000), "Expired(1004)");
        assert_eq!(look(&mut window, 99_999, 1_005, 3_000), "New");
        let json = window.write().expect("json");
        let mut back: Window = serde_json::from_str(json.get()).expect("a window");
        assert_eq!(look(&mut back, 1, 1_001, 3_000), "Expired(1004)");
        assert_eq!(look(&mut back, 5, 1_005, 3_000), "here");
    }

    #[test]
    fn e1_commands_that_do_not_say_when_they_were_made_are_kept_by_time() {
        let mut window = Window::default();
        for n in 0..UNBORN_MAX as u64 {
            window.remember(&command(u128::from(n), 0, 1_000));
        }
        assert_eq!(look(&mut window, 0, 0, 1_001), "here");
        assert_eq!(look(&mut window, 5_000, 0, 1_001), "Full");
        assert_eq!(look(&mut window, 5_000, 0, 1_000 + UNBORN_FOR_MS), "New");
        window.remember(&command(5_000, 0, 1_000 + UNBORN_FOR_MS));
        assert_eq!(look(&mut window, 0, 0, 1_001 + UNBORN_FOR_MS), "New", "it was forgotten in time");
        // They never push out those that say.
        window.remember(&command(7, 500, 2_000_000));
        assert_eq!(look(&mut window, 7, 500, 2_000_000), "here");
    }

    #[test]
    fn e1_an_id_is_for_one_message_and_no_birth_lies_in_the_future() {
        let mut window = Window::default();
        window.remember(&command(1, 1_000, 2_000));
        assert!(matches!(window.look(TurnId(1), 1_000, "add", 2, 2_000), Known::Reused));
        assert!(matches!(window.look(TurnId(1), 1_000, "take", 1, 2_000), Known::Reused));
        assert_eq!(look(&mut window, 2, 12_001, 2_000), "Ahead");
        assert_eq!(look(&mut window, 2, 12_000, 2_000), "New");
        // A later step takes the place of the one before.
        window.remember(&Remembered { fate: Fate::Begun(1), ..command(3, 1_500, 2_000) });
        window.remember(&command(3, 1_500, 2_001));
        let Known::Here(known) = window.look(TurnId(3), 1_500, "add", 1, 2_002) else { panic!("it is here") };
        let Fate::Replied(reply) = known.fate else { panic!("{known:?}") };
        assert_eq!(reply.read::<String>().expect("a text"), "3");
        assert_eq!(window.born.len(), 2);
    }

    #[test]
    fn e1_what_is_remembered_is_bounded_by_what_was_answered_too() {
        let large = |id: u64| {
            let reply = serde_json::value::to_raw_value(&"r".repeat(60_000)).expect("json");
            Remembered { fate: Fate::Replied(reply), ..command(u128::from(id), 1_000 + id, 2_000 + id) }
        };
        let mut window = Window::default();
        for id in 1..=8 {
            window.remember(&large(id));
        }
        assert!(window.bytes() <= BORN_BYTES_MAX, "{}", window.bytes());
        assert_eq!(look(&mut window, 4, 1_004, 3_000), "Expired(1004)");
        assert_eq!(look(&mut window, 5, 1_005, 3_000), "here");
        // What is told of its size is never less than its size.
        let json = window.write().expect("json");
        assert!(json.get().len() <= window.bytes() + 64, "{} and {}", json.get().len(), window.bytes());
        // One answer over the bound is remembered all the same: it was the last.
        let huge = serde_json::value::to_raw_value(&"r".repeat(BORN_BYTES_MAX)).expect("json");
        window.remember(&Remembered { fate: Fate::Replied(huge), ..command(9, 1_009, 2_009) });
        assert_eq!(look(&mut window, 9, 1_009, 3_000), "here");
        assert_eq!(look(&mut window, 8, 1_008, 3_000), "Expired(1008)");
        // Those that do not say when they were made are refused beyond their bound.
        for id in 10..15 {
            window.remember(&Remembered { born: 0, ..large(id) });
        }
        assert_eq!(look(&mut window, 99, 0, 3_000), "Full");
    }

    #[test]
    fn a_shorter_window_forgets_when_it_is_read_back() {
        let mut window = Window::default();
        for n in 1..=8 {
            window.remember(&command(u128::from(n), 1_000 + n, 2_000 + n));
        }
        let mut window = window.of(4);
        assert_eq!(look(&mut window, 4, 1_004, 3_000), "Expired(1004)");
        assert_eq!(look(&mut window, 5, 1_005, 3_000), "here");
    }

    #[test]
    fn e3_durable_tells_are_remembered_apart_from_what_is_asked() {
        let mut window = Window::default();
        window.remember(&Remembered { stored: true, ..command(1, 1_000, 2_000) });
        for n in 2..=10 * BORN_MAX as u64 {
            window.remember(&command(u128::from(n), 5_000 + n, 9_000));
        }
        assert_eq!(look(&mut window, 1, 1_000, 9_000), "here", "however much was asked meanwhile");
        let json = window.write().expect("json");
        let mut back: Window = serde_json::from_str(json.get()).expect("a window");
        assert_eq!(look(&mut back, 1, 1_000, 9_000), "here");
        for n in 0..STORED_MAX as u64 {
            window.remember(&Remembered { stored: true, ..command(u128::from(n) + 100_000, 1, 9_000) });
        }
        assert_eq!(window.others.map(|others| others.stored.len()), Some(STORED_MAX), "the oldest goes");
    }
}
