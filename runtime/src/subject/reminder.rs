//! The subjects of reminders: below `{app}.rem.`, so that nothing that they publish is ever an event or a call.

use super::{Filter, Subject, Subjects};
use crate::key::Key;

impl Subjects {
    /// `{app}.rem.>`: everything about reminders.
    pub fn reminders(&self) -> Filter {
        Filter::of(format!("{}.rem.>", self.app))
    }

    /// The stream in which the broker keeps the wake-ups of reminders: `{app}-rem`.
    pub fn reminder_stream(&self) -> String {
        format!("{}-rem", self.app)
    }

    /// `{app}.rem.s.{actor}.{key}.>`: the wake-ups of an actor, one for each reminder that is armed.
    pub fn wake_ups(&self, actor: &str, key: &Key) -> Filter {
        Filter::of(format!("{}.rem.s.{actor}.{}.>", self.app, key.token()))
    }

    /// `{app}.rem.f.>`: wake-ups whose time has come, and that nobody has dealt with yet.
    pub fn firings(&self) -> Filter {
        Filter::of(format!("{}.rem.f.>", self.app))
    }

    /// `{app}.rem.s.{actor}.{key}.{name}.{epoch}-{number}`: the wake-up of one arming.
    pub(crate) fn reminder_schedule(&self, actor: &str, key: &Key, name: &str, epoch: u64, number: u64) -> Subject {
        Subject::of(format!("{}.rem.s.{actor}.{}.{name}.{epoch}-{number}", self.app, key.token()))
    }

    /// `{app}.rem.f.{lane}.{actor}.{key}.{name}`: where the broker puts it when it is time.
    pub(crate) fn reminder_firing(&self, lane: u16, actor: &str, key: &Key, name: &str) -> Subject {
        Subject::of(format!("{}.rem.f.{lane}.{actor}.{}.{name}", self.app, key.token()))
    }

    /// `{app}.rem.c.{actor}.{key}.{name}`: what takes a wake-up away.
    pub(crate) fn reminder_cancel(&self, actor: &str, key: &Key, name: &str) -> Subject {
        Subject::of(format!("{}.rem.c.{actor}.{}.{name}", self.app, key.token()))
    }

    /// `{app}.rem.f.{lane}.{actor}.*.*`: the firings of a lane.
    pub(crate) fn reminder_lane(&self, lane: u16, actor: &str) -> Filter {
        Filter::of(format!("{}.rem.f.{lane}.{actor}.*.*", self.app))
    }
}
