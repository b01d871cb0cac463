//! Child processes that cannot outlive their owner.
//!
//! A [`Process`] is killed when it is dropped. That alone is not enough: a test
//! runner that is killed, or a `static` that is never dropped, would leave a
//! server behind. So each child gets a *guardian*, a shell that waits on a pipe
//! only we hold open; when we are gone, however we went, it ends the child and
//! removes its directory.
//!
//! Output goes to a log file or to our own: nobody has to read it for the child to
//! make progress, and a log is still there when the child is not. Only a child that
//! is [talked to](Process::converse) has pipes.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

/// How long a child may take to go after SIGKILL before we call it stuck.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// How often a child is looked at while somebody waits for it.
const POLL: Duration = Duration::from_millis(5);

/// Ends `$1`, a process or the negative of a group, and removes the directory `$2` once its standard input closes.
const GUARDIAN: &str = r#"read -r _; kill -s KILL -- "$1" 2>/dev/null; [ -z "$2" ] || rm -rf -- "$2""#;

/// Which process group a child runs in, that is: who hears Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The owner's: Ctrl-C in the terminal ends the child as well. For tests.
    Shared,
    /// One of its own: Ctrl-C reaches the owner only, which stops its children
    /// in the order it wants. For the demo. Killing such a child kills the
    /// children it has in turn.
    Own,
}

/// What to start, and how.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What the process is called in messages.
    pub name: String,
    /// Program, arguments, environment and working directory.
    pub command: Command,
    /// The file that both its outputs are appended to; `None`: they go where ours go.
    pub log: Option<&'a Path>,
    /// Who hears Ctrl-C.
    pub group: Group,
    /// A directory to remove should the owner vanish without dropping the process.
    pub scratch: Option<&'a Path>,
}

/// A running child, or one that has ended and been waited for.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Group,
    log: Option<PathBuf>,
    guardian: Option<Child>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the child and its guardian.
    pub fn spawn(launch: Launch<'_>) -> Result<Self> {
        Self::start(launch, |command| {
            command.stdin(Stdio::null());
        })
    }

    /// Starts the child and its guardian, and gives the ends of the child's standard input and output. The log, if there
    /// is one, has what it writes to its standard error.
    pub fn converse(launch: Launch<'_>) -> Result<(Self, ChildStdin, ChildStdout)> {
        let mut process = Self::start(launch, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        })?;
        match (process.child.stdin.take(), process.child.stdout.take()) {
            (Some(to), Some(from)) => Ok((process, to, from)),
            _ => bail!("{} was started without pipes", process.name),
        }
    }

    /// `pipes` has the last word on where the child reads from and writes to.
    fn start(launch: Launch<'_>, pipes: impl FnOnce(&mut Command)) -> Result<Self> {
        let Launch { name, mut command, log, group, scratch } = launch;
        if let Some(log) = log {
            let out = File::options().create(true).append(true).open(log);
            let out = out.with_context(|| format!("cannot open the log of {name}, {}", log.display()))?;
            command.stdout(out.try_clone()?).stderr(out);
        }
        pipes(&mut command);
        if group == Group::Own {
            command.process_group(0);
        }
        let child = spawn(&mut command).with_context(|| format!("cannot start {name}: {command:?}"))?;
        let mut process = Self { name, child, group, log: log.map(Path::to_path_buf), guardian: None, status: None };
        process.guardian = Some(guard(process.pid(), group, scratch).context("cannot start the guardian `sh`")?);
        Ok(process)
    }

    /// What the process is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything in its log so far; nothing if it has none.
    pub fn output(&self) -> String {
        let bytes = self.log.as_ref().and_then(|log| fs::read(log).ok());
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines it has written, indented for an error message.
    pub fn output_tail(&self, lines: usize) -> String {
        tail(&self.output(), lines)
    }

    /// How it ended, or `None` while it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                self.dismiss_guardian();
            }
        }
        Ok(self.status)
    }

    /// Waits for it to end by itself; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.status()? {
                Some(status) => return Ok(Some(status)),
                None if Instant::now() >= deadline => return Ok(None),
                None => thread::sleep(POLL),
            }
        }
    }

    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        match self.living()? {
            Some(pid) => self.signalled(kill_process(pid, signal)),
            None => Ok(()),
        }
    }

    /// Sends SIGSTOP and waits until no thread of it runs any more; one that is about to be scheduled stops only then.
    pub fn freeze(&mut self) -> Result<()> {
        let Some(pid) = self.living()? else { return Ok(()) };
        self.signalled(kill_process(pid, Signal::STOP))?;
        // Its end, should it come to that, is left to be waited for elsewhere.
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        Ok(())
    }

    /// Sends SIGTERM and waits. A process that is not gone after `limit` is killed, and that is an error.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if let Some(status) = self.wait(limit)? {
            return Ok(status);
        }
        self.kill()?;
        bail!(
            "{} did not stop within {} s of SIGTERM and was killed; its last output:\n{}",
            self.name,
            limit.as_secs(),
            self.output_tail(20)
        )
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(pid) = self.living()? {
            self.signalled(match self.group {
                Group::Shared => kill_process(pid, Signal::KILL),
                Group::Own => kill_process_group(pid, Signal::KILL),
            })?;
        }
        match self.wait(REAP_LIMIT)? {
            Some(_) => Ok(()),
            None => bail!("{} (process {}) is still there after SIGKILL", self.name, self.pid()),
        }
    }

    /// Its id while it has not been waited for: until then no stranger can have it.
    fn living(&mut self) -> Result<Option<Pid>> {
        if self.status()?.is_some() {
            return Ok(None);
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        pid.map(Some).ok_or_else(|| anyhow!("{} is no process id", self.pid()))
    }

    fn signalled(&self, result: rustix::io::Result<()>) -> Result<()> {
        result.with_context(|| format!("cannot signal {} (process {})", self.name, self.pid()))
    }

    fn dismiss_guardian(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            // Killed before its pipe closes, so it never acts on an id that may be somebody else's by now.
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kill().is_err() {
            let _ = self.child.kill();
        }
        self.dismiss_guardian();
    }
}

/// A command that ran to its end, with what it printed on both outputs.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs a command to its end, or kills it after `limit`. `on_slow` is called once, when it has taken two seconds.
pub(crate) fn run(command: &mut Command, limit: Duration, on_slow: &mut dyn FnMut()) -> io::Result<Finished> {
    const SLOW: Duration = Duration::from_secs(2);
    let mut captured = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(captured.try_clone()?).stderr(captured.try_clone()?);
    let mut child = spawn(command)?;
    let started = Instant::now();
    let mut announced = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(ErrorKind::TimedOut, format!("it ran for more than {} s", limit.as_secs())));
        }
        if !announced && started.elapsed() > SLOW {
            announced = true;
            on_slow();
        }
        thread::sleep(POLL);
    };
    let mut bytes = Vec::new();
    captured.rewind()?;
    captured.read_to_end(&mut bytes)?;
    Ok(Finished { status, output: String::from_utf8_lossy(&bytes).into_owned() })
}

/// The last lines of a text, indented for an error message.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    if all.is_empty() {
        return "    (nothing was printed)".to_owned();
    }
    let kept = &all[all.len().saturating_sub(lines)..];
    kept.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Starts a command, once more if its file is "busy": a program installed a moment ago may still be held open for
/// writing by a child that another thread forked in the middle of it.
fn spawn(command: &mut Command) -> io::Result<Child> {
    const ATTEMPTS: u32 = 50;
    let mut attempt = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempt < ATTEMPTS => {
                attempt += 1;
                thread::sleep(POLL);
            }
            result => return result,
        }
    }
}

fn guard(pid: u32, group: Group, scratch: Option<&Path>) -> io::Result<Child> {
    let target = match group {
        Group::Shared => pid.to_string(),
        Group::Own => format!("-{pid}"),
    };
    Command::new("sh")
        .arg("-c")
        .arg(GUARDIAN)
        .arg("guardian")
        .arg(target)
        .arg(scratch.unwrap_or(Path::new("")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C must not end the guardian before its ward.
        .process_group(0)
        .spawn()
}
