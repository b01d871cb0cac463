//! Shelves: remembered commands in the order in which they took effect, found by their ids.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Deserializer};

use super::Remembered;
use crate::call::TurnId;

/// Up to so many are looked through one by one: an actor that has seen three commands keeps no index of them.
const FEW: usize = 16;

/// Commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: VecDeque<Arc<Remembered>>,
    /// How many of the oldest were taken away, as far as the index counts.
    gone: u32,
    /// Only if there are more than a few.
    index: Option<Index>,
    bytes: usize,
}

/// Where each command stands, counting those that are gone. It holds no ids: most looks find nothing, and then touch
/// one line of a small table.
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
    pub(super) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.kept.iter().map(Arc::as_ref)
    }

    pub(super) fn first(&self) -> Option<&Remembered> {
        self.kept.front().map(Arc::as_ref)
    }

    pub(super) fn find(&self, id: TurnId) -> Option<&Remembered> {
        self.place(id).and_then(|place| self.kept.get(place)).map(Arc::as_ref)
    }

    /// How many took effect after a moment, and what they take as JSON.
    pub(super) fn since(&self, moment: u64) -> (usize, usize) {
        let old = self.kept.partition_point(|known| known.at <= moment);
        match self.kept.len() - old {
            live if live == self.kept.len() => (live, self.bytes),
            live => (live, self.kept.iter().skip(old).map(|known| known.bytes()).sum()),
        }
    }

    /// Puts a command behind the others, and takes an earlier step of it away.
    pub(super) fn put(&mut self, mut command: Arc<Remembered>) {
        if let Some(place) = self.place(command.id) {
            // Steps of a turn follow each other, so this is mostly the last one: nothing else moves then.
            if place + 1 == self.kept.len() {
                self.forget_place(place);
            } else {
                self.index = None;
            }
            if let Some(earlier) = self.kept.remove(place) {
                self.bytes -= earlier.bytes();
            }
        }
        // A clock that was put back must not bring them out of order.
        let last = self.kept.back().map_or(0, |last| last.at);
        if command.at < last {
            Arc::make_mut(&mut command).at = last;
        }
        self.bytes += command.bytes();
        self.kept.push_back(command);
        if self.index.is_some() {
            self.note_place(self.kept.len() - 1);
        } else if self.kept.len() > FEW {
            (self.gone, self.index) = (0, Some(Index::default()));
            (0..self.kept.len()).for_each(|place| self.note_place(place));
        }
    }

    pub(super) fn forget_first(&mut self) -> Option<Arc<Remembered>> {
        self.forget_place(0);
        let first = self.kept.pop_front()?;
        self.bytes -= first.bytes();
        self.gone = self.gone.wrapping_add(1);
        if self.kept.len() <= FEW / 2 {
            self.index = None;
            self.kept.shrink_to(FEW);
        }
        Some(first)
    }

    fn place(&self, id: TurnId) -> Option<usize> {
        let Some(Index { places, hasher }) = &self.index else {
            return self.kept.iter().rposition(|known| known.id == id);
        };
        let at = |place: &u32| place.wrapping_sub(self.gone) as usize;
        let is_it = |place: &u32| self.kept.get(at(place)).is_some_and(|known| known.id == id);
        places.find(hasher.hash_one(id), is_it).map(at)
    }

    /// Takes what stands there into the index.
    fn note_place(&mut self, place: usize) {
        let (Some(Index { places, hasher }), Some(command)) = (&mut self.index, self.kept.get(place)) else { return };
        let (kept, gone) = (&self.kept, self.gone);
        let hash_of =
            |place: &u32| kept.get(place.wrapping_sub(gone) as usize).map_or(0, |known| hasher.hash_one(known.id));
        // Far below the limit: a shelf is bounded.
        places.insert_unique(hasher.hash_one(command.id), gone.wrapping_add(place as u32), hash_of);
    }

    /// Takes what stands there out of the index; it leaves next.
    fn forget_place(&mut self, place: usize) {
        let (Some(Index { places, hasher }), Some(command)) = (&mut self.index, self.kept.get(place)) else { return };
        let wanted = self.gone.wrapping_add(place as u32);
        if let Ok(found) = places.find_entry(hasher.hash_one(command.id), |known| *known == wanted) {
            found.remove();
        }
    }
}

impl<'de> Deserialize<'de> for Shelf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut shelf = Self::default();
        Vec::<Remembered>::deserialize(from)?.into_iter().for_each(|known| shelf.put(Arc::new(known)));
        Ok(shelf)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fate;
    use super::*;

    fn command(id: u128, at: u64) -> Remembered {
        Remembered { id: TurnId(id), born: 1, at, verb: "add".into(), digest: 1, stored: false, fate: Fate::Begun(1) }
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
                shelf.put(Arc::new(command(id, step)));
            } else if !plain.is_empty() {
                let first = plain.remove(0);
                assert_eq!(shelf.forget_first().map(|known| known.id), Some(TurnId(first)), "step {step}");
            }
            assert_eq!(shelf.len(), plain.len());
            assert_eq!(shelf.bytes(), plain.len() * command(0, 0).bytes());
            for id in 0..200 {
                let found = shelf.find(TurnId(id)).map(|known| known.id);
                assert_eq!(found, plain.contains(&id).then_some(TurnId(id)), "step {step}, id {id}");
            }
        }
    }

    #[test]
    fn a_few_commands_need_no_index_and_many_have_one() {
        let mut shelf = Shelf::default();
        for id in 0..3 {
            shelf.put(Arc::new(command(id, 1)));
        }
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= 4, "{}", shelf.kept.capacity());
        assert!(size_of::<Remembered>() <= 112, "{}", size_of::<Remembered>());
        for id in 3..1_000 {
            shelf.put(Arc::new(command(id, 1)));
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
        shelf.put(Arc::new(command(1, 500)));
        shelf.put(Arc::new(command(2, 100)));
        shelf.put(Arc::new(command(3, 600)));
        assert_eq!(shelf.since(499).0, 3);
        assert_eq!(shelf.since(500).0, 1);
    }
}
