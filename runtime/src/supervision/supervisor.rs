//! The supervisor of one group: an actor that holds the group's children, stops and starts them.
//!
//! It never waits for a child. What is to be done is written into the children's slots (which are
//! doomed, and when a dead one may be started), and after every event [`Supervisor::advance`] does
//! as much of it as can be done now: first stop the doomed, then start those that are due.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::budget::{Budget, affected, delay};
use super::child::{TaskState, panicked};
use super::slot::{Phase, Slot};
use super::{ChildReport, ChildState, GaveUp, GroupReport, Restart, Strategy};
use crate::error::{Error, ErrorKind};

/// Called when a group gives up; set at most once a tree.
pub(super) type OnGiveUp = Arc<OnceLock<Box<dyn Fn(&GaveUp) + Send + Sync>>>;

/// What a supervisor is told, beside what ractor tells it of its children.
pub(super) enum Order {
    /// A back-off may be over.
    Wake,
    /// A child's grace is over.
    Kill(ActorId),
    /// Stop all children, by then.
    Stop { deadline: Instant },
}

/// What a supervisor is made from.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) children: Vec<Slot>,
    pub(super) on_give_up: OnGiveUp,
    pub(super) board: watch::Sender<GroupReport>,
}

pub(super) struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = Order;
    type State = Supervisor;
    type Arguments = Plan;

    async fn pre_start(&self, _myself: ActorRef<Order>, plan: Plan) -> Result<Supervisor, ActorProcessingErr> {
        Ok(Supervisor::new(plan))
    }

    async fn post_start(&self, myself: ActorRef<Order>, group: &mut Supervisor) -> Result<(), ActorProcessingErr> {
        group.advance(&myself).await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        group: &mut Supervisor,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Wake => {}
            Order::Kill(id) => group.kill(id),
            Order::Stop { deadline } => group.stop(deadline),
        }
        group.advance(&myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Order>,
        event: SupervisionEvent,
        group: &mut Supervisor,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(actor) => group.started(actor.get_id()),
            SupervisionEvent::ActorFailed(actor, error) => {
                group.exited(actor.get_id(), Exit::Failed(as_error(error)));
            }
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                let task = state.and_then(|mut state| state.take::<TaskState>().ok());
                let exit = if task.is_some_and(|task| task.finished) {
                    Exit::Finished
                } else {
                    let reason = reason.unwrap_or_else(|| "without a reason".to_owned());
                    Exit::Failed(Error::new(ErrorKind::Internal, format!("it ended: {reason}")))
                };
                group.exited(actor.get_id(), exit);
            }
            _ => {}
        }
        group.advance(&myself).await;
        Ok(())
    }
}

/// A group of children, and what is to become of them.
pub(super) struct Supervisor {
    name: String,
    restart: Restart,
    slots: Vec<Slot>,
    mode: Mode,
    budget: Budget,
    alarm: Option<AbortOnDropHandle<()>>,
    on_give_up: OnGiveUp,
    board: watch::Sender<GroupReport>,
}

enum Mode {
    Up,
    /// Over this child.
    GaveUp(usize, GaveUp),
    Stopping {
        deadline: Instant,
    },
}

enum Exit {
    Finished,
    /// Also how a child ends that was told to stop; that is known from its slot.
    Failed(Error),
}

impl Supervisor {
    fn new(plan: Plan) -> Self {
        Self {
            name: plan.name,
            budget: Budget::new(&plan.restart),
            restart: plan.restart,
            slots: plan.children,
            mode: Mode::Up,
            alarm: None,
            on_give_up: plan.on_give_up,
            board: plan.board,
        }
    }

    fn started(&mut self, id: ActorId) {
        if let Some(index) = self.find(id) {
            let slot = &mut self.slots[index];
            slot.phase = Phase::Running { since: Instant::now() };
            slot.settled = true;
        }
    }

    fn exited(&mut self, id: ActorId, exit: Exit) {
        let Some(index) = self.find(id) else { return };
        let slot = &mut self.slots[index];
        let (before, doomed) = slot.bury();
        match exit {
            Exit::Finished => slot.phase = Phase::Finished,
            Exit::Failed(_) if doomed => {}
            Exit::Failed(error) => self.failed(index, before, &error),
        }
    }

    /// Decides what a failure leads to.
    fn failed(&mut self, index: usize, before: Phase, error: &Error) {
        let now = Instant::now();
        let all = self.slots.len();
        let slot = &mut self.slots[index];
        if let Phase::Running { since } = before
            && now.saturating_duration_since(since) >= self.restart.within
        {
            slot.failures = 0;
        }
        slot.failures = slot.failures.saturating_add(1);
        slot.last_failure = Some(error.to_string());
        if !self.budget.admit(now) {
            return self.give_up(index, error);
        }
        let wait = delay(self.restart.backoff, slot.failures);
        tracing::warn!(group = %self.name, child = slot.spec.name(), %error, ?wait,
            "a child failed and is restarted");
        for slot in &mut self.slots[affected(self.restart.strategy, index, all)] {
            slot.doomed = slot.life.is_some();
            slot.not_before = slot.not_before.max(after(now, wait));
        }
    }

    fn give_up(&mut self, index: usize, error: &Error) {
        let gave_up = GaveUp {
            group: self.name.clone(),
            child: self.slots[index].spec.name().to_owned(),
            kind: error.kind(),
            cause: error.to_string(),
            restarts: self.budget.spent(),
        };
        tracing::error!(group = %gave_up.group, child = %gave_up.child, cause = %gave_up.cause,
            restarts = gave_up.restarts, within = ?self.restart.within, "a group gave up");
        self.doom_all();
        if let Some(tell) = self.on_give_up.get()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&gave_up)))
        {
            tracing::error!(cause = %panicked("on_give_up", &*panic), "a callback panicked");
        }
        self.mode = Mode::GaveUp(index, gave_up);
    }

    fn stop(&mut self, deadline: Instant) {
        self.doom_all();
        // Those that are stopping already are asked again, so that the deadline holds for them too.
        for life in self.slots.iter_mut().filter_map(|slot| slot.life.as_mut()) {
            life.killer = None;
        }
        if !matches!(self.mode, Mode::GaveUp(..)) {
            self.mode = Mode::Stopping { deadline };
        }
    }

    fn kill(&self, id: ActorId) {
        if let Some(slot) = self.find(id).map(|index| &self.slots[index]) {
            tracing::warn!(group = %self.name, child = slot.spec.name(), "cut: its grace is over");
            slot.kill();
        }
    }

    /// Does what can be done now, and says on the board how things stand.
    async fn advance(&mut self, myself: &ActorRef<Order>) {
        self.stop_doomed(myself);
        if !self.slots.iter().any(|slot| slot.doomed) {
            if matches!(self.mode, Mode::Up) {
                // One moment for both: a child that is not due for the one is for the other.
                let now = Instant::now();
                self.start_due(myself, now).await;
                self.arm(myself, now);
            } else {
                myself.stop(None);
            }
        }
        let report = self.report(false);
        self.board.send_replace(report);
    }

    /// Tells doomed children to stop, the last one first: one after the other, unless they do not
    /// depend on each other.
    fn stop_doomed(&mut self, myself: &ActorRef<Order>) {
        let deadline = match self.mode {
            Mode::Stopping { deadline } => Some(deadline),
            _ => None,
        };
        for slot in self.slots.iter_mut().rev().filter(|slot| slot.doomed) {
            slot.ask_to_stop(|grace, id| {
                let end = after(Instant::now(), grace);
                let end = deadline.map_or(end, |deadline| deadline.min(end));
                send_at(myself, end, Order::Kill(id))
            });
            if self.restart.strategy != Strategy::OneForOne {
                break;
            }
        }
    }

    /// Starts children that are due: in order where one may depend on another, and for the first
    /// time always in order.
    async fn start_due(&mut self, myself: &ActorRef<Order>, now: Instant) {
        let ordered = self.restart.strategy != Strategy::OneForOne;
        for slot in &mut self.slots {
            match slot.phase {
                Phase::Running { .. } | Phase::Finished => continue,
                Phase::Down if slot.not_before <= now => {
                    slot.start(myself.get_cell()).await;
                }
                Phase::Starting | Phase::Down => {}
            }
            if ordered || !slot.settled {
                break;
            }
        }
    }

    /// Sets the alarm for the first back-off that will be over.
    fn arm(&mut self, myself: &ActorRef<Order>, now: Instant) {
        let due = |slot: &Slot| (slot.phase == Phase::Down && slot.not_before > now).then_some(slot.not_before);
        let next = self.slots.iter().filter_map(due).min();
        self.alarm = next.map(|due| send_at(myself, due, Order::Wake));
    }

    fn doom_all(&mut self) {
        self.alarm = None;
        for slot in &mut self.slots {
            slot.doomed = slot.life.is_some();
        }
    }

    fn find(&self, id: ActorId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.is(id))
    }

    fn report(&self, ended: bool) -> GroupReport {
        let up = matches!(self.mode, Mode::Up) && !ended;
        let mut children: Vec<ChildReport> = self.slots.iter().map(|slot| slot.report(up, ended)).collect();
        let gave_up = match &self.mode {
            Mode::GaveUp(index, gave_up) => {
                children[*index].state = ChildState::Failed { cause: gave_up.cause.clone() };
                Some(gave_up.clone())
            }
            Mode::Up | Mode::Stopping { .. } => None,
        };
        GroupReport { name: self.name.clone(), gave_up, ended, children }
    }
}

impl Drop for Supervisor {
    /// The last word on the board, however the supervisor came to its end.
    fn drop(&mut self) {
        let report = self.report(true);
        self.board.send_replace(report);
    }
}

/// Sends an order later, unless the handle is dropped first.
fn send_at(myself: &ActorRef<Order>, at: Instant, order: Order) -> AbortOnDropHandle<()> {
    let myself = myself.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep_until(at).await;
        // A supervisor that is gone has no use for it.
        let _ = myself.send_message(order);
    }))
}

fn after(now: Instant, wait: Duration) -> Instant {
    // A time that no clock can show is as good as a year away.
    now.checked_add(wait).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3_600))
}

fn as_error(error: ActorProcessingErr) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::new(ErrorKind::Panicked, error.to_string()),
    }
}
