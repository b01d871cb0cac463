//! Trials: the named tests, run on the copy of the tree.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::seed::{Seed, Target};
use super::tree::Tree;
use crate::process::{Group, Launch, Process, tail};
use crate::tools::{NATS_CLI_VARIABLE, NATS_SERVER_VARIABLE, Tools};

/// Lines of a program's output that a message shows.
const SHOWN: usize = 40;

/// How mutants are tried.
pub(super) struct Trial<'a> {
    tree: &'a Tree,
    tools: &'a Tools,
    limit: Duration,
    /// Counts what was run, for the names of the logs.
    runs: Cell<u32>,
    logs: tempfile::TempDir,
}

/// What came of a mutant.
pub(super) enum Verdict {
    /// Every named test failed: these, by their whole names.
    Caught(Vec<String>),
    /// These named tests passed.
    Survived(Vec<String>),
    /// It does not compile, or its tests did not end.
    Broken(String),
}

/// The tests of one program, as they ended.
pub(super) struct Ran {
    passed: Vec<String>,
    failed: Vec<String>,
    output: String,
}

impl<'a> Trial<'a> {
    pub(super) fn new(tree: &'a Tree, tools: &'a Tools, limit: Duration) -> Result<Self> {
        Ok(Self { tree, tools, limit, runs: Cell::new(0), logs: tempfile::tempdir()? })
    }

    /// Runs the tests that a mutant's head names. It is applied.
    pub(super) fn of(&self, seed: &Seed) -> Result<Verdict> {
        let targets: BTreeSet<&Target> = seed.tests.iter().map(|(target, _)| target).collect();
        let (mut caught, mut passed) = (Vec::new(), Vec::new());
        for target in targets {
            let names = seed.tests.iter().filter(|(other, _)| other == target).map(|(_, name)| name.as_str()).collect();
            let ran = match self.run(target, &names) {
                Ok(ran) => ran,
                Err(error) => return Ok(Verdict::Broken(format!("{error:#}"))),
            };
            for name in names {
                let of_it: Vec<String> = ran.failed.iter().filter(|test| is_of(test, name)).cloned().collect();
                if of_it.is_empty() {
                    passed.push(name.to_owned());
                }
                caught.extend(of_it);
            }
        }
        Ok(if passed.is_empty() { Verdict::Caught(caught) } else { Verdict::Survived(passed) })
    }

    /// Runs tests of one program, by the ends of their names.
    ///
    /// # Errors
    /// If it cannot be built, or does not end in time.
    pub(super) fn run(&self, target: &Target, names: &BTreeSet<&str>) -> Result<Ran> {
        let deadline = Instant::now() + self.limit;
        let mut build = self.cargo(target);
        build.arg("--no-run");
        let (built, output) = self.finish(build, deadline)?;
        if !built {
            bail!("it does not compile:\n{}", tail(&output, SHOWN));
        }
        let mut command = self.cargo(target);
        command.arg("--").args(names);
        let (_, output) = self.finish(command, deadline)?;
        let ran = Ran::read(output);
        if ran.passed.is_empty() && ran.failed.is_empty() {
            bail!("no test of {target} was run:\n{}", ran.tail());
        }
        Ok(ran)
    }

    fn cargo(&self, target: &Target) -> Command {
        let mut command = crate::cargo();
        command.current_dir(self.tree.dir()).args(["test", "--locked", "-p", &target.package]);
        match target.name.as_str() {
            "lib" => command.arg("--lib"),
            "bin" => command.arg("--bins"),
            name => command.args(["--test", name]),
        };
        // Not the tree's own: cargo takes what is newer than the source for built from it, whichever of two copies of a
        // workspace that was, and the tree's next tests would be those of a mutant.
        command.env("CARGO_TARGET_DIR", self.tree.target()).env("CARGO_INCREMENTAL", "0");
        command.env(NATS_SERVER_VARIABLE, &self.tools.nats_server).env(NATS_CLI_VARIABLE, &self.tools.nats);
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs a command to its end: whether it succeeded, and what it printed.
    fn finish(&self, command: Command, deadline: Instant) -> Result<(bool, String)> {
        self.runs.set(self.runs.get() + 1);
        let log: PathBuf = self.logs.path().join(format!("{}.log", self.runs.get()));
        let name = "cargo test".to_owned();
        // In a group of its own, so that all of it ends if it takes too long.
        let mut process = Process::spawn(Launch { name, command, log: Some(&log), group: Group::Own, scratch: None })?;
        let ended = process.wait(deadline.saturating_duration_since(Instant::now()))?;
        let output = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
        let status = ended.with_context(|| {
            format!("it did not end within {} s; its last output:\n{}", self.limit.as_secs(), tail(&output, SHOWN))
        })?;
        Ok((status.success(), output))
    }
}

impl Ran {
    fn read(output: String) -> Self {
        let ended = |word: &str| -> Vec<String> {
            let lines = output.lines().filter_map(|line| line.strip_prefix("test "));
            lines.filter_map(|line| Some(line.strip_suffix(word)?.trim_end().to_owned())).collect()
        };
        Self { passed: ended("... ok"), failed: ended("... FAILED"), output }
    }

    /// Whether there is such a test.
    pub(super) fn has(&self, name: &str) -> bool {
        self.passed.iter().chain(&self.failed).any(|test| is_of(test, name))
    }

    /// Whether one of this name failed.
    pub(super) fn failed(&self, name: &str) -> bool {
        self.failed.iter().any(|test| is_of(test, name))
    }

    pub(super) fn tail(&self) -> String {
        tail(&self.output, SHOWN)
    }
}

/// Whether a test's whole name is this name in some module.
fn is_of(test: &str, name: &str) -> bool {
    test == name || test.strip_suffix(name).is_some_and(|module| module.ends_with("::"))
}

impl Verdict {
    /// In one word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Verdict::Caught(_) => "caught",
            Verdict::Survived(_) => "survived",
            Verdict::Broken(_) => "broken",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Caught(tests) => write!(f, "caught by {}", tests.join(", ")),
            Verdict::Survived(tests) => write!(f, "SURVIVED: {} passed", tests.join(", ")),
            Verdict::Broken(why) => write!(f, "BROKEN: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_read_from_what_cargo_prints() {
        let output = "   Compiling x\nrunning 3 tests\ntest a::memory::e1_one ... ok\ntest a::nats::e1_one ... FAILED\n\
                      test b::e1_one_more ... ok\n\nfailures:\n    a::nats::e1_one\n";
        let ran = Ran::read(output.to_owned());
        assert_eq!((ran.passed.len(), ran.failed.len()), (2, 1));
        assert!(ran.failed("e1_one") && ran.has("e1_one_more"));
        assert!(!ran.failed("e1_one_more") && !ran.has("one"), "a name is whole");
    }
}
