//! Workers: what a panic, a break and a stop do to the jobs and to the address.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::error::{Error, ErrorKind};

/// What a job does, and where its answer goes: the number of the instance that did it.
enum Job {
    Answer(oneshot::Sender<u32>),
    Panic(oneshot::Sender<u32>),
    Break,
    /// Says that it was begun, and waits until it is let go.
    Wait(oneshot::Sender<u32>, Arc<Notify>),
}

struct Instance {
    number: u32,
    breaks_on_panic: bool,
}

impl Handler<Job> for Instance {
    fn handle(&mut self, job: Job) -> BoxFuture<'_, ControlFlow<Error>> {
        async move {
            match job {
                Job::Answer(reply) => {
                    let _ = reply.send(self.number);
                }
                // As `panic!`, without its lines on standard error.
                Job::Panic(_reply) => resume_unwind(Box::new("boo")),
                Job::Break => return ControlFlow::Break(Error::new(ErrorKind::Internal, "broken")),
                Job::Wait(begun, release) => {
                    let _ = begun.send(self.number);
                    release.notified().await;
                }
            }
            ControlFlow::Continue(())
        }
        .boxed()
    }

    fn panicked(&mut self, cause: Error) -> ControlFlow<Error> {
        assert_eq!(cause.kind(), ErrorKind::Panicked);
        assert_eq!(cause.message(), "a job panicked: boo");
        if self.breaks_on_panic { ControlFlow::Break(cause) } else { ControlFlow::Continue(()) }
    }
}

fn worker(breaks_on_panic: bool) -> (ChildSpec, Arc<Queue<Job>>) {
    let queue = Queue::new();
    let made = Arc::new(AtomicU32::new(0));
    let spec = ChildSpec::worker("worker", &queue, move || {
        let number = made.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let instance: Box<dyn Handler<Job>> = Box::new(Instance { number, breaks_on_panic });
            Ok(instance)
        }
        .boxed()
    });
    (spec, queue)
}

async fn pool(tree: &Tree, children: Vec<ChildSpec>) -> Group {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_secs(1) };
    let restart = Restart { backoff, ..Restart::default() };
    let group = tree.group("pool", restart, children).await.expect("a group");
    soon(group.started()).await.expect("all children run");
    group
}

/// Sends a job that carries a reply sender; gives what comes of it.
fn send(worker: &Queue<Job>, job: impl FnOnce(oneshot::Sender<u32>) -> Job) -> oneshot::Receiver<u32> {
    let (reply, answer) = oneshot::channel();
    assert!(worker.send(job(reply)).is_ok(), "the worker is up");
    answer
}

/// Holds the worker in a job, so that what is sent next waits.
async fn hold(worker: &Queue<Job>) -> Arc<Notify> {
    let release = Arc::new(Notify::new());
    let until = Arc::clone(&release);
    soon(send(worker, |begun| Job::Wait(begun, until))).await.expect("begun");
    release
}

async fn restarted(group: &Group, restarts: u32) -> GroupReport {
    soon(group.until(|report| {
        let child = &report.children[0];
        child.state == ChildState::Running && child.restarts == restarts
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_panic_in_a_job_leaves_the_queue_intact() {
    let tree = tree().await;
    let (spec, worker) = worker(false);
    let group = pool(&tree, vec![spec]).await;
    let release = hold(&worker).await;
    let before = send(&worker, Job::Answer);
    let panics = send(&worker, Job::Panic);
    let after: Vec<_> = (0..9).map(|_| send(&worker, Job::Answer)).collect();
    release.notify_one();
    assert_eq!(soon(before).await, Ok(1));
    assert!(soon(panics).await.is_err(), "its sender is told by the drop of the job");
    for answer in after {
        assert_eq!(soon(answer).await, Ok(1), "by the same instance");
    }
    assert_eq!(group.report().children[0].restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_broken_worker_is_restarted_behind_the_same_queue() {
    let tree = tree().await;
    let (spec, worker) = worker(true);
    let group = pool(&tree, vec![spec]).await;
    let release = hold(&worker).await;
    assert!(worker.send(Job::Break).is_ok());
    let waiting = send(&worker, Job::Answer);
    release.notify_one();
    assert_eq!(soon(waiting).await, Ok(2), "what waited is served by the next instance");
    let report = restarted(&group, 1).await;
    assert_eq!(report.children[0].last_failure.as_deref(), Some("broken"));
    assert_eq!(soon(send(&worker, Job::Answer)).await, Ok(2));
    assert!(soon(send(&worker, Job::Panic)).await.is_err());
    let report = restarted(&group, 2).await;
    assert_eq!(report.children[0].last_failure.as_deref(), Some("a job panicked: boo"));
    assert_eq!(soon(send(&worker, Job::Answer)).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_stopped_worker_finishes_its_job_and_gives_others_back() {
    let tree = tree().await;
    let (spec, worker) = worker(false);
    assert!(!worker.is_up());
    assert!(worker.send(Job::Break).is_err(), "not started yet");
    let group = pool(&tree, vec![spec]).await;
    assert!(worker.is_up());
    let release = hold(&worker).await;
    let waiting = send(&worker, Job::Answer);
    let stopping = tokio::spawn({
        let group = group.clone();
        async move { group.stop(Duration::from_secs(10)).await }
    });
    soon(group.until(|report| report.children[0].state == ChildState::Stopping)).await;
    let (reply, _answer) = oneshot::channel();
    let Err(Job::Answer(reply)) = worker.send(Job::Answer(reply)) else {
        panic!("a stopping worker takes nothing, and gives the job back");
    };
    assert!(!reply.is_closed());
    assert!(!group.report().ended, "the job in hand is not cut");
    release.notify_one();
    soon(stopping).await.expect("stopped");
    assert!(group.report().ended);
    worker.close();
    assert!(soon(waiting).await.is_err(), "dropped, not lost in silence");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_failed_start_counts_as_a_failure_and_a_slow_one_holds_up_nobody() {
    let tree = tree().await;
    let (release, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starts, slow) = (AtomicU32::new(0), (Arc::clone(&release), Arc::clone(&begun)));
    let flaky = Queue::new();
    let spec = ChildSpec::worker("flaky", &flaky, move || {
        let number = starts.fetch_add(1, Ordering::SeqCst) + 1;
        let (release, begun) = slow.clone();
        async move {
            match number {
                2 => return Err(Error::new(ErrorKind::Unavailable, "not now")),
                3 => resume_unwind(Box::new("not ever")),
                4 => {
                    begun.notify_one();
                    release.notified().await;
                }
                _ => {}
            }
            let instance: Box<dyn Handler<Job>> = Box::new(Instance { number, breaks_on_panic: false });
            Ok(instance)
        }
        .boxed()
    });
    let (steady_spec, steady) = worker(false);
    let group = pool(&tree, vec![spec, steady_spec]).await;
    assert!(flaky.send(Job::Break).is_ok());
    soon(begun.notified()).await;
    assert!(!flaky.is_up());
    assert_eq!(group.report().children[0].last_failure.as_deref(), Some("its start panicked: not ever"));
    assert!(steady.send(Job::Break).is_ok());
    let second = |report: &GroupReport| {
        let child = &report.children[1];
        child.restarts == 1 && child.state == ChildState::Running
    };
    let report = soon(group.until(second)).await;
    assert_eq!(report.children[0].state, ChildState::Starting);
    release.notify_one();
    restarted(&group, 3).await;
    assert_eq!(soon(send(&flaky, Job::Answer)).await, Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_children_are_first_started_in_order() {
    let tree = tree().await;
    let (release, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gate = (Arc::clone(&release), Arc::clone(&begun));
    let slow = ChildSpec::worker("slow", &Queue::new(), move || {
        let (release, begun) = gate.clone();
        async move {
            begun.notify_one();
            release.notified().await;
            let instance: Box<dyn Handler<Job>> = Box::new(Instance { number: 1, breaks_on_panic: false });
            Ok(instance)
        }
        .boxed()
    });
    let (next_spec, next) = worker(false);
    let children = vec![slow, next_spec];
    let group = tree.group("pool", Restart::default(), children).await.expect("a group");
    soon(begun.notified()).await;
    // Time enough for a wrong order to show.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!next.is_up());
    release.notify_one();
    soon(group.started()).await.expect("all children run");
    assert!(next.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_panic_in_a_worker_s_drop_stays_there() {
    struct Bomb(Arc<AtomicBool>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            resume_unwind(Box::new("bang"));
        }
    }
    impl Handler<()> for Bomb {
        fn handle(&mut self, (): ()) -> BoxFuture<'_, ControlFlow<Error>> {
            let error = Error::new(ErrorKind::Internal, "broken");
            async { ControlFlow::Break(error) }.boxed()
        }
    }
    let tree = tree().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let bomb = Queue::new();
    let spec = ChildSpec::worker("bomb", &bomb, move || {
        let bomb: Box<dyn Handler<()>> = Box::new(Bomb(Arc::clone(&flag)));
        async move { Ok(bomb) }.boxed()
    });
    let group = pool(&tree, vec![spec]).await;
    assert_eq!(bomb.send(()), Ok(()));
    let report = restarted(&group, 1).await;
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(report.children[0].last_failure.as_deref(), Some("broken"));
    soon(group.stop(Duration::from_secs(5))).await;
    assert!(group.report().ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_workers_of_one_queue_take_what_one_that_hangs_does_not() {
    let tree = tree().await;
    let queue = Queue::new();
    let spec = |name: &str| {
        ChildSpec::worker(name, &queue, || {
            let instance: Box<dyn Handler<Job>> = Box::new(Instance { number: 7, breaks_on_panic: false });
            async move { Ok(instance) }.boxed()
        })
    };
    let _group = pool(&tree, vec![spec("one"), spec("two")]).await;
    let release = hold(&queue).await;
    let answers: Vec<_> = (0..20).map(|_| send(&queue, Job::Answer)).collect();
    for answer in answers {
        assert_eq!(soon(answer).await, Ok(7));
    }
    release.notify_one();
}
