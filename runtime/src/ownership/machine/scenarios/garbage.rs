//! Nothing that is told makes a machine panic, grow without bound, or write two things to one key at once.

use std::collections::BTreeSet;

use super::*;
use crate::ownership::machine::simulation::Random;

struct Babble {
    random: Random,
    /// The writes that were asked for and not answered.
    open: BTreeMap<CasId, Key>,
    renewals: Vec<Millis>,
    /// The last offer.
    offer: Option<(Part, u64, NodeId)>,
    /// The last round trip.
    trip: Option<u64>,
}

impl Babble {
    fn number(&mut self) -> u64 {
        match self.random.between(0, 10) {
            0 => u64::MAX,
            1 => u64::MAX - 1,
            2 => self.random.next(),
            _ => self.random.between(0, 12),
        }
    }

    fn node(&mut self) -> NodeId {
        ["a-1", "b-2", "c-3", "d-4"][self.random.between(0, 4) as usize].into()
    }

    fn part(&mut self) -> Part {
        let number = self.random.between(0, 4) as u16 * if self.random.chance(3) { 9_999 } else { 1 };
        Part::new(if self.random.chance(90) { "order" } else { "other" }, number)
    }

    fn key(&mut self) -> Key {
        match self.random.between(0, 8) {
            0 => Key::Meta,
            1 | 2 => Key::Member(self.node()),
            3 | 4 => Key::Lease(self.node()),
            5 if self.random.chance(20) => Key::Past("a".into()),
            6 if self.random.chance(20) => Key::Beat(self.node()),
            _ => Key::Part(self.part()),
        }
    }

    fn entry(&mut self) -> Entry {
        match self.key() {
            Key::Meta => Entry::Meta(Meta { partitions: 4, wire: WIRE, born: 0 }),
            Key::Member(id) => Entry::Member(id, member(self.node().as_str(), self.random.chance(20))),
            Key::Lease(id) => {
                let ended_by = self.random.chance(10).then(|| self.node());
                let incarnation = if self.random.chance(98) { id.as_str()[2..].to_owned() } else { "x".to_owned() };
                let lapsed = self.random.chance(20);
                Entry::Lease(id, Lease { incarnation, server: "s".into(), client: self.number(), ended_by, lapsed })
            }
            Key::Beat(id) => Entry::Beat(id),
            Key::Past(name) => Entry::Past(name, crate::ownership::record::Past { deaths: u32::MAX }),
            Key::Part(part) => {
                let node = self.random.chance(80).then(|| self.node());
                let from = self.random.chance(30).then(|| self.node());
                let busy_at = self.random.chance(30).then(|| self.node());
                let busy = vec![String::new(); self.random.between(0, 3) as usize];
                let (epoch, lease) = (self.number(), self.number());
                Entry::Claim(part, Claim { node, epoch, nonce: String::new(), lease, busy, from, busy_at })
            }
        }
    }

    fn result(&mut self) -> CasResult {
        match self.random.between(0, 4) {
            0 => CasResult::Conflict,
            1 => CasResult::Unknown,
            _ => CasResult::Ok(self.number()),
        }
    }

    fn input(&mut self) -> Input {
        let (part, epoch) = (self.part(), self.number());
        if self.random.chance(30)
            && let Some(id) = self.trip.take()
        {
            return Input::RoundTripDone { id, ok: true };
        }
        match self.random.between(0, 40) {
            0 => Input::Started,
            1 => Input::Connected { server: "s".into(), client: epoch },
            2 if self.random.chance(30) => Input::Disconnected,
            3 if self.random.chance(30) => Input::SnapshotBegun,
            3 | 4 => Input::SnapshotDone,
            36 => Input::Beat { id: self.node(), revision: epoch, beating: self.random.chance(60) },
            37 if self.random.chance(50) => Input::BeatsBegun,
            37 => Input::BeatsShown,
            5 | 6 => Input::Offered { part, epoch, from: self.node() },
            7 | 8 => {
                let (part, epoch, heir) = self.offer.take().unwrap_or((part, epoch, "b-2".into()));
                Input::HandoverReply { part, epoch, heir, ready: self.random.chance(90) }
            }
            9 => Input::Idle { part, epoch, key: String::new() },
            10 | 11 => Input::Quiesced { part, epoch },
            12 if self.random.chance(3) => Input::Drain { within: self.random.between(0, 60_000) },
            13 if self.random.chance(50) => Input::Stilled { part, epoch },
            13 => Input::RoundTripDone { id: self.number(), ok: self.random.chance(80) },
            14 => Input::ConnectionGone { node: self.node(), server: "s".into(), client: epoch },
            15..17 => {
                let reason = if self.random.chance(80) { Gone::Expired } else { Gone::Deleted };
                Input::Deleted { revision: epoch, key: self.key(), reason }
            }
            17..24 => Input::Record { revision: epoch, entry: self.entry() },
            24..28 => match self.renewals.pop() {
                Some(sent_at) => Input::RenewDone { sent_at, result: self.result() },
                None => Input::RenewDone { sent_at: epoch, result: self.result() },
            },
            28..34 => {
                let id = self.open.keys().next().copied().unwrap_or(epoch);
                self.open.remove(&id);
                Input::CasDone { id, result: self.result() }
            }
            _ => Input::Tick,
        }
    }

    fn heard(&mut self, out: Vec<Effect>) -> Result<(), String> {
        for effect in out {
            let (id, key) = match effect {
                Effect::Renew { sent_at, .. } => {
                    self.renewals.push(sent_at);
                    continue;
                }
                Effect::Cas { id, entry, .. } => (id, entry.key()),
                Effect::Delete { id, key, .. } => (id, key),
                Effect::Transfer { id, part, .. } => (id, Key::Part(part)),
                Effect::RoundTrip { id, .. } => {
                    self.trip = Some(id);
                    continue;
                }
                Effect::Offer { part, epoch, to } => {
                    self.offer = Some((part, epoch, to));
                    continue;
                }
                _ => continue,
            };
            if self.open.values().any(|open| *open == key) {
                return Err(format!("two writes of {key} at once"));
            }
            self.open.insert(id, key);
        }
        match self.renewals.len() {
            0 | 1 => Ok(()),
            _ => Err("two renewals at once".to_owned()),
        }
    }
}

#[test]
fn babble_is_survived() {
    let mut effects = BTreeSet::new();
    for seed in 0..3_000 {
        let mut babble =
            Babble { random: Random::new(seed), open: BTreeMap::new(), renewals: Vec::new(), offer: None, trip: None };
        let hosts = if seed % 9 == 0 { BTreeMap::new() } else { member("a-1", false).hosts };
        let mut machine = Machine::new(Config::new("a", "1", hosts, 4));
        let mut now = if seed % 7 == 0 { u64::MAX / 2 - 100_000 } else { 0 };
        for step in 0..200 {
            now = now.saturating_add(babble.random.between(0, 2_000));
            let now = if babble.random.chance(1) { babble.number() } else { now };
            let mut out = Vec::new();
            machine.step(babble.input(), now, &mut out);
            effects.extend(out.iter().map(|effect| {
                let text = format!("{effect:?}");
                text.split(' ').next().unwrap_or_default().to_owned()
            }));
            babble.heard(out).unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
        }
    }
    assert_eq!(effects.len(), 21, "the babble reaches every effect: {effects:?}");
}
