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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_task::Runnable;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::turn::cause_of;
use crate::executor::Executor;

/// How many are settled before other tasks have the thread.
const BURST: usize = 64;
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
    closed: AtomicBool,
}

impl Settlers {
    /// Spawns as many as the runtime has threads.
    pub(crate) fn new(runtime: &Executor) -> Self {
        let number = runtime.handle().metrics().num_workers().clamp(1, SETTLERS_MAX);
        let shared = Arc::new(Shared {
            ready: Mutex::default(),
            wakers: (0..number).map(|_| AtomicWaker::new()).collect(),
            asleep: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        for index in 0..number {
            let shared = shared.clone();
            runtime.spawn(poll_fn(move |context| shared.settle(index, context)));
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

impl Shared {
    fn push(&self, runnable: Runnable) {
        self.ready.lock().push_back(runnable);
        let asleep = self.asleep.load(Ordering::SeqCst);
        if asleep == 0 {
            return;
        }
        let index = asleep.trailing_zeros();
        if self.asleep.fetch_and(!(1 << index), Ordering::SeqCst) & (1 << index) != 0 {
            self.wakers[index as usize].wake();
        }
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
