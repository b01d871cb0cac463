//! Who may be chosen for an actor's partitions, and in which order.
//!
//! Owns the lists of candidates, made anew when members or leases have changed and not before, and the questions asked
//! of them. The order itself is [`rendezvous`](super::rendezvous)'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{Member, NodeId, Part};
use super::rendezvous::Seed;
use super::view::View;

/// The candidates for each actor's partitions, and what is known of their order.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Roster {
    me: NodeId,
    /// The state of the hosts that this stands for.
    hosts: u64,
    actors: BTreeMap<Arc<str>, Candidates>,
    /// The partitions for which nobody comes before this node.
    at_home: BTreeSet<Part>,
}

impl Roster {
    /// The roster as a node sees it.
    pub(super) fn new(me: NodeId) -> Self {
        Self { me, hosts: 0, actors: BTreeMap::new(), at_home: BTreeSet::new() }
    }

    /// The live hosts of an actor that do not drain.
    pub(super) fn of(&mut self, view: &View, actor: &Arc<str>) -> &Candidates {
        self.refresh(view);
        self.actors.entry(actor.clone()).or_insert_with(|| Candidates::new(view, actor, &self.me))
    }

    /// True if nobody comes before this node; found out once for each change of the hosts.
    pub(super) fn is_at_home(&mut self, view: &View, part: &Part) -> bool {
        self.refresh(view);
        self.at_home.contains(part)
    }

    /// Remembers that nobody comes before this node.
    pub(super) fn settle(&mut self, part: &Part) {
        self.at_home.insert(part.clone());
    }

    fn refresh(&mut self, view: &View) {
        if self.hosts != view.index.hosts {
            self.hosts = view.index.hosts;
            self.actors.clear();
            self.at_home.clear();
        }
    }
}

/// The candidates for one actor's partitions, in the order of ids, and where among them this node is.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    me: Option<usize>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Candidate {
    id: NodeId,
    seed: Seed,
    weight: u32,
    ready: bool,
}

impl Candidates {
    /// Those among whom the owner should be: the live hosts that are ready, or else that do not drain, or else all.
    pub(crate) fn desired(view: &View, actor: &str, me: &NodeId) -> Self {
        let levels: [fn(&Member) -> bool; 3] = [Member::is_ready, |member| !member.draining, |_| true];
        let mut lists = levels.into_iter().map(|fit| Self::fit(view, actor, me, fit));
        lists.find(|list| !list.all.is_empty()).unwrap_or(Self { all: Vec::new(), me: None })
    }

    /// True if this node should own a partition, as far as these are known; also if they are none.
    pub(crate) fn prefer_me(&self, partition: u16) -> bool {
        let Some(mine) = self.me else { return self.all.is_empty() };
        let score = self.all.get(mine).map(|mine| mine.score(partition));
        let before = |(at, other): (usize, &Candidate)| {
            score.is_some_and(|score| other.score(partition).total_cmp(&score).then(mine.cmp(&at)).is_gt())
        };
        !self.all.iter().enumerate().any(before)
    }

    fn new(view: &View, actor: &str, me: &NodeId) -> Self {
        Self::fit(view, actor, me, |member| !member.draining)
    }

    fn fit(view: &View, actor: &str, me: &NodeId, fit: impl Fn(&Member) -> bool) -> Self {
        let hosts = view.hosts(actor).filter(|(_, member, _)| fit(member));
        let candidate = |(id, member, weight): (&NodeId, &Member, u32)| Candidate {
            id: id.clone(),
            seed: Seed::new(id, actor),
            weight,
            ready: member.is_ready(),
        };
        Self::of(hosts.map(candidate).collect(), me)
    }

    fn of(all: Vec<Candidate>, me: &NodeId) -> Self {
        let me = all.binary_search_by(|candidate| candidate.id.cmp(me)).ok();
        Self { all, me }
    }

    /// The best for a partition but for `without`.
    pub(crate) fn first(&self, partition: u16, without: Option<&NodeId>) -> Option<&NodeId> {
        let mut best: Option<(f64, &NodeId)> = None;
        for (_, candidate) in self.chosen(without) {
            let score = candidate.score(partition);
            // Of equal ones the smaller id, which comes first.
            if best.is_none_or(|(best, _)| score.total_cmp(&best).is_gt()) {
                best = Some((score, &candidate.id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// How many come before this node for a partition, counted up to 2: nobody asks for more, and so the count ends after
    /// about as many candidates as their number has digits. `None` if it is not to be chosen.
    pub(super) fn place(&self, partition: u16, without: Option<&NodeId>) -> Option<u64> {
        let at = self.me?;
        let ready = self.any_ready(without);
        let mine = self.all.get(at).filter(|mine| mine.ready == ready && Some(&mine.id) != without)?.score(partition);
        let better = self.chosen(without).filter(|(other, candidate)| {
            *other != at && candidate.score(partition).total_cmp(&mine).then(at.cmp(other)).is_gt()
        });
        Some(better.take(2).count() as u64)
    }

    /// All of them, best first, but for `without`.
    pub(super) fn ranked(&self, partition: u16, without: Option<&NodeId>) -> Vec<&NodeId> {
        let mut scored: Vec<_> =
            self.chosen(without).map(|(_, candidate)| (candidate.score(partition), &candidate.id)).collect();
        scored.sort_by(|(a, left), (b, right)| b.total_cmp(a).then_with(|| left.cmp(right)));
        scored.into_iter().map(|(_, id)| id).collect()
    }

    /// True if there is anybody but `without`.
    pub(super) fn any(&self, without: &NodeId) -> bool {
        self.chosen(Some(without)).next().is_some()
    }

    /// Those that are ready; if there are none, those that wait.
    fn chosen(&self, without: Option<&NodeId>) -> impl Iterator<Item = (usize, &Candidate)> {
        let (ready, without) = (self.any_ready(without), without.and_then(|id| self.at(id)));
        self.all.iter().enumerate().filter(move |(at, candidate)| candidate.ready == ready && Some(*at) != without)
    }

    fn any_ready(&self, without: Option<&NodeId>) -> bool {
        self.all.iter().any(|candidate| candidate.ready && Some(&candidate.id) != without)
    }

    fn at(&self, id: &NodeId) -> Option<usize> {
        self.all.binary_search_by(|candidate| candidate.id.cmp(id)).ok()
    }
}

impl Candidate {
    fn score(&self, partition: u16) -> f64 {
        self.seed.score(partition, self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::rendezvous;

    fn candidates(count: u64, me: u64) -> Candidates {
        let candidate = |n: u64| {
            let id = NodeId::new(format!("node{n:03}-x"));
            Candidate { seed: Seed::new(&id, "order"), id, weight: (n % 4) as u32, ready: !n.is_multiple_of(5) }
        };
        Candidates::of((0..count).map(candidate).collect(), &NodeId::new(format!("node{me:03}-x")))
    }

    /// The quick answers are those of the whole order.
    #[test]
    fn places_are_those_of_the_order() {
        for (count, me) in [(0, 0), (1, 0), (2, 1), (3, 0), (10, 4), (10, 5), (60, 0), (60, 31), (60, 60)] {
            let candidates = candidates(count, me);
            for without in [None, candidates.all.first(), candidates.all.last()].map(|id| id.map(|one| &one.id)) {
                for partition in 0..256 {
                    let ranked = candidates.ranked(partition, without);
                    let everybody = candidates.all.iter().map(|one| (&one.id, one.weight));
                    let best = rendezvous::first("order", partition, everybody).cloned();
                    assert_eq!(candidates.first(partition, without), ranked.first().copied());
                    let chosen = candidates.chosen(without).map(|(_, one)| (&one.id, one.weight));
                    assert_eq!(rendezvous::ranked("order", partition, chosen), ranked);
                    let me = NodeId::new(format!("node{me:03}-x"));
                    let place = ranked.iter().position(|id| **id == me).map(|place| place.min(2) as u64);
                    assert_eq!(candidates.place(partition, without), place);
                    assert_eq!(candidates.prefer_me(partition), best.is_none_or(|best| best == me));
                }
            }
        }
    }
}
