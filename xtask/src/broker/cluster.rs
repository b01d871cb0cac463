//! Several brokers that replicate: JetStream with real elections.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Deserialize;

use super::{Broker, POLL, Profile, Settings, free_port, retry_ports};
use crate::process::Group;
use crate::tools::Tools;

/// A cluster of brokers on this machine. Streams with as many replicas as it has members can be made in it.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts `size` plain servers. They answer, but may not have elected a leader: see
    /// [`wait_for_meta_leader`](Self::wait_for_meta_leader).
    pub fn start(tools: &Tools, size: usize) -> Result<Self> {
        Self::start_with(tools, size, &Profile::Plain)
    }

    /// Starts `size` servers of that profile.
    pub fn start_with(tools: &Tools, size: usize, config: &Profile) -> Result<Self> {
        retry_ports(|| {
            let routes = (0..size).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
            let urls: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            let mut brokers = Vec::with_capacity(size);
            for url in &urls {
                brokers.push(Broker::launch(Settings {
                    program: tools.nats_server.clone(),
                    config: config.clone(),
                    group: Group::Shared,
                    port: free_port()?,
                    monitor: free_port()?,
                    extra: vec![
                        "--cluster_name".to_owned(),
                        "greenroom".to_owned(),
                        "--cluster".to_owned(),
                        url.clone(),
                        "--routes".to_owned(),
                        urls.join(","),
                    ],
                })?);
            }
            Ok(Self { brokers })
        })
    }

    /// Its members.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// One member, to stop or kill or restart it.
    pub fn broker_mut(&mut self, index: usize) -> Option<&mut Broker> {
        self.brokers.get_mut(index)
    }

    /// Every member's address, separated by commas, as clients take them.
    pub fn urls(&self) -> String {
        self.brokers.iter().map(Broker::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until all running members agree on who leads JetStream and, if all members run, until every one of them
    /// follows. Gives the leader's index.
    pub fn wait_for_meta_leader(&self, limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(leader) = self.meta_leader() {
                return Ok(leader);
            }
            if Instant::now() >= deadline {
                let logs: Vec<_> = self.brokers.iter().map(|b| crate::process::tail(&b.logs(), 8)).collect();
                bail!("no JetStream leader after {} s; last logs:\n{}", limit.as_secs(), logs.join("\n    --\n"));
            }
            thread::sleep(POLL * 5);
        }
    }

    fn meta_leader(&self) -> Option<usize> {
        let running: Vec<_> = self.brokers.iter().enumerate().filter(|(_, b)| b.process.is_some()).collect();
        let mut agreed: Option<String> = None;
        let mut followers = 0;
        for (_, broker) in &running {
            let view: Jsz = serde_json::from_value(broker.monitor("/jsz").ok()?).ok()?;
            let group = view.meta_cluster.filter(|group| !group.leader.is_empty())?;
            if agreed.get_or_insert_with(|| group.leader.clone()) != &group.leader {
                return None;
            }
            // Only the leader knows its followers.
            followers += group.replicas.iter().filter(|peer| peer.current && !peer.offline).count();
        }
        let leader = agreed?;
        let expected = running.len() - 1;
        let (index, _) = running.into_iter().find(|(_, b)| b.name() == leader)?;
        (followers >= expected).then_some(index)
    }
}

#[derive(Deserialize)]
struct Jsz {
    meta_cluster: Option<MetaGroup>,
}

#[derive(Deserialize)]
struct MetaGroup {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}
