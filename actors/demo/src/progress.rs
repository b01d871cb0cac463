//! The line that shows how far it is.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the line is drawn on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// How often a line is written where nothing can be redrawn.
const WRITE: Duration = Duration::from_secs(2);

/// Counts steps, and says so now and then on stderr.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    began: Instant,
    is_terminal: bool,
    /// Where the count is written, for whoever watches.
    file: Option<PathBuf>,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    done: usize,
    last: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: usize, file: Option<&Path>) -> Self {
        let began = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            what,
            total,
            began,
            is_terminal,
            file: file.map(Path::to_path_buf),
            drawn: Mutex::new(Drawn { done: 0, last: began }),
        }
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        let Ok(mut drawn) = self.drawn.lock() else { return };
        drawn.done += 1;
        if let Some(file) = &self.file {
            // As for the line below.
            let _ = std::fs::write(file, format!("{} of {}\n", drawn.done, self.total));
        }
        let every = if self.is_terminal { REDRAW } else { WRITE };
        if drawn.last.elapsed() >= every {
            drawn.last = Instant::now();
            self.draw(drawn.done, if self.is_terminal { "\r" } else { "\n" });
        }
    }

    /// All are done.
    pub(crate) fn finish(&self) {
        let done = self.drawn.lock().map_or(self.total, |drawn| drawn.done);
        self.draw(done, "\n");
    }

    fn draw(&self, done: usize, end: &str) {
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let Self { what, total, .. } = self;
        // Progress is for whoever looks; that nobody does is no failure.
        let _ = write!(std::io::stderr(), "{what} {done} of {total} orders, {rate:.0} a second   {end}");
    }
}
