//! The executor: where the tasks of one node run.

use std::future::Future;

use tokio::runtime::{EnterGuard, Handle};
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind};

/// The tokio runtime in which a node was started. A simulated node can be frozen: then none of its tasks is polled.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    handle: Handle,
    #[cfg(test)]
    frost: Option<crate::simulation::Frost>,
}

impl Executor {
    /// The runtime that this is called in.
    ///
    /// # Errors
    /// `Config` outside of one.
    pub(crate) fn current() -> Result<Self, Error> {
        let handle = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Config, "a node is started inside a tokio runtime").with_source(error)
        })?;
        Ok(Self {
            handle,
            #[cfg(test)]
            frost: None,
        })
    }

    /// The same, for a node that can be frozen.
    #[cfg(test)]
    pub(crate) fn with_frost(self, frost: Option<crate::simulation::Frost>) -> Self {
        Self { frost, ..self }
    }

    /// Whether time and threads are not what they seem.
    #[cfg(test)]
    pub(crate) fn is_simulated(&self) -> bool {
        self.frost.is_some()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Lets code that polls elsewhere use timers.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[cfg(test)]
        if let Some(frost) = &self.frost {
            return self.handle.spawn(frost.over(task));
        }
        self.handle.spawn(task)
    }

    pub(crate) fn spawn_blocking<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn_blocking(task)
    }
}
