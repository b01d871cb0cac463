//! Shelves: remembered commands in the order in which they took effect, found by their ids.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Remembered;
use crate::call::TurnId;

/// Up to so many are looked through one by one: an actor that has seen three commands keeps no index of them.
const FEW: usize = 16;

/// Commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: VecDeque<Remembered>,
    /// How many of the oldest were taken away since the index was made.
    gone: usize,
    /// Where each stands, counting those that are gone; only if there are more than a few.
    index: Option<HashMap<TurnId, usize, ahash::RandomState>>,
    bytes: usize,
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

    pub(super) fn first(&self) -> Option<&Remembered> {
        self.kept.front()
    }

    pub(super) fn find(&self, id: TurnId) -> Option<&Remembered> {
        self.place(id).and_then(|place| self.kept.get(place))
    }

    /// How many took effect after a moment, and what they take as JSON.
    pub(super) fn since(&self, moment: u64) -> (usize, usize) {
        let old = self.kept.partition_point(|known| known.at <= moment);
        match self.kept.len() - old {
            live if live == self.kept.len() => (live, self.bytes),
            live => (live, self.kept.iter().skip(old).map(Remembered::bytes).sum()),
        }
    }

    /// Puts a command behind the others, and takes an earlier step of it away.
    pub(super) fn put(&mut self, mut command: Remembered) {
        if let Some(place) = self.place(command.id) {
            if let Some(earlier) = self.kept.remove(place) {
                self.bytes -= earlier.bytes();
            }
            // Steps of a turn follow each other, so this is mostly the last one: nothing else moves then.
            if place < self.kept.len() {
                self.index = None;
            }
        }
        // A clock that was put back must not bring them out of order.
        command.at = command.at.max(self.kept.back().map_or(0, |last| last.at));
        self.bytes += command.bytes();
        if let Some(index) = &mut self.index {
            index.insert(command.id, self.gone + self.kept.len());
        }
        self.kept.push_back(command);
        if self.index.is_none() && self.kept.len() > FEW {
            self.gone = 0;
            self.index = Some(self.kept.iter().enumerate().map(|(place, known)| (known.id, place)).collect());
        }
    }

    pub(super) fn forget_first(&mut self) -> Option<Remembered> {
        let first = self.kept.pop_front()?;
        self.bytes -= first.bytes();
        if let Some(index) = &mut self.index {
            index.remove(&first.id);
            self.gone += 1;
        }
        if self.kept.len() <= FEW / 2 {
            self.index = None;
            self.kept.shrink_to(FEW);
        }
        Some(first)
    }

    fn place(&self, id: TurnId) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&id).map(|place| place - self.gone),
            None => self.kept.iter().rposition(|known| known.id == id),
        }
    }
}

impl Serialize for Shelf {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.kept)
    }
}

impl<'de> Deserialize<'de> for Shelf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut shelf = Self::default();
        Vec::<Remembered>::deserialize(from)?.into_iter().for_each(|known| shelf.put(known));
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
                shelf.put(command(id, step));
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
            shelf.put(command(id, 1));
        }
        assert!(shelf.index.is_none() && shelf.kept.capacity() <= 4, "{}", shelf.kept.capacity());
        assert!(size_of::<Remembered>() <= 96, "{}", size_of::<Remembered>());
        for id in 3..1_000 {
            shelf.put(command(id, 1));
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
        shelf.put(command(1, 500));
        shelf.put(command(2, 100));
        shelf.put(command(3, 600));
        assert_eq!(shelf.since(499).0, 3);
        assert_eq!(shelf.since(500).0, 1);
    }
}
