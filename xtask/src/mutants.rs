//! `cargo xtask mutants`: seeded bugs that named tests must catch.
//!
//! Each mutant is a small patch in `mutants/`: a bug that a programmer could write, against one of the rules that the
//! promises rest on. It is applied to a copy of the tree, never to the tree itself, and the tests that its head names
//! are run there. They must fail. A mutant that survives says that a test proves nothing; a patch that no longer
//! applies says the same of its rule, since nobody tries to break it any more. Both are errors.

mod seed;
mod tree;
mod trial;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

pub use self::seed::{Seed, Target};
use self::tree::Tree;
use self::trial::{Trial, Verdict};
use crate::tools;

/// How long one mutant may take to be built and tried.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What is to be done with the mutants.
#[derive(Debug, Default)]
pub struct MutantsOptions {
    /// Only those whose name has one of these in it; all if there are none.
    pub only: Vec<String>,
    /// Say which there are, and run none.
    pub list: bool,
    /// Only try whether every patch applies.
    pub check: bool,
    /// Do not run the tests without a mutant first. They must pass there, or their failing says nothing.
    pub no_baseline: bool,
    /// Write what came of each to this file.
    pub json: Option<PathBuf>,
}

/// What came of one mutant.
struct Tried<'a> {
    seed: &'a Seed,
    verdict: Verdict,
    took: Duration,
}

/// Tries the mutants one after the other and prints what came of each.
///
/// # Errors
/// If one survives, does not apply or does not build, and if a test fails without a mutant.
pub fn run(options: &MutantsOptions, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let seeds = seed::read_all(&crate::workspace_root().join("mutants"))?;
    let chosen: Vec<&Seed> = seeds.iter().filter(|seed| is_chosen(&options.only, &seed.name)).collect();
    ensure!(!chosen.is_empty(), "no mutant has {} in its name; --list names them", options.only.join(" or "));
    if options.list {
        chosen.iter().for_each(|seed| println!("{seed}\n"));
        return Ok(());
    }
    let tree = Tree::copy(&crate::workspace_root())?;
    for seed in &chosen {
        tree.check(seed)?;
    }
    if options.check {
        println!("{} patches apply", chosen.len());
        return Ok(());
    }
    let tools = tools::provision(progress)?;
    let trial = Trial::new(&tree, &tools, LIMIT)?;
    if !options.no_baseline {
        progress("without a mutant: every named test must pass");
        baseline(&trial, &chosen)?;
    }
    let mut tried = Vec::new();
    for (index, seed) in chosen.iter().copied().enumerate() {
        progress(&format!("{} of {}: {} ({})", index + 1, chosen.len(), seed.name, seed.broken));
        let began = Instant::now();
        let verdict = tree.with(seed, || trial.of(seed))?;
        progress(&format!("  {verdict} after {} s", began.elapsed().as_secs()));
        tried.push(Tried { seed, verdict, took: began.elapsed() });
    }
    if let Some(path) = &options.json {
        std::fs::write(path, report(&tried)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    conclude(&tried)
}

fn is_chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
}

fn baseline(trial: &Trial<'_>, seeds: &[&Seed]) -> Result<()> {
    let targets: BTreeSet<&Target> =
        seeds.iter().flat_map(|seed| seed.tests.iter().map(|(target, _)| target)).collect();
    for target in targets {
        let tests = seeds.iter().flat_map(|seed| &seed.tests).filter(|(other, _)| other == target);
        let names: BTreeSet<&str> = tests.map(|(_, name)| name.as_str()).collect();
        let ran = trial.run(target, &names)?;
        for name in names {
            ensure!(ran.has(name), "{target} has no test {name}");
            ensure!(!ran.failed(name), "{name} fails without a mutant:\n{}", ran.tail());
        }
    }
    Ok(())
}

fn conclude(tried: &[Tried<'_>]) -> Result<()> {
    let width = tried.iter().map(|one| one.seed.name.len()).max().unwrap_or_default();
    for Tried { seed, verdict, took } in tried {
        println!("{:<width$}  {verdict}  ({} s)", seed.name, took.as_secs());
    }
    let bad: Vec<&str> = tried
        .iter()
        .filter(|one| !matches!(one.verdict, Verdict::Caught(_)))
        .map(|one| one.seed.name.as_str())
        .collect();
    if !bad.is_empty() {
        bail!("these mutants were not caught: {}", bad.join(", "));
    }
    println!("{} mutants, every one caught", tried.len());
    Ok(())
}

fn report(tried: &[Tried<'_>]) -> String {
    let mutants: Vec<_> = tried
        .iter()
        .map(|Tried { seed, verdict, took }| {
            let tests: Vec<&str> = seed.tests.iter().map(|(_, name)| name.as_str()).collect();
            json!({
                "name": seed.name, "broken": seed.broken, "rule": seed.rule, "tests": tests,
                "outcome": verdict.word(), "seen": verdict.to_string(), "seconds": took.as_secs(),
            })
        })
        .collect();
    format!("{:#}\n", json!({ "mutants": mutants }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that names a test which is not there would only show when the mutant is run.
    #[test]
    fn every_mutant_says_what_it_breaks_and_names_tests_that_exist() {
        let root = crate::workspace_root();
        let seeds = seed::read_all(&root.join("mutants")).expect("every head can be read");
        let sources: String = tree::files(&root)
            .expect("the files of the tree")
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
            .filter_map(|path| std::fs::read_to_string(root.join(path)).ok())
            .collect();
        let documented = std::fs::read_to_string(root.join("docs/testing.md")).expect("the chapter on testing");
        for seed in &seeds {
            for (_, name) in &seed.tests {
                assert!(sources.contains(&format!("fn {name}(")), "{}: there is no test {name}", seed.name);
                assert!(documented.contains(name.as_str()), "{}: docs/testing.md does not name {name}", seed.name);
            }
            assert!(documented.contains(&seed.name), "docs/testing.md does not name the mutant {}", seed.name);
        }
        assert!(seeds.len() >= 38, "there are {} of them", seeds.len());
    }

    #[test]
    fn mutants_are_chosen_by_parts_of_their_names() {
        let only = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert!(is_chosen(&[], "01-fencing-off"));
        assert!(is_chosen(&only(&["fencing", "drain"]), "01-fencing-off"));
        assert!(!is_chosen(&only(&["drain"]), "01-fencing-off"));
    }
}
