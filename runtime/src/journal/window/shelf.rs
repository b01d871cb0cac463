//! Shelves: remembered commands in the order in which they took effect, found by their ids.
//!
//! An actor remembers a thousand commands and is asked for one of them in a thousand calls, so what is kept lies
//! together: a line of memory for a command, its answer behind the other answers. What is forgotten is never touched
//! again, and no allocation is as old as the command that it was made for.

use std::borrow::Cow;
use std::collections::VecDeque;

use hashbrown::HashTable;
use serde::{Deserialize, Deserializer};

use super::{Answer, Fate, Remembered, View};
use crate::call::TurnId;

/// Up to so many are looked through one by one: an actor that has seen three commands keeps no index of them.
const FEW: usize = 16;
/// So many bytes of answers are kept room for, however few there are.
const ANSWERS_MIN: usize = 1_024;

/// Commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: VecDeque<Entry>,
    /// How many of the oldest were taken away since the index was made.
    gone: u32,
    /// Only if there are more than a few.
    index: Option<Index>,
    /// What was answered, one behind the other; and how many bytes were taken away before them.
    answers: VecDeque<u8>,
    answers_gone: u64,
    /// The verbs that were ever met here.
    verbs: Vec<Cow<'static, str>>,
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
    /// Where its answer begins, counting what was taken away.
    answer: u64,
    /// How long that is; of one that has begun: how many of its steps were kept.
    length: u32,
    /// Its verb's place among those met here.
    verb: u32,
    ending: Ending,
    stored: bool,
}

/// A [`Fate`] without what came with it.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Replied,
    Refused,
    Begun,
}

/// Where each command stands, counting those that are gone. It holds no ids: most looks find nothing, and then touch
/// one line of a small table. What is gone stays in it until it is made anew, which costs less than to look for it.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<u32>,
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

    pub(super) fn find(&self, id: TurnId) -> Option<View<'_>> {
        self.place(id).and_then(|place| self.kept.get(place)).map(|entry| self.view(entry))
    }

    /// How many took effect after a moment, and what they take as JSON.
    pub(super) fn since(&self, moment: u64) -> (usize, usize) {
        let old = self.kept.partition_point(|known| known.at <= moment);
        match self.kept.len() - old {
            live if live == self.kept.len() => (live, self.bytes),
            live => (live, self.iter().skip(old).map(|known| known.bytes()).sum()),
        }
    }

    /// Puts a command behind the others, and takes an earlier step of it away.
    pub(super) fn put(&mut self, command: &Remembered) {
        if let Some(place) = self.place(command.id) {
            // Steps of a turn follow each other, so this is mostly the last one: nothing else moves then.
            if place + 1 == self.kept.len() {
                self.forget_last_place();
            } else {
                self.index = None;
            }
            // Its answer goes with those before it.
            if let Some(earlier) = self.kept.remove(place) {
                self.bytes -= self.view(&earlier).bytes();
            }
        }
        let entry = self.entry(command);
        self.bytes += self.view(&entry).bytes();
        self.kept.push_back(entry);
        let outdated = self.index.as_ref().is_none_or(|index| index.places.len() >= 2 * self.kept.len().max(FEW));
        if !outdated {
            return self.note_place(self.kept.len() - 1);
        }
        let before = self.index.take();
        if self.kept.len() > FEW {
            let mut index = before.unwrap_or_default();
            index.places.clear();
            (self.gone, self.index) = (0, Some(index));
            (0..self.kept.len()).for_each(|place| self.note_place(place));
        }
    }

    /// Forgets the oldest; says when its id was made.
    pub(super) fn forget_first(&mut self) -> Option<u64> {
        let first = self.kept.pop_front()?;
        let view = self.view(&first);
        let old = match view.fate {
            _ if self.kept.is_empty() => self.answers.len(),
            // With what was left before it by commands that came again.
            Fate::Replied(answer) | Fate::Refused(answer) => (first.answer - self.answers_gone) as usize + answer.len(),
            Fate::Begun(_) => 0,
        };
        self.bytes -= view.bytes();
        // Bounded by the index, which is made anew before long.
        self.gone += u32::from(self.index.is_some());
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
        let answer = self.answers_gone + self.answers.len() as u64;
        let (ending, length) = match fate {
            Fate::Replied(Answer(reply, _)) => (Ending::Replied, self.keep(reply)),
            Fate::Refused(Answer(refusal, _)) => (Ending::Refused, self.keep(refusal)),
            Fate::Begun(steps) => (Ending::Begun, steps),
        };
        // A clock that was put back must not bring them out of order.
        let at = at.max(self.kept.back().map_or(0, |last| last.at));
        Entry { id, born, at, digest, answer, length, verb: place as u32, ending, stored }
    }

    fn keep(&mut self, answer: &[u8]) -> u32 {
        self.answers.extend(answer);
        // Far below the limit: no message is as large.
        answer.len() as u32
    }

    fn view(&self, entry: &Entry) -> View<'_> {
        let &Entry { id, born, at, digest, stored, .. } = entry;
        let verb = self.verbs.get(entry.verb as usize).map_or("", AsRef::as_ref);
        let fate = match entry.ending {
            Ending::Replied => Fate::Replied(self.answer(entry)),
            Ending::Refused => Fate::Refused(self.answer(entry)),
            Ending::Begun => Fate::Begun(entry.length),
        };
        View { id, born, at, verb, digest, stored, fate }
    }

    fn answer(&self, entry: &Entry) -> Answer<'_> {
        let from = (entry.answer - self.answers_gone) as usize;
        let to = from + entry.length as usize;
        let (front, back) = self.answers.as_slices();
        let of = |part: &'_ [u8], skipped: usize| {
            let at = |place: usize| place.saturating_sub(skipped).min(part.len());
            at(from)..at(to)
        };
        Answer(&front[of(front, 0)], &back[of(back, front.len())])
    }

    fn place(&self, id: TurnId) -> Option<usize> {
        let Some(Index { places, hasher }) = &self.index else {
            return self.kept.iter().rposition(|known| known.id == id);
        };
        let at = |place: &u32| place.checked_sub(self.gone).map(|place| place as usize);
        let is_it = |place: &u32| at(place).and_then(|at| self.kept.get(at)).is_some_and(|known| known.id == id);
        places.find(hasher.hash_one(id), is_it).and_then(at)
    }

    /// Takes what stands there into the index.
    fn note_place(&mut self, place: usize) {
        let (Some(Index { places, hasher }), Some(command)) = (&mut self.index, self.kept.get(place)) else { return };
        let (kept, gone) = (&self.kept, self.gone);
        let known_at = |place: &u32| place.checked_sub(gone).and_then(|at| kept.get(at as usize));
        // Those that are gone are found under no hash any more.
        let hash_of = |place: &u32| known_at(place).map_or(0, |known| hasher.hash_one(known.id));
        // Far below the limit: a shelf is bounded, and so is what is gone from its index.
        places.insert_unique(hasher.hash_one(command.id), gone + place as u32, hash_of);
    }

    /// Takes the last one out of the index: it is taken away next, and another will have its place.
    fn forget_last_place(&mut self) {
        let (Some(Index { places, hasher }), Some(command)) = (&mut self.index, self.kept.back()) else { return };
        let wanted = self.gone + self.kept.len() as u32 - 1;
        if let Ok(found) = places.find_entry(hasher.hash_one(command.id), |known| *known == wanted) {
            found.remove();
        }
    }
}

impl<'de> Deserialize<'de> for Shelf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut shelf = Self::default();
        Vec::<Remembered>::deserialize(from)?.iter().for_each(|known| shelf.put(known));
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
            1 => Fate::Replied(serde_json::value::to_raw_value(&"r".repeat(id as usize)).expect("json")),
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
                shelf.put(&command(id, step));
            } else if !plain.is_empty() {
                let first = plain.remove(0);
                assert_eq!(shelf.kept.front().map(|known| known.id), Some(TurnId(first)), "step {step}");
                assert_eq!(shelf.forget_first(), Some(1));
            }
            assert_eq!(shelf.len(), plain.len());
            assert_eq!(shelf.bytes(), plain.iter().map(|id| command(*id, 0).view().bytes()).sum::<usize>());
            for id in 0..200 {
                let found = shelf.find(TurnId(id)).map(|known| text(&View { at: 0, ..known }));
                let wanted = plain.contains(&id).then(|| text(&command(id, 0).view()));
                assert_eq!(found, wanted, "step {step}, id {id}");
            }
            if plain.is_empty() {
                assert!(shelf.answers.is_empty() && shelf.answers.capacity() <= ANSWERS_MIN, "step {step}");
            }
        }
    }

    #[test]
    fn a_few_commands_need_no_index_and_many_have_one() {
        let mut shelf = Shelf::default();
        for id in 0..3 {
            shelf.put(&command(id, 1));
        }
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= 4, "{}", shelf.kept.capacity());
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
        for id in 3..1_000 {
            shelf.put(&command(id, 1));
        }
        assert!(shelf.index.is_some());
        while shelf.len() > 3 {
            shelf.forget_first();
        }
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= FEW);
    }

    #[test]
    fn they_stand_in_the_order_of_time_even_if_the_clock_does_not() {
        let mut shelf = Shelf::default();
        shelf.put(&command(1, 500));
        shelf.put(&command(2, 100));
        shelf.put(&command(3, 600));
        assert_eq!(shelf.since(499).0, 3);
        assert_eq!(shelf.since(500).0, 1);
    }
}
