//! Seeds: the files in `mutants/`, and what their heads say.
//!
//! A head is the lines before the diff: `Broken:`, `Rule:`, and for each test target a line `Caught by:` with its
//! package, the target, and the names of the tests.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A seeded bug.
#[derive(Debug)]
pub struct Seed {
    /// The name of its file without the ending: a number and a word or two.
    pub name: String,
    /// What the patch breaks.
    pub broken: String,
    /// The rule against which it is.
    pub rule: String,
    /// The tests each of which must fail.
    pub tests: Vec<(Target, String)>,
    /// Its file.
    pub file: PathBuf,
}

/// A program of tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The package that it belongs to.
    pub package: String,
    /// `lib`, `bin` for the tests of a program's own source, or the name of a test target.
    pub name: String,
}

/// Every seed, by number.
pub(super) fn read_all(dir: &Path) -> Result<Vec<Seed>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "patch"));
    files.sort();
    files.iter().map(|file| read(file).with_context(|| format!("the head of {}", file.display()))).collect()
}

fn read(file: &Path) -> Result<Seed> {
    let text = fs::read_to_string(file)?;
    let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("--- ")).collect();
    let said = |word: &str| -> Vec<&str> {
        head.iter().filter_map(|line| Some(line.strip_prefix(word)?.strip_prefix(':')?.trim())).collect()
    };
    let one = |word: &str| -> Result<String> {
        let found = said(word);
        ensure!(found.len() == 1 && !found[0].is_empty(), "it needs one line `{word}: …`");
        Ok(found[0].to_owned())
    };
    let mut tests = Vec::new();
    for line in said("Caught by") {
        tests.extend(caught_by(line)?);
    }
    ensure!(!tests.is_empty(), "it needs a line `Caught by: package target test, test`");
    ensure!(text.contains("\n--- "), "there is no diff below it");
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Seed { name, broken: one("Broken")?, rule: one("Rule")?, tests, file: file.to_path_buf() })
}

fn caught_by(line: &str) -> Result<Vec<(Target, String)>> {
    let mut words = line.splitn(3, ' ');
    let (Some(package), Some(name), Some(tests)) = (words.next(), words.next(), words.next()) else {
        anyhow::bail!("`Caught by: {line}` does not say package, target and tests");
    };
    let target = Target { package: package.to_owned(), name: name.to_owned() };
    Ok(tests.split(',').map(|test| (target.clone(), test.trim().to_owned())).collect())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.name)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  broken: {}\n  rule: {}", self.name, self.broken, self.rule)?;
        for (target, name) in &self.tests {
            write!(f, "\n  caught by: {name} ({target})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<Seed> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join(name);
        fs::write(&file, text)?;
        read(&file)
    }

    #[test]
    fn a_head_says_what_why_and_who_sees_it() {
        let head = "Broken: it\nRule: never\nCaught by: a lib one, two\nCaught by: b all three\n";
        let seed = read_text("01-x.patch", &format!("{head}\n--- a/f\n+++ b/f\n")).expect("a seed");
        let tests: Vec<String> = seed.tests.iter().map(|(target, name)| format!("{target} {name}")).collect();
        assert_eq!(tests, ["a lib one", "a lib two", "b all three"]);
        assert_eq!((seed.name.as_str(), seed.broken.as_str(), seed.rule.as_str()), ("01-x", "it", "never"));
    }

    #[test]
    fn a_head_that_leaves_something_out_is_refused() {
        for (text, told) in [
            ("Rule: never\nCaught by: a lib one\n\n--- a/f\n", "Broken"),
            ("Broken: it\nRule: never\n\n--- a/f\n", "Caught by"),
            ("Broken: it\nRule: never\nCaught by: a lib\n\n--- a/f\n", "package, target and tests"),
            ("Broken: it\nRule: never\nCaught by: a lib one\n", "no diff"),
        ] {
            let error = read_text("01-x.patch", text).expect_err("it is not whole");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
