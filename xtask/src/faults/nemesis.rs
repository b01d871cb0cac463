//! The faults.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;

use super::run::Cluster;
use crate::process::Signal;

/// What strikes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL for the owner of one of the cells.
    Kill9,
    /// SIGSTOP for it, past its lease, then SIGCONT.
    Pause,
    /// Nothing passes between it and the brokers, past its lease; then what has waited goes on.
    Cut,
    /// Its only network cable is pulled, past its lease, and what is sent meanwhile is lost. Needs namespaces.
    Unplugged,
    /// SIGKILL for the server that leads the journals, and a restart.
    Broker,
    /// Every node is told to leave and replaced, one after the other.
    Rolling,
}

impl Fault {
    /// All of them; runs take them in turn.
    pub const ALL: [Self; 6] = [Self::Kill9, Self::Pause, Self::Cut, Self::Unplugged, Self::Broker, Self::Rolling];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "kill9",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Unplugged => "unplugged",
            Self::Broker => "broker",
            Self::Rolling => "rolling",
        }
    }

    /// Strikes, and waits until what follows from it should be over.
    pub(super) fn strike(self, cluster: &mut Cluster, victim: &str, rng: &mut Rng) -> Result<()> {
        let past_lease = {
            let lease_ms = cluster.stage().lease_s() * 1_000;
            lease_ms..lease_ms * 3 / 2
        };
        match self {
            Self::Kill9 => {
                cluster.stage_mut().take_node(victim)?.kill9()?;
                rest(cluster, rng, 500..2_500)
            }
            Self::Pause => {
                let mut node = cluster.stage_mut().take_node(victim)?;
                node.freeze()?;
                rest(cluster, rng, past_lease)?;
                node.signal(Signal::CONT)?;
                // What waited for it in its sockets comes now.
                rest(cluster, rng, 1_500..2_500)?;
                cluster.stage().drain(node)
            }
            Self::Cut => {
                cluster.proxies(victim)?.iter().for_each(super::proxy::Proxy::cut);
                rest(cluster, rng, past_lease)?;
                cluster.proxies(victim)?.iter().for_each(super::proxy::Proxy::mend);
                rest(cluster, rng, 1_500..2_500)?;
                let node = cluster.stage_mut().take_node(victim)?;
                cluster.stage().drain(node)
            }
            Self::Unplugged => {
                cluster.cable(victim)?.pull()?;
                rest(cluster, rng, past_lease)?;
                cluster.cable(victim)?.plug()?;
                rest(cluster, rng, 1_500..2_500)?;
                let node = cluster.stage_mut().take_node(victim)?;
                cluster.stage().drain(node)
            }
            Self::Broker => {
                let server = cluster.stage_mut().kill_leader()?;
                rest(cluster, rng, 500..3_000)?;
                cluster.stage_mut().restart_server(server)?;
                // An election takes 4 to 8 s.
                let settles = if cluster.stage().servers() > 1 { 6_000..9_000 } else { 1_500..2_500 };
                rest(cluster, rng, settles)
            }
            Self::Rolling => {
                let names: Vec<String> = cluster.stage().nodes().iter().map(|node| node.name.clone()).collect();
                for name in names {
                    let node = cluster.stage_mut().take_node(&name)?;
                    cluster.stage().drain(node)?;
                    cluster.start_node()?;
                    cluster.stage_mut().until_ready().context("a node that was replaced")?;
                }
                rest(cluster, rng, 300..600)
            }
        }
    }
}

fn rest(cluster: &Cluster, rng: &mut Rng, ms: Range<u64>) -> Result<()> {
    cluster.stage().rest(Duration::from_millis(rng.u64(ms)))
}
