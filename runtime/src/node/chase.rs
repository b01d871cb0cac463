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
    /// The wait that it began with.
    first: Leg,
    /// The call along which it goes.
    next: Asked,
    /// Other waits that must lead back too: an instance of a service may serve what waits for any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Leg>,
    /// Whose turns wait, beginning with the first.
    path: Vec<Passed>,
    /// Whether it has come back to the first turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    back: bool,
    /// Whether it has found a circle: the first call is to fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    found: bool,
}

/// A turn that waits for a call, and when its id was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Leg {
    turn: TurnId,
    born: u64,
    by: Hop,
    asked: Asked,
}

/// A turn that the probe has passed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Passed {
    turn: TurnId,
    by: Hop,
}

/// A call, by its id, and whom it is for; a service has no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    actor: String,
    key: String,
    call: TurnId,
}

impl Asked {
    fn hop(&self) -> Hop {
        Hop { actor: self.actor.clone(), key: self.key.clone() }
    }
}

impl From<&Wait> for Leg {
    fn from(wait: &Wait) -> Self {
        let Wait { age, by, to, call } = wait;
        let asked = Asked { actor: to.actor.clone(), key: to.key.clone(), call: *call };
        Self { turn: age.turn, born: age.born, by: by.clone(), asked }
    }
}

impl Leg {
    fn age(&self) -> Age {
        Age { born: self.born, turn: self.turn }
    }
}

/// Sends a probe along what a turn waits for.
pub(crate) fn begin(around: &Arc<Surroundings>, wait: &Wait) {
    let first = Leg::from(wait);
    let path = vec![Passed { turn: first.turn, by: first.by.clone() }];
    send(around, Probe { next: first.asked.clone(), first, also: Vec::new(), path, back: false, found: false });
}

/// Takes a probe of another node.
pub(super) fn heard(around: &Arc<Surroundings>, body: &[u8]) {
    match serde_json::from_slice::<Probe>(body) {
        Ok(probe) if probe.path.len() <= HOPS_MAX && probe.also.len() <= HOPS_MAX => arrived(around, probe),
        Ok(_) => tracing::debug!("a probe has come a long way; it is dropped"),
        Err(error) => tracing::warn!(%error, "a probe of another node cannot be read"),
    }
}

/// At the node that owns the called actor, or hosts the called service.
fn arrived(around: &Arc<Surroundings>, mut probe: Probe) {
    let Some(hosted) = around.hosted(&probe.next.actor) else { return };
    let Some(call) = standing(around, &probe.next) else { return };
    if probe.found {
        let key = Key::new(&probe.next.key).ok();
        return hosted.control.break_off(key.as_ref(), call, circle(&probe));
    }
    let mut legs: Vec<Leg> = around.waits.of(&probe.next.hop()).iter().map(Leg::from).collect();
    if hosted.keyed {
        return legs.into_iter().take(FORKS_MAX).for_each(|leg| follow(around, probe.clone(), leg));
    }
    // Any instance may serve the call: it is stuck only if all are.
    legs.sort_by_key(Leg::age);
    legs.dedup_by_key(|leg| leg.turn);
    if legs.len() == hosted.pool && probe.also.len() + legs.len() <= HOPS_MAX {
        probe.also.append(&mut legs);
        go_on(around, probe);
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

/// Goes along what a turn of the called actor waits for, unless that is to give way itself.
fn follow(around: &Arc<Surroundings>, mut probe: Probe, leg: Leg) {
    if leg.age() > probe.first.age() {
        return;
    }
    if leg.turn == probe.first.turn {
        // Back at the turn: does it still wait for that call?
        if leg.asked.call == probe.first.asked.call {
            probe.back = true;
            go_on(around, probe);
        }
        return;
    }
    if probe.path.iter().any(|passed| passed.turn == leg.turn) {
        return go_on(around, probe);
    }
    if probe.path.len() < HOPS_MAX {
        probe.path.push(Passed { turn: leg.turn, by: leg.by });
        probe.next = leg.asked;
        send(around, probe);
    }
}

/// Takes up what else must lead back. If nothing is left, and it did lead back, the circle is closed.
fn go_on(around: &Arc<Surroundings>, mut probe: Probe) {
    if let Some(leg) = probe.also.pop() {
        follow(around, probe, leg);
    } else if probe.back {
        (probe.next, probe.found) = (probe.first.asked.clone(), true);
        send(around, probe);
    }
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
    let passed = probe.path.iter().chain(probe.path.first());
    let way: Vec<String> = passed.map(|passed| name(&passed.by)).collect();
    let why = format!(
        "{} waits for the turn that makes this call: {}; of these calls it began last, and it was not run",
        name(&probe.first.asked.hop()),
        way.join(" -> ")
    );
    Error::new(ErrorKind::CallCycle, why)
}

fn name(hop: &Hop) -> String {
    if hop.key.is_empty() { hop.actor.clone() } else { format!("{}/{}", hop.actor, hop.key) }
}
