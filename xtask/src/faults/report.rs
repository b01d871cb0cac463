//! What the runs of each fault add up to.

use std::fmt;

use serde::{Serialize, Serializer};

use super::checker::Judged;
use super::nemesis::Fault;
use crate::rig::Verdict;

/// So many of a hundred calls must have been answered for a run to count.
const ANSWERED_PERCENT: u64 = 60;

/// What came of one run.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) fault: Fault,
    pub(super) number: u32,
    pub(super) calls: u64,
    /// With a reply or a refusal.
    pub(super) answered: u64,
    /// Of unknown fate.
    pub(super) open: u64,
    /// Certainly not run.
    pub(super) failed: u64,
    /// Took over a tenth of a second.
    pub(super) slow: u64,
    /// Cells to which more than one node wrote.
    pub(super) moved: u64,
    pub(super) verdict: Verdict,
    pub(super) judged: Judged,
}

impl Observed {
    /// Whether the fault had an effect that can be measured.
    pub(super) fn is_felt(&self) -> bool {
        match self.fault {
            Fault::Broker => self.open + self.failed + self.slow > 0,
            Fault::Kill9 | Fault::Pause | Fault::Cut | Fault::Unplugged | Fault::Rolling => self.moved > 0,
        }
    }

    /// Whether it says something.
    pub(super) fn counts(&self) -> bool {
        self.answered * 100 >= self.calls * ANSWERED_PERCENT && self.is_felt()
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, answered, open, failed, moved, judged, verdict, .. } = self;
        let linearizable = match (judged.ok, judged.says("illegal")) {
            (true, _) => "linearizable",
            (false, true) => "NOT LINEARIZABLE",
            (false, false) => "undecided",
        };
        write!(f, "{calls} calls, {answered} answered, {open} open, {failed} not run, {moved} cells moved; ")?;
        write!(f, "{linearizable}; lost {}, twice {}, wrong {}", verdict.lost, verdict.duplicated, verdict.wrong)?;
        if self.counts() { Ok(()) } else { write!(f, "; does not count") }
    }
}

/// All runs with one kind of fault.
#[derive(Debug)]
pub struct Tally {
    /// What struck.
    pub fault: Fault,
    /// Runs that count: most calls were answered, and the fault was felt.
    pub runs: u32,
    /// Runs that do not.
    pub discounted: u32,
    /// All calls.
    pub calls: u64,
    /// Those with a reply or a refusal.
    pub answered: u64,
    /// Those of unknown fate.
    pub open: u64,
    /// Runs in which a cell was not linearizable.
    pub illegal: u32,
    /// Runs in which that could not be decided in time.
    pub undecided: u32,
    /// What the journals say.
    pub verdict: Verdict,
}

#[derive(Serialize)]
struct Figures {
    fault: &'static str,
    runs: u32,
    discounted: u32,
    calls: u64,
    answered: u64,
    open: u64,
    not_linearizable: u32,
    undecided: u32,
    lost: u64,
    duplicated: u64,
    wrong: u64,
}

impl Tally {
    pub(super) fn new(fault: Fault) -> Self {
        let verdict = Verdict::default();
        Self { fault, runs: 0, discounted: 0, calls: 0, answered: 0, open: 0, illegal: 0, undecided: 0, verdict }
    }

    /// Adds a run, and gives what there is to complain of in it.
    pub(super) fn add(&mut self, run: &Observed) -> Vec<String> {
        if run.counts() {
            self.runs += 1;
        } else {
            self.discounted += 1;
        }
        self.calls += run.calls;
        self.answered += run.answered;
        self.open += run.open;
        let mut bad = run.verdict.complaints.clone();
        let illegal = run.judged.says("illegal");
        self.illegal += u32::from(illegal);
        self.undecided += u32::from(!illegal && run.judged.says("unknown"));
        bad.extend(run.judged.keys.iter().filter(|(_, is)| *is != "ok").map(|(key, is)| format!("{key} is {is}")));
        bad.extend(run.judged.pictures.iter().filter_map(|path| Some(format!("see {}", path.file_name()?.display()))));
        self.verdict.add(run.verdict.clone());
        bad
    }

    /// What is not as it should be, in words.
    pub fn misses(&self) -> Vec<String> {
        let name = self.fault.name();
        let counts = [
            (u64::from(self.illegal), "runs are not linearizable"),
            (u64::from(self.undecided), "runs could not be judged in time"),
            (self.verdict.lost, "acknowledged commands are lost"),
            (self.verdict.duplicated, "commands took effect twice"),
            (self.verdict.wrong, "times something else was wrong"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut misses: Vec<_> = counts.map(|(count, what)| format!("{name}: {count} {what}")).collect();
        if self.runs == 0 && self.discounted > 0 {
            misses.push(format!("{name}: no run counts"));
        }
        misses
    }

    fn figures(&self) -> Figures {
        Figures {
            fault: self.fault.name(),
            runs: self.runs,
            discounted: self.discounted,
            calls: self.calls,
            answered: self.answered,
            open: self.open,
            not_linearizable: self.illegal,
            undecided: self.undecided,
            lost: self.verdict.lost,
            duplicated: self.verdict.duplicated,
            wrong: self.verdict.wrong,
        }
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.figures().serialize(serializer)
    }
}

/// The tallies as Markdown.
pub(super) fn table(tallies: &[Tally]) -> String {
    let mut text = String::from(
        "\n| fault | runs | discounted | calls | answered | open | not linearizable | undecided | lost | twice | wrong |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for tally in tallies.iter().map(Tally::figures) {
        let Figures { fault, runs, discounted, calls, answered, open, .. } = tally;
        text.push_str(&format!("| {fault} | {runs} | {discounted} | {calls} | {answered} | {open} | "));
        let Figures { not_linearizable, undecided, lost, duplicated, wrong, .. } = tally;
        text.push_str(&format!("{not_linearizable} | {undecided} | {lost} | {duplicated} | {wrong} |\n"));
    }
    text
}
