//! What callers saw, and what must be true of it.
//!
//! A list that only grows needs no search: its last state says in which order everything took effect, so a history is
//! linearizable if and only if that order agrees with what each caller was told and when. Checked besides: what was
//! said not to have been run was not, and the records of a journal never go back to an older owner.

use std::collections::{BTreeMap, BTreeSet};

use super::list::{ECHO, SECOND};

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// Who called, for whoever reads a failure.
    #[expect(dead_code, reason = "shown by Debug")]
    pub(super) client: usize,
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) began: u64,
    /// `None` while it has no answer.
    pub(super) ended: Option<u64>,
    pub(super) outcome: Outcome,
}

impl Op {
    /// Its value and the list to which the echo of that belongs, and whether such echoes keep their order.
    fn echo(&self) -> Option<(u64, &str, bool)> {
        match &self.kind {
            Kind::Pass(value, to) => Some((*value, to, true)),
            Kind::Later(value) => Some((*value, &self.key, false)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Push(u64),
    PushTwice(u64),
    Refused(u64),
    /// Its echo goes to that list.
    Pass(u64, String),
    /// Its echo comes here, some time.
    Later(u64),
    Look,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Nobody knows: it took effect, or will, or not.
    Open,
    /// It stands there.
    At(usize),
    Seen(Vec<u64>),
    /// The actor said no.
    Refused,
    /// It was certainly not run.
    NotRun,
}

/// What a journal holds: its owner's epoch and node for each record.
pub(super) struct Stored {
    pub(super) epoch: u64,
    pub(super) node: String,
}

/// Whether a history of one key agrees with how its list ended.
pub(super) fn check(ops: &[&Op], list: &[u64]) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (place, value) in list.iter().enumerate() {
        if let Some(before) = places.insert(*value, place) {
            return Err(format!("{value} took effect twice, at {before} and {place}"));
        }
    }
    pushes(ops, &places)?;
    // Each answered push by the end of its call: what began later stands behind it.
    let mut told: Vec<(u64, usize)> = ops.iter().filter_map(|op| Some((op.ended?, last_place(op, &places)?))).collect();
    // A look shows at the least what every look and push that ended before it began has shown.
    for op in ops {
        if let (Outcome::Seen(seen), Some(ended)) = (&op.outcome, op.ended) {
            if list.get(..seen.len()) != Some(seen) {
                return Err(format!("{op:?} saw what the list never was: {list:?}"));
            }
            if !seen.is_empty() {
                told.push((ended, seen.len() - 1));
            }
        }
    }
    told.sort_unstable();
    let mut furthest = 0;
    let marks: Vec<(u64, usize)> = told
        .iter()
        .map(|(ended, place)| {
            furthest = furthest.max(place + 1);
            (*ended, furthest)
        })
        .collect();
    let least = |began: u64| match marks.partition_point(|(ended, _)| *ended < began) {
        0 => 0,
        n => marks[n - 1].1,
    };
    for op in ops {
        let least = least(op.began);
        match &op.outcome {
            Outcome::At(_) => {
                let first = first_place(op, &places).unwrap_or(0);
                if first < least {
                    return Err(format!("{op:?} stands at {first}, before what had been told when it began ({least})"));
                }
            }
            Outcome::Seen(seen) if seen.len() < least => {
                return Err(format!("{op:?} saw {} values, and {least} had been told before it began", seen.len()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn pushes(ops: &[&Op], places: &BTreeMap<u64, usize>) -> Result<(), String> {
    let mut known = BTreeSet::new();
    for op in ops {
        let (first, second) = match op.kind {
            Kind::Push(value) => (value, None),
            Kind::PushTwice(value) => (value, Some(value | SECOND)),
            Kind::Refused(value) | Kind::Pass(value, _) | Kind::Later(value) => (value, None),
            Kind::Look => continue,
        };
        known.insert(first);
        known.extend(second);
        let stands = |value: u64| places.get(&value).copied();
        match (&op.outcome, stands(first), second.map(stands)) {
            (Outcome::At(at), place, None) if place != Some(*at) => {
                return Err(format!("{op:?} stands at {place:?}"));
            }
            (Outcome::At(at), Some(_), Some(last)) if last != Some(*at) => {
                return Err(format!("{op:?}: its second value stands at {last:?}"));
            }
            (Outcome::At(_), None, Some(_)) => return Err(format!("{op:?} lost its first value")),
            (Outcome::NotRun | Outcome::Refused, Some(place), _) if second.is_none() => {
                return Err(format!("{op:?} has taken effect, at {place}"));
            }
            (Outcome::NotRun, Some(place), Some(_)) => return Err(format!("{op:?} has taken effect, at {place}")),
            (_, one, Some(Some(two))) if one.is_none_or(|one| one >= two) => {
                return Err(format!("{op:?}: its second value stands before its first"));
            }
            _ => {}
        }
    }
    match places.keys().find(|value| **value & ECHO == 0 && !known.contains(value)) {
        Some(stranger) => Err(format!("{stranger} was never pushed")),
        None => Ok(()),
    }
}

fn first_place(op: &Op, places: &BTreeMap<u64, usize>) -> Option<usize> {
    match op.kind {
        Kind::Push(value) | Kind::PushTwice(value) | Kind::Pass(value, _) | Kind::Later(value) => {
            places.get(&value).copied()
        }
        Kind::Refused(_) | Kind::Look => None,
    }
}

fn last_place(op: &Op, _: &BTreeMap<u64, usize>) -> Option<usize> {
    match op.outcome {
        Outcome::At(place) => Some(place),
        _ => None,
    }
}

/// A value that took effect and whose echo is still to come.
pub(super) fn echo_due(ops: &[Op], lists: &BTreeMap<String, Vec<u64>>) -> Option<u64> {
    let stands = |key: &str, value: u64| lists.get(key).is_some_and(|list| list.contains(&value));
    ops.iter().find_map(|op| {
        let (value, to, _) = op.echo()?;
        (stands(&op.key, value) && !stands(to, value | ECHO)).then_some(value)
    })
}

/// Whether there is an echo of what took effect and of nothing else, where it belongs, and in the order in which one
/// list told another. That there is no second one is a matter of each list.
pub(super) fn check_echoes(ops: &[Op], lists: &BTreeMap<String, Vec<u64>>) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for op in ops {
        if let Some((value, to, ordered)) = op.echo() {
            known.insert(value, (op.key.as_str(), to, ordered));
        }
    }
    for (to, list) in lists {
        let mut furthest = BTreeMap::new();
        for value in list.iter().filter(|value| **value & ECHO != 0).map(|value| value & !ECHO) {
            let Some((from, _, ordered)) = known.get(&value).filter(|(_, wanted, _)| wanted == to) else {
                return Err(format!("{to} has an echo of {value}, which was not for it"));
            };
            let Some(place) = lists.get(*from).and_then(|list| list.iter().position(|one| *one == value)) else {
                return Err(format!("{to} has an echo of {value}, which is not in {from}"));
            };
            if *ordered && let Some(before) = furthest.insert(*from, place).filter(|before| *before > place) {
                return Err(format!("{to} has the echo of {from}'s value {place} behind that of {before}"));
            }
        }
    }
    match echo_due(ops, lists) {
        Some(value) => Err(format!("there is no echo of {value}")),
        None => Ok(()),
    }
}

/// Whether the records of one journal go from owner to owner and never back.
pub(super) fn check_epochs(records: &[Stored]) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    let mut newest = 0;
    for record in records {
        if record.epoch < newest {
            return Err(format!("a record of epoch {} stands behind one of {newest}", record.epoch));
        }
        newest = record.epoch;
        let owner = owners.entry(record.epoch).or_insert(&record.node);
        if **owner != record.node {
            return Err(format!("{} and {} both wrote under epoch {}", owner, record.node, record.epoch));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: Kind, began: u64, ended: u64, outcome: Outcome) -> Op {
        Op { client: 0, key: "a".into(), kind, began, ended: Some(ended), outcome }
    }

    fn judge(ops: &[Op], list: &[u64]) -> Result<(), String> {
        check(&ops.iter().collect::<Vec<_>>(), list)
    }

    #[test]
    fn what_must_not_be_is_seen() {
        let push = |value, began, ended, at| op(Kind::Push(value), began, ended, Outcome::At(at));
        let look = |began, ended, seen: &[u64]| op(Kind::Look, began, ended, Outcome::Seen(seen.to_vec()));
        assert_eq!(judge(&[push(1, 0, 5, 0), push(2, 3, 9, 1), look(10, 11, &[1, 2])], &[1, 2]), Ok(()));
        // Overlapping, either order will do.
        assert_eq!(judge(&[push(1, 0, 5, 1), push(2, 3, 9, 0)], &[2, 1]), Ok(()));
        let wrong = [
            ("lost", vec![push(1, 0, 5, 0)], vec![]),
            ("twice", vec![push(1, 0, 5, 0)], vec![1, 1]),
            ("elsewhere", vec![push(1, 0, 5, 0), push(2, 0, 5, 1)], vec![2, 1]),
            ("out of order", vec![push(1, 0, 5, 1), push(2, 6, 9, 0)], vec![2, 1]),
            ("an old look", vec![push(1, 0, 5, 0), look(6, 7, &[])], vec![1]),
            ("a look back", vec![push(1, 0, 9, 0), look(2, 3, &[1]), look(4, 5, &[])], vec![1]),
            ("another list", vec![push(1, 0, 5, 0), look(6, 7, &[2])], vec![1]),
            ("a stranger", vec![], vec![7]),
            ("after a no", vec![op(Kind::Refused(1), 0, 5, Outcome::Refused)], vec![1]),
            ("though not run", vec![op(Kind::Push(1), 0, 5, Outcome::NotRun)], vec![1]),
            ("half", vec![op(Kind::PushTwice(1), 0, 5, Outcome::At(1))], vec![1]),
        ];
        for (name, ops, list) in wrong {
            assert!(judge(&ops, &list).is_err(), "{name}");
        }
        assert_eq!(judge(&[op(Kind::Push(1), 0, 5, Outcome::Open)], &[1]), Ok(()));
        assert_eq!(judge(&[op(Kind::Push(1), 0, 5, Outcome::Open)], &[]), Ok(()));
    }

    #[test]
    fn echoes_are_counted_and_ordered() {
        let pass = |value: u64, key: &str, to: &str| Op {
            client: 0,
            key: key.into(),
            kind: Kind::Pass(value, to.into()),
            began: 0,
            ended: None,
            outcome: Outcome::Open,
        };
        let ops = [pass(1, "a", "b"), pass(2, "a", "b"), pass(3, "b", "b"), pass(4, "a", "b")];
        let judge = |a: &[u64], b: &[u64]| {
            let lists = [("a".to_owned(), a.to_vec()), ("b".to_owned(), b.to_vec())];
            check_echoes(&ops, &BTreeMap::from(lists))
        };
        assert_eq!(judge(&[1, 2], &[1 | ECHO, 3, 3 | ECHO, 2 | ECHO]), Ok(()), "4 was not pushed");
        let wrong: [(&str, &[u64], &[u64]); 5] = [
            ("lost", &[1, 2], &[1 | ECHO]),
            ("out of order", &[1, 2], &[2 | ECHO, 1 | ECHO]),
            ("of nothing", &[], &[4 | ECHO]),
            ("of a stranger", &[1], &[1 | ECHO, 9 | ECHO]),
            ("elsewhere", &[1, 1 | ECHO], &[1 | ECHO]),
        ];
        for (name, a, b) in wrong {
            assert!(judge(a, b).is_err(), "{name}");
        }
    }

    #[test]
    fn owners_do_not_come_back() {
        let stored = |epoch, node: &str| Stored { epoch, node: node.into() };
        assert!(check_epochs(&[stored(1, "a"), stored(1, "a"), stored(3, "b")]).is_ok());
        assert!(check_epochs(&[stored(2, "a"), stored(1, "b")]).is_err());
        assert!(check_epochs(&[stored(1, "a"), stored(1, "b")]).is_err());
    }
}
