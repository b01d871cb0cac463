//! The broker's mapping of calls to partitions, tried with messages to oneself as a node does at its start.

use greenroom::ErrorKind;
use greenroom::node::{Mapping, mapping, mapping_line};
use greenroom::subject::Name;

use super::Patient;
use super::app::App;
use super::report::Finding;

/// The partitions of an app that is born without saying how many.
const PARTITIONS: u16 = 64;

pub(super) async fn check(patient: &Patient, app: &App, wanted: &[Name]) -> Vec<Finding> {
    let partitions = app.partitions.unwrap_or(PARTITIONS);
    let mut actors = app.actors.clone();
    actors.extend(wanted.iter().map(|name| name.as_str().to_owned()));
    if actors.is_empty() {
        return vec![Finding::ok("mapping", "no actor type is known here yet; --actor NAME looks at one")];
    }
    let (mut mapped, mut absent, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for actor in &actors {
        let line = mapping_line(&patient.subjects, partitions, actor);
        match mapping(&patient.transport, &patient.subjects, &patient.id, partitions, actor).await {
            Ok(Mapping::Present) => mapped.push(actor.as_str()),
            Ok(Mapping::Absent) => absent.push((actor.as_str(), line)),
            Err(error) if error.kind() == ErrorKind::Config => {
                // The line has a place of its own here.
                let why = error.message().split(" Write: ").next().unwrap_or_default();
                findings.push(Finding::fail(
                    "mapping",
                    why,
                    format!("nodes that host {actor} do not start; of those that run, calls reach the wrong one"),
                    format!("in the mappings of the app's account, write: {line}"),
                ));
            }
            Err(error) => findings.push(Finding::fail(
                "mapping",
                format!("that of {actor} cannot be tried: {}", error.message()),
                "nodes that host it do not start",
                format!(
                    "let the nodes' user publish and subscribe there, and if there is a mapping, write it so: {line}"
                ),
            )),
        }
    }
    if !mapped.is_empty() {
        let found = format!("calls of {} go to {partitions} partitions, without a hop", mapped.join(", "));
        findings.insert(0, Finding::ok("mapping", found));
    }
    if !absent.is_empty() {
        let (names, lines): (Vec<_>, Vec<_>) = absent.into_iter().unzip();
        findings.push(Finding::warn(
            "mapping",
            format!("there is none for {}", names.join(", ")),
            "it works: each call from outside takes one hop more, through a node that passes it on",
            format!("in the mappings of the app's account, write:\n{}", lines.join("\n")),
        ));
    }
    findings
}
