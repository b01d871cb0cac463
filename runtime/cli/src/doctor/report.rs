//! What was found, for people and for programs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A step is named on stderr if it is not over by then.
const SILENT: Duration = Duration::from_secs(2);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What it costs to leave it so.
    costs: Option<String>,
    /// What to do about it.
    mend: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), costs: None, mend: None }
    }

    pub(super) fn warn(
        check: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let (costs, mend) = (Some(costs.into()), Some(mend.into()));
        Self { check, verdict: Verdict::Warn, found: found.into(), costs, mend }
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, found, costs, mend) }
    }

    /// There is no broker to look at. The error says all there is to say.
    pub(super) fn unreachable(error: &str) -> Self {
        Self { check: "server", verdict: Verdict::Fail, found: error.to_owned(), costs: None, mend: None }
    }

    fn json(&self) -> Value {
        json!({
            "check": self.check,
            "verdict": self.verdict.text(),
            "found": self.found,
            "costs": self.costs,
            "mend": self.mend,
        })
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(crate) struct Report {
    app: String,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(app: &str) -> Self {
        Self { app: app.to_owned(), findings: Vec::new() }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn extend(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// Whether nothing failed, and if `strict` nothing warned either.
    pub(crate) fn is_passed(&self, strict: bool) -> bool {
        self.verdict() <= if strict { Verdict::Ok } else { Verdict::Warn }
    }

    /// For people: a line for each finding, and what it costs and how to mend it below.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
        for finding in &self.findings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<4}  {:<width$}  {}", finding.verdict.text(), finding.check, finding.found);
            for (label, lines) in [("costs", &finding.costs), ("mend", &finding.mend)] {
                for (number, line) in lines.iter().flat_map(|lines| lines.lines()).enumerate() {
                    let label = if number == 0 { format!("{label}:") } else { String::new() };
                    let _ = writeln!(text, "{:width$}        {label:<6} {line}", "");
                }
            }
        }
        // One sentence is enough where there was nothing to look at.
        if self.findings.len() > 1 {
            let (failed, warned) = (self.count(Verdict::Fail), self.count(Verdict::Warn));
            let _ = writeln!(text, "{failed} failed, {warned} warned, {} ok", self.count(Verdict::Ok));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "app": self.app,
            "verdict": self.verdict().text(),
            "failed": self.count(Verdict::Fail),
            "warned": self.count(Verdict::Warn),
            "checks": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })
    }
}

/// Says on stderr what takes long. A command that is over within two seconds is silent.
pub(super) struct Progress {
    began: Instant,
    over: std::cell::RefCell<Arc<AtomicBool>>,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), over: std::cell::RefCell::default() }
    }

    /// The next step begins.
    pub(super) fn step(&self, what: &'static str) {
        let over = Arc::new(AtomicBool::new(false));
        self.over.replace(over.clone()).store(true, Ordering::Relaxed);
        let quiet = SILENT.saturating_sub(self.began.elapsed());
        tokio::spawn(async move {
            tokio::time::sleep(quiet).await;
            if !over.load(Ordering::Relaxed) {
                eprintln!("{what} …");
            }
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.over.borrow().store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("shop");
        report.add(Finding::ok("server", "nats-server 2.15.2"));
        report.add(Finding::warn("replicas", "one", "a disk", "edit\nagain"));
        report
    }

    #[test]
    fn a_warning_passes_unless_it_is_strict() {
        let mut report = report();
        assert!(report.is_passed(false) && !report.is_passed(true));
        report.add(Finding::fail("mapping", "32", "calls", "64"));
        assert!(!report.is_passed(false));
        assert!(Report::new("shop").is_passed(true));
    }

    #[test]
    fn both_forms_say_the_same() {
        let text = report().text();
        assert_eq!(
            text,
            "ok    server    nats-server 2.15.2\n\
             warn  replicas  one\n\
             \x20               costs: a disk\n\
             \x20               mend:  edit\n\
             \x20                      again\n\
             0 failed, 1 warned, 1 ok\n"
        );
        let json = report().json();
        assert_eq!((&json["verdict"], &json["failed"], &json["warned"]), (&json!("warn"), &json!(0), &json!(1)));
        assert_eq!(json["checks"][1]["mend"], json!("edit\nagain"));
        assert_eq!(json["checks"][0]["costs"], Value::Null);
    }
}
