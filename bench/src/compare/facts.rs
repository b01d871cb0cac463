//! On what was measured: the machine, and the versions of everything.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::Context as _;

use super::stage::Stage;

/// The lock file that everything was built by.
const LOCK: &str = include_str!("../../Cargo.lock");

/// What a reader has to know to make sense of the figures.
pub struct Facts {
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    pub compiler: String,
    /// Programs that are between two sides, by name and version.
    pub brokers: Vec<(&'static str, String)>,
}

impl Facts {
    pub fn gather(stage: &Stage) -> anyhow::Result<Self> {
        let compiler =
            Command::new("rustc").arg("--version").output().context("rustc cannot be asked for its version")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("this needs Linux")?;
        Ok(Self {
            cores: available_parallelism()?.get(),
            processor: processor(&fs::read_to_string("/proc/cpuinfo").context("this needs Linux")?),
            kernel: kernel.trim().to_owned(),
            compiler: String::from_utf8_lossy(&compiler.stdout).trim().to_owned(),
            brokers: stage.brokers(),
        })
    }
}

/// What the processor calls itself; some architectures do not say.
fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or("an unnamed processor", |(_, name)| name.trim()).to_owned()
}

/// The version of a crate in the lock file.
pub fn version(name: &str) -> &'static str {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != wanted).skip(1);
    let version =
        lines.next().and_then(|line| line.strip_prefix("version = \"")).and_then(|rest| rest.strip_suffix('"'));
    version.unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::super::system::System;
    use super::*;

    #[test]
    fn every_crate_of_every_system_has_a_version() {
        for name in System::ALL.iter().flat_map(|system| system.crates) {
            assert_ne!(version(name), "?", "{name}");
        }
    }
}
