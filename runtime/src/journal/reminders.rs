//! Reminders as a journal keeps them: which are armed, and what a turn changes.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::reminder::Schedule;

/// A reminder that is armed: for one time, under one number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Armed {
    pub(crate) name: String,
    /// Counts what its actor ever armed, so that no two are mistaken for each other.
    pub(crate) number: u64,
    /// The epoch of the claim under which it was armed.
    pub(crate) epoch: u64,
    /// When it is to fire, in ms since 1970.
    pub(crate) due: u64,
    pub(crate) schedule: Schedule,
    pub(crate) verb: String,
    pub(crate) body: Box<RawValue>,
    /// How many steps of its turn were kept before that was cut.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) begun: u32,
}

/// What a turn changes about its actor's reminders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// It is armed, instead of an earlier one of its name.
    Armed(Armed),
    /// It is not armed any more.
    Cancelled { name: String },
    /// Its turn was run: it is due again, or not any more.
    Fired { name: String, number: u64, next: Option<Next> },
    /// So many steps of its turn are kept.
    Begun { name: String, number: u64, steps: u32 },
}

/// Under which number a reminder that has fired is armed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Next {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) due: u64,
}

/// The reminders of one actor. A copy costs next to nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reminders {
    /// The last number that was given.
    #[serde(default)]
    numbers: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "write_armed", deserialize_with = "read_armed")]
    armed: Option<Arc<Vec<Armed>>>,
}

impl Armed {
    /// What it adds to a snapshot, roughly.
    fn bytes(&self) -> usize {
        self.name.len() + self.verb.len() + self.body.get().len() + 128
    }

    /// Whether it is this very arming.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.number == other.number && self.due == other.due
    }
}

impl Change {
    /// What it adds to a record, at most, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Armed(armed) => armed.bytes() + 6 * armed.name.len() + 128,
            change => 6 * change.name().len() + 160,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Change::Armed(armed) => &armed.name,
            Change::Cancelled { name } | Change::Fired { name, .. } | Change::Begun { name, .. } => name,
        }
    }
}

impl Reminders {
    /// Whether none was ever armed.
    pub(crate) fn is_untouched(&self) -> bool {
        self.numbers == 0
    }

    pub(crate) fn armed(&self) -> &[Armed] {
        self.armed.as_ref().map_or(&[], |armed| armed)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Armed> {
        self.armed().iter().find(|armed| armed.name == name)
    }

    /// The number of the next arming.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers + 1
    }

    /// What they add to a snapshot, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.armed().iter().map(Armed::bytes).sum()
    }

    /// Takes one change in.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Armed(armed) => {
                self.numbers = self.numbers.max(armed.number);
                self.change(|all| {
                    all.retain(|other| other.name != armed.name);
                    all.push(armed.clone());
                });
            }
            Change::Cancelled { name } => self.change(|all| all.retain(|armed| armed.name != *name)),
            Change::Fired { name, number, next } => {
                self.numbers = self.numbers.max(next.as_ref().map_or(0, |next| next.number));
                self.change(|all| move_on(all, name, *number, next.as_ref()));
            }
            Change::Begun { name, number, steps } => self.change(|all| {
                let found = all.iter_mut().find(|armed| armed.name == *name && armed.number == *number);
                found.into_iter().for_each(|armed| armed.begun = *steps);
            }),
        }
    }

    /// The same with these changes.
    pub(crate) fn with<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut changed = self.clone();
        changes.into_iter().for_each(|change| changed.apply(change));
        changed
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Armed>)) {
        let mut armed = self.armed.take().unwrap_or_default();
        change(Arc::make_mut(&mut armed));
        self.armed = Some(armed).filter(|armed| !armed.is_empty());
    }
}

/// What has fired is due again, or goes; unless it was armed anew meanwhile.
fn move_on(all: &mut Vec<Armed>, name: &str, number: u64, next: Option<&Next>) {
    let Some(at) = all.iter().position(|armed| armed.name == name && armed.number == number) else { return };
    match next {
        Some(next) => {
            let armed = &mut all[at];
            (armed.number, armed.epoch, armed.due, armed.begun) = (next.number, next.epoch, next.due, 0);
        }
        None => drop(all.remove(at)),
    }
}

fn write_armed<S: Serializer>(armed: &Option<Arc<Vec<Armed>>>, to: S) -> Result<S::Ok, S::Error> {
    armed.as_deref().serialize(to)
}

fn read_armed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Vec<Armed>>>, D::Error> {
    Ok(Option::<Vec<Armed>>::deserialize(from)?.filter(|armed| !armed.is_empty()).map(Arc::new))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::raw;

    fn armed(name: &str, number: u64, due: u64) -> Armed {
        let schedule = Schedule::every(Duration::from_secs(60));
        let body = raw(&7, "").expect("json");
        Armed { name: name.into(), number, epoch: 3, due, schedule, verb: "pay".into(), body, begun: 0 }
    }

    #[test]
    fn e5_a_firing_moves_only_the_arming_it_is_for() {
        let mut all = Reminders::default();
        all.apply(&Change::Armed(armed("a", 1, 10)));
        all.apply(&Change::Armed(armed("b", 2, 20)));
        all.apply(&Change::Armed(armed("a", 3, 30)));
        assert_eq!(all.armed().len(), 2, "the later one took the place of the earlier");
        all.apply(&Change::Fired { name: "a".into(), number: 1, next: None });
        assert_eq!(all.get("a").map(|armed| armed.number), Some(3), "an older firing changes nothing");
        let next = Next { number: 4, epoch: 5, due: 90 };
        all.apply(&Change::Begun { name: "a".into(), number: 3, steps: 2 });
        assert_eq!(all.get("a").map(|armed| armed.begun), Some(2));
        all.apply(&Change::Fired { name: "a".into(), number: 3, next: Some(next) });
        let moved = all.get("a").expect("it is armed still");
        assert_eq!((moved.number, moved.epoch, moved.due, moved.begun), (4, 5, 90, 0));
        all.apply(&Change::Fired { name: "b".into(), number: 2, next: None });
        all.apply(&Change::Cancelled { name: "a".into() });
        assert!(all.armed().is_empty());
        assert_eq!(all.next_number(), 5, "numbers are never used again");
    }

    #[test]
    fn e5_reminders_keep_their_shape_at_rest() {
        let change = Change::Armed(armed("a", 1, 10));
        let json =
            r#"{"armed":{"name":"a","number":1,"epoch":3,"due":10,"schedule":{"every":60000},"verb":"pay","body":7}}"#;
        assert_eq!(serde_json::to_string(&change).expect("json"), json);
        let all = Reminders::default().with([&serde_json::from_str(json).expect("a change")]);
        let snapshot = serde_json::to_string(&all).expect("json");
        assert!(snapshot.starts_with(r#"{"numbers":1,"armed":[{"name":"a","#), "{snapshot}");
        let back: Reminders = serde_json::from_str(&snapshot).expect("reminders");
        assert_eq!(serde_json::to_string(&back).expect("json"), snapshot);
    }
}
