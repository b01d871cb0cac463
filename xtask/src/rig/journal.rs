//! The journals, and whether they agree with what callers were told.

use std::collections::BTreeMap;

use greenroom_history::{Call, Change, Entry, Operation, Outcome, extend};

/// Complaints kept in words; the rest is counted.
const COMPLAINTS_MAX: usize = 10;

/// What the journals say of the calls.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Calls that were answered as done and are not there.
    pub lost: u64,
    /// Commands that are there more than once.
    pub duplicated: u64,
    /// Whatever else must not be: epochs that go back, two nodes in one epoch, replies that do not match, commands
    /// that are there although they were answered as never run.
    pub wrong: u64,
    /// The first complaints, in words.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Whether there is nothing to complain of.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.wrong == 0
    }

    /// Adds up two.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.wrong += other.wrong;
        self.complaints.extend(other.complaints);
        self.complaints.truncate(COMPLAINTS_MAX);
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what);
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        self.complain(what);
    }
}

/// A list as its journal tells it: where each value stands, and the digest at each length.
#[derive(Default)]
struct List {
    places: BTreeMap<u64, u64>,
    digests: Vec<u64>,
}

/// Compares the whole journals of some keys with every call of those keys.
pub fn judge(calls: &[Call], entries: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let lists = replay(entries, &mut verdict);
    let empty = List::default();
    for call in calls {
        let list = lists.get(call.key.as_str()).unwrap_or(&empty);
        let place = call.operation.value().and_then(|value| list.places.get(&value));
        match (call.outcome, call.operation.value(), place) {
            (Outcome::Ok, Some(value), None) => {
                verdict.lost += 1;
                verdict.complain(format!("{}: {value} was acknowledged and is not there", call.key));
            }
            (Outcome::Failed | Outcome::Refused, Some(value), Some(_)) => {
                verdict.wrong(format!("{}: {value} was answered as not run, and is there: {:?}", call.key, call.error));
            }
            (Outcome::Ok, Some(value), Some(place)) => match (call.operation, call.length) {
                (Operation::Append { .. }, Some(length)) if length != *place => {
                    verdict.wrong(format!("{}: {value} is number {place}, and its reply said {length}", call.key));
                }
                _ => {}
            },
            (Outcome::Ok, None, _) => {
                let digest = match call.length {
                    Some(0) => Some(0),
                    Some(length) => usize::try_from(length - 1).ok().and_then(|at| list.digests.get(at).copied()),
                    None => None,
                };
                if digest != call.digest {
                    verdict.wrong(format!("{}: a read showed {call:?}, and there was never such a list", call.key));
                }
            }
            _ => {}
        }
    }
    verdict
}

fn replay<'a>(entries: &'a [Entry], verdict: &mut Verdict) -> BTreeMap<&'a str, List> {
    let mut lists: BTreeMap<&str, List> = BTreeMap::new();
    let mut epochs: BTreeMap<&str, u64> = BTreeMap::new();
    let mut nodes: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for Entry { sequence, key, epoch, node, changes } in entries {
        let newest = epochs.entry(key).or_insert(*epoch);
        if *epoch < *newest {
            verdict.wrong(format!("{key}: record {sequence} has epoch {epoch}, after {newest}"));
        }
        *newest = (*newest).max(*epoch);
        let first = *nodes.entry((key, *epoch)).or_insert(node);
        if first != node {
            verdict.wrong(format!("{key}: both {first} and {node} wrote in epoch {epoch}"));
        }
        let list = lists.entry(key).or_default();
        for change in changes {
            let (value, place) = match change {
                Change::Appended(value) => {
                    let digest = extend(list.digests.last().copied().unwrap_or(0), *value);
                    list.digests.push(digest);
                    (*value, list.digests.len() as u64)
                }
                Change::Written(value) => (*value, 0),
            };
            if list.places.insert(value, place).is_some() {
                verdict.duplicated += 1;
                verdict.complain(format!("{key}: {value} took effect once more with record {sequence}"));
            }
        }
    }
    lists
}
