//! The repository's own programs, built before a test runs them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Built = Result<PathBuf, String>;

/// `shop-node`, `shop-demo` or `xtask`, built if that is needed, all of them once for all tests.
pub(crate) async fn program(name: &'static str) -> PathBuf {
    static PROGRAMS: OnceLock<Built> = OnceLock::new();
    built(&PROGRAMS, &["--workspace", "--bins"]).await.join(name)
}

/// An example, built likewise.
pub(crate) async fn example(name: &str) -> PathBuf {
    static EXAMPLES: OnceLock<Built> = OnceLock::new();
    built(&EXAMPLES, &["--workspace", "--examples"]).await.join("examples").join(name)
}

/// The target directory that holds them. `what` is of the whole workspace: a choice of packages is a choice of
/// features, and would build everything once more.
async fn built(cell: &'static OnceLock<Built>, what: &'static [&'static str]) -> &'static Path {
    let target = tokio::task::spawn_blocking(|| cell.get_or_init(|| build(what))).await.expect("no panic");
    match target {
        Ok(target) => target,
        Err(why) => panic!("{why}"),
    }
}

/// Cargo decides whether anything has to be done, so no program is ever older than its source.
fn build(what: &[&str]) -> Built {
    // target/{profile}/deps/integration-…
    let here = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let target = here.ancestors().nth(2).ok_or("this program does not lie in a target directory")?;
    let mut cargo = xtask::cargo();
    cargo.args(["build", "--quiet"]).args(what);
    if target.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().map_err(|error| format!("cargo cannot be run: {error}"))?;
    if status.success() {
        return Ok(target.to_owned());
    }
    Err(format!("cargo has not built {what:?} in {} ({status})", target.display()))
}
