//! The node's root, and the handles of its groups.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::child::ChildSpec;
use super::slot::Slot;
use super::supervisor::{OnGiveUp, Order, Plan, SupervisorActor};
use super::{ChildState, GaveUp, GroupReport, Restart};
use crate::error::{Error, ErrorKind};

/// How long a stop waits beyond its bound for those that were then cut.
const CUT: Duration = Duration::from_millis(250);

/// The supervision tree of one node. Dropping it cuts whatever still runs in it.
pub(crate) struct Tree(Arc<Inner>);

/// One supervised group of children. A handle: dropping it changes nothing.
#[derive(Clone)]
pub(crate) struct Group {
    pub(super) actor: ActorRef<Order>,
    name: Arc<str>,
    board: watch::Receiver<GroupReport>,
}

impl Tree {
    /// Starts the root; everything in the tree runs on this runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] if the runtime is shutting down.
    pub(crate) async fn start(handle: Handle, node: &str) -> Result<Self, Error> {
        let root = Root { node: node.to_owned() };
        let (root, _) = handle
            .spawn(async move { Actor::spawn(None, root, ()).await })
            .await
            .map_err(|error| refused("the supervision tree", error))?
            .map_err(|error| refused("the supervision tree", error))?;
        let groups = Mutex::new(Groups { all: Vec::new(), stopping: false });
        Ok(Self(Arc::new(Inner { handle, root, groups, on_give_up: OnGiveUp::default() })))
    }

    /// What to call when a group gives up, beside the log and the report: once a group, in the
    /// moment of giving up (its children are then being stopped), on the group's own task, so it
    /// must not block. The first callback set stays; it holds for every group of the tree.
    pub(crate) fn on_give_up(&self, tell: impl Fn(&GaveUp) + Send + Sync + 'static) {
        // A second one is refused by contract.
        let _ = self.0.on_give_up.set(Box::new(tell));
    }

    /// Puts a group under the root. Its children are started in order, each when the one before has
    /// started or failed to; this does not wait for them: [`Group::started`] does.
    ///
    /// Dropping the future does not take the group back.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] if the tree is being stopped.
    pub(crate) async fn group(&self, name: &str, restart: Restart, children: Vec<ChildSpec>) -> Result<Group, Error> {
        let (inner, name) = (Arc::clone(&self.0), Arc::from(name));
        let added = async move { inner.add(name, restart, children).await };
        self.0.handle.spawn(added).await.map_err(|error| refused("a group", error))?
    }

    /// How things stand with every group, in the order in which they were added. A group that was
    /// stopped on purpose is shown until the next one is added.
    pub(crate) fn report(&self) -> Vec<GroupReport> {
        self.0.groups.lock().all.iter().map(Group::report).collect()
    }

    /// Stops all groups, the last one first, each as [`Group::stop`] does; no group is added any
    /// more. Returns when all is over, at the latest 250 ms after `within`: what then still runs
    /// never waits, and cannot be stopped.
    ///
    /// Dropping the future does not cut the stop short.
    pub(crate) async fn stop(&self, within: Duration) {
        let inner = Arc::clone(&self.0);
        let stopped = self.0.handle.spawn(async move { inner.stop(within).await });
        if let Err(error) = stopped.await {
            tracing::warn!(%error, "the tree was stopped with its runtime");
        }
    }
}

impl Group {
    /// How things stand with it.
    pub(crate) fn report(&self) -> GroupReport {
        self.board.borrow().clone()
    }

    /// Waits until every child runs or has finished.
    ///
    /// Waits through restarts, so it is bounded by the group's intensity and by how long a child
    /// takes to start.
    ///
    /// # Errors
    /// The kind and cause of the last failure if the group gives up, [`ErrorKind::Stopped`] if it is
    /// stopped.
    pub(crate) async fn started(&self) -> Result<(), Error> {
        let report = self.until(|report| {
            let up = |state: &ChildState| matches!(state, ChildState::Running | ChildState::Finished);
            report.ended || report.gave_up.is_some() || report.children.iter().all(|child| up(&child.state))
        });
        let report = report.await;
        match report.gave_up {
            Some(gave_up) => Err(Error::new(
                gave_up.kind,
                format!("`{}` gave up on `{}`: {}", gave_up.group, gave_up.child, gave_up.cause),
            )),
            None if report.ended => Err(Error::new(ErrorKind::Stopped, format!("`{}` was stopped", report.name))),
            None => Ok(()),
        }
    }

    /// Waits until it has been stopped or has given up, and none of its children runs any more;
    /// gives its last report.
    pub(crate) async fn ended(&self) -> GroupReport {
        self.until(|report| report.ended).await
    }

    /// Waits until it will not start any child again: it has given up, or was stopped.
    pub(crate) async fn over(&self) {
        self.until(|report| report.ended || report.gave_up.is_some()).await;
    }

    /// Stops it for good: its children are told to stop, the last one first, each waited for before
    /// the next is told (those of a one-for-one group are told all at once). A child that passes its
    /// grace, or `within`, is dropped at its next await. Returns when all is over, at the latest
    /// 250 ms after `within`.
    ///
    /// Stopping a group that has ended does nothing. Must be called on a runtime with a clock.
    #[cfg(test)]
    pub(crate) async fn stop(&self, within: Duration) {
        let deadline = Instant::now() + within.min(LONGEST);
        self.stop_by(deadline).await;
    }

    /// Waits for a report of which this holds, or for the last one.
    pub(super) async fn until(&self, holds: impl FnMut(&GroupReport) -> bool) -> GroupReport {
        let mut board = self.board.clone();
        let found = board.wait_for(holds).await.ok().map(|report| report.clone());
        found.unwrap_or_else(|| self.report())
    }

    async fn stop_by(&self, deadline: Instant) {
        // An error means that it has ended already.
        let _ = self.actor.send_message(Order::Stop { deadline });
        if timeout_at(deadline + CUT, self.ended()).await.is_err() {
            tracing::error!(group = %self.name, "a child cannot be stopped: it never waits");
            self.actor.kill();
        }
    }
}

/// A bound longer than this is none; a clock can show it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

struct Inner {
    handle: Handle,
    root: ActorRef<()>,
    groups: Mutex<Groups>,
    on_give_up: OnGiveUp,
}

struct Groups {
    all: Vec<Group>,
    stopping: bool,
}

impl Inner {
    async fn add(&self, name: Arc<str>, restart: Restart, children: Vec<ChildSpec>) -> Result<Group, Error> {
        let children: Vec<Slot> = children.into_iter().map(Slot::new).collect();
        let blank = GroupReport {
            name: name.to_string(),
            gave_up: None,
            ended: false,
            children: children.iter().map(|slot| slot.report(true, false)).collect(),
        };
        let (sender, board) = watch::channel(blank);
        let plan =
            Plan { name: name.to_string(), restart, children, on_give_up: Arc::clone(&self.on_give_up), board: sender };
        let spawned = Actor::spawn_linked(None, SupervisorActor, plan, self.root.get_cell());
        let (actor, _) = spawned.await.map_err(|error| refused(&name, error))?;
        let group = Group { name, actor, board };
        let mut groups = self.groups.lock();
        if groups.stopping {
            group.actor.kill();
            return Err(Error::new(ErrorKind::Stopped, "the node's groups are being stopped"));
        }
        groups.all.retain(|group| {
            let report = group.board.borrow();
            !report.ended || report.gave_up.is_some()
        });
        groups.all.push(group.clone());
        Ok(group)
    }

    async fn stop(&self, within: Duration) {
        let deadline = Instant::now() + within.min(LONGEST);
        let groups = {
            let mut groups = self.groups.lock();
            groups.stopping = true;
            groups.all.clone()
        };
        for group in groups.iter().rev() {
            group.stop_by(deadline).await;
        }
        self.root.stop(None);
        // It has nothing left to do; a child that cannot be stopped is not waited for again.
        let _ = timeout_at(deadline + CUT, self.root.wait(None)).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.root.kill();
    }
}

/// The root of a node: there so that groups have a parent, and fall with it.
struct Root {
    node: String,
}

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    /// A group that ends takes nobody with it.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(node = %self.node, %error, "a supervisor failed");
        }
        Ok(())
    }
}

fn refused(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Stopped, format!("{what} could not be started")).with_source(error)
}
