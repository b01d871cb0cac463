//! Callers that know nothing of greenroom: `nats req`, a process for each call.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Deserialize;

use crate::process;
use crate::rig::{APP, Call, Operation, Outcome, now_us};

/// How long one call may take, as its user says it.
const TIMEOUT: &str = "5s";
/// When the process itself is given up.
const LIMIT: Duration = Duration::from_secs(15);

/// Callers at work.
pub(super) struct Outsiders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Call>>>,
}

#[derive(Deserialize)]
struct Appended {
    length: u64,
    node: String,
}

impl Outsiders {
    /// One caller for each key.
    pub(super) fn start(nats: &Path, url: &str, keys: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = keys.iter().zip(1..).map(|(key, client)| {
            let (nats, url, key, stop) = (nats.to_owned(), url.to_owned(), key.clone(), stop.clone());
            thread::spawn(move || {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    calls.push(append(&nats, &url, client, &key, calls.len() as u64 + 1));
                }
                calls
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// Lets each finish its call, and gives all of them.
    pub(super) fn end(self) -> Result<Vec<Call>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for thread in self.threads {
            calls.extend(thread.join().map_err(|_| anyhow!("a caller panicked"))?);
        }
        Ok(calls)
    }
}

fn append(nats: &Path, url: &str, client: u32, key: &str, value: u64) -> Call {
    let mut call = Call::begin(client, key, Operation::Append { value });
    let mut command = Command::new(nats);
    command.args(["--server", url, "req", "--raw", "--timeout", TIMEOUT]);
    command.arg(format!("{APP}.cell.{key}.append")).arg(format!("{{\"value\":{value}}}"));
    let finished = process::run(&mut command, LIMIT, &mut || {});
    call.ended_us = now_us();
    match finished {
        Ok(finished) => match serde_json::from_str(finished.output.trim()) {
            Ok(Appended { length, node }) => {
                (call.outcome, call.length, call.node) = (Outcome::Ok, Some(length), Some(node));
            }
            Err(_) => call.error = Some(finished.output),
        },
        Err(error) => call.error = Some(error.to_string()),
    }
    call
}
