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
    /// The others whose heartbeats are there, and those that are watched.
    beating: BTreeSet<NodeId>,
    watched: Vec<NodeId>,
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
        script.settle();
        script
    }

    /// Everything has been shown, and what that makes it do is done.
    fn settle(&mut self) {
        self.tell(Input::SnapshotDone);
        self.answer_writes();
    }

    fn bare(hosts: bool) -> Self {
        let hosts = if hosts { member("a-1", false).hosts } else { BTreeMap::new() };
        let machine = Machine::new(Config::new("a", "1", hosts, 1));
        Self {
            machine,
            now: 1_000,
            revision: 100,
            out: Vec::new(),
            mute: false,
            beating: BTreeSet::new(),
            watched: Vec::new(),
        }
    }

    /// Round trips come back at once, unless the connection is mute; heartbeats are watched as asked, and those are
    /// there that should be.
    fn tell(&mut self, input: Input) {
        self.machine.step(input, self.now, &mut self.out);
        let aside = |effect: &Effect| matches!(effect, Effect::RoundTrip { .. } | Effect::WatchBeats { .. });
        while let Some(at) = self.out.iter().position(aside) {
            match self.out.remove(at) {
                Effect::RoundTrip { id, .. } if !self.mute => {
                    self.machine.step(Input::RoundTripDone { id, ok: true }, self.now, &mut self.out);
                }
                Effect::WatchBeats { of } => self.show_beats(of),
                _ => {}
            }
        }
    }

    fn show_beats(&mut self, of: Vec<NodeId>) {
        self.machine.step(Input::BeatsBegun, self.now, &mut self.out);
        for id in of.iter().filter(|id| self.beating.contains(*id)) {
            let beat = Input::Beat { id: id.clone(), revision: self.revision, beating: true };
            self.machine.step(beat, self.now, &mut self.out);
        }
        self.machine.step(Input::BeatsShown, self.now, &mut self.out);
        self.watched = of;
    }

    fn record(&mut self, entry: Entry) {
        self.revision += 1;
        self.tell(Input::Record { revision: self.revision, entry });
    }

    fn gone(&mut self, key: Key, reason: Gone) {
        self.revision += 1;
        self.tell(Input::Deleted { revision: self.revision, key, reason });
    }

    /// A node is there: its lease and its heartbeat.
    fn lease(&mut self, id: &str) {
        self.beat(id);
        self.record(Entry::Lease(id.into(), lease(id, 1)));
    }

    fn beat(&mut self, id: &str) {
        self.beating.insert(id.into());
        self.show_beat(id, true);
    }

    /// A heartbeat stops.
    fn expire(&mut self, id: &str) {
        self.beating.remove(&NodeId::from(id));
        self.show_beat(id, false);
    }

    fn show_beat(&mut self, id: &str, beating: bool) {
        self.revision += 1;
        self.tell(Input::Beat { id: id.into(), revision: self.revision, beating });
    }

    fn claim(&mut self, node: Option<&str>, epoch: u64, from: Option<&str>, busy: &[&str]) {
        let lease = self.revision;
        let busy = busy.iter().map(|key| (*key).to_owned()).collect();
        let nonce = String::new();
        let (node, from) = (node.map(Into::into), from.map(Into::into));
        let claim = Claim { node, epoch, nonce, lease, busy, from, busy_at: None };
        self.record(Entry::Claim(part(), claim));
    }

    /// Acknowledges the heartbeat that was asked for last, shows it through the watches, and acknowledges the lease
    /// that follows.
    fn answer_renewal(&mut self) -> bool {
        let Some(sent_at) = self.renewal() else { return false };
        self.revision += 1;
        let revision = self.revision;
        self.tell(Input::RenewDone { sent_at, result: CasResult::Ok(revision) });
        self.tell(Input::Beat { id: "a-1".into(), revision, beating: true });
        self.tell(Input::Record { revision, entry: Entry::Beat("a-1".into()) });
        self.answer_lease();
        true
    }

    /// When the heartbeat was sent that has not been answered.
    fn renewal(&mut self) -> Option<Millis> {
        match self.out.extract_if(.., |effect| matches!(effect, Effect::Renew { .. })).last() {
            Some(Effect::Renew { sent_at }) => Some(sent_at),
            _ => None,
        }
    }

    /// Acknowledges the own lease, if it was written.
    fn answer_lease(&mut self) -> bool {
        let own = |effect: &mut Effect| matches!(effect, Effect::Cas { entry: Entry::Lease(id, _), .. } if id.as_str() == "a-1");
        let Some(id) = self.out.extract_if(.., own).last().as_ref().and_then(write) else { return false };
        self.revision += 1;
        self.tell(Input::CasDone { id, result: CasResult::Ok(self.revision) });
        true
    }

    /// The watch does not show the own lease, and the broker refuses to write it over what it was.
    fn vanish(&mut self) {
        self.tell(Input::SnapshotBegun);
        self.tell(Input::SnapshotDone);
        assert!(!self.machine.is_fenced(), "the watch may be behind");
        let own = |effect: &mut Effect| matches!(effect, Effect::Cas { entry: Entry::Lease(..), .. });
        let id = self.out.extract_if(.., own).last().as_ref().and_then(write).expect("the lease is written again");
        self.tell(Input::CasDone { id, result: CasResult::Conflict });
        // The next snapshot is newer than the refusal: a heartbeat is in it that was sent afterwards.
        self.now = (self.machine.tenure.valid_until - TTL + 10_000).max(self.now + 1);
        self.tell(Input::Tick);
        let sent_at = self.renewal().expect("a heartbeat");
        self.revision += 1;
        let revision = self.revision;
        self.tell(Input::RenewDone { sent_at, result: CasResult::Ok(revision) });
        self.tell(Input::SnapshotBegun);
        self.tell(Input::Record { revision, entry: Entry::Beat("a-1".into()) });
        self.tell(Input::SnapshotDone);
    }

    /// Acknowledges the tombstones of those whose heartbeats have stopped.
    fn answer_lapsed(&mut self) {
        let tombstone = |effect: &mut Effect| {
            matches!(effect, Effect::Cas { entry: Entry::Lease(_, Lease { lapsed: true, .. }), .. })
        };
        for id in self.out.extract_if(.., tombstone).collect::<Vec<_>>().iter().filter_map(write) {
            self.revision += 1;
            self.tell(Input::CasDone { id, result: CasResult::Ok(self.revision) });
        }
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
            self.answer_lapsed();
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

fn lease(id: &str, client: u64) -> Lease {
    Lease { incarnation: id[2..].into(), server: "s".into(), client, ended_by: None, lapsed: false }
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
    assert!(matches!(script.out[..], [Effect::Renew { .. }]), "{:?}", script.out);
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
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Lease(_, lease), .. } if names(lease))));
    assert!(!script.did(|effect| *effect == Effect::Unfence));
    script.answer_lease();
    assert!(script.did(|effect| *effect == Effect::Unfence));
}

/// Somebody may be about to end it, over the revision that was there before.
#[test]
fn a_lease_is_written_anew_after_a_lapse_and_a_heartbeat() {
    let mut script = Script::owning(&[]);
    let (birth, before) = (script.machine.tenure.birth, script.machine.view().revision(&Key::Lease("a-1".into())));
    script.revision += 1;
    script.tell(Input::Beat { id: "a-1".into(), revision: script.revision, beating: false });
    assert!(script.did(|effect| *effect == Effect::Fence));
    let written = |script: &Script| {
        script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Lease(..), expect, .. } if *expect == before))
    };
    assert!(!written(&script), "not before a heartbeat: {:?}", script.out);
    let sent_at = script.renewal().expect("a heartbeat, at once");
    script.revision += 1;
    script.tell(Input::RenewDone { sent_at, result: CasResult::Ok(script.revision) });
    assert!(written(&script) && !script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
    script.answer_lease();
    assert!(script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
    assert!(script.machine.tenure.birth == birth && !script.claimed(), "the lease never ended, and the claims stand");
}

/// By the broker's clock it may have stopped already.
#[test]
fn a_heartbeat_counts_as_stopped_a_tenth_sooner() {
    let mut script = Script::owning(&[]);
    script.machine.config.stands_ms = 10 * TTL;
    script.pass(1_000);
    let last = script.machine.tenure.valid_until - TTL;
    script.now = last + TTL - TTL / 10;
    script.out.clear();
    script.tell(Input::Tick);
    let sent_at = script.renewal().expect("a heartbeat");
    script.revision += 1;
    script.tell(Input::RenewDone { sent_at, result: CasResult::Ok(script.revision) });
    assert!(script.machine.is_fenced(), "{:?}", script.out);
    assert!(script.answer_lease() && !script.machine.is_fenced(), "once the lease is written again");
}

/// The end of the own heartbeat and the answer to the next come on different ways.
#[test]
fn an_end_that_is_shown_late_is_a_lapse_all_the_same() {
    let mut script = Script::owning(&[]);
    script.pass(12_000);
    let ended = script.revision + 1;
    script.revision += 1;
    script.pass(10_000);
    script.out.clear();
    script.tell(Input::Beat { id: "a-1".into(), revision: ended, beating: false });
    assert!(script.machine.is_fenced() && script.renewal().is_none(), "it beats again: {:?}", script.out);
    assert!(script.answer_lease() && !script.machine.is_fenced());
    // One that the lease was written after is old.
    script.tell(Input::Beat { id: "a-1".into(), revision: ended, beating: false });
    assert!(!script.machine.is_fenced());
}

/// A lease that was written before a lapse, and acknowledged after it, proves nothing.
#[test]
fn an_answer_from_before_a_lapse_unfences_nobody() {
    let mut script = Script::owning(&[]);
    script.tell(Input::Disconnected);
    script.tell(Input::Connected { server: "s".into(), client: 2 });
    let id = script.out.extract_if(.., |effect| write(effect).is_some()).last().as_ref().and_then(write);
    script.now += TTL + 1;
    script.revision += 1;
    script.tell(Input::CasDone { id: id.expect("the lease was written"), result: CasResult::Ok(script.revision) });
    let sent_at = script.renewal().expect("a heartbeat");
    script.out.clear();
    script.revision += 1;
    script.tell(Input::RenewDone { sent_at, result: CasResult::Ok(script.revision) });
    assert!(script.machine.is_fenced(), "{:?}", script.out);
    assert!(script.answer_lease(), "it is written again");
    assert!(!script.machine.is_fenced());
}

/// The bucket was put back to what it was before this node came, or the broker has lost something.
#[test]
fn a_lease_that_vanished_is_made_again_and_so_are_the_claims() {
    let mut script = Script::owning(&[]);
    script.vanish();
    assert!(script.did(|effect| *effect == Effect::Fence), "{:?}", script.out);
    script.out.retain(|effect| write(effect).is_some());
    assert!(script.answer_lease(), "made again");
    let birth = script.revision;
    assert!(script.claimed() && !script.did(|effect| *effect == Effect::Unfence), "{:?}", script.out);
    let same = |claim: &Claim| claim.epoch == 1 && claim.lease == birth;
    assert!(script.did(|effect| matches!(effect, Effect::Cas { entry: Entry::Claim(_, claim), .. } if same(claim))));
    script.answer_writes();
    assert_eq!(script.out, [Effect::Unfence]);
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
    other.record(Entry::Lease("a-1".into(), Lease { incarnation: "2".into(), ..lease("a-1", 1) }));
    assert_eq!(other.out, [Effect::Retire { reason: RetireReason::LeaseTaken }]);

    let mut meta = Script::owning(&[]);
    meta.record(Entry::Meta(Meta { partitions: 2, wire: WIRE, born: 0 }));
    assert_eq!(meta.out, [Effect::Retire { reason: RetireReason::MetaMismatch }]);
}

/// At most 64 writes are under way; each answer makes room for the next in order, and no tick is waited for.
#[test]
fn what_finds_no_room_is_written_when_there_is_some() {
    let mut script = Script::bare(true);
    script.machine = Machine::new(Config::new("a", "1", member("a-1", false).hosts, 500));
    script.tell(Input::Started);
    script.tell(Input::Connected { server: "s".into(), client: 1 });
    script.answer_renewal();
    script.settle();
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
