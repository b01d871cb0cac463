//! Finds or fetches the two programs the project needs: `nats-server` and the `nats` CLI.
//!
//! For each of them, in this order:
//!
//! 1. the environment variable that names it; if that is set, it must be right;
//! 2. `PATH`, where a version below the floor is passed over;
//! 3. the cache directory, which holds what step 4 put there before;
//! 4. a pinned version, fetched and checked by Go's checksums or by pip's hashes.
//!
//! Nothing here reads the process environment except [`Environment::from_process`],
//! so every path through it can be tested side by side.

mod recipe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::process;
use recipe::{NATS, NATS_SERVER, PORCUPINE, Tool};

/// Names the `nats-server` to use, past every other rule.
pub const NATS_SERVER_VARIABLE: &str = "GREENROOM_NATS_SERVER";
/// Names the `nats` CLI to use, past every other rule.
pub const NATS_CLI_VARIABLE: &str = "GREENROOM_NATS_CLI";
/// Names the judge of histories to use, past every other rule.
pub const PORCUPINE_VARIABLE: &str = "GREENROOM_PORCUPINE";
/// Names the directory in which fetched tools are kept.
pub const TOOLS_DIR_VARIABLE: &str = "GREENROOM_TOOLS_DIR";

/// A program that takes longer than this to print its version is not the one we want.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// The two programs, found and good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The server.
    pub nats_server: PathBuf,
    /// The command-line client.
    pub nats: PathBuf,
}

impl Tools {
    /// The line that makes a shell with this `PATH` run them by their names; `None` if it does already.
    pub fn export(&self, path: &OsStr) -> Option<String> {
        let runs = |name: &str| env::split_paths(path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let mut dirs = Vec::new();
        for (name, program) in [("nats-server", &self.nats_server), ("nats", &self.nats)] {
            let dir = program.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
            if runs(name).as_ref() != Some(program) && !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        (!dirs.is_empty()).then(|| format!("export PATH=\"{}:$PATH\"", dirs.join(":")))
    }
}

/// Finds both tools, fetching what is missing; `progress` is told of anything that takes more than two seconds.
pub fn provision(progress: &mut dyn FnMut(&str)) -> Result<Tools> {
    provision_in(&Environment::from_process()?, progress)
}

/// Finds the judge of histories, or builds it: only `cargo xtask faults` needs it.
pub fn porcupine(progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    find(&PORCUPINE, &Environment::from_process()?, progress)
}

/// As [`provision`], in an environment that the caller describes.
pub fn provision_in(environment: &Environment, progress: &mut dyn FnMut(&str)) -> Result<Tools> {
    let nats_server = find(&NATS_SERVER, environment, progress);
    let nats = find(&NATS, environment, progress);
    match (nats_server, nats) {
        (Ok(nats_server), Ok(nats)) => Ok(Tools { nats_server, nats }),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(server), Err(cli)) => Err(anyhow!("{server:#}\n\n{cli:#}")),
    }
}

/// What the look-up may see: variables, search path, cache.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The variables named by the constants of this module; others are not looked at.
    pub variables: BTreeMap<String, OsString>,
    /// The directories of `PATH`, in order; `go` and `python3` are looked for here too.
    pub path: Vec<PathBuf>,
    /// Where fetched tools are kept.
    pub cache: PathBuf,
}

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let cache = if let Some(dir) = set(TOOLS_DIR_VARIABLE) {
            std::path::absolute(dir)?
        } else if let Some(dir) = set("XDG_CACHE_HOME") {
            PathBuf::from(dir).join("greenroom/tools")
        } else if let Some(home) = set("HOME") {
            PathBuf::from(home).join(".cache/greenroom/tools")
        } else {
            bail!("no directory for fetched tools: set {TOOLS_DIR_VARIABLE}, XDG_CACHE_HOME or HOME");
        };
        let variables = [NATS_SERVER_VARIABLE, NATS_CLI_VARIABLE, PORCUPINE_VARIABLE]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), set(name)?)))
            .collect();
        let path = set("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        Ok(Self { variables, path, cache })
    }

    /// Every file of that name on the search path, first the one that a shell would run.
    fn on_path<'a>(&'a self, program: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        // An empty or relative entry means "wherever I happen to stand": not something to run programs from.
        let absolute = self.path.iter().filter(|dir| dir.is_absolute());
        absolute.map(move |dir| dir.join(program)).filter(|file| file.is_file())
    }

    fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command.env("PATH", env::join_paths(&self.path).context("PATH cannot be put together again")?);
        Ok(command)
    }
}

/// A release number: three numbers, compared in order. What follows them (`-beta.1`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

impl Version {
    /// Asks a program for its version by `--version`.
    pub fn of(program: &Path) -> Result<Self> {
        let finished = process::run(Command::new(program).arg("--version"), VERSION_LIMIT, &mut || {})
            .with_context(|| format!("{} cannot be run", program.display()))?;
        let said = finished.output.trim();
        ensure!(finished.status.success(), "{} --version failed ({}): {said}", program.display(), finished.status);
        said.split_whitespace().find_map(|word| word.parse().ok()).ok_or_else(|| {
            anyhow!("{} --version names no version: {:?}", program.display(), said.lines().next().unwrap_or_default())
        })
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u64>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self(major, minor, patch)),
            _ => bail!("{text:?} is not a version of the form 1.2.3"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

fn find(tool: &Tool, environment: &Environment, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    if let Some(named) = environment.variables.get(tool.variable) {
        // Someone who names a program means that one: anything else in its place would be a surprise.
        let program = std::path::absolute(named)?;
        check(&program, tool)
            .with_context(|| format!("{} is set, but not to a usable {}", tool.variable, tool.name))?;
        return Ok(program);
    }
    let mut tried = vec![format!("{} is not set", tool.variable)];

    match first_good(environment.on_path(tool.name), tool, &mut tried) {
        Some(program) => return Ok(program),
        None if tried.len() == 1 => tried.push(format!("no {} on PATH", tool.name)),
        None => {}
    }

    let installed = tool.recipes.iter().map(|recipe| recipe.installed_path(tool, &environment.cache));
    match first_good(installed.filter(|file| file.is_file()), tool, &mut tried) {
        Some(program) => return Ok(program),
        None => tried.push(format!("nothing usable in the cache {}", environment.cache.display())),
    }

    for (index, recipe) in tool.recipes.iter().enumerate() {
        match recipe.install(tool, environment, progress) {
            Ok(program) => return Ok(program),
            Err(error) => {
                let reason = format!("{recipe}: {error:#}");
                if let Some(next) = tool.recipes.get(index + 1) {
                    progress(&format!("{} by {reason}; trying {next}", tool.name));
                }
                tried.push(reason);
            }
        }
    }
    Err(anyhow!(nothing_works(tool, &tried)))
}

/// The first program of a good version; what is wrong with those before it goes to `tried`.
fn first_good(programs: impl Iterator<Item = PathBuf>, tool: &Tool, tried: &mut Vec<String>) -> Option<PathBuf> {
    for program in programs {
        match check(&program, tool) {
            Ok(_) => return Some(program),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    None
}

fn check(program: &Path, tool: &Tool) -> Result<Version> {
    ensure!(program.is_file(), "{} is not a file", program.display());
    let version = Version::of(program)?;
    ensure!(version >= tool.floor, "{} is version {version}, and {} is needed", program.display(), tool.floor);
    Ok(version)
}

fn nothing_works(tool: &Tool, tried: &[String]) -> String {
    let Tool { name, variable, floor, .. } = tool;
    let tried = tried.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n");
    format!(
        "no usable {name} ({floor} or newer), and none could be fetched. Tried:\n{tried}\n\
         Any one of these mends it:\n  \
         1. set {variable} to the path of a {name}\n  \
         2. put a {name} on PATH\n  \
         3. install {}, so that it can be fetched",
        tool.fetchers
    )
}
