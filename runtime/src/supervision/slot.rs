//! A child's place in its group: it outlives the child's restarts, and knows what is to become of it.

use std::time::Duration;

use ractor::{ActorCell, ActorId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::child::ChildSpec;
use super::{ChildReport, ChildState};

pub(super) struct Slot {
    pub(super) spec: ChildSpec,
    pub(super) phase: Phase,
    /// There while the child lives.
    pub(super) life: Option<Life>,
    /// To be stopped, and not through yet: nothing is started in the meantime.
    pub(super) doomed: bool,
    /// A child that is down is not started before.
    pub(super) not_before: Instant,
    /// Whether it has once been started, or failed to.
    pub(super) settled: bool,
    /// Failures without a long run in between.
    pub(super) failures: u32,
    pub(super) last_failure: Option<String>,
    starts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Down,
    Starting,
    Running { since: Instant },
    Finished,
}

pub(super) struct Life {
    /// The end of its grace, once it has been told to stop.
    pub(super) killer: Option<AbortOnDropHandle<()>>,
    actor: ActorCell,
    stop: CancellationToken,
}

impl Slot {
    pub(super) fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            phase: Phase::Down,
            life: None,
            doomed: false,
            not_before: Instant::now(),
            settled: false,
            failures: 0,
            last_failure: None,
            starts: 0,
        }
    }

    /// Whether this actor is the child as it lives now.
    pub(super) fn is(&self, id: ActorId) -> bool {
        self.life.as_ref().is_some_and(|life| life.actor.get_id() == id)
    }

    /// Begins a new life; that it has begun, or could not, is an event of its actor.
    pub(super) async fn start(&mut self, supervisor: ActorCell) {
        let stop = CancellationToken::new();
        match self.spec.start(supervisor, stop.clone()).await {
            Ok(actor) => {
                self.starts = self.starts.saturating_add(1);
                self.phase = Phase::Starting;
                self.life = Some(Life { killer: None, actor, stop });
            }
            // Only if the supervisor itself is being killed.
            Err(error) => tracing::debug!(%error, child = self.spec.name(), "not started"),
        }
    }

    /// Tells the child to stop, unless it has been told; `killer` is to kill it after its grace.
    pub(super) fn ask_to_stop(&mut self, killer: impl FnOnce(Duration, ActorId) -> AbortOnDropHandle<()>) {
        if let Some(life) = &mut self.life
            && life.killer.is_none()
        {
            self.spec.close();
            life.stop.cancel();
            life.actor.stop(None);
            life.killer = Some(killer(self.spec.grace(), life.actor.get_id()));
        }
    }

    /// Drops what the child does, at its next await. Its end is still an event.
    pub(super) fn kill(&self) {
        if let Some(life) = &self.life {
            life.actor.kill();
        }
    }

    /// The child has ended: gives what it did until then, and whether it was to be stopped.
    pub(super) fn bury(&mut self) -> (Phase, bool) {
        self.life = None;
        self.settled = true;
        self.spec.close();
        let before = std::mem::replace(&mut self.phase, Phase::Down);
        (before, std::mem::take(&mut self.doomed))
    }

    /// What is known of the child, in a group that is `up` or has `ended` or is between the two.
    pub(super) fn report(&self, up: bool, ended: bool) -> ChildReport {
        let state = match self.phase {
            Phase::Finished => ChildState::Finished,
            _ if self.doomed && !ended => ChildState::Stopping,
            _ if !up => ChildState::Stopped,
            Phase::Running { .. } => ChildState::Running,
            Phase::Down if self.not_before > Instant::now() => {
                ChildState::BackingOff { until: self.not_before.into_std() }
            }
            Phase::Down | Phase::Starting => ChildState::Starting,
        };
        ChildReport {
            name: self.spec.name().to_owned(),
            state,
            restarts: self.starts.saturating_sub(1),
            last_failure: self.last_failure.clone(),
        }
    }
}
