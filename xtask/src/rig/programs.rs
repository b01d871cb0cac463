//! What has to be there before anything is started.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::artifacts;
use crate::tools::{self, Tools};

/// Names the program of the rig to use, instead of one that is built.
pub const RIG_VARIABLE: &str = "GREENROOM_RIG";

/// The programs of a rig.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The broker and its CLI.
    pub tools: Tools,
    /// Nodes, callers, and the reader of journals.
    pub rig: PathBuf,
}

/// How the programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// For figures.
    Release,
    /// As the tests build them, so that nothing is compiled twice.
    Debug,
}

impl Programs {
    /// Finds or fetches the tools, and builds what is ours.
    pub fn build(speed: Speed, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let tools = tools::provision(progress)?;
        if let Some(rig) = env::var_os(RIG_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from) {
            ensure!(rig.is_file(), "{RIG_VARIABLE} is set, and {} is not a file", rig.display());
            return Ok(Self { tools, rig });
        }
        let args: &[&str] = match speed {
            Speed::Release => &["--release", "-p", "greenroom-rig"],
            Speed::Debug => &["--workspace", "--bins"],
        };
        let [rig] = artifacts::build(args, ["rig"])?;
        Ok(Self { tools, rig })
    }
}
