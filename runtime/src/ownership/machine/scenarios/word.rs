//! The broker's word that a connection has ended, and the tombstone that decides.

use super::death::{beside_holder, takes};
use super::*;

/// How long a word waits before it is acted upon.
const WAIT: Millis = 1_100;

fn word(node: &str, client: u64) -> Input {
    Input::ConnectionGone { node: node.into(), server: "s".into(), client }
}

/// The tombstones asked for: of whom, and at which revision.
fn tombstones(script: &Script) -> Vec<(String, u64)> {
    let tombstone = |effect: &Effect| match effect {
        Effect::Cas { entry: Entry::Lease(id, lease), expect, .. }
            if lease.ended_by == Some("a-1".into()) && !lease.lapsed =>
        {
            Some((id.to_string(), *expect))
        }
        _ => None,
    };
    script.out.iter().filter_map(tombstone).collect()
}

/// Shows a lease as another node has made a tombstone of it.
pub(super) fn show_tombstone(script: &mut Script, id: &str, by: &str) {
    script.record(Entry::Lease(id.into(), Lease { ended_by: Some(by.into()), ..lease(id, 1) }));
}

pub(super) fn lost(script: &Script, id: &str) -> usize {
    script.out.iter().filter(|effect| **effect == Effect::NodeLost { id: id.into() }).count()
}

#[test]
fn a_dead_node_is_taken_over_on_the_brokers_word() {
    let mut script = beside_holder(&[]);
    let lease = script.machine.view().revision(&Key::Lease("b-2".into()));
    script.tell(word("b-2", 1));
    script.pass(WAIT - 1);
    assert_eq!(tombstones(&script), [], "its node may still serve");
    script.pass(251);
    assert_eq!(tombstones(&script), [("b-2".to_owned(), lease)]);
    assert!(!takes(&script), "not before the tombstone stands");
    script.answer_writes();
    assert!(takes(&script), "at once: {:?}", script.out);
    assert_eq!(lost(&script, "b-2"), 1);
    assert_eq!(script.machine.view().owner("order", 0), Owner::Vacant);
    // Then its records go: the tombstone last, when no claim names it.
    script.answer_writes();
    script.pass(250);
    let deletes = |id: Key| move |effect: &Effect| matches!(effect, Effect::Delete { key, .. } if *key == id);
    assert!(script.did(deletes(Key::Member("b-2".into()))));
    script.answer_writes();
    script.pass(250);
    assert!(script.did(deletes(Key::Lease("b-2".into()))));
}

#[test]
fn a_node_that_has_another_connection_is_told_of_once() {
    let mut script = beside_holder(&[]);
    let lease = |client| lease("b-2", client);
    let told = |script: &Script| script.did(|effect| *effect == Effect::Reconnected { id: "b-2".into() });
    script.out.clear();
    script.record(Entry::Lease("b-2".into(), lease(1)));
    assert!(!told(&script), "nothing new: {:?}", script.out);
    script.record(Entry::Lease("b-2".into(), lease(2)));
    assert!(told(&script) && lost(&script, "b-2") == 0, "{:?}", script.out);
    script.out.clear();
    script.record(Entry::Lease("b-2".into(), lease(2)));
    assert!(!told(&script), "{:?}", script.out);
}

/// Journals refuse a superseded owner by themselves: nothing has to be waited for.
#[test]
fn a_dead_node_of_durable_actors_is_taken_over_in_a_blink() {
    let mut script = beside_holder(&[]);
    let mut durable = member("b-2", false);
    durable.hosts.values_mut().for_each(|host| host.durable = true);
    script.record(Entry::Member("b-2".into(), durable));
    script.tell(word("b-2", 1));
    script.now += crate::ownership::PERMIT_MS;
    script.tell(Input::Tick);
    assert_eq!(tombstones(&script), [], "a read may have been permitted just before");
    script.now += 1;
    script.tell(Input::Tick);
    assert_eq!(tombstones(&script).len(), 1);
    script.answer_writes();
    assert!(takes(&script), "at once: {:?}", script.out);
}

#[test]
fn a_tombstone_stays_while_a_claim_names_its_node() {
    let mut script = beside_holder(&[]);
    script.record(Entry::Claim(Part::new("other", 7), Claim::new(Some("b-2".into()), 1, String::new(), 1)));
    script.tell(word("b-2", 1));
    for _ in 0..10 {
        script.pass(1_000);
        let lease = |effect: &Effect| matches!(effect, Effect::Delete { key: Key::Lease(_), .. });
        assert!(!script.did(lease), "nobody here hosts what it held");
        script.answer_writes();
    }
    assert!(!script.machine.view().is_live(&"b-2".into()));
}

/// A proxy cut the broker's side of a live node's connection. Whoever writes the lease first decides.
#[test]
fn proxy_cut_live_owner() {
    // It reconnects, and writes its new connection down, while the word still waits.
    let mut quick = beside_holder(&[]);
    quick.tell(word("b-2", 1));
    quick.pass(500);
    quick.record(lease_with("b-2", 2));
    quick.pass(60_000);
    assert!(tombstones(&quick).is_empty() && !takes(&quick), "{:?}", quick.out);

    // It does so at the last moment: the tombstone is refused, and nothing is taken.
    let mut raced = beside_holder(&[]);
    raced.tell(word("b-2", 1));
    raced.pass(1_250);
    let id = raced.out.iter().find_map(write).expect("a tombstone was tried");
    raced.tell(Input::CasDone { id, result: CasResult::Conflict });
    raced.pass(1_000);
    assert!(!takes(&raced) && lost(&raced, "b-2") == 0, "{:?}", raced.out);
    raced.record(lease_with("b-2", 2));
    raced.out.clear();
    raced.pass(60_000);
    assert!(tombstones(&raced).is_empty() && !takes(&raced), "{:?}", raced.out);

    // The other side of it: it was too late, and drops everything.
    let mut late = Script::owning(&["b-2"]);
    late.tell(Input::Disconnected);
    late.tell(Input::Connected { server: "s".into(), client: 2 });
    let id = late.out.iter().find_map(write).expect("the lease is written with it");
    late.tell(Input::CasDone { id, result: CasResult::Conflict });
    assert!(late.machine.is_fenced());
    show_tombstone(&mut late, "a-1", "b-2");
    assert!(late.did(|effect| *effect == Effect::Retire { reason: RetireReason::Tombstoned }), "{:?}", late.out);
    assert_eq!(late.machine.serving().count(), 0);
    assert!(!late.did(|effect| *effect == Effect::Unfence));
}

fn lease_with(id: &str, client: u64) -> Entry {
    Entry::Lease(id.into(), lease(id, client))
}

/// A node serves only while round trips on its owning connection come back: that is what lets a word be acted upon.
#[test]
fn a_connection_that_gives_nothing_back_fences() {
    let mut script = Script::owning(&["b-2"]);
    script.pass(5_000);
    script.out.clear();
    script.mute = true;
    let until = script.machine.serves_until();
    assert!(until <= script.now + 1_000, "a second from the last one that came back");
    script.pass(999);
    script.now = until;
    script.tell(Input::Tick);
    assert!(script.did(|effect| *effect == Effect::Fence), "{:?}", script.out);
    assert!(script.machine.tenure.valid_until > script.now + 5_000, "although the lease is renewed");
    script.mute = false;
    script.pass(1_000);
    assert!(script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
}

/// What came back on an earlier connection proves nothing of the next.
#[test]
fn a_round_trip_proves_its_own_connection_only() {
    let mut script = Script::owning(&[]);
    script.machine.step(Input::Tick, script.now + 500, &mut script.out);
    script.now += 500;
    let trip = script.out.iter().find_map(|effect| match effect {
        Effect::RoundTrip { id, .. } => Some(*id),
        _ => None,
    });
    script.out.clear();
    script.mute = true;
    script.tell(Input::Disconnected);
    script.tell(Input::Connected { server: "s".into(), client: 2 });
    script.answer_lease();
    script.tell(Input::RoundTripDone { id: trip.expect("one was sent"), ok: true });
    assert!(script.machine.is_fenced() && script.machine.serves_until() == 0);
}

#[test]
fn late_event_of_old_socket() {
    // The word about connection 1 comes when the lease names 2, or before that is shown.
    for (shown, told) in [(true, false), (false, true)] {
        let mut script = beside_holder(&[]);
        if shown {
            script.record(lease_with("b-2", 2));
        }
        script.tell(word("b-2", 1));
        if told {
            script.record(lease_with("b-2", 2));
        }
        script.pass(90_000);
        assert!(tombstones(&script).is_empty() && !takes(&script), "{:?}", script.out);
    }
    // The word about the newest comes before the watch shows it.
    let mut script = beside_holder(&[]);
    script.tell(word("b-2", 2));
    script.pass(5_000);
    assert!(tombstones(&script).is_empty());
    script.record(lease_with("b-2", 2));
    assert_eq!(tombstones(&script).len(), 1);
}

/// Only the broker may publish these words. What one can do that slipped through all the same:
#[test]
fn forged_disconnect() {
    let mut script = beside_holder(&["c-3"]);
    let server = "elsewhere".to_owned();
    for forged in [
        word("a-1", 1),
        word("nobody-9", 1),
        word("b-2", 7),
        Input::ConnectionGone { node: "b-2".into(), server, client: 1 },
    ] {
        script.tell(forged);
    }
    (0..10_000).for_each(|client| script.tell(word("flood-1", client + 100)));
    script.pass(90_000);
    assert!(tombstones(&script).is_empty() && !takes(&script), "{:?}", script.out);
    assert!(!script.machine.is_fenced());
    assert!(script.machine.closures.len() == 0, "and all is forgotten");

    // The very connection of a live lease: one tombstone, for which its node gives up its id.
    let mut named = beside_holder(&["c-3"]);
    named.tell(word("b-2", 1));
    named.pass(WAIT + 2_250);
    assert_eq!(tombstones(&named).len(), 1);
}

#[test]
fn ring_neighbours_die_together() {
    let (before, _) = around();
    let mut script = beside_holder(&[&before]);
    script.tell(word("b-2", 1));
    script.tell(word(&before, 1));
    script.pass(WAIT + 250);
    assert!(tombstones(&script).iter().any(|(id, _)| id == "b-2"), "as the second in order: {:?}", script.out);
    // The one that would have been first holds nothing here: whoever watches ends it, after a patience.
    script.answer_writes();
    script.pass(2_000);
    assert!(tombstones(&script).iter().any(|(id, _)| *id == before), "{:?}", script.out);
    script.answer_writes();
    script.pass(250);
    script.answer_writes();
    assert_eq!(script.machine.serving().collect::<Vec<_>>(), [(&part(), 4)]);
}

#[test]
fn heir_is_draining() {
    let (before, _) = around();
    let mut script = beside_holder(&[&before]);
    script.record(Entry::Member(before.as_str().into(), member(&before, true)));
    script.tell(word("b-2", 1));
    script.pass(WAIT + 250);
    assert_eq!(tombstones(&script).len(), 1);
    script.answer_writes();
    assert!(takes(&script), "the first in order drains, so this one is: {:?}", script.out);
}

/// One that drains ends a lease too, but leaves what is free to others.
#[test]
fn a_draining_node_inherits_nothing() {
    let mut script = beside_holder(&["c-3"]);
    script.tell(Input::Drain { within: 60_000 });
    script.answer_writes();
    script.tell(word("b-2", 1));
    script.pass(30_000);
    script.answer_writes();
    script.pass(5_000);
    assert!(!takes(&script));
}

#[test]
fn a_tombstone_is_death_at_once_for_everybody() {
    let mut script = beside_holder(&["c-3"]);
    // Even for a node that would blame the broker for an expiry now.
    script.expire("c-3");
    show_tombstone(&mut script, "b-2", "c-3");
    assert_eq!(lost(&script, "b-2"), 1);
    script.pass(4_000);
    assert!(takes(&script), "{:?}", script.out);

    let mut client = Script::bare(false);
    client.tell(Input::Started);
    client.tell(Input::Connected { server: "s".into(), client: 1 });
    client.tell(Input::SnapshotDone);
    client.lease("b-2");
    client.tell(word("b-2", 1));
    client.pass(10_000);
    assert!(client.out.is_empty(), "a client writes nothing: {:?}", client.out);
    show_tombstone(&mut client, "b-2", "c-3");
    assert_eq!(client.out, [Effect::NodeLost { id: "b-2".into() }]);
}

/// Whoever set a tombstone may have died: the first of the others clears it away.
#[test]
fn a_tombstone_left_behind_is_cleared() {
    let mut script = beside_holder(&[]);
    script.claim(None, 3, None, &[]);
    script.answer_writes();
    show_tombstone(&mut script, "b-2", "gone-9");
    let deletes =
        |effect: &Effect| matches!(effect, Effect::Delete { key: Key::Member(id), .. } if id.as_str() == "b-2");
    script.pass(59_000);
    assert!(!script.did(deletes));
    script.pass(2_000);
    assert!(script.did(deletes), "{:?}", script.out);
    script.answer_writes();
    script.pass(250);
    assert!(script.did(|effect| matches!(effect, Effect::Delete { key: Key::Lease(_), .. })), "{:?}", script.out);
}
