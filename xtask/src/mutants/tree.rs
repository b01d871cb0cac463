//! The copy of the tree that mutants are applied to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::seed::Seed;

/// Always the same directory, below the target directory: cargo knows by its path what it has built of it before.
pub(super) struct Tree {
    root: PathBuf,
    dir: PathBuf,
    /// Held while it is used: two runs at once would try each other's mutants.
    _lock: File,
}

impl Tree {
    /// Makes the copy agree with the tree, changes that are not committed included.
    pub(super) fn copy(root: &Path) -> Result<Self> {
        let base = root.join("target/mutants");
        let dir = base.join("tree");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = File::create(base.join("lock"))?;
        lock.try_lock().context("mutants are being tried in this tree already")?;
        let tree = Self { root: root.to_path_buf(), dir, _lock: lock };
        let wanted = files(root)?;
        for gone in walk(&tree.dir)?.difference(&wanted) {
            fs::remove_file(tree.dir.join(gone))?;
        }
        for file in &wanted {
            tree.restore(file)?;
        }
        Ok(tree)
    }

    /// Where the copy is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is built.
    pub(super) fn target(&self) -> PathBuf {
        self.root.join("target/mutants/build")
    }

    /// Whether the patch applies.
    pub(super) fn check(&self, seed: &Seed) -> Result<()> {
        self.apply(seed, &["--check"])
    }

    /// Does something with the copy while the patch is applied to it.
    pub(super) fn with<T>(&self, seed: &Seed, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.apply(seed, &[])?;
        let done = act();
        let text = fs::read_to_string(&seed.file)?;
        for file in text.lines().filter_map(|line| line.strip_prefix("+++ b/")) {
            self.restore(Path::new(file.trim_end()))?;
        }
        done
    }

    /// Copies a file unless the copy is the same: what is not written need not be built.
    fn restore(&self, file: &Path) -> Result<()> {
        let (from, to) = (self.root.join(file), self.dir.join(file));
        let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        // Not only the bytes: some files are programs.
        fs::write(&to, bytes)?;
        fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
        Ok(())
    }

    fn apply(&self, seed: &Seed, options: &[&str]) -> Result<()> {
        let mut command = Command::new("git");
        command.args(["apply", "--whitespace=nowarn"]).args(options).arg(&seed.file).current_dir(&self.dir);
        // The copy lies in another repository, by which git would go otherwise.
        command.env("GIT_CEILING_DIRECTORIES", self.dir.parent().unwrap_or(&self.dir));
        let said = command.output().context("git cannot be run")?;
        let why = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "{} does not apply any more:\n{}", seed.name, why.trim_end());
        Ok(())
    }
}

/// Every file of the tree, by its path from there: those that git knows, and new ones that it does not ignore.
pub(super) fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let said = command.output().context("git cannot be run")?;
    ensure!(said.status.success(), "git does not list the files: {}", String::from_utf8_lossy(&said.stderr).trim_end());
    let names = String::from_utf8(said.stdout).context("a file has no name in UTF-8")?;
    Ok(names.split_terminator('\0').map(PathBuf::from).filter(|file| root.join(file).is_file()).collect())
}

/// Every file of the copy. Builds go elsewhere.
fn walk(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut dirs) = (BTreeSet::new(), vec![dir.to_path_buf()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(dir)?.to_path_buf());
            }
        }
    }
    Ok(found)
}
