//! Processes that end as they should, and processes that do not.

use std::io::{BufRead, BufReader, Write};

use super::*;

fn sleeper(dir: &Path, script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let log = dir.join("log");
    Process::spawn(Launch { name: "sleeper".into(), command, log: Some(&log), group: Group::Shared, scratch: None })
        .expect("sh starts")
}

fn is_alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not zero");
    rustix::process::test_kill_process(pid).is_ok()
}

#[test]
fn a_dropped_process_is_gone_with_its_guardian() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let process = sleeper(dir.path(), "exec sleep 60");
    let (pid, guardian) = (process.pid(), process.guardian.as_ref().expect("a guardian").id());
    assert!(is_alive(pid) && is_alive(guardian));
    drop(process);
    assert!(!is_alive(pid), "the child outlived its owner");
    assert!(!is_alive(guardian), "the guardian outlived its ward");
}

#[test]
fn a_child_can_be_talked_to() {
    let mut command = Command::new("sh");
    command.args(["-c", "while read -r line; do echo \"heard $line\"; done"]);
    let launch = Launch { name: "parrot".into(), command, log: None, group: Group::Shared, scratch: None };
    let (mut parrot, mut to, from) = Process::converse(launch).expect("sh starts");
    let mut from = BufReader::new(from).lines();
    for word in ["one", "two"] {
        writeln!(to, "{word}").expect("it reads");
        assert_eq!(from.next().expect("a line").expect("it is read"), format!("heard {word}"));
    }
    drop(to);
    assert!(parrot.wait(REAP_LIMIT).expect("it can be waited for").is_some_and(|status| status.success()));
}

#[test]
fn the_guardian_acts_when_the_owner_vanishes() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).expect("a directory");
    let mut child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
    let mut guardian = guard(child.id(), Group::Shared, Some(&scratch)).expect("sh starts");
    drop(guardian.stdin.take());
    assert!(!child.wait().expect("it ends").success());
    guardian.wait().expect("it ends");
    assert!(!scratch.exists(), "the directory was left behind");
}

#[test]
fn the_children_of_a_child_with_a_group_of_its_own_end_with_it() {
    let dir = tempfile::tempdir().expect("a temp dir");
    for owner_vanishes in [false, true] {
        let log = dir.path().join(format!("log-{owner_vanishes}"));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let launch = Launch { name: "parent".into(), command, log: Some(&log), group: Group::Own, scratch: None };
        let mut process = Process::spawn(launch).expect("sh starts");
        let grandchild = loop {
            match process.output().trim().parse() {
                Ok(pid) => break pid,
                Err(_) => thread::sleep(POLL),
            }
        };
        if owner_vanishes {
            let mut guardian = process.guardian.take().expect("a guardian");
            drop(guardian.stdin.take());
            guardian.wait().expect("it ends");
        } else {
            process.kill().expect("it dies");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(grandchild) {
            assert!(Instant::now() < deadline, "the grandchild lives on; owner vanishes: {owner_vanishes}");
            thread::sleep(POLL);
        }
    }
}

#[test]
fn terminate_kills_the_stubborn_and_says_so() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut process = sleeper(dir.path(), "trap '' TERM; echo armed; while :; do sleep 0.05; done");
    while !process.output().contains("armed") {
        thread::sleep(POLL);
    }
    let error = process.terminate(Duration::from_millis(200)).expect_err("it ignores SIGTERM").to_string();
    assert!(error.contains("did not stop") && error.contains("armed"), "{error}");
    assert!(process.status().expect("readable").is_some());
}

#[test]
fn run_captures_output_and_is_bounded() {
    let mut command = Command::new("sh");
    let finished = run(command.args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10), &mut || {});
    let finished = finished.expect("it runs");
    assert_eq!((finished.status.code(), finished.output.as_str()), (Some(3), "out\nerr\n"));
    let late = run(Command::new("sleep").arg("60"), Duration::from_millis(50), &mut || {});
    assert_eq!(late.expect_err("it is cut off").kind(), ErrorKind::TimedOut);
}
