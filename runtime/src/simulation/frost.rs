//! Frost: a process that stands still. None of its tasks is polled; its timers and what is sent to it wait.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Whether the tasks of a node stand still. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frost(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    waiting: Vec<Waker>,
}

impl Frost {
    pub(super) fn set(&self, frozen: bool) {
        let waiting = {
            let mut state = self.0.lock();
            state.frozen = frozen;
            if frozen { Vec::new() } else { std::mem::take(&mut state.waiting) }
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The same task, polled only while there is no frost.
    pub(crate) fn over<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        let frost = self.clone();
        async move {
            let mut task = pin!(task);
            std::future::poll_fn(|context| {
                {
                    let mut state = frost.0.lock();
                    if state.frozen {
                        state.waiting.push(context.waker().clone());
                        return Poll::Pending;
                    }
                }
                task.as_mut().poll(context)
            })
            .await
        }
    }
}
