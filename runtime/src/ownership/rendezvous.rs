//! Who *should* own what: weighted rendezvous hashing, and the hash that turns a key into a partition.
//!
//! Owns two functions, the score and the hash of keys, that every node, build and machine must compute alike. Pure arithmetic: it knows no records and
//! does not decide who may act.
//!
//! The algorithm: `h = splitmix64_finaliser(fnv1a64(node 0xFF actor 0xFF partition_le))`, `u = (h >> 11 + ½) / 2^53`,
//! `score = -weight / ln(u)`; the highest score wins and equal ones go to the smaller id. A node's chance to win is its
//! weight over the sum of weights, and when a node comes or goes, only what it wins or had moves. The logarithm is
//! computed here, from operations that IEEE 754 fixes to the bit: the standard library's may differ between platforms.

use super::record::NodeId;
use crate::key::fnv1a32;

/// The partition of a key token: FNV-1a 32 of its bytes modulo `partitions`, as the server's subject mapping computes
/// it. With no partitions at all, 0.
pub(crate) fn partition_of(token: &str, partitions: u16) -> u16 {
    // The remainder is below a u16, so nothing is cut off.
    fnv1a32(token).checked_rem(u32::from(partitions)).unwrap_or(0) as u16
}

/// The candidates for a partition, best first: the definition, with which [`roster`](super::roster) must agree.
#[cfg(test)]
pub(crate) fn ranked<'a>(
    actor: &str,
    partition: u16,
    candidates: impl Iterator<Item = (&'a NodeId, u32)>,
) -> Vec<&'a NodeId> {
    let mut scored: Vec<_> =
        candidates.map(|(node, weight)| (Seed::new(node, actor).score(partition, weight), node)).collect();
    scored.sort_by(|(a, left), (b, right)| b.total_cmp(a).then_with(|| left.cmp(right)));
    scored.into_iter().map(|(_, node)| node).collect()
}

/// The best candidate for a partition; the first of [`ranked`], without the sort.
#[cfg(test)]
pub(crate) fn first<'a>(
    actor: &str,
    partition: u16,
    candidates: impl Iterator<Item = (&'a NodeId, u32)>,
) -> Option<&'a NodeId> {
    candidates
        .map(|(node, weight)| (Seed::new(node, actor).score(partition, weight), node))
        .max_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| right.cmp(left)))
        .map(|(_, node)| node)
}

/// What a node's scores for one actor have in common; a score from here costs a few nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The beginning of the hash.
    pub(crate) fn new(node: &NodeId, actor: &str) -> Self {
        let bytes = node.as_str().bytes().chain([0xff]).chain(actor.bytes()).chain([0xff]);
        Self(bytes.fold(0xcbf2_9ce4_8422_2325_u64, fnv))
    }

    /// The score for one partition.
    pub(crate) fn score(self, partition: u16, weight: u32) -> f64 {
        let unit = ((self.hash(partition) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(weight) / -ln(unit)
    }

    fn hash(self, partition: u16) -> u64 {
        finish(partition.to_le_bytes().into_iter().fold(self.0, fnv))
    }
}

/// A node's place on the ring of those that watch each other's heartbeats.
pub(crate) fn place(node: &NodeId) -> u64 {
    finish(node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, fnv))
}

/// FNV alone leaves the last bytes in the low bits; the finaliser of splitmix64 spreads them.
fn finish(fnv: u64) -> u64 {
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// The natural logarithm of a number in (0, 1], the same to the bit everywhere.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as f64 - 1023.0;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …) with |s| < 0.172: eleven terms reach the last bit.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..11).rev().fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<(NodeId, u32)> {
        (0..count).map(|n| (NodeId::new(format!("node{n}-x{n}")), 1)).collect()
    }

    fn winner(nodes: &[(NodeId, u32)], partition: u16) -> &NodeId {
        let winner = first("order", partition, nodes.iter().map(|(id, weight)| (id, *weight))).expect("somebody");
        assert_eq!(ranked("order", partition, nodes.iter().map(|(id, weight)| (id, *weight)))[0], winner);
        winner
    }

    #[test]
    fn a_key_hashes_as_the_server_does_it() {
        assert_eq!(partition_of("42", 64), 3);
        assert_eq!(partition_of("abc-1", 64), 25);
        assert_eq!(partition_of("", 64), (0x811c_9dc5_u32 % 64) as u16);
        assert_eq!(partition_of("42", 0), 0);
        assert_eq!(partition_of("42", 1), 0);
    }

    #[test]
    fn the_logarithm_is_the_logarithm() {
        for n in 1..=100_000 {
            let x = f64::from(n) / 100_000.0;
            assert!((ln(x) - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln().abs().max(1.0), "{x}");
        }
        assert!((ln(0.5 / (1_u64 << 53) as f64) + 37.429_947_750_237_05).abs() < 1e-12);
    }

    #[test]
    fn hash_and_ranking_never_change() {
        assert_eq!(Seed::new(&"a-1".into(), "order").hash(0), VECTOR_HASH);
        assert_eq!(Seed::new(&"a-1".into(), "order").score(0, 1).to_bits(), VECTOR_SCORE);
        let nodes = nodes(5);
        let order: Vec<String> = (0..16).map(|n| winner(&nodes, n).as_str()[4..5].to_owned()).collect();
        assert_eq!(order.concat(), VECTOR_WINNERS);
    }

    const VECTOR_HASH: u64 = 8_836_443_819_234_196_811;
    const VECTOR_SCORE: u64 = 4_608_797_812_395_100_293;
    const VECTOR_WINNERS: &str = "3111333302023404";

    #[test]
    fn partitions_spread_evenly() {
        let nodes = nodes(10);
        let mut share = vec![0_u32; 10];
        for partition in 0..4_096 {
            let at = nodes.iter().position(|(id, _)| id == winner(&nodes, partition)).expect("one of them");
            share[at] += 1;
        }
        // 409.6 expected, standard deviation 19.2: four of them.
        assert!(share.iter().all(|n| (333..=486).contains(n)), "{share:?}");
    }

    #[test]
    fn only_the_share_of_a_newcomer_moves() {
        let (few, many) = (nodes(9), nodes(10));
        let newcomer = &many[9].0;
        let mut moved = 0;
        for partition in 0..4_096 {
            let (before, after) = (winner(&few, partition), winner(&many, partition));
            assert!(before == after || after == newcomer, "a partition moved between old members");
            moved += u32::from(before != after);
        }
        assert!((333..=486).contains(&moved), "{moved}");
    }

    #[test]
    fn weights_are_shares() {
        let mut nodes = nodes(3);
        nodes[1].1 = 2;
        nodes[2].1 = 0;
        let heavy = (0..4_096).filter(|n| winner(&nodes, *n) == &nodes[1].0).count();
        let none = (0..4_096).filter(|n| winner(&nodes, *n) == &nodes[2].0).count();
        // 2730.7 expected, standard deviation 30.2.
        assert!((2_610..=2_851).contains(&heavy), "{heavy}");
        assert_eq!(none, 0);
        assert_eq!(winner(&nodes[2..], 7), &nodes[2].0, "weight 0 serves when it is alone");
    }

    #[test]
    fn actors_of_one_node_spread_independently() {
        let nodes = nodes(2);
        let of = |actor| {
            move |n: &u16| {
                first(actor, *n, nodes.iter().map(|(id, weight)| (id, *weight))).map(|id| id.as_str().to_owned())
            }
        };
        let nodes_again = self::nodes(2);
        let other =
            |n: &u16| first("cart", *n, nodes_again.iter().map(|(id, w)| (id, *w))).map(|id| id.as_str().to_owned());
        let order = of("order");
        let same = (0..1_024).filter(|n| order(n) == other(n)).count();
        assert!((448..=576).contains(&same), "{same}");
    }
}
