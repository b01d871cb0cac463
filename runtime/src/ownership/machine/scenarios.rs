//! One rule at a time: short scripts of inputs, and what must come of them. The orders nobody thought of are the
//! business of [`simulation`](super::simulation).

mod death;
mod garbage;
mod handover;
mod word;

use super::*;
use crate::ownership::record::{Claim, HostInfo, Lease, Meta};
use crate::ownership::view::Owner;

const TTL: Millis = 30_000;

/// A machine with its output and a clock.
struct Script {
    machine: Machine,
    now: Millis,
    revision: u64,
    out: Vec<Effect>,
    /// The owning connection takes everything and gives nothing back.
    mute: bool,
}

impl Script {
    /// A node `a-1` that hosts one partition of `order`, beside others that are alive.
    fn with(others: &[&str]) -> Self {
        let mut script = Self::bare(true);
        script.tell(Input::Started);
        script.tell(Input::Connected { server: "s".into(), client: 1 });
        script.answer_renewal();
        for id in others {
            script.lease(id);
            script.record(Entry::Member((*id).into(), member(id, false)));
        }
        script.tell(Input::SnapshotDone);
        script.answer_writes();
        script
    }

    fn bare(hosts: bool) -> Self {
        let hosts = if hosts { member("a-1", false).hosts } else { BTreeMap::new() };
        let machine = Machine::new(Config::new("a", "1", hosts, 1));
        Self { machine, now: 1_000, revision: 100, out: Vec::new(), mute: false }
    }

    /// Round trips come back at once, unless the connection is mute.
    fn tell(&mut self, input: Input) {
        self.machine.step(input, self.now, &mut self.out);
        while let Some(at) = self.out.iter().position(|effect| matches!(effect, Effect::RoundTrip { .. })) {
            if let Effect::RoundTrip { id, .. } = self.out.remove(at)
                && !self.mute
            {
                self.machine.step(Input::RoundTripDone { id, ok: true }, self.now, &mut self.out);
            }
        }
    }

    fn record(&mut self, entry: Entry) {
        self.revision += 1;
        self.tell(Input::Record { revision: self.revision, entry });
    }

    fn gone(&mut self, key: Key, reason: Gone) {
        self.revision += 1;
        self.tell(Input::Deleted { revision: self.revision, key, reason });
    }

    fn lease(&mut self, id: &str) {
        self.record(Entry::Lease(
            id.into(),
            Lease { incarnation: id[2..].into(), server: "s".into(), client: 1, ended_by: None },
        ));
    }

    fn expire(&mut self, id: &str) {
        self.gone(Key::Lease(id.into()), Gone::Expired);
    }

    fn claim(&mut self, node: Option<&str>, epoch: u64, from: Option<&str>, busy: &[&str]) {
        let lease = self.revision;
        let busy = busy.iter().map(|key| (*key).to_owned()).collect();
        let nonce = String::new();
        let (node, from) = (node.map(Into::into), from.map(Into::into));
        let claim = Claim { node, epoch, nonce, lease, busy, from, busy_at: None };
        self.record(Entry::Claim(part(), claim));
    }

    /// Acknowledges the renewal that was asked for last and shows it through the watch.
    fn answer_renewal(&mut self) -> bool {
        let last = self.out.iter().rev().find(|effect| matches!(effect, Effect::Renew { .. })).cloned();
        let Some(Effect::Renew { sent_at, lease, .. }) = last else { return false };
        self.out.retain(|effect| !matches!(effect, Effect::Renew { .. }));
        self.revision += 1;
        let revision = self.revision;
        self.tell(Input::RenewDone { sent_at, result: CasResult::Ok(revision) });
        self.tell(Input::Record { revision, entry: Entry::Lease("a-1".into(), lease) });
        true
    }

    /// Acknowledges every write that was asked for.
    fn answer_writes(&mut self) {
        for id in std::mem::take(&mut self.out).iter().filter_map(write) {
            self.revision += 1;
            self.tell(Input::CasDone { id, result: CasResult::Ok(self.revision) });
        }
    }

    /// Lets time pass in ticks, with renewals answered and the others' leases renewed or not as they are.
    fn pass(&mut self, millis: Millis) {
        let until = self.now + millis;
        while self.now < until {
            self.now = (self.now + 250).min(until);
            self.tell(Input::Tick);
            self.answer_renewal();
        }
    }

    /// Takes over a vacant partition.
    fn owning(others: &[&str]) -> Self {
        let mut script = Self::with(others);
        script.pass(4_100);
        script.answer_writes();
        assert!(script.did(|effect| matches!(effect, Effect::Serve { epoch: 1, .. })), "{:?}", script.out);
        script.out.clear();
        script
    }

    fn did(&self, what: impl Fn(&Effect) -> bool) -> bool {
        self.out.iter().any(what)
    }

    fn claimed(&self) -> bool {
        self.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(..), .. }))
    }
}

fn part() -> Part {
    Part::new("order", 0)
}

fn member(id: &str, draining: bool) -> Member {
    let hosts = BTreeMap::from([(
        "order".to_owned(),
        HostInfo { version: "1".into(), weight: 1, durable: false, always_on: Vec::new() },
    )]);
    let services = BTreeMap::new();
    Member { id: id.into(), name: id[..1].into(), hosts, services, draining, waiting: false, started_ms: 0 }
}

fn write(effect: &Effect) -> Option<CasId> {
    match effect {
        Effect::Cas { id, .. } | Effect::Delete { id, .. } | Effect::Transfer { id, .. } => Some(*id),
        _ => None,
    }
}

/// Ids that come before and after `a-1` in the order for the one partition.
fn around() -> (String, String) {
    let view = |other: &str| Script::with(&[other]).machine.view().desired("order", 0) == Some(&"a-1".into());
    let ids: Vec<String> = (3..40).map(|n| format!("b-{n}")).collect();
    let before = ids.iter().find(|id| !view(id)).expect("one that comes first");
    let after = ids.iter().find(|id| view(id)).expect("one that comes second");
    (before.clone(), after.clone())
}

#[test]
fn nothing_before_the_snapshot() {
    let mut script = Script::bare(true);
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    assert!(matches!(script.out[..], [Effect::Renew { expect: 0, .. }]), "{:?}", script.out);
    script.answer_renewal();
    assert_eq!(script.out, [Effect::Unfence]);
    script.pass(60_000);
    assert!(!script.claimed());
    script.out.clear();
    script.tell(Input::SnapshotDone);
    assert!(matches!(&script.out[..], [Effect::Cas { entry: Entry::Member(..), expect: 0, .. }]), "{:?}", script.out);
    script.answer_writes();
    assert!(script.claimed());
}

#[test]
fn a_pure_client_only_watches() {
    let mut script = Script::bare(false);
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.tell(Input::SnapshotDone);
    assert_eq!(script.machine.view().owner("order", 0), Owner::NoHosts);
    script.lease("b-2");
    script.record(Entry::Member("b-2".into(), member("b-2", false)));
    assert_eq!(script.machine.view().owner("order", 0), Owner::Vacant);
    script.claim(Some("b-2"), 4, None, &[]);
    assert_eq!(script.machine.view().owner("order", 0), Owner::Node { id: "b-2".into(), epoch: 4 });
    script.out.clear();
    script.gone(Key::Lease("b-2".into()), Gone::Deleted);
    assert_eq!(script.machine.view().owner("order", 0), Owner::NoHosts);
    assert_eq!(script.out, [Effect::NodeLost { id: "b-2".into() }]);
    script.pass(120_000);
    script.tell(Input::Drain { within: 20_000 });
    assert_eq!(script.out[1..], [Effect::Drained]);
}

#[test]
fn the_first_claims_at_once_and_the_others_wait() {
    let (before, after) = around();
    assert!(Script::with(&[&after]).claimed());
    let mut second = Script::with(&[&before]);
    second.pass(1_999);
    assert!(!second.claimed(), "the first in order has two seconds");
    second.pass(1);
    assert!(second.claimed());
}

#[test]
fn a_lease_counts_from_before_it_was_sent() {
    let mut script = Script::owning(&[]);
    // Round trips are another test's business.
    script.machine.config.stands_ms = 10 * TTL;
    script.pass(10_000 - script.now % 10_000 + 2_000);
    let sent = script.machine.serves_until() + TTL / 10 - TTL;
    assert!(sent <= script.now);
    script.out.clear();
    // The next renewal is sent in time and acknowledged late.
    script.now = sent + 10_000;
    script.tell(Input::Tick);
    script.now += 5_000;
    script.answer_renewal();
    assert_eq!(script.machine.serves_until(), sent + 10_000 + TTL - TTL / 10);
    script.now = script.machine.serves_until() - 1;
    script.tell(Input::Tick);
    assert!(!script.did(|effect| *effect == Effect::Fence));
    script.now += 1;
    script.tell(Input::Tick);
    script.tell(Input::Tick);
    assert_eq!(script.out.iter().filter(|effect| **effect == Effect::Fence).count(), 1);
    script.answer_renewal();
    assert!(script.did(|effect| *effect == Effect::Unfence), "claims are kept: {:?}", script.out);
}

#[test]
fn a_lost_connection_fences_until_the_new_one_is_written_down() {
    let mut script = Script::owning(&[]);
    script.tell(Input::Disconnected);
    assert_eq!(script.out, [Effect::Fence]);
    script.out.clear();
    script.tell(Input::Connected { server: "t".into(), client: 7 });
    let names = |lease: &Lease| lease.server == "t" && lease.client == 7;
    assert!(script.did(|effect| matches!(effect, Effect::Renew { lease, .. } if names(lease))));
    assert!(!script.did(|effect| *effect == Effect::Unfence));
    script.answer_renewal();
    assert!(script.did(|effect| *effect == Effect::Unfence));
}

#[test]
fn a_lease_that_expired_is_made_again_and_so_are_the_claims() {
    let mut script = Script::owning(&[]);
    script.expire("a-1");
    let marker = script.revision;
    assert!(script.did(|effect| matches!(effect, Effect::Renew { expect, .. } if *expect == marker)));
    assert!(script.did(|effect| *effect == Effect::Fence));
    script.out.clear();
    script.tell(Input::Tick);
    assert!(script.out.is_empty());
    let sent_at = script.now;
    script.tell(Input::RenewDone { sent_at, result: CasResult::Ok(marker + 1) });
    script.revision += 1;
    assert!(script.claimed() && !script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
    let same = |claim: &Claim| claim.epoch == 1 && claim.lease == marker + 1;
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if same(claim))));
    script.answer_writes();
    assert_eq!(script.out, [Effect::Unfence]);
}

/// A write of one's own that comes late may revive a lease whose end was never seen.
#[test]
fn a_lease_revived_by_a_late_write_is_a_new_one() {
    let mut script = Script::owning(&[]);
    let birth = script.machine.tenure.birth;
    script.now += TTL + 1;
    script.tell(Input::Tick);
    script.lease("a-1");
    assert!(script.machine.tenure.birth > birth);
    script.out.retain(|effect| matches!(effect, Effect::Renew { .. }));
    script.answer_renewal();
    assert!(script.claimed() && !script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
}

#[test]
fn a_node_believed_dead_gives_up_its_id() {
    let left = |effect: &Effect| matches!(effect, Effect::Leave { cause: LeaveCause::Superseded, epoch: 1, .. });
    let retired = |why| move |effect: &Effect| *effect == Effect::Retire { reason: why };
    let mut taken = Script::owning(&["b-2"]);
    taken.claim(Some("b-2"), 2, None, &[]);
    assert!(taken.did(left) && taken.did(retired(RetireReason::ClaimTaken)) && !taken.claimed());
    assert_eq!(taken.machine.serving().count(), 0);

    let mut deleted = Script::owning(&[]);
    deleted.gone(Key::Lease("a-1".into()), Gone::Deleted);
    assert_eq!(deleted.out, [Effect::Retire { reason: RetireReason::LeaseDeleted }]);
    deleted.pass(60_000);
    assert_eq!(deleted.out.len(), 1, "nothing follows");

    let mut other = Script::owning(&[]);
    other.record(Entry::Lease(
        "a-1".into(),
        Lease { incarnation: "2".into(), server: "s".into(), client: 1, ended_by: None },
    ));
    assert_eq!(other.out, [Effect::Retire { reason: RetireReason::LeaseTaken }]);

    let mut meta = Script::owning(&[]);
    meta.record(Entry::Meta(Meta { partitions: 2, wire: WIRE, born: 0 }));
    assert_eq!(meta.out, [Effect::Retire { reason: RetireReason::MetaMismatch }]);
}

/// The watch may show the marker before the refusal arrives: the next renewal must not wait for more news.
#[test]
fn a_refusal_that_the_watch_has_explained_blocks_nothing() {
    let mut script = Script::owning(&[]);
    script.tell(Input::Disconnected);
    script.tell(Input::Connected { server: "s".into(), client: 2 });
    let sent_at = script.now;
    assert!(script.did(|effect| matches!(effect, Effect::Renew { .. })));
    script.expire("a-1");
    let marker = script.revision;
    script.out.clear();
    script.tell(Input::RenewDone { sent_at, result: CasResult::Conflict });
    assert!(script.did(|effect| matches!(effect, Effect::Renew { expect, .. } if *expect == marker)));
}

/// At most 64 writes are under way; each answer makes room for the next in order, and no tick is waited for.
#[test]
fn what_finds_no_room_is_written_when_there_is_some() {
    let mut script = Script::bare(true);
    script.machine = Machine::new(Config::new("a", "1", member("a-1", false).hosts, 500));
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.answer_renewal();
    script.tell(Input::SnapshotDone);
    script.answer_writes();
    let mut served = Vec::new();
    let mut answered = 0;
    while let Some(at) = script.out.iter().position(|effect| write(effect).is_some()) {
        let under_way = script.out.iter().filter(|effect| write(effect).is_some()).count();
        assert!(under_way == 64 || answered + under_way == 500, "{under_way} after {answered}");
        let id = write(&script.out.remove(at)).expect("just found");
        script.revision += 1;
        script.tell(Input::CasDone { id, result: CasResult::Ok(script.revision) });
        served.extend(script.out.extract_if(.., |effect| matches!(effect, Effect::Serve { .. })));
        answered += 1;
        assert_eq!(served.len(), answered, "what was answered is served before others are claimed");
    }
    assert_eq!(script.machine.serving().count(), 500);
}
