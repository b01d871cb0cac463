//! A network of its own for one node: a namespace with a single cable to this machine, which can be pulled.
//!
//! Unlike a [proxy](super::proxy) that stands still, a pulled cable loses what is sent: each side's TCP is on its own,
//! and when the cable is back it goes on when it next tries, or not at all. Needs the right to make namespaces, and the
//! command `ip` of iproute2.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{self, Command};

use anyhow::{Context, Result, ensure};

/// Cables at once, over all campaigns on this machine: blocks of four addresses in 198.18.0.0/15, which RFC 2544 keeps
/// for tests like this one.
const CABLES: u32 = 1 << 15;

/// Makes cables, each with addresses of its own.
#[derive(Debug)]
pub(super) struct Cables {
    laid: u32,
}

impl Cables {
    /// Tries whether this machine lets us, and takes away what a campaign has left that was killed.
    ///
    /// # Errors
    /// If it does not, and why.
    pub(super) fn try_new() -> Result<Self> {
        for name in stdout(["netns", "list"])?.lines().filter_map(|line| line.split_whitespace().next()) {
            let pid = name.strip_prefix("greenroom-").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                ip(["netns", "del", name])?;
            }
        }
        let mut cables = Self { laid: 0 };
        drop(cables.lay()?);
        Ok(cables)
    }

    /// Makes a namespace and a cable to it.
    pub(super) fn lay(&mut self) -> Result<Cable> {
        let taken = stdout(["-o", "-4", "addr", "show"])?;
        for _ in 0..CABLES {
            self.laid += 1;
            let block = process::id().wrapping_mul(64).wrapping_add(self.laid) % CABLES;
            let near = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + 4 * block);
            if !taken.contains(&format!(" {near}/30 ")) {
                return Cable::lay(self.laid, near);
            }
        }
        anyhow::bail!("no addresses are left in 198.18.0.0/15: `ip addr` shows who has them")
    }
}

/// A namespace and the cable to it. Both go when it is dropped; who lives there should have ended before.
#[derive(Debug)]
pub(super) struct Cable {
    namespace: String,
    plug: String,
    near: Ipv4Addr,
}

impl Cable {
    fn lay(number: u32, near: Ipv4Addr) -> Result<Self> {
        let (namespace, plug) = (format!("greenroom-{}-{number}", process::id()), format!("gr{}", u32::from(near)));
        let far = Ipv4Addr::from(u32::from(near) + 1);
        ip(["netns", "add", &namespace])?;
        let cable = Self { namespace, plug, near };
        let (namespace, plug) = (cable.namespace.as_str(), cable.plug.as_str());
        ip(["link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(["addr", "add", &format!("{near}/30"), "dev", plug])?;
        ip(["link", "set", plug, "up"])?;
        ip(["-n", namespace, "addr", "add", &format!("{far}/30"), "dev", "eth0"])?;
        ip(["-n", namespace, "link", "set", "eth0", "up"])?;
        ip(["-n", namespace, "link", "set", "lo", "up"])?;
        Ok(cable)
    }

    /// The address of this machine, as seen from the other end.
    pub(super) fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// The same program with the same arguments, at the other end.
    pub(super) fn at_the_far_end(&self, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.namespace]).arg(command.get_program()).args(command.get_args());
        there
    }

    /// From now on whatever is sent is lost.
    pub(super) fn pull(&self) -> Result<()> {
        ip(["link", "set", &self.plug, "down"])
    }

    /// It works again.
    pub(super) fn plug(&self) -> Result<()> {
        ip(["link", "set", &self.plug, "up"])
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // What cannot be taken away is left for the next campaign.
        drop(ip(["link", "del", &self.plug]));
        drop(ip(["netns", "del", &self.namespace]));
    }
}

fn ip<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    stdout(args).map(drop)
}

fn stdout<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(args.into_iter().map(OsStr::new));
    let output = command.output().context("cannot run `ip`, of iproute2")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", why.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
