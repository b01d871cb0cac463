//! Strategies, intensity and back-off, with children that fail when they are told to.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::tree::Group;
use super::*;
use crate::error::{Error, ErrorKind};

mod stopping;
mod worker;

/// What children did, in order: `+a` started, `-a` stopped, `!a` failed, `.a` finished.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: char, who: &str) {
        self.0.lock().push(format!("{what}{who}"));
    }

    /// What was logged since this was last asked.
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock()).join(" ")
    }
}

/// Fails its child when told to.
type Trap = Arc<Notify>;

fn child(log: &Log, name: &'static str) -> (ChildSpec, Trap) {
    let (log, trap) = (log.clone(), Trap::default());
    let failing = Arc::clone(&trap);
    let spec = ChildSpec::stoppable(name, move |stop| {
        log.add('+', name);
        let (log, trap) = (log.clone(), Arc::clone(&failing));
        async move {
            tokio::select! {
                () = stop.cancelled() => {
                    // Time enough for a wrong order to show.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    log.add('-', name);
                    Ok(())
                }
                () = trap.notified() => {
                    log.add('!', name);
                    Err(Error::new(ErrorKind::Unavailable, format!("{name} fell")))
                }
            }
        }
    });
    (spec, trap)
}

async fn tree() -> Tree {
    Tree::start(Handle::current(), "node").await.expect("a tree")
}

fn rule(strategy: Strategy) -> Restart {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_secs(20) };
    Restart { strategy, backoff, ..Restart::default() }
}

/// A group of children a, b and c, all of them running.
async fn trio(tree: &Tree, log: &Log, restart: Restart) -> (Group, [Trap; 3]) {
    let ((a, on_a), (b, on_b), (c, on_c)) = (child(log, "a"), child(log, "b"), child(log, "c"));
    let group = tree.group("trio", restart, vec![a, b, c]).await.expect("a group");
    started(&group).await;
    assert_eq!(log.take(), "+a +b +c");
    (group, [on_a, on_b, on_c])
}

async fn started(group: &Group) {
    soon(group.started()).await.expect("all children run");
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

fn running(report: &GroupReport, name: &str, restarts: u32) -> bool {
    let is = |child: &&ChildReport| child.name == name;
    let child = report.children.iter().find(is).expect("a child of this name");
    child.state == ChildState::Running && child.restarts == restarts
}

fn all_running(report: &GroupReport, restarts: [u32; 3]) -> bool {
    ["a", "b", "c"].iter().zip(restarts).all(|(name, count)| running(report, name, count))
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_one_for_one_restarts_the_failed_child_alone() {
    let (tree, log) = (tree().await, Log::default());
    let (group, [_, on_b, _]) = trio(&tree, &log, rule(Strategy::OneForOne)).await;
    on_b.notify_one();
    let report = soon(group.until(|report| all_running(report, [0, 1, 0]))).await;
    assert_eq!(log.take(), "!b +b");
    assert_eq!(report.children[1].last_failure.as_deref(), Some("b fell"));
    assert_eq!(tree.report(), [report]);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_one_for_all_restarts_all_in_order() {
    let (tree, log) = (tree().await, Log::default());
    let (group, [_, on_b, _]) = trio(&tree, &log, rule(Strategy::OneForAll)).await;
    on_b.notify_one();
    soon(group.until(|report| all_running(report, [1, 1, 1]))).await;
    assert_eq!(log.take(), "!b -c -a +a +b +c");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_rest_for_one_restarts_the_failed_child_and_those_after_it() {
    let (tree, log) = (tree().await, Log::default());
    let (group, [on_a, on_b, on_c]) = trio(&tree, &log, rule(Strategy::RestForOne)).await;
    on_b.notify_one();
    soon(group.until(|report| all_running(report, [0, 1, 1]))).await;
    assert_eq!(log.take(), "!b -c +b +c");
    on_c.notify_one();
    soon(group.until(|report| all_running(report, [0, 1, 2]))).await;
    assert_eq!(log.take(), "!c +c");
    on_a.notify_one();
    soon(group.until(|report| all_running(report, [1, 2, 3]))).await;
    assert_eq!(log.take(), "!a -c -b +a +b +c");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_rest_for_one_takes_in_an_earlier_child_that_fails_during_a_restart() {
    let (tree, log) = (tree().await, Log::default());
    let mut restart = rule(Strategy::RestForOne);
    restart.backoff.first = Duration::from_millis(400);
    let (group, [on_a, on_b, _]) = trio(&tree, &log, restart).await;
    on_b.notify_one();
    let waits = |child: &ChildReport| matches!(child.state, ChildState::BackingOff { .. });
    soon(group.until(|report| report.children[1..].iter().all(waits))).await;
    on_a.notify_one();
    soon(group.until(|report| all_running(report, [1, 1, 1]))).await;
    assert_eq!(log.take(), "!b -c !a +a +b +c");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_finished_child_is_left_alone() {
    let (tree, log) = (tree().await, Log::default());
    let (b, on_b) = child(&log, "b");
    let journal = log.clone();
    let once = ChildSpec::task("once", move || {
        journal.add('.', "once");
        async { Ok(()) }
    });
    let steady = ChildSpec::task("steady", std::future::pending);
    let children = vec![once, b, steady];
    let group = tree.group("work", rule(Strategy::OneForAll), children).await.expect("a group");
    let up = |report: &GroupReport, restarts| {
        report.children[0].state == ChildState::Finished
            && running(report, "b", restarts)
            && running(report, "steady", restarts)
    };
    soon(group.until(|report| up(report, 0))).await;
    on_b.notify_one();
    // One that is stopped at its await has not finished.
    soon(group.until(|report| up(report, 1))).await;
    assert_eq!(log.take(), ".once +b !b +b");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_intensity_exceeded_gives_up_and_reports_the_cause() {
    let (tree, log) = (tree().await, Log::default());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let calling = Arc::clone(&calls);
    tree.on_give_up(move |gave_up| calling.lock().push(gave_up.clone()));
    let (other, _) = trio(&tree, &log, rule(Strategy::OneForOne)).await;

    let (a, _on_a) = child(&log, "a");
    let tries = Arc::new(AtomicU32::new(0));
    let trying = Arc::clone(&tries);
    let bad = ChildSpec::task("bad", move || {
        let n = trying.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Err(Error::new(ErrorKind::Config, format!("no luck at {n}"))) }
    });
    let (z, _on_z) = child(&log, "z");
    let restart = Restart { intensity: 2, ..rule(Strategy::OneForOne) };
    let group = tree.group("doomed", restart, vec![a, bad, z]).await.expect("a group");

    let report = soon(group.ended()).await;
    let gave_up = report.gave_up.clone().expect("it gave up");
    assert_eq!(tries.load(Ordering::SeqCst), 3, "one start and two restarts");
    assert_eq!((gave_up.group.as_str(), gave_up.child.as_str()), ("doomed", "bad"));
    assert_eq!((gave_up.kind, gave_up.restarts), (ErrorKind::Config, 2));
    assert_eq!(gave_up.cause, "no luck at 3");
    let states: Vec<_> = report.children.iter().map(|child| child.state.clone()).collect();
    let failed = ChildState::Failed { cause: gave_up.cause.clone() };
    assert_eq!(states, [ChildState::Stopped, failed, ChildState::Stopped]);
    assert!(log.take().contains("-a"), "the others were stopped");
    let error = group.started().await.expect_err("it is not up");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("`doomed` gave up on `bad`: no luck at 3"));
    assert_eq!(*calls.lock(), [gave_up]);
    assert!(all_running(&other.report(), [0, 0, 0]), "the rest of the node goes on");
}

/// Fails so often, then runs stably for a while, fails once more, and notes when it was started.
#[tokio::test(flavor = "multi_thread")]
async fn h7_backoff_grows_and_resets_after_a_long_run() {
    let tree = tree().await;
    let within = Duration::from_millis(200);
    let starts = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&starts);
    let spec = ChildSpec::task("shaky", move || {
        let mut starts = noting.lock();
        starts.push(Instant::now());
        let n = starts.len();
        async move {
            match n {
                1..=5 => {}
                6 => tokio::time::sleep(within * 2).await,
                _ => std::future::pending().await,
            }
            Err(Error::new(ErrorKind::Internal, "again"))
        }
    });
    let first = Duration::from_millis(50);
    let backoff = Backoff { first, max: Duration::from_secs(20) };
    let restart = Restart { backoff, within, intensity: 5, ..Restart::default() };
    let group = tree.group("shaky", restart, vec![spec]).await.expect("a group");
    soon(group.until(|report| running(report, "shaky", 6))).await;
    let starts = starts.lock();
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, factor) in gaps.iter().zip([1, 2, 4, 8, 16]) {
        assert!(*gap >= first * factor, "{gaps:?}");
    }
    let last = gaps[5] - within * 2;
    assert!(last >= first && last < first * 16, "reset, not doubled to {:?}: {gaps:?}", first * 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_waiting_child_does_not_hold_up_the_others() {
    let (tree, log) = (tree().await, Log::default());
    let bad = ChildSpec::task("bad", || async { Err(Error::new(ErrorKind::Internal, "no")) });
    let (b, on_b) = child(&log, "b");
    let mut restart = Restart { intensity: 99, ..rule(Strategy::OneForOne) };
    restart.backoff.first = Duration::from_millis(20);
    let group = tree.group("two", restart, vec![bad, b]).await.expect("a group");
    let waits = |report: &GroupReport| matches!(report.children[0].state, ChildState::BackingOff { .. });
    // The sixth failure: a wait of 640 ms, against one of 20 ms for the other child.
    soon(group.until(|report| waits(report) && report.children[0].restarts == 5)).await;
    on_b.notify_one();
    let report = soon(group.until(|report| running(report, "b", 1))).await;
    assert!(waits(&report));
    assert_eq!(report.children[0].restarts, 5, "the same wait as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_panic_restarts_a_task() {
    let tree = tree().await;
    let first = AtomicBool::new(true);
    let spec = ChildSpec::task("jumpy", move || {
        let panics = first.swap(false, Ordering::SeqCst);
        async move {
            if panics {
                // As `panic!`, without its lines on standard error.
                resume_unwind(Box::new("boo"));
            }
            std::future::pending().await
        }
    });
    let group = tree.group("jumpy", rule(Strategy::OneForOne), vec![spec]).await.expect("a group");
    let report = soon(group.until(|report| running(report, "jumpy", 1))).await;
    let cause = report.children[0].last_failure.as_deref().expect("a failure");
    assert!(cause.contains("panicked: boo"), "{cause}");
}
