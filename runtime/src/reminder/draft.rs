//! Drafts: the reminders of an actor while a turn of it runs, and what the turn changes about them.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::{Reminder, Schedule};
use crate::error::{Error, ErrorKind};
use crate::journal::{Armed, Change, Next, Reminders, raw};

/// How many reminders of one actor may be armed at once.
pub const REMINDERS_MAX: usize = 64;
/// The longest name of a reminder, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// The largest message of a reminder, in bytes of its JSON.
pub const BODY_BYTES_MAX: usize = 4_096;

/// What a turn knows of its actor's reminders. It is dropped with a turn that is refused or panics.
#[derive(Debug)]
pub(crate) struct Draft {
    /// What is kept.
    base: Reminders,
    epoch: u64,
    /// The reminder whose turn this is: as it is armed, and the change that moves it on.
    fired: Option<Box<(Armed, Change)>>,
    /// In order, one for each name.
    changes: Vec<Change>,
}

/// Which reminder is to fire: it must be armed for this very time under this very number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) due: u64,
}

/// What became of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fired {
    /// Its turn has been run, and that is kept.
    Run,
    /// It was not armed, or not for that time any more.
    NotArmed,
}

impl Due {
    pub(super) fn of(armed: &Armed) -> Self {
        Self { name: armed.name.clone(), number: armed.number, due: armed.due }
    }
}

impl Draft {
    pub(crate) fn new(base: Reminders, epoch: u64) -> Self {
        Self { base, epoch, fired: None, changes: Vec::new() }
    }

    /// Begins the turn of a reminder, if it is armed; `now` is the owner's clock.
    pub(crate) fn fire(&mut self, which: &Due, now: u64) -> Option<Armed> {
        let armed = self.base.get(&which.name)?.clone();
        if armed.number != which.number || armed.due != which.due {
            return None;
        }
        let number = self.base.next_number();
        let next = armed.schedule.following(armed.due, now).map(|due| Next { number, epoch: self.epoch, due });
        let change = Change::Fired { name: armed.name.clone(), number: armed.number, next };
        self.fired = Some(Box::new((armed.clone(), change)));
        Some(armed)
    }

    /// Arms a reminder, instead of one of its name.
    pub(crate) fn arm(
        &mut self,
        name: &str,
        schedule: Schedule,
        verb: &str,
        message: &impl Serialize,
        now: u64,
    ) -> Result<(), Error> {
        check_name(name)?;
        let due = schedule.first(now)?;
        let body = raw(message, "the message of the reminder")?;
        if body.get().len() > BODY_BYTES_MAX {
            let why = format!(
                "the message of the reminder {name:?} has {} bytes of JSON, and {BODY_BYTES_MAX} are the limit",
                body.get().len()
            );
            return Err(Error::new(ErrorKind::PayloadTooLarge, why));
        }
        let view = self.view();
        if view.get(name).is_none() && view.armed().len() >= REMINDERS_MAX {
            let why = format!("the actor has {REMINDERS_MAX} reminders, which is the limit; cancel one first");
            return Err(Error::new(ErrorKind::Overloaded, why));
        }
        let (name, verb, epoch) = (name.to_owned(), verb.to_owned(), self.epoch);
        let armed = Armed { name, number: view.next_number(), epoch, due, schedule, verb, body, begun: 0 };
        self.push(Change::Armed(armed));
        Ok(())
    }

    /// Cancels a reminder; returns whether there was one.
    pub(crate) fn cancel(&mut self, name: &str) -> bool {
        let there = self.view().get(name).is_some();
        if there {
            self.push(Change::Cancelled { name: name.to_owned() });
        }
        there
    }

    pub(crate) fn list(&self) -> Vec<Reminder> {
        let mut list: Vec<_> = self.view().armed().iter().map(listed).collect();
        list.sort_by(|one, other| (one.due, &one.name).cmp(&(other.due, &other.name)));
        list
    }

    /// Those that should have fired by now, the oldest first.
    pub(crate) fn overdue(&self, now: u64) -> Vec<Due> {
        let mut overdue: Vec<_> = self.base.armed().iter().filter(|armed| armed.due <= now).map(Due::of).collect();
        overdue.sort_by_key(|due| due.due);
        overdue
    }

    /// Whether the turn changed anything by itself.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What a step of the turn changes: what was asked for so far, and how far the turn has come.
    pub(crate) fn step(&self, steps: u32) -> Vec<Change> {
        let begun = self.fired.as_deref().map(|(armed, _)| Change::Begun {
            name: armed.name.clone(),
            number: armed.number,
            steps,
        });
        begun.into_iter().chain(self.changes.clone()).collect()
    }

    /// What the turn changes when it ends; only that its own reminder has fired, if it was refused.
    pub(crate) fn end(&self, refused: bool) -> Vec<Change> {
        let fired = self.fired.as_deref().map(|(_, change)| change.clone());
        let asked = if refused { &[][..] } else { &self.changes };
        fired.into_iter().chain(asked.iter().cloned()).collect()
    }

    /// These changes are kept.
    pub(crate) fn kept(&mut self, changes: &[Change]) {
        self.base = self.base.with(changes);
        self.changes.clear();
    }

    /// The reminders as the turn would leave them.
    fn view(&self) -> Reminders {
        let fired = self.fired.as_deref().map(|(_, change)| change);
        self.base.with(fired.into_iter().chain(&self.changes))
    }

    fn push(&mut self, change: Change) {
        self.changes.retain(|earlier| earlier.name() != change.name());
        // A name that was armed and cancelled within the turn is nothing to keep.
        let pointless = matches!(&change, Change::Cancelled { name } if self.view().get(name).is_none());
        if !pointless {
            self.changes.push(change);
        }
    }
}

fn listed(armed: &Armed) -> Reminder {
    Reminder {
        name: armed.name.clone(),
        schedule: armed.schedule.clone(),
        due: UNIX_EPOCH + Duration::from_millis(armed.due),
        verb: armed.verb.clone(),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let why = format!("a reminder's name has 1 to {NAME_BYTES_MAX} bytes of UTF-8; {name:?} has {}", name.len());
    Err(Error::new(ErrorKind::Config, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(draft: &mut Draft, name: &str, at: u64) -> Result<(), Error> {
        let time = UNIX_EPOCH + Duration::from_millis(at);
        draft.arm(name, Schedule::at(time), "pay", &at, 0)
    }

    fn names(draft: &Draft) -> Vec<String> {
        draft.list().into_iter().map(|reminder| reminder.name).collect()
    }

    #[test]
    fn e5_the_bounds_of_reminders_are_named_errors() {
        let mut draft = Draft::new(Reminders::default(), 1);
        for number in 0..REMINDERS_MAX {
            arm(&mut draft, &format!("r-{number}"), 5).expect("within the bound");
        }
        let over = arm(&mut draft, "one more", 5).expect_err("over the bound");
        assert_eq!(over.kind(), ErrorKind::Overloaded);
        arm(&mut draft, "r-7", 9).expect("instead of one that is there");
        assert!(draft.cancel("r-8"));
        arm(&mut draft, "one more", 5).expect("there is room now");
        for name in ["", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(arm(&mut draft, name, 5).expect_err("no name").kind(), ErrorKind::Config);
        }
        let soon = Schedule::after(Duration::ZERO);
        let large = draft.arm("r-1", soon, "pay", &"x".repeat(BODY_BYTES_MAX), 0).expect_err("too large");
        assert_eq!(large.kind(), ErrorKind::PayloadTooLarge);
    }

    #[test]
    fn e5_what_a_turn_does_twice_to_a_name_is_one_change() {
        let mut draft = Draft::new(Reminders::default(), 1);
        arm(&mut draft, "a", 20).expect("armed");
        arm(&mut draft, "a", 10).expect("armed");
        arm(&mut draft, "b", 5).expect("armed");
        assert_eq!(names(&draft), ["b", "a"], "the next one first");
        assert!(draft.cancel("b"));
        assert!(!draft.cancel("b"));
        assert_eq!(draft.end(false).len(), 1, "{draft:?}");
        draft.kept(&draft.end(false));
        assert!(!draft.is_dirty());
        assert!(draft.cancel("a"));
        assert!(matches!(draft.end(false)[..], [Change::Cancelled { .. }]));
        assert_eq!(draft.end(true).len(), 0, "a refused turn changes nothing");
    }

    #[test]
    fn e5_the_turn_of_a_reminder_sees_it_moved_on_and_may_arm_it_again() {
        let mut draft = Draft::new(Reminders::default(), 1);
        arm(&mut draft, "a", 20).expect("armed");
        draft.kept(&draft.end(false));
        let which = Due { name: "a".into(), number: 1, due: 20 };
        assert!(draft.fire(&Due { due: 21, ..which.clone() }, 20).is_none());
        assert!(draft.fire(&Due { number: 2, ..which.clone() }, 20).is_none());
        assert!(draft.fire(&which, 20).is_some());
        assert!(names(&draft).is_empty() && !draft.cancel("a"));
        assert!(matches!(&draft.step(2)[..], [Change::Begun { number: 1, steps: 2, .. }]), "how far it has come");
        assert!(matches!(&draft.end(true)[..], [Change::Fired { number: 1, next: None, .. }]), "a no ends it too");
        arm(&mut draft, "a", 50).expect("armed again");
        assert!(draft.base.get("a").is_some_and(|armed| armed.due == 20), "not before the turn is kept");
        draft.kept(&draft.end(false));
        assert_eq!(draft.base.get("a").map(|armed| armed.due), Some(50));
    }
}
