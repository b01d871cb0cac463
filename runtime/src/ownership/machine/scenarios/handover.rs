//! Each step of a handover, and each way in which it can break.

use super::*;

/// A node that owns the partition at epoch 1 and has just offered it to the newcomer, who comes first.
fn offering() -> (Script, NodeId) {
    let (before, _) = around();
    let mut script = Script::owning(&[]);
    script.lease(&before);
    script.record(Entry::Member(before.as_str().into(), member(&before, false)));
    let heir = NodeId::from(before.as_str());
    let offer = Effect::Offer { part: part(), epoch: 1, to: heir.clone() };
    assert!(script.did(|effect| *effect == offer), "{:?}", script.out);
    script.out.clear();
    (script, heir)
}

fn transferring() -> (Script, NodeId, CasId) {
    let (mut script, heir) = offering();
    script.tell(Input::HandoverReply { part: part(), epoch: 1, heir: heir.clone(), ready: true });
    let Some(Effect::Transfer { id, claim, .. }) = script.out.pop() else { panic!("no transfer: {:?}", script.out) };
    assert_eq!((claim.node, claim.epoch, claim.from), (Some(heir.clone()), 2, Some("a-1".into())));
    (script, heir, id)
}

fn serves(script: &Script) -> bool {
    script.did(|effect| matches!(effect, Effect::Serve { .. }))
}

#[test]
fn the_giver_leaves_when_the_claim_is_the_heirs() {
    let (mut script, heir, id) = transferring();
    script.tell(Input::CasDone { id, result: CasResult::Ok(900) });
    let left = Effect::Leave { part: part(), epoch: 1, heir: Some(heir.clone()), cause: LeaveCause::HandedOver };
    assert!(script.out.contains(&left));
    assert!(!script.did(|effect| matches!(effect, Effect::Retire { .. })));
    assert_eq!(script.machine.view().owner("order", 0), Owner::Node { id: heir, epoch: 2 });
}

#[test]
fn an_offer_times_out_and_is_made_again() {
    let (mut script, heir) = offering();
    script.pass(2_000);
    script.tell(Input::HandoverReply { part: part(), epoch: 1, heir, ready: true });
    assert!(!script.did(|effect| matches!(effect, Effect::Transfer { .. })), "too late");
    script.pass(1_000);
    assert!(script.did(|effect| matches!(effect, Effect::Offer { .. })));
}

#[test]
fn a_transfer_without_an_answer_is_written_again_over_the_same_revision() {
    let (mut script, _, id) = transferring();
    let expect = script.machine.view().claim(&part()).map(|claim| claim.revision);
    script.tell(Input::CasDone { id, result: CasResult::Unknown });
    script.pass(1_999);
    assert!(!serves(&script) && !script.did(|effect| matches!(effect, Effect::Transfer { .. })));
    script.pass(251);
    assert!(script.did(|effect| matches!(effect, Effect::Transfer { expect: again, .. } if Some(*again) == expect)));
    assert!(!serves(&script), "it may have been stored");
}

#[test]
fn a_giver_whose_heir_is_lost_takes_the_partition_back() {
    let (mut script, heir, id) = transferring();
    script.tell(Input::CasDone { id, result: CasResult::Unknown });
    script.gone(Key::Lease(heir), Gone::Deleted);
    script.pass(2_250);
    let own = |claim: &Claim| claim.node == Some("a-1".into()) && claim.epoch == 1;
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if own(claim))));
    assert!(!serves(&script), "not before the write has won");
    script.answer_writes();
    assert!(serves(&script));
}

#[test]
fn a_refused_write_waits_for_the_watch_and_asks_for_it() {
    let (mut script, heir, id) = transferring();
    script.tell(Input::CasDone { id, result: CasResult::Conflict });
    script.pass(1_900);
    assert!(!serves(&script) && !script.did(|effect| write(effect).is_some()));
    script.pass(400);
    assert!(script.did(|effect| *effect == Effect::Rewatch));
    script.claim(Some(heir.as_str()), 2, Some("a-1"), &[]);
    assert!(script.did(|effect| matches!(effect, Effect::Leave { cause: LeaveCause::HandedOver, .. })));
}

/// A node that holds for `b-2`, which gives the partition away at epoch 3.
fn holding() -> Script {
    let mut script = Script::with(&["b-2"]);
    script.claim(Some("b-2"), 3, None, &[]);
    script.answer_writes();
    script.tell(Input::Offered { part: part(), epoch: 3, from: "b-2".into() });
    let join = Effect::Join { part: part(), epoch: 4, reply_to: Some(("b-2".into(), 3)) };
    assert!(script.did(|effect| *effect == join), "{:?}", script.out);
    script.out.clear();
    script
}

#[test]
fn the_heir_serves_when_the_claim_names_it_and_holds_busy_keys_back() {
    let mut script = holding();
    script.pass(500);
    assert!(!serves(&script));
    // The word that a key is idle may come before the claim.
    script.tell(Input::Idle { part: part(), epoch: 4, key: "k1".into() });
    script.claim(Some("a-1"), 4, Some("b-2"), &["k1", "k2", "k3"]);
    let busy = vec!["k2".to_owned(), "k3".to_owned()];
    assert!(script.did(
        |effect| *effect == Effect::Serve { part: part(), epoch: 4, busy: busy.clone(), from: Some("b-2".into()) }
    ));
    assert!(script.machine.settled(&part(), 4, "k1") && !script.machine.settled(&part(), 4, "k2"));
    script.tell(Input::Idle { part: part(), epoch: 4, key: "k2".into() });
    assert!(script.did(|effect| *effect == Effect::Admit { part: part(), keys: vec!["k2".to_owned()] }));
    assert!(script.machine.settled(&part(), 4, "k2"));
    script.gone(Key::Lease("b-2".into()), Gone::Deleted);
    script.pass(250);
    assert!(script.did(|effect| *effect == Effect::Admit { part: part(), keys: vec!["k3".to_owned()] }));
}

#[test]
fn an_heir_gives_up_a_handover_that_does_not_come_and_serves_one_that_comes_late() {
    let mut script = holding();
    script.pass(5_000);
    let left = Effect::Leave { part: part(), epoch: 4, heir: Some("b-2".into()), cause: LeaveCause::NotNeeded };
    assert!(script.did(|effect| *effect == left));
    script.tell(Input::Offered { part: part(), epoch: 3, from: "b-2".into() });
    assert!(script.did(|effect| matches!(effect, Effect::Decline { .. })), "not before it is quiet");
    script.claim(Some("a-1"), 4, Some("b-2"), &[]);
    assert!(serves(&script));
}

#[test]
fn an_heir_whose_giver_dies_claims() {
    let mut script = holding();
    script.gone(Key::Lease("b-2".into()), Gone::Deleted);
    assert!(
        script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if claim.epoch == 4))
    );
    script.answer_writes();
    assert!(serves(&script) && !script.did(|effect| matches!(effect, Effect::Join { .. })));
}

#[test]
fn an_offer_of_what_the_other_does_not_hold_is_declined() {
    let mut script = Script::with(&["b-2"]);
    script.tell(Input::Offered { part: part(), epoch: 3, from: "b-2".into() });
    script.tell(Input::Offered { part: Part::new("order", 9), epoch: 3, from: "b-2".into() });
    script.tell(Input::Offered { part: Part::new("other", 0), epoch: 3, from: "b-2".into() });
    assert_eq!(script.out.iter().filter(|effect| matches!(effect, Effect::Decline { .. })).count(), 3);
}

#[test]
fn a_drain_without_an_heir_releases_after_the_last_turn() {
    let mut script = Script::owning(&[]);
    script.tell(Input::Drain { within: 20_000 });
    let left = Effect::Leave { part: part(), epoch: 1, heir: None, cause: LeaveCause::Released };
    assert!(script.did(|effect| *effect == left));
    script.answer_writes();
    script.pass(10_000);
    assert!(!script.claimed(), "a turn still runs");
    script.tell(Input::Quiesced { part: part(), epoch: 1 });
    let release = |claim: &Claim| claim.node.is_none() && claim.epoch == 1;
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if release(claim))));
    script.answer_writes();
    assert!(script.did(|effect| *effect == Effect::Drained));
}

#[test]
fn a_drain_ends_only_when_the_last_turn_has() {
    let (mut script, _, id) = transferring();
    script.tell(Input::Drain { within: 20_000 });
    script.tell(Input::CasDone { id, result: CasResult::Ok(900) });
    script.answer_writes();
    script.pass(20_000);
    assert!(!script.did(|effect| *effect == Effect::Drained));
    script.tell(Input::Quiesced { part: part(), epoch: 1 });
    assert!(script.did(|effect| *effect == Effect::Drained));
}

#[test]
fn few_handovers_are_under_way_at_once() {
    let mut script = Script::bare(true);
    let config = Config::new("a", "1", member("a-1", false).hosts, 64);
    script.machine = Machine::new(config);
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.answer_renewal();
    script.answer_writes();
    script.tell(Input::SnapshotDone);
    script.answer_writes();
    script.answer_writes();
    assert_eq!(script.machine.serving().count(), 64);
    script.lease("b-2");
    script.record(Entry::Member("b-2".into(), member("b-2", false)));
    script.tell(Input::Tick);
    let offers = |script: &Script| script.out.iter().filter(|effect| matches!(effect, Effect::Offer { .. })).count();
    assert_eq!(offers(&script), 8);
    let Some(Effect::Offer { part, epoch, to }) = script.out.pop() else { panic!("{:?}", script.out) };
    script.tell(Input::HandoverReply { part, epoch, heir: to, ready: true });
    let id =
        script.out.iter().find_map(|effect| if let Effect::Transfer { id, .. } = effect { Some(*id) } else { None });
    assert_eq!(offers(&script), 7, "a transfer counts until it is answered");
    script.tell(Input::CasDone { id: id.unwrap_or_default(), result: CasResult::Ok(9_000) });
    script.tell(Input::Tick);
    assert_eq!(offers(&script), 8);
}

/// The bucket keeps one revision of a key: the watch may show the second owner after this one and never the first.
#[test]
fn what_was_given_and_handed_on_is_no_theft() {
    for answer in [None, Some(CasResult::Unknown), Some(CasResult::Ok(900))] {
        let (mut script, _, id) = transferring();
        if let Some(result) = answer {
            script.tell(Input::CasDone { id, result });
        }
        script.revision = 1_000;
        script.claim(Some("x-9"), 3, Some("b-2"), &[]);
        let left = |effect: &Effect| matches!(effect, Effect::Leave { cause: LeaveCause::HandedOver, .. });
        assert!(script.did(left), "{answer:?}: {:?}", script.out);
        assert!(!script.did(|effect| matches!(effect, Effect::Retire { .. })), "{answer:?}");
    }
    // With the lease gone in between, somebody had reason to take it.
    let (mut script, _, _) = transferring();
    script.vanish();
    script.answer_lease();
    script.claim(Some("x-9"), 3, None, &[]);
    assert!(script.did(|effect| matches!(effect, Effect::Retire { reason: RetireReason::ClaimTaken })));
}

/// While another host lives, a node that leaves serves on until one takes each partition, and asks the next in order.
#[test]
fn a_draining_node_offers_until_its_time_is_nearly_over() {
    let mut script = Script::with(&["b-2", "c-3"]);
    script.claim(Some("a-1"), 1, None, &[]);
    script.answer_writes();
    script.out.clear();
    script.tell(Input::Drain { within: 20_000 });
    script.answer_writes();
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..14 {
        script.pass(1_000);
        for effect in std::mem::take(&mut script.out) {
            match effect {
                Effect::Offer { part, epoch, to } => {
                    asked.insert(to.clone());
                    script.tell(Input::HandoverReply { part, epoch, heir: to, ready: false });
                }
                Effect::Leave { .. } => panic!("it left without an heir at {}", script.now),
                Effect::Renew { .. } => script.out.push(effect),
                _ => {}
            }
        }
        ["b-2", "c-3"].iter().for_each(|id| script.lease(id));
    }
    assert_eq!(asked.len(), 2, "the next in order is asked too");
    script.pass(3_000);
    assert!(script.did(|effect| matches!(effect, Effect::Leave { cause: LeaveCause::Released, heir: None, .. })));
}

/// The old owner tells one heir alone when its last turns have ended.
#[test]
fn what_still_waits_for_its_old_owner_is_not_handed_on() {
    let mut script = holding();
    script.claim(Some("a-1"), 4, Some("b-2"), &["k1"]);
    script.tell(Input::Drain { within: 20_000 });
    script.answer_writes();
    script.pass(1_000);
    let offered = |script: &Script| script.did(|effect| matches!(effect, Effect::Offer { .. }));
    assert!(!offered(&script), "{:?}", script.out);
    script.tell(Input::Idle { part: part(), epoch: 4, key: "k1".into() });
    script.pass(250);
    assert!(offered(&script), "{:?}", script.out);
}

/// What counts is that no turn runs: a subscription that still leaves is no reason to decline.
#[test]
fn a_partition_that_is_still_being_left_can_be_taken_back() {
    let (mut script, heir, id) = transferring();
    script.tell(Input::CasDone { id, result: CasResult::Ok(900) });
    script.revision = 1_000;
    let offer = Input::Offered { part: part(), epoch: 2, from: heir.clone() };
    script.out.clear();
    script.tell(offer.clone());
    assert!(script.did(|effect| matches!(effect, Effect::Decline { .. })), "a turn may run: {:?}", script.out);
    script.tell(Input::Stilled { part: part(), epoch: 1 });
    script.tell(offer);
    assert!(script.did(|effect| matches!(effect, Effect::Join { epoch: 3, .. })), "{:?}", script.out);
}

/// A turn on the old owner waits for an actor whose message the new one holds. The claim changes hands while the turn
/// runs, and holds back that turn's key alone: so what it waits for is served, it ends, and its key follows.
#[test]
fn handover_under_chain() {
    // `transferring` has seen the claim written with the reply, although no turn has ended.
    let (mut old, heir, id) = transferring();
    old.tell(Input::CasDone { id, result: CasResult::Ok(900) });
    let left = Effect::Leave { part: part(), epoch: 1, heir: Some(heir), cause: LeaveCause::HandedOver };
    assert!(old.did(|effect| *effect == left), "at once: {:?}", old.out);
    old.out.clear();
    old.pass(60_000);
    assert!(!old.did(|effect| write(effect).is_some() || *effect == left), "it waits for nothing: {:?}", old.out);

    let mut new = holding();
    new.claim(Some("a-1"), 4, Some("b-2"), &["k1"]);
    let held = vec!["k1".to_owned()];
    let serve = Effect::Serve { part: part(), epoch: 4, busy: held.clone(), from: Some("b-2".into()) };
    assert!(new.did(|effect| *effect == serve), "{:?}", new.out);
    assert!(new.machine.settled(&part(), 4, "k2"), "what k1's turn asks for is admitted while it runs");
    // However long that takes.
    for _ in 0..12 {
        new.pass(5_000);
        new.lease("b-2");
    }
    assert!(!new.machine.settled(&part(), 4, "k1") && !new.did(|effect| matches!(effect, Effect::Admit { .. })));
    assert_eq!(new.machine.serving().collect::<Vec<_>>(), [(&part(), 4)], "and k2 is served all the time");
    new.tell(Input::Idle { part: part(), epoch: 4, key: "k1".into() });
    assert!(new.did(|effect| *effect == Effect::Admit { part: part(), keys: held.clone() }));
}
