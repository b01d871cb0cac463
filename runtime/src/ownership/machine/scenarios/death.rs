//! When another node counts as dead, and when the broker is to blame instead.

use super::word::lost;
use super::*;
use crate::ownership::record::Past;

/// A node that holds nothing, beside `b-2`, which holds the partition, and `others`.
pub(super) fn beside_holder(others: &[&str]) -> Script {
    let mut script = Script::bare(true);
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.answer_renewal();
    for id in ["b-2"].iter().chain(others) {
        script.lease(id);
        script.record(Entry::Member((*id).into(), member(id, false)));
    }
    script.claim(Some("b-2"), 3, None, &[]);
    script.tell(Input::SnapshotDone);
    script.answer_writes();
    script.pass(1_000);
    script.out.clear();
    script
}

pub(super) fn takes(script: &Script) -> bool {
    script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if claim.epoch == 4))
}

#[test]
fn an_expiry_is_acted_on_after_one_interval_and_an_own_renewal() {
    let mut script = beside_holder(&[]);
    script.pass(60_000);
    assert!(!takes(&script), "its lease is there");
    script.expire("b-2");
    script.pass(9_999);
    assert!(!takes(&script));
    script.pass(10_001);
    assert!(takes(&script));
    assert_eq!(script.out.iter().filter(|effect| **effect == Effect::NodeLost { id: "b-2".into() }).count(), 1);
}

/// The heir is gone, and a turn of the owner before it runs still: that key waits, as it would have at the heir.
#[test]
fn who_takes_from_a_dead_heir_waits_for_the_turns_that_the_heir_waited_for() {
    let mut script = beside_holder(&["c-3"]);
    script.claim(Some("b-2"), 4, Some("c-3"), &["k1", "k2"]);
    script.expire("b-2");
    script.pass(20_001);
    let taken = |claim: &Claim| claim.epoch == 5 && claim.from.is_none() && claim.busy_at == Some("c-3".into());
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if taken(claim))));
    script.answer_writes();
    let busy = vec!["k1".to_owned(), "k2".to_owned()];
    assert!(script.did(|effect| *effect == Effect::Serve { part: part(), epoch: 5, busy: busy.clone(), from: None }));
    script.tell(Input::Idle { part: part(), epoch: 5, key: "k1".into() });
    assert!(script.did(|effect| *effect == Effect::Admit { part: part(), keys: vec!["k1".to_owned()] }));
    script.gone(Key::Lease("c-3".into()), Gone::Deleted);
    script.pass(250);
    assert!(script.did(|effect| *effect == Effect::Admit { part: part(), keys: vec!["k2".to_owned()] }));
}

#[test]
fn who_gave_a_partition_to_an_heir_that_died_is_told_who_waits_for_its_turns() {
    let mut script = beside_holder(&["c-3"]);
    let waits = |script: &mut Script, at: &str| {
        let nonce = String::new();
        let (node, busy, busy_at) = (Some("c-3".into()), vec!["k1".to_owned()], Some(at.into()));
        let claim = Claim { node, epoch: 5, nonce, lease: script.revision, busy, from: None, busy_at };
        script.record(Entry::Claim(part(), claim));
    };
    let keys = vec!["k1".to_owned()];
    let told = Effect::ReportIdle { part: part(), epoch: 5, to: "c-3".into(), keys };
    waits(&mut script, "b-2");
    assert!(!script.did(|effect| *effect == told), "of another's turns");
    waits(&mut script, "a-1");
    assert!(script.did(|effect| *effect == told), "{:?}", script.out);
}

#[test]
fn an_expiry_means_nothing_to_a_node_that_cannot_renew() {
    let mut script = beside_holder(&[]);
    script.expire("b-2");
    let quiet = |script: &mut Script, millis| {
        let until = script.now + millis;
        while script.now < until {
            script.now += 250;
            script.tell(Input::Tick);
        }
    };
    quiet(&mut script, 15_000);
    assert!(!takes(&script) && !script.machine.is_fenced(), "an old renewal proves nothing about now");
    quiet(&mut script, 60_000);
    assert!(!takes(&script));
    script.answer_renewal();
    script.pass(29_000);
    assert!(!takes(&script), "its own lease lapsed: one TTL more");
    script.pass(12_000);
    assert!(takes(&script));
}

/// The heartbeat has to come back through both watches too: one that stands still shows nobody's.
#[test]
fn an_expiry_means_nothing_while_a_watch_stands_still() {
    for stands in ["all", "beats"] {
        let mut script = beside_holder(&[]);
        script.expire("b-2");
        for _ in 0..400 {
            script.now += 250;
            script.tell(Input::Tick);
            script.answer_lapsed();
            let Some(sent_at) = script.renewal() else { continue };
            script.revision += 1;
            let revision = script.revision;
            script.tell(Input::RenewDone { sent_at, result: CasResult::Ok(revision) });
            script.tell(match stands {
                "all" => Input::Beat { id: "a-1".into(), revision, beating: true },
                _ => Input::Record { revision, entry: Entry::Beat("a-1".into()) },
            });
        }
        assert!(!takes(&script), "{stands}");
        script.pass(20_250);
        assert!(takes(&script), "{stands}");
    }
}

/// What a node declares is stored after a heartbeat: whoever has just learned of it has not seen that one yet.
#[test]
fn a_lease_that_was_just_written_is_not_ended() {
    let mut script = beside_holder(&[]);
    script.expire("b-2");
    script.pass(9_500);
    script.record(Entry::Lease("b-2".into(), lease("b-2", 2)));
    script.pass(9_500);
    assert!(!takes(&script), "{:?}", script.out);
    script.beat("b-2");
    script.pass(60_000);
    assert!(!takes(&script), "it beats again");
}

/// Others die with it, and nobody is left of those that watched: whoever comes before them on the ring is next.
#[test]
fn a_stretch_of_the_ring_is_watched_by_those_before_it() {
    let others: Vec<String> = (2..30).map(|n| format!("b-{n}")).collect();
    let ids: Vec<&str> = others.iter().map(String::as_str).collect();
    let mut script = beside_holder(&ids[1..]);
    assert_eq!(script.watched.len(), 8);
    let ring: Vec<NodeId> = script.machine.view().after_on_ring(&"a-1".into()).cloned().collect();
    assert_eq!(ring.iter().take(8).cloned().collect::<BTreeSet<_>>(), script.watched.iter().cloned().collect());
    // Two of those that are watched: more than a third of eight would be the broker's doing.
    for id in &ring[..2] {
        script.expire(id.as_str());
    }
    assert_eq!(script.watched.len(), 12, "two more for each that has stopped");
    script.pass(22_000);
    assert!(ring[..2].iter().all(|id| !script.machine.view().is_live(id)), "{:?}", script.out);
    assert_eq!(script.machine.heartbeats.watched(), 8, "and those are enough");
    // One that stopped before anybody here looked: it has a whole lease's time from then on.
    let mut late = beside_holder(&ids[1..]);
    late.beating.remove(&ring[8]);
    late.expire(ring[0].as_str());
    assert!(late.watched.contains(&ring[8]));
    late.pass(29_000);
    assert!(late.machine.view().is_live(&ring[8]));
    late.pass(11_000);
    assert!(!late.machine.view().is_live(&ring[8]));
}

/// A client writes nothing. It watches a few all the same: if all nodes die at once, nobody else will say so.
#[test]
fn a_client_sees_heartbeats_stop() {
    let mut client = Script::bare(false);
    client.tell(Input::Started);
    client.tell(Input::Connected { server: "s".into(), client: 1 });
    client.lease("b-2");
    client.record(Entry::Member("b-2".into(), member("b-2", false)));
    client.tell(Input::SnapshotDone);
    assert_eq!(client.watched, ["b-2".into()]);
    client.expire("b-2");
    client.pass(9_750);
    assert_eq!(client.machine.view().owner("order", 0), Owner::Vacant);
    client.pass(500);
    assert_eq!(client.machine.view().owner("order", 0), Owner::NoHosts);
    assert_eq!(client.out, [Effect::NodeLost { id: "b-2".into() }]);
    client.beat("b-2");
    assert_eq!(client.machine.view().owner("order", 0), Owner::Vacant, "it came back, under its lease");
    client.out.clear();
    client.expire("b-2");
    client.pass(10_500);
    assert_eq!(client.machine.view().owner("order", 0), Owner::NoHosts);
    assert_eq!(client.out, [Effect::NodeLost { id: "b-2".into() }], "for the second time");
    // The same lease again, after a reconnect, is no heartbeat.
    let revision = client.machine.view().revision(&Key::Lease("b-2".into()));
    client.tell(Input::Record { revision, entry: Entry::Lease("b-2".into(), lease("b-2", 1)) });
    assert_eq!(client.machine.view().owner("order", 0), Owner::NoHosts);
}

/// A watch that is made again on a replica that is behind makes an end up, one above what it had shown.
#[test]
fn a_heartbeat_that_was_left_out_and_is_shown_again_beats() {
    let mut script = beside_holder(&[]);
    script.beat("b-2");
    let revision = script.revision;
    script.tell(Input::Beat { id: "b-2".into(), revision: revision + 1, beating: false });
    script.tell(Input::Beat { id: "b-2".into(), revision, beating: true });
    script.pass(25_000);
    assert!(!takes(&script), "{:?}", script.out);
}

/// A watch that was lost is made again on any replica. What that has not got yet nobody has deleted.
#[test]
fn what_a_watch_leaves_out_is_asked_for_again() {
    let mut script = beside_holder(&["c-3"]);
    for key in [Key::Lease("b-2".into()), Key::Member("c-3".into()), Key::Part(part())] {
        script.gone(key, Gone::Expired);
    }
    assert!(script.machine.view().is_live(&"b-2".into()) && script.out.is_empty(), "{:?}", script.out);
    script.pass(250);
    assert_eq!(script.out, [Effect::Rewatch]);
    script.pass(120_000);
    assert!(!takes(&script) && lost(&script, "b-2") == 0, "{:?}", script.out);
    let mut own = Script::owning(&["b-2"]);
    own.gone(Key::Lease("a-1".into()), Gone::Expired);
    own.gone(Key::Part(part()), Gone::Expired);
    own.pass(1_000);
    assert_eq!(own.out, [Effect::Rewatch]);
}

/// The first that stops has others watched, with a new watch; what stops meanwhile counts all the same.
#[test]
fn expiries_between_two_watches_are_counted() {
    let others: Vec<String> = (2..30).map(|n| format!("b-{n}")).collect();
    let ids: Vec<&str> = others.iter().map(String::as_str).collect();
    let mut script = beside_holder(&ids[1..]);
    let ring: Vec<NodeId> = script.machine.view().after_on_ring(&"a-1".into()).take(8).cloned().collect();
    // Five of eight, of which the watch shows one.
    script.beating.retain(|id| !ring[..5].contains(id));
    script.expire(ring[0].as_str());
    script.pass(29_000);
    assert!(ring.iter().all(|id| script.machine.view().is_live(id)), "the broker is to blame: {:?}", script.out);
}

#[test]
fn many_expiries_are_the_brokers() {
    let mut script = beside_holder(&["c-3", "d-4", "e-5"]);
    script.expire("b-2");
    script.pass(2_000);
    script.expire("c-3");
    let since = script.now;
    script.pass(29_999);
    assert!(!takes(&script), "two of four within an interval");
    script.pass(since + 30_000 + 10_250 + 4_000 - script.now);
    assert!(takes(&script), "still missing one TTL after a renewal");

    let mut back = beside_holder(&["c-3", "d-4", "e-5"]);
    back.expire("b-2");
    back.expire("c-3");
    back.pass(20_000);
    back.lease("b-2");
    back.pass(200_000);
    assert!(!takes(&back), "it came back under its id");

    let mut few = beside_holder(&["c-3", "d-4", "e-5", "f-6", "g-7", "h-8"]);
    few.expire("b-2");
    few.expire("c-3");
    few.pass(24_000);
    assert!(takes(&few), "two of seven are deaths");
}

#[test]
fn a_lease_never_seen_counts_as_dead_after_one_ttl() {
    let mut script = Script::bare(true);
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.answer_renewal();
    script.record(Entry::Member("b-2".into(), member("b-2", false)));
    script.claim(Some("b-2"), 3, None, &[]);
    script.tell(Input::SnapshotDone);
    script.answer_writes();
    script.pass(29_999);
    assert!(!takes(&script));
    script.pass(10_251);
    assert!(takes(&script));
}

/// The end of an older lease says nothing about a claim written under a newer one.
#[test]
fn an_old_death_frees_no_newer_claim() {
    let mut script = beside_holder(&[]);
    super::word::show_tombstone(&mut script, "b-2", "c-3");
    script.claim(Some("b-2"), 3, None, &[]);
    script.out.clear();
    script.pass(25_000);
    assert!(!takes(&script));
    script.lease("b-2");
    script.pass(120_000);
    assert!(!takes(&script));
}

#[test]
fn a_node_that_left_is_gone_at_once() {
    let mut script = beside_holder(&[]);
    script.gone(Key::Lease("b-2".into()), Gone::Deleted);
    assert!(takes(&script));
}

#[test]
fn the_records_of_the_dead_are_tidied_away() {
    let mut script = beside_holder(&[]);
    script.claim(None, 3, Some("b-2"), &[]);
    script.answer_writes();
    script.gone(Key::Lease("b-2".into()), Gone::Deleted);
    script.pass(59_999);
    let tidied =
        |effect: &Effect| matches!(effect, Effect::Delete { key: Key::Member(id), .. } if id.as_str() == "b-2");
    assert!(!script.did(tidied));
    script.pass(251);
    assert!(script.did(tidied));
    script.answer_writes();
    script.pass(500);
    assert!(script.machine.view().leases.len() == 1, "and forgotten");
}

#[test]
fn what_vanished_while_the_watch_was_away_is_forgotten() {
    let mut script = beside_holder(&[]);
    script.tell(Input::SnapshotBegun);
    script.record(Entry::Lease("a-1".into(), lease("a-1", 1)));
    script.record(Entry::Member("a-1".into(), member("a-1", false)));
    script.tell(Input::SnapshotDone);
    assert!(script.machine.view().is_live(&"b-2".into()), "that replica may be behind");
    script.pass(5_000);
    assert!(script.did(|effect| *effect == Effect::Rewatch), "{:?}", script.out);
    script.pass(5_000);
    script.tell(Input::SnapshotBegun);
    script.record(Entry::Lease("a-1".into(), lease("a-1", 1)));
    script.record(Entry::Member("a-1".into(), member("a-1", false)));
    script.record(Entry::Beat("a-1".into()));
    script.tell(Input::SnapshotDone);
    assert!(!script.machine.view().is_live(&"b-2".into()), "one with a later heartbeat is not");
    script.pass(29_000);
    assert!(!takes(&script));
    script.pass(11_250);
    assert!(takes(&script));
}

fn waits(script: &Script) -> Option<bool> {
    let member = |effect: &Effect| match effect {
        Effect::Cas { entry: Entry::Member(id, member), .. } if id.as_str() == "a-1" => Some(member.waiting),
        _ => None,
    };
    script.out.iter().rev().find_map(member)
}

/// A node whose name has died of late waits before it attracts partitions; not if nobody else hosts the actor.
#[test]
fn crash_looping_node() {
    let after = |deaths: u32, other: bool| {
        let mut script = Script::bare(true);
        script.tell(Input::Started);
        script.tell(Input::Connected { server: "s".into(), client: 1 });
        script.answer_renewal();
        script.record(Entry::Past("a".into(), Past { deaths }));
        if other {
            script.lease("b-2");
            script.record(Entry::Member("b-2".into(), member("b-2", false)));
        }
        script.tell(Input::SnapshotDone);
        assert_eq!(waits(&script), Some(deaths > 0));
        script.answer_writes();
        script
    };
    for (deaths, pause) in [(1, 1_000), (2, 2_000), (4, 8_000), (7, 60_000), (u32::MAX, 60_000)] {
        let mut script = after(deaths, true);
        assert_eq!(script.machine.view().desired("order", 0), Some(&"b-2".into()), "the other, whatever the order");
        script.pass(pause - 250);
        assert!(!script.claimed() && waits(&script).is_none(), "{deaths} deaths: {:?}", script.out);
        script.pass(500);
        assert_eq!(waits(&script), Some(false), "{deaths} deaths");
        script.answer_writes();
        script.pass(2_000);
        assert!(script.claimed(), "as first or second: {:?}", script.out);
    }
    assert!(after(7, false).claimed(), "nobody else hosts it");
}

/// Whoever clears the record of a dead node away notes the death under its name.
#[test]
fn deaths_are_counted_by_name() {
    let mut script = beside_holder(&[]);
    script.claim(None, 3, None, &[]);
    script.record(Entry::Past("b".into(), Past { deaths: 2 }));
    script.answer_writes();
    script.expire("b-2");
    script.pass(70_000);
    let noted = |effect: &Effect| matches!(effect, Effect::Cas { entry: Entry::Past(name, Past { deaths: 3 }), .. } if &**name == "b");
    assert!(script.did(noted), "{:?}", script.out);
}
