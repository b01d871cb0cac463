//! Who gets a message: filters with wildcards, queue groups, and the broker's mapping.

use crate::key::fnv1a32;
use std::collections::{BTreeMap, HashMap};

/// The number of a subscription; never used twice.
pub(super) type SubscriptionId = u64;

/// All subscriptions, as a tree of tokens.
#[derive(Debug, Default)]
pub(super) struct Routes {
    root: Node,
    /// Whose turn it is in each queue group.
    turns: HashMap<String, usize>,
}

#[derive(Debug, Default)]
struct Node {
    next: HashMap<String, Node>,
    /// Those whose filter ends here, with their queue group.
    here: Vec<(SubscriptionId, Option<String>)>,
    /// Those whose filter ends here with `>`.
    below: Vec<(SubscriptionId, Option<String>)>,
}

impl Routes {
    pub(super) fn add(&mut self, filter: &str, queue: Option<&str>, id: SubscriptionId) {
        let (tokens, below) = split(filter);
        let mut node = &mut self.root;
        for token in tokens {
            node = node.next.entry(token.to_owned()).or_default();
        }
        let list = if below { &mut node.below } else { &mut node.here };
        list.push((id, queue.map(str::to_owned)));
    }

    pub(super) fn remove(&mut self, filter: &str, id: SubscriptionId) {
        let (tokens, below) = split(filter);
        self.root.remove(&tokens, below, id);
        // A group without members loses its turn, so that groups that come and go cost nothing.
        if self.turns.len() > 1_024 {
            self.turns.clear();
        }
    }

    /// Everybody who gets a message on this subject: each plain subscription, and one member of
    /// each queue group, in turn. Subscriptions that are not `reachable` do not count.
    pub(super) fn receivers(
        &mut self,
        subject: &str,
        reachable: impl Fn(SubscriptionId) -> bool,
    ) -> Vec<SubscriptionId> {
        let mut found = Vec::new();
        let tokens: Vec<&str> = subject.split('.').collect();
        self.root.find(&tokens, &mut found);
        found.retain(|(id, _)| reachable(*id));
        found.sort_unstable_by_key(|(id, _)| *id);
        let mut receivers = Vec::with_capacity(found.len());
        // Groups are told apart by their name alone, whatever their filters, as the server does.
        let mut groups: BTreeMap<&str, Vec<SubscriptionId>> = BTreeMap::new();
        for (id, queue) in found {
            match queue {
                None => receivers.push(id),
                Some(queue) => groups.entry(queue).or_default().push(id),
            }
        }
        for (queue, members) in groups {
            let turn = match self.turns.get_mut(queue) {
                Some(turn) => turn,
                None => self.turns.entry(queue.to_owned()).or_default(),
            };
            receivers.push(members[*turn % members.len()]);
            *turn = turn.wrapping_add(1);
        }
        receivers
    }
}

impl Node {
    fn find<'a>(&'a self, tokens: &[&str], found: &mut Vec<(SubscriptionId, Option<&'a str>)>) {
        let Some((token, rest)) = tokens.split_first() else {
            found.extend(self.here.iter().map(|(id, queue)| (*id, queue.as_deref())));
            return;
        };
        found.extend(self.below.iter().map(|(id, queue)| (*id, queue.as_deref())));
        for name in [*token, "*"] {
            if let Some(node) = self.next.get(name) {
                node.find(rest, found);
            }
        }
    }

    /// Takes a subscription out; tells whether nothing is left here.
    fn remove(&mut self, tokens: &[&str], below: bool, id: SubscriptionId) -> bool {
        match tokens.split_first() {
            None => {
                let list = if below { &mut self.below } else { &mut self.here };
                list.retain(|(known, _)| *known != id);
            }
            Some((token, rest)) => {
                if self.next.get_mut(*token).is_some_and(|node| node.remove(rest, below, id)) {
                    self.next.remove(*token);
                }
            }
        }
        self.next.is_empty() && self.here.is_empty() && self.below.is_empty()
    }
}

fn split(filter: &str) -> (Vec<&str>, bool) {
    let mut tokens: Vec<&str> = filter.split('.').collect();
    let below = tokens.last() == Some(&">");
    if below {
        tokens.pop();
    }
    (tokens, below)
}

/// `{app}.{actor}.*.*` goes to `{app}.@.{partition}.{actor}.*.*`.
#[derive(Debug)]
pub(super) struct Mapping {
    app: String,
    actor: String,
    partitions: u32,
}

impl Mapping {
    pub(super) fn new(app: &str, actor: &str, partitions: u32) -> Self {
        Self { app: app.to_owned(), actor: actor.to_owned(), partitions: partitions.max(1) }
    }

    /// Where a message on this subject goes instead, if the mapping is about it.
    pub(super) fn apply(&self, subject: &str) -> Option<String> {
        let rest = subject.strip_prefix(&self.app)?.strip_prefix('.')?;
        let rest = rest.strip_prefix(&self.actor)?.strip_prefix('.')?;
        let (token, verb) = rest.split_once('.')?;
        if verb.contains('.') {
            return None;
        }
        let partition = fnv1a32(token) % self.partitions;
        Some(format!("{}.@.{partition}.{}.{token}.{verb}", self.app, self.actor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_on_the_server() {
        let mut routes = Routes::default();
        for (id, filter) in ["a.b", "a.*", "a.>", ">", "*.b", "a.b.c", "a.*.>"].into_iter().enumerate() {
            routes.add(filter, None, id as u64);
        }
        assert_eq!(routes.receivers("a.b", |_| true), [0, 1, 2, 3, 4]);
        assert_eq!(routes.receivers("a.b.c", |_| true), [2, 3, 5, 6]);
        assert_eq!(routes.receivers("a", |_| true), [3]);
        routes.remove("a.>", 2);
        routes.remove(">", 3);
        assert_eq!(routes.receivers("a", |_| true), [] as [u64; 0]);
        assert_eq!(routes.receivers("a.b.c", |_| true), [5, 6]);
    }

    #[test]
    fn a_queue_group_takes_turns() {
        let mut routes = Routes::default();
        routes.add("a.*", Some("q"), 1);
        routes.add("a.>", Some("q"), 2);
        routes.add("a.b", None, 3);
        assert_eq!(routes.receivers("a.b", |_| true), [3, 1]);
        assert_eq!(routes.receivers("a.b", |_| true), [3, 2]);
        assert_eq!(routes.receivers("a.b", |id| id != 2), [3, 1]);
    }

    #[test]
    fn keys_fall_into_the_partitions_that_the_server_computes() {
        // 42 and abc-1 of 64 were seen in partitions 3 and 25 on a real server.
        let mapping = Mapping::new("shop", "order", 64);
        assert_eq!(mapping.apply("shop.order.42.place").as_deref(), Some("shop.@.3.order.42.place"));
        assert_eq!(mapping.apply("shop.order.abc-1.place").as_deref(), Some("shop.@.25.order.abc-1.place"));
        for other in ["shop.order.42", "shop.order.42.place.x", "shop.orders.42.place", "shop.@.3.order.42.place"] {
            assert_eq!(mapping.apply(other), None, "{other}");
        }
    }
}
