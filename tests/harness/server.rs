//! A broker of one's own.

use std::time::Duration;

use serde_json::Value;
use xtask::broker::{Broker, BrokerOptions, Profile};

use super::tools;

/// A real `nats-server` on free ports, with a store of its own; gone, with all it wrote, when
/// dropped. What may take time runs off the tests' runtime.
#[derive(Debug)]
pub(crate) struct Server {
    // Only absent while another thread has it.
    broker: Option<Broker>,
    url: String,
}

impl Server {
    /// Starts one: `Profile::Shop` is the repository's `nats.conf`, `Profile::Plain` has JetStream
    /// and nothing else.
    pub(crate) async fn start(profile: Profile) -> Self {
        let start = move || Broker::start(tools(), BrokerOptions { config: profile });
        let broker = tokio::task::spawn_blocking(start).await.expect("no panic").expect("a broker starts");
        Self { url: broker.url(), broker: Some(broker) }
    }

    /// Where clients connect; stays the same over restarts.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stops it in the orderly way. Its store stays.
    pub(crate) async fn stop(&mut self) {
        self.aside(|broker| broker.stop().map(drop)).await;
    }

    /// Stops it if it runs, and starts it again: same ports, same store.
    pub(crate) async fn restart(&mut self) {
        self.aside(Broker::restart).await;
    }

    /// Kills it with SIGKILL. Its store stays.
    pub(crate) async fn kill9(&mut self) {
        self.aside(Broker::kill9).await;
    }

    /// Freezes it: connections stay up and nothing moves.
    pub(crate) fn pause(&mut self) {
        self.broker.as_mut().expect("here").pause().expect("it can be paused");
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.broker.as_mut().expect("here").resume().expect("it can be resumed");
    }

    /// Where its monitoring endpoints are.
    pub(crate) fn monitor_url(&self) -> String {
        self.broker.as_ref().expect("here").monitor_url()
    }

    /// What one of its monitoring endpoints says, such as `/connz?subs=1`.
    pub(crate) async fn monitor(&self, path: &str) -> Value {
        let broker = self.broker.as_ref().expect("here");
        let mut last = None;
        // A busy machine may take longer than one look is given.
        for _ in 0..5 {
            match broker.monitor(path) {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:#}", last.expect("it was tried"));
    }

    async fn aside(&mut self, action: impl FnOnce(&mut Broker) -> anyhow::Result<()> + Send + 'static) {
        let mut broker = self.broker.take().expect("here");
        let acted = tokio::task::spawn_blocking(move || {
            let result = action(&mut broker);
            (broker, result)
        });
        let (broker, result) = acted.await.expect("no panic");
        self.broker = Some(broker);
        result.expect("the broker does as it is told");
    }
}
