//! What happens to a node in the middle of a run.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Variant;
use crate::process::Signal;
use crate::rig::{Stage, now_us};

/// What was done, and when.
pub(super) struct Strike {
    /// Before the first signal was sent.
    pub(super) at_us: u64,
    /// When the victim certainly did nothing any more, if it was killed or frozen.
    pub(super) still_us: u64,
    /// When it was over.
    pub(super) until_us: u64,
    /// The id that the victim had; none if every node was one.
    pub(super) victim: Option<String>,
    /// Whether that id was to do nothing from then on: it was killed, or frozen for longer than its lease.
    pub(super) is_death: bool,
}

/// Does to the node of that name what the variant says, and waits until its effects are over.
pub(super) fn strike(stage: &mut Stage, variant: Variant, name: &str) -> Result<Strike> {
    let at_us = now_us();
    match variant {
        Variant::Kill9 | Variant::Kill9Untold => {
            let mut node = stage.take_node(name)?;
            let victim = node.ids().pop();
            let at_us = now_us();
            node.kill9()?;
            let still_us = now_us();
            stage.rest(recovers_within(variant))?;
            Ok(Strike { at_us, still_us, until_us: now_us(), victim, is_death: true })
        }
        Variant::Paused => {
            let mut node = stage.take_node(name)?;
            let victim = node.ids().pop();
            let at_us = now_us();
            node.freeze()?;
            let still_us = now_us();
            stage.rest(recovers_within(variant))?;
            node.signal(Signal::CONT)?;
            // Long enough for everything that waited for it in its sockets.
            stage.rest(Duration::from_millis(1500))?;
            let until_us = now_us();
            stage.drain(node)?;
            Ok(Strike { at_us, still_us, until_us, victim, is_death: true })
        }
        Variant::Sigterm => {
            let node = stage.take_node(name)?;
            let victim = node.ids().pop();
            let at_us = now_us();
            stage.drain(node)?;
            stage.rest(Duration::from_millis(200))?;
            Ok(Strike { at_us, still_us: at_us, until_us: now_us(), victim, is_death: false })
        }
        Variant::Rolling | Variant::RollingCli => {
            let names: Vec<String> = stage.nodes().iter().map(|node| node.name.clone()).collect();
            for name in names {
                let node = stage.take_node(&name)?;
                stage.drain(node)?;
                stage.start_node()?;
                stage.until_ready().context("a node that was replaced")?;
            }
            stage.rest(Duration::from_millis(500))?;
            Ok(Strike { at_us, still_us: at_us, until_us: now_us(), victim: None, is_death: false })
        }
    }
}

/// Far longer than it should take until others serve.
fn recovers_within(variant: Variant) -> Duration {
    match variant {
        Variant::Kill9 => Duration::from_millis(1200),
        _ => Duration::from_secs(2 * variant.lease_s() + 2),
    }
}
