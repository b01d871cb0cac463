//! Shelves: remembered commands in the order in which they took effect, found by their ids.
//!
//! An actor remembers a thousand commands and is asked for one of them in a thousand calls, so what is kept lies
//! together: a line of memory for a command, in the place of the one that is forgotten for it, and its answer behind the
//! other answers. The ids that nodes make grow with time, so a command whose id is above all that are kept is new, and
//! nothing is looked up. The others are found by an index, which is brought up to date when one of them comes.

use std::borrow::Cow;
use std::collections::VecDeque;

use hashbrown::HashTable;
use serde::{Deserialize, Deserializer};
use smallvec::SmallVec;

use super::{Answer, Fate, Remembered, View};
use crate::call::TurnId;

/// Up to so many are looked through one by one: an actor that has seen three commands keeps no index of them.
const FEW: usize = 16;
/// An answer of so many bytes stands beside its command.
const SHORT_MAX: usize = 14;
/// So many bytes of answers are kept room for, however few there are.
const ANSWERS_MIN: usize = 1_024;

/// Commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: VecDeque<Entry>,
    /// None of them has an id above this, or took effect later than this.
    newest: u128,
    latest: u64,
    /// Only if one was looked for among more than a few.
    index: Option<Box<Index>>,
    /// What was answered at length, one behind the other; and how many bytes were taken away before them.
    answers: VecDeque<u8>,
    answers_gone: u64,
    /// The verbs that were ever met here.
    verbs: SmallVec<[Cow<'static, str>; 2]>,
    bytes: usize,
}

/// A command, without what is as long as it likes. A line of memory: it is cold when it is forgotten.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    id: TurnId,
    born: u64,
    at: u64,
    digest: u64,
    fate: Fate<Place>,
    /// Its verb's place among those met here.
    verb: u16,
    stored: bool,
}

/// Where an answer is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the line itself, if that has room: a number, a word, `null`.
    Here { length: u8, text: [u8; SHORT_MAX] },
    /// Where it begins, counting what was taken away (the lower half of that), and how long it is.
    Behind { begin: u32, length: u32 },
}

/// Where each command stands, counting those that are gone. It holds no ids: most looks find nothing, and then touch
/// one line of a small table. What is gone stays in it until it is made anew, which costs less than to look for it.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<u32>,
    /// How many of the oldest were taken away since it was made.
    gone: u32,
    /// Where those begin that it does not know yet, counting the same.
    until: u32,
    hasher: ahash::RandomState,
}

impl Shelf {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// What they take as JSON, at most.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = View<'_>> {
        self.kept.iter().map(|entry| self.view(entry))
    }

    /// When the oldest took effect.
    pub(super) fn begins_at(&self) -> Option<u64> {
        self.kept.front().map(|entry| entry.at)
    }

    /// Where a command stands now.
    pub(super) fn place(&mut self, id: TurnId) -> Option<usize> {
        if id.0 > self.newest {
            return None;
        }
        if self.kept.len() <= FEW {
            return self.kept.iter().rposition(|known| known.id == id);
        }
        let index = self.index.get_or_insert_default();
        if index.catch_up(&self.kept) {
            // Ids that callers make do not grow with time: those that are forgotten must not count for ever.
            self.newest = self.kept.iter().map(|known| known.id.0).max().unwrap_or(0);
        }
        index.find(&self.kept, id)
    }

    pub(super) fn at(&self, place: usize) -> Option<View<'_>> {
        self.kept.get(place).map(|entry| self.view(entry))
    }

    /// How many took effect after a moment, and what they take as JSON.
    pub(super) fn since(&self, moment: u64) -> (usize, usize) {
        let old = self.kept.partition_point(|known| known.at <= moment);
        match self.kept.len() - old {
            live if live == self.kept.len() => (live, self.bytes),
            live => (live, self.iter().skip(old).map(|known| known.bytes()).sum()),
        }
    }

    /// Puts a command behind the others, and takes an earlier step of it away, or the oldest if there are so many
    /// already; says when the newest id was made that is forgotten so.
    pub(super) fn put(&mut self, command: &Remembered, most: usize) -> Option<u64> {
        if let Some(place) = self.place(command.id) {
            // Steps of a turn follow each other, so this is mostly the last one: nothing else moves then.
            match &mut self.index {
                Some(index) if place + 1 == self.kept.len() => index.forget_last(&self.kept),
                index => *index = None,
            }
            // Its answer goes with those before it.
            if let Some(earlier) = self.kept.remove(place) {
                self.bytes -= self.view(&earlier).bytes();
            }
        }
        // First, so that it leaves its place to the new one.
        let mut forgotten = None;
        while self.kept.len() >= most.max(1) {
            forgotten = forgotten.max(self.forget_first());
        }
        let entry = self.entry(command);
        self.bytes += self.view(&entry).bytes();
        self.kept.push_back(entry);
        self.newest = self.newest.max(command.id.0);
        forgotten
    }

    /// Forgets the oldest; says when its id was made.
    pub(super) fn forget_first(&mut self) -> Option<u64> {
        let first = self.kept.pop_front()?;
        let view = self.view(&first);
        let old = match first.fate {
            _ if self.kept.is_empty() => self.answers.len(),
            // With what was left before it by commands that came again.
            Fate::Replied(Place::Behind { begin, length }) | Fate::Refused(Place::Behind { begin, length }) => {
                self.skipped(begin) + length as usize
            }
            _ => 0,
        };
        self.bytes -= view.bytes();
        if let Some(index) = &mut self.index {
            index.gone += 1;
        }
        // One that nothing was looked for in of late is in vain.
        if self.index.as_ref().is_some_and(|index| index.gone as usize > 4 * self.kept.len().max(FEW)) {
            self.index = None;
        }
        self.answers.drain(..old);
        self.answers_gone += old as u64;
        if self.kept.len() <= FEW / 2 {
            self.index = None;
            self.kept.shrink_to(FEW);
        }
        if self.answers.capacity() > ANSWERS_MIN.max(4 * self.answers.len()) {
            self.answers.shrink_to(2 * self.answers.len());
        }
        Some(first.born)
    }

    /// Takes in what a command was answered.
    fn entry(&mut self, command: &Remembered) -> Entry {
        let View { id, born, at, verb, digest, stored, fate } = command.view();
        let place = self.verbs.iter().position(|known| known == verb).unwrap_or_else(|| {
            self.verbs.push(command.verb.clone());
            self.verbs.len() - 1
        });
        let fate = match fate {
            Fate::Replied(Answer(reply, _)) => Fate::Replied(self.keep(reply)),
            Fate::Refused(Answer(refusal, _)) => Fate::Refused(self.keep(refusal)),
            Fate::Begun(steps) => Fate::Begun(steps),
        };
        // A clock that was put back must not bring them out of order.
        let at = at.max(self.latest);
        self.latest = at;
        // Far below the limit: a contract does not have as many.
        Entry { id, born, at, digest, fate, verb: place as u16, stored }
    }

    fn keep(&mut self, answer: &[u8]) -> Place {
        let mut text = [0; SHORT_MAX];
        if let Some(short) = text.get_mut(..answer.len()) {
            short.copy_from_slice(answer);
            return Place::Here { length: answer.len() as u8, text };
        }
        let begin = (self.answers_gone + self.answers.len() as u64) as u32;
        self.answers.extend(answer);
        // Far below the limit: no message is as large.
        Place::Behind { begin, length: answer.len() as u32 }
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> View<'a> {
        let &Entry { id, born, at, digest, stored, .. } = entry;
        let verb = self.verbs.get(usize::from(entry.verb)).map_or("", AsRef::as_ref);
        let fate = match &entry.fate {
            Fate::Replied(place) => Fate::Replied(self.answer(place)),
            Fate::Refused(place) => Fate::Refused(self.answer(place)),
            Fate::Begun(steps) => Fate::Begun(*steps),
        };
        View { id, born, at, verb, digest, stored, fate }
    }

    /// How many bytes of answers stand before this one.
    fn skipped(&self, begin: u32) -> usize {
        begin.wrapping_sub(self.answers_gone as u32) as usize
    }

    fn answer<'a>(&'a self, place: &'a Place) -> Answer<'a> {
        let (from, to) = match place {
            Place::Here { length, text } => return Answer(&text[..usize::from(*length)], &[]),
            Place::Behind { begin, length } => (self.skipped(*begin), self.skipped(*begin) + *length as usize),
        };
        let (front, back) = self.answers.as_slices();
        let of = |part: &'_ [u8], skipped: usize| {
            let at = |place: usize| place.saturating_sub(skipped).min(part.len());
            at(from)..at(to)
        };
        Answer(&front[of(front, 0)], &back[of(back, front.len())])
    }
}

impl Index {
    /// Takes in what was put behind what it knows; says whether it was made anew for that.
    fn catch_up(&mut self, kept: &VecDeque<Entry>) -> bool {
        let end = self.gone as usize + kept.len();
        let anew = self.places.len() + end.saturating_sub(self.until as usize) > 2 * kept.len();
        if anew {
            self.places.clear();
            (self.gone, self.until) = (0, 0);
        }
        let Self { places, gone, until, hasher } = self;
        let begin = (*until).max(*gone) - *gone;
        for (place, known) in kept.iter().enumerate().skip(begin as usize) {
            let known_at = |place: &u32| place.checked_sub(*gone).and_then(|at| kept.get(at as usize));
            // Those that are gone are found under no hash any more.
            let hash_of = |place: &u32| known_at(place).map_or(0, |known| hasher.hash_one(known.id));
            // Far below the limit: a shelf is bounded, and so is what is gone from its index.
            places.insert_unique(hasher.hash_one(known.id), *gone + place as u32, hash_of);
        }
        *until = *gone + kept.len() as u32;
        anew
    }

    fn find(&self, kept: &VecDeque<Entry>, id: TurnId) -> Option<usize> {
        let at = |place: &u32| place.checked_sub(self.gone).map(|place| place as usize);
        let is_it = |place: &u32| at(place).and_then(|at| kept.get(at)).is_some_and(|known| known.id == id);
        self.places.find(self.hasher.hash_one(id), is_it).and_then(at)
    }

    /// Takes the last one out: it is taken away next, and another will have its place.
    fn forget_last(&mut self, kept: &VecDeque<Entry>) {
        let Some(last) = kept.back() else { return };
        let place = self.gone + kept.len() as u32 - 1;
        if let Ok(found) = self.places.find_entry(self.hasher.hash_one(last.id), |known| *known == place) {
            found.remove();
        }
        self.until = self.until.min(place);
    }
}

impl<'de> Deserialize<'de> for Shelf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut shelf = Self::default();
        Vec::<Remembered>::deserialize(from)?.iter().for_each(|known| _ = shelf.put(known, usize::MAX));
        Ok(shelf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(known: &View<'_>) -> String {
        let mut to = Vec::new();
        known.write(&mut to).expect("json");
        String::from_utf8(to).expect("text")
    }

    fn command(id: u128, at: u64) -> Remembered {
        let fate = match id % 3 {
            0 => Fate::Begun(1),
            1 => Fate::Replied(serde_json::value::to_raw_value(&"r".repeat(id as usize % 200)).expect("json")),
            _ => Fate::Refused(serde_json::value::to_raw_value(&id.to_string()).expect("json")),
        };
        let verb = if id.is_multiple_of(2) { "add" } else { "take" };
        Remembered { id: TurnId(id), born: 1, at, verb: verb.into(), digest: 1, stored: false, fate }
    }

    #[test]
    fn commands_are_found_whatever_came_and_went() {
        // Against a plain list, in one of a thousand orders.
        let (mut shelf, mut plain) = (Shelf::default(), Vec::<u128>::new());
        let mut seed = 7u64;
        for step in 0..5_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let id = u128::from((seed >> 33) % 200);
            // Grows to over a hundred, and shrinks to nothing, in turns.
            if (seed >> 20) % 100 < if (step / 500) % 2 == 0 { 70 } else { 25 } {
                plain.retain(|known| *known != id);
                plain.push(id);
                assert_eq!(shelf.put(&command(id, step), usize::MAX), None);
            } else if !plain.is_empty() {
                let first = plain.remove(0);
                assert_eq!(shelf.kept.front().map(|known| known.id), Some(TurnId(first)), "step {step}");
                assert_eq!(shelf.forget_first(), Some(1));
            }
            assert_eq!(shelf.len(), plain.len());
            assert_eq!(shelf.bytes(), plain.iter().map(|id| command(*id, 0).view().bytes()).sum::<usize>());
            for id in 0..200 {
                let place = shelf.place(TurnId(id));
                let found = place.and_then(|at| shelf.at(at)).map(|known| text(&View { at: 0, ..known }));
                let wanted = plain.contains(&id).then(|| text(&command(id, 0).view()));
                assert_eq!(found, wanted, "step {step}, id {id}");
            }
            if plain.is_empty() {
                assert!(shelf.answers.is_empty() && shelf.answers.capacity() <= ANSWERS_MIN, "step {step}");
            }
        }
    }

    #[test]
    fn only_who_is_asked_for_old_commands_keeps_an_index() {
        let mut shelf = Shelf::default();
        for id in 0..3 {
            shelf.put(&command(id, 1), 1_024);
        }
        assert!(shelf.place(TurnId(1)).is_some());
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= 4, "{}", shelf.kept.capacity());
        assert_eq!((size_of::<Entry>(), size_of::<Fate<Place>>()), (64, 20));
        for id in 3..5_000 {
            assert_eq!(shelf.place(TurnId(id)), None);
            assert_eq!(shelf.put(&command(id, 1), 1_024).is_some(), id >= 1_024);
        }
        assert!(shelf.index.is_none(), "each was newer than all before");
        assert_eq!((shelf.len(), shelf.kept.capacity()), (1_024, 1_024), "the newest has the place of the oldest");
        assert_eq!(shelf.place(TurnId(4_999)), Some(1_023));
        assert_eq!(shelf.place(TurnId(3_975)), None);
        assert!(shelf.index.is_some());
        for id in 5_000..10_000 {
            shelf.put(&command(id, 1), 1_024);
        }
        assert!(shelf.index.is_none(), "it was not needed for long");
        assert_eq!(shelf.place(TurnId(9_000)), Some(24));
        while shelf.len() > 3 {
            shelf.forget_first();
        }
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= FEW);
    }

    #[test]
    fn an_id_that_does_not_grow_with_time_is_no_bound_for_ever() {
        let mut shelf = Shelf::default();
        shelf.put(&command(1_000_000_001, 1), 100);
        for id in 0..500 {
            shelf.put(&command(id, 1), 100);
        }
        assert!(shelf.newest < 500, "{}", shelf.newest);
    }

    #[test]
    fn they_stand_in_the_order_of_time_even_if_the_clock_does_not() {
        let mut shelf = Shelf::default();
        shelf.put(&command(1, 500), 3);
        shelf.put(&command(2, 100), 3);
        shelf.put(&command(3, 600), 3);
        assert_eq!(shelf.since(499).0, 3);
        assert_eq!(shelf.since(500).0, 1);
    }
}
