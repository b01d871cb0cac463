//! Chases: whether a call that has lasted long waits for the turn that made it, over any number of actors and nodes.
//!
//! A probe goes along the waits: to the owner of the called actor, where the call must stand in the queue; from the
//! turn that runs there to what that turn waits for; and so on. One that comes back to the turn it began with has gone
//! round in a circle, in which nothing moves. Every step is looked at where it is true, and a probe that finds that a
//! wait has ended goes no further, so what only takes long is left alone.
//!
//! Of the turns of a circle the youngest is to give way: a probe does not pass a turn younger than the one that sent
//! it. The call of that turn is taken out of the queue in which it stands, and fails there: it is never run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cluster::Located;
use super::surroundings::Surroundings;
use crate::call::{Hop, TurnId};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::transport::Outbound;
use crate::waits::{Age, Wait};

/// Actors on the way of a probe, at most.
const HOPS_MAX: usize = 32;
/// Ways on which a probe goes on from one actor, and nodes that are asked for a service, at most.
const FORKS_MAX: usize = 16;

/// A probe, as JSON on `{app}.node.{id}.probe`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Probe {
    /// The turn that waits, and when its id was made.
    turn: TurnId,
    born: u64,
    /// The call that it waits for.
    first: Asked,
    /// The call along which the probe goes.
    next: Asked,
    /// Other calls that must come back to the turn too: an instance of a service may serve what waits for any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Asked>,
    /// Whose turns wait, beginning with the turn's own actor.
    path: Vec<Hop>,
    /// Whether it has come back: the first call is to fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    found: bool,
}

/// A call, by its id, and whom it is for; a service has no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    actor: String,
    key: String,
    call: TurnId,
}

impl Asked {
    fn of(wait: &Wait) -> Self {
        Self { actor: wait.to.actor.clone(), key: wait.to.key.clone(), call: wait.call }
    }

    fn hop(&self) -> Hop {
        Hop { actor: self.actor.clone(), key: self.key.clone() }
    }
}

/// Sends a probe along what a turn waits for.
pub(crate) fn begin(around: &Arc<Surroundings>, wait: &Wait) {
    let first = Asked::of(wait);
    let Age { born, turn } = wait.age;
    let (next, path) = (first.clone(), vec![wait.by.clone()]);
    send(around, Probe { turn, born, first, next, also: Vec::new(), path, found: false });
}

/// Takes a probe of another node.
pub(super) fn heard(around: &Arc<Surroundings>, body: &[u8]) {
    match serde_json::from_slice::<Probe>(body) {
        Ok(probe) if probe.path.len() <= HOPS_MAX && probe.also.len() <= FORKS_MAX => arrived(around, probe),
        Ok(_) => tracing::debug!("a probe has come a long way; it is dropped"),
        Err(error) => tracing::warn!(%error, "a probe of another node cannot be read"),
    }
}

/// At the node that owns the called actor, or hosts the called service.
fn arrived(around: &Arc<Surroundings>, probe: Probe) {
    let Some(hosted) = around.hosted(&probe.next.actor) else { return };
    let Some(call) = standing(around, &probe.next) else { return };
    if probe.found {
        let key = Key::new(&probe.next.key).ok();
        return hosted.control.break_off(key.as_ref(), call, circle(&probe));
    }
    let mut waits = around.waits.of(&probe.next.hop());
    waits.truncate(FORKS_MAX);
    if hosted.keyed {
        waits.iter().for_each(|wait| follow(around, probe.clone(), wait));
        return;
    }
    // Any instance may serve the call: it is stuck only if all are.
    waits.dedup_by_key(|wait| wait.age);
    if waits.len() == hosted.pool
        && let Some((wait, others)) = waits.split_first()
    {
        let also = probe.also.iter().cloned().chain(others.iter().map(Asked::of)).collect();
        follow(around, Probe { also, ..probe }, wait);
    }
}

/// The id by which the call stands in a queue of this node, if it does.
fn standing(around: &Surroundings, asked: &Asked) -> Option<TurnId> {
    let hosted = around.hosted(&asked.actor)?;
    let key = Key::new(&asked.key).ok();
    // A call of a service that came over the broker has its id as the sender's text.
    let named = || TurnId::named(&asked.call.to_string());
    let ids = std::iter::once(asked.call).chain((!hosted.keyed).then(named));
    ids.into_iter().find(|call| hosted.control.is_queued(key.as_ref(), *call))
}

/// Goes on along what a turn of the called actor waits for.
fn follow(around: &Arc<Surroundings>, mut probe: Probe, wait: &Wait) {
    let age = Age { born: probe.born, turn: probe.turn };
    if wait.age > age || probe.path.len() >= HOPS_MAX {
        return;
    }
    if wait.age != age {
        probe.path.push(wait.by.clone());
        probe.next = Asked::of(wait);
        return send(around, probe);
    }
    // Back at the turn: does it still wait for that call?
    if wait.call != probe.first.call {
        return;
    }
    match probe.also.pop() {
        Some(next) => probe.next = next,
        None => (probe.next, probe.found) = (probe.first.clone(), true),
    }
    send(around, probe);
}

fn send(around: &Arc<Surroundings>, probe: Probe) {
    let Ok(key) = Key::new(&probe.next.key) else { return send_to_service(around, probe) };
    match around.cluster.locate(&probe.next.actor, around.partition_of(&key)) {
        Located::Here { .. } => arrived(around, probe),
        Located::Node { id, .. } => publish(around, &id, &probe),
        // Then nothing stands in a queue.
        Located::Vacant | Located::NoHosts => {}
    }
}

/// Nobody knows which of the nodes that host a service has the call: the one that has goes on.
fn send_to_service(around: &Arc<Surroundings>, probe: Probe) {
    if standing(around, &probe.next).is_some() {
        return arrived(around, probe);
    }
    let view = around.cluster.view();
    let hosts = view.members().filter(|member| member.services.contains_key(&probe.next.actor));
    let others = hosts.filter(|member| view.is_live(&member.id) && member.id.as_str() != around.id);
    others.take(FORKS_MAX).for_each(|member| publish(around, member.id.as_str(), &probe));
}

fn publish(around: &Surroundings, node: &str, probe: &Probe) {
    let sent = serde_json::to_vec(probe).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()));
    let sent = sent.and_then(|body| around.transport.publish(Outbound::new(around.subjects.node(node, "probe"), body)));
    if let Err(error) = sent {
        // The turn sends another one.
        tracing::debug!(%error, node, "a probe was not sent");
    }
}

fn circle(probe: &Probe) -> Error {
    let mut way: Vec<String> = probe.path.iter().map(name).collect();
    way.extend(probe.path.first().map(name));
    let why = format!(
        "{} waits for the turn that makes this call: {}; of these calls it began last, and it was not run",
        name(&probe.first.hop()),
        way.join(" -> ")
    );
    Error::new(ErrorKind::CallCycle, why)
}

fn name(hop: &Hop) -> String {
    if hop.key.is_empty() { hop.actor.clone() } else { format!("{}/{}", hop.actor, hop.key) }
}
