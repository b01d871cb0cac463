//! Settling: where a turn that never waits goes on when its append has an answer.
//!
//! It was begun on its caller's stack, and what is left of it runs nothing of an author's that may take long: the answer
//! is taken in, and the caller is told. Many are answered at once, so a few tasks of the node settle them one after the
//! other; a task each would have to be made, woken and ended for every command. A caller that is dropped, or does not
//! go on, holds none of them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_task::Runnable;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::drain::BURST;
use super::turn::cause_of;
use crate::executor::Executor;

/// A bit each.
const SETTLERS_MAX: usize = u64::BITS as usize;

/// The tasks that settle turns. They end when this is dropped and nothing is left to settle.
pub(crate) struct Settlers(Arc<Shared>);

struct Shared {
    /// What has an answer, in the order in which it came. Each is a turn of another actor, of which there are so many.
    ready: Mutex<VecDeque<Runnable>>,
    wakers: Box<[AtomicWaker]>,
    /// Which of them sleep: a bit each.
    asleep: AtomicU64,
    /// How many there are. None, once their runtime is gone: what is left to settle is dropped then.
    alive: AtomicUsize,
    closed: AtomicBool,
}

/// One of the settlers, as long as its task is there.
struct Life(Arc<Shared>);

impl Settlers {
    /// Spawns as many as the runtime has threads.
    pub(crate) fn new(runtime: &Executor) -> Self {
        let number = runtime.handle().metrics().num_workers().clamp(1, SETTLERS_MAX);
        let shared = Arc::new(Shared {
            ready: Mutex::default(),
            wakers: (0..number).map(|_| AtomicWaker::new()).collect(),
            asleep: AtomicU64::new(0),
            alive: AtomicUsize::new(number),
            closed: AtomicBool::new(false),
        });
        for index in 0..number {
            let life = Life(shared.clone());
            runtime.spawn(async move { poll_fn(|context| life.0.settle(index, context)).await });
        }
        Self(shared)
    }

    /// Polls a turn once, here; whatever it waits for then, one of the settlers goes on with it.
    pub(super) fn begin(&self, turn: impl Future<Output = ()> + Send + 'static) {
        let shared = self.0.clone();
        let (runnable, task) = async_task::spawn(turn, move |runnable| shared.push(runnable));
        task.detach();
        runnable.run();
    }
}

impl Drop for Settlers {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.wakers.iter().for_each(AtomicWaker::wake);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.give_up();
        }
    }
}

impl Shared {
    fn push(&self, runnable: Runnable) {
        self.ready.lock().push_back(runnable);
        if self.alive.load(Ordering::SeqCst) == 0 {
            return self.give_up();
        }
        let asleep = self.asleep.load(Ordering::SeqCst);
        if asleep == 0 {
            return;
        }
        let index = asleep.trailing_zeros();
        if self.asleep.fetch_and(!(1 << index), Ordering::SeqCst) & (1 << index) != 0 {
            self.wakers[index as usize].wake();
        }
    }

    /// Nobody settles anything any more: whoever waits is told so, by what is dropped.
    fn give_up(&self) {
        let left = std::mem::take(&mut *self.ready.lock());
        drop(left);
    }

    /// What one of the settlers does whenever it is woken.
    fn settle(&self, index: usize, context: &mut Context<'_>) -> Poll<()> {
        let own = 1 << index;
        self.asleep.fetch_and(!own, Ordering::SeqCst);
        for _ in 0..BURST {
            // What is polled without any budget left does nothing but ask to be polled again.
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
            let next = self.ready.lock().pop_front();
            if let Some(runnable) = next {
                run(runnable);
                continue;
            }
            self.wakers[index].register(context.waker());
            self.asleep.fetch_or(own, Ordering::SeqCst);
            // Whoever pushes looks for sleepers afterwards, so one of the two sees the other.
            if self.ready.lock().is_empty() {
                return if self.closed.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending };
            }
            self.asleep.fetch_and(!own, Ordering::SeqCst);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn run(runnable: Runnable) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| runnable.run())) {
        tracing::error!(cause = cause_of(panic.as_ref()), "a turn could not be settled: it panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    /// Begins a turn that waits for an answer and passes it on.
    fn turn(settlers: &Settlers) -> (oneshot::Sender<u32>, oneshot::Receiver<u32>) {
        let ((answer, waits), (passes, passed)) = (oneshot::channel(), oneshot::channel());
        settlers.begin(async move {
            if let Ok(answer) = waits.await {
                passes.send(answer).ok();
            }
        });
        (answer, passed)
    }

    #[test]
    fn every_turn_is_settled_whoever_answers_it_and_whenever() {
        let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().expect("a runtime");
        let settlers = runtime.block_on(async { Settlers::new(&Executor::current().expect("a runtime")) });
        let turns = (0..4_000).map(|_| turn(&settlers));
        let (answers, passed): (Vec<_>, Vec<_>) = turns.unzip();
        let mut answers: Vec<_> = (0..).zip(answers).collect();
        // From four threads that have no runtime, in no order.
        shuffle(&mut answers);
        let mut threads = Vec::new();
        while !answers.is_empty() {
            let part = answers.split_off(answers.len().saturating_sub(1_000));
            threads.push(std::thread::spawn(move || {
                part.into_iter().for_each(|(n, answer)| answer.send(n).expect("its turn waits"))
            }));
        }
        let all = async {
            for (n, passed) in (0..).zip(passed) {
                assert_eq!(passed.await, Ok(n));
            }
        };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await.expect("all of them") });
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }

    /// Every 1,237th, round and round.
    fn shuffle<T>(all: &mut Vec<T>) {
        let mut left: Vec<_> = std::mem::take(all);
        let mut at = 0;
        while !left.is_empty() {
            at = (at + 1_237) % left.len();
            all.push(left.swap_remove(at));
        }
    }

    #[test]
    fn what_a_turn_holds_is_dropped_when_its_runtime_is_gone() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let settlers = runtime.block_on(async { Settlers::new(&Executor::current().expect("a runtime")) });
        let (answer, passed) = turn(&settlers);
        drop(runtime);
        answer.send(1).expect("the turn waits still");
        assert!(passed.blocking_recv().is_err(), "nobody settles it");
    }

    #[test]
    fn a_turn_that_panics_is_the_only_one_that_does() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let settlers = runtime.block_on(async { Settlers::new(&Executor::current().expect("a runtime")) });
        let (answer, waits) = oneshot::channel::<u32>();
        settlers.begin(async move {
            let answer = waits.await;
            assert!(answer.is_err(), "it panics on purpose");
        });
        answer.send(1).expect("it waits");
        let (answer, passed) = turn(&settlers);
        answer.send(2).expect("it waits");
        assert_eq!(passed.blocking_recv(), Ok(2));
    }
}
