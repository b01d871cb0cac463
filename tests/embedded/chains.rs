//! Calls that turns make: how deep they may go, and what happens when they come back.

use std::time::{Duration, Instant};

use greenroom::contract::Contract;
use greenroom::prelude::*;

use super::gate::Gate;
use super::ground::{AT_ONCE, Ground, SOON, bounded, on_both, settled, soon};
use super::probe::{Again, Alone, Late, Notes, Poke, Probe, ProbeActor, Refused, Total, Via, keys_on};
use crate::harness::{eventually, holds};

async fn local() -> Node {
    Node::local("demo").host::<ProbeActor>().start().await.expect("a node starts")
}

fn path(actors: usize) -> Vec<String> {
    (1..actors).map(|number| format!("c-{number}")).collect()
}

fn failed(outcome: Result<u32, AskError<Refused>>) -> (String, String) {
    match outcome {
        Err(AskError::Refused(Refused::Failed { kind, message })) => (kind, message),
        Err(AskError::Failed(error)) => (error.kind().name(), error.to_string()),
        other => panic!("it should have failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_runs_as_deep_as_its_limit_and_no_deeper() {
    bounded(async {
        let node = local().await;
        for _ in 0..2 {
            // The first round activates the actors, the second finds them idle.
            let first = node.actor::<Probe>("c-0");
            assert_eq!(first.ask(Via { path: path(32) }).await.expect("31 actors wait for the last"), 31);
        }
        let (kind, message) = failed(node.actor::<Probe>("c-0").ask(Via { path: path(33) }).await);
        assert_eq!(kind, "chain_too_long", "{message}");
        assert!(message.contains("32"), "{message}");
        let (kind, _) = failed(node.actor::<Probe>("c-0").ask(Via { path: path(100) }).await);
        assert_eq!(kind, "chain_too_long");
        assert_eq!(node.actor::<Probe>("c-0").ask(Via { path: path(32) }).await.expect("all are free again"), 31);
    })
    .await;
}

#[test]
fn local_calls_inside_each_other_do_not_overflow_the_stack() {
    // Calls through the node are no part of the turn, so nothing but the stack bounds them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(bounded(async {
        let node = local().await;
        for depth in [100, 1_000, 1_000] {
            let asked = node.clone();
            let ask = async move { asked.actor::<Probe>("alone").ask(Alone { depth }).await };
            let reply = soon("all have answered", tokio::spawn(ask)).await.expect("no panic");
            assert_eq!(reply.expect("an answer"), depth);
        }
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_back_is_a_cycle_at_once() {
    bounded(async {
        let node = local().await;
        for round in [&["a", "b", "a"][..], &["a", "a"], &["a", "b", "c", "d", "b"]] {
            cycles(&node, round).await;
        }
    })
    .await;
}

on_both!(
    r6_a_cycle_over_two_nodes_is_told_at_once,
    r6_a_chain_over_two_nodes_ends_at_its_limit,
    r1_what_is_told_waits_for_nobody,
    r6_two_roots_that_wait_for_each_other_end_in_time,
);

async fn cycles(node: &Node, round: &[&str]) {
    let began = Instant::now();
    let path = round[1..].iter().map(|key| (*key).to_owned()).collect();
    let (kind, message) = failed(node.actor::<Probe>(round[0]).ask(Via { path }).await);
    assert_eq!(kind, "call_cycle", "{round:?}: {message}");
    let last = round[round.len() - 1];
    assert!(message.contains(&format!("probe/{last}")) && message.contains(" -> "), "it shows the way: {message}");
    assert!(began.elapsed() < AT_ONCE, "at once, not at its deadline: {:?}", began.elapsed());
}

async fn two(ground: &Ground) -> (Node, Node, Vec<String>, Vec<String>) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[]).await;
    let (ones, twos) = (keys_on(&one, &one, 20).await, keys_on(&two, &one, 20).await);
    (one, two, ones, twos)
}

async fn r6_a_cycle_over_two_nodes_is_told_at_once(ground: Ground) {
    let (one, two, ones, twos) = two(&ground).await;
    let (a, b, c) = (ones[0].as_str(), twos[0].as_str(), ones[1].as_str());
    for node in [&one, &two] {
        cycles(node, &[a, b, a]).await;
        cycles(node, &[b, a, b]).await;
        cycles(node, &[a, b, c, a]).await;
        cycles(node, &[a, c, b, c]).await;
    }
    assert_eq!(one.actor::<Probe>(a).ask(Via { path: vec![b.to_owned(), c.to_owned()] }).await.expect("no cycle"), 2);
}

async fn r6_a_chain_over_two_nodes_ends_at_its_limit(ground: Ground) {
    let (one, _two, ones, twos) = two(&ground).await;
    let zigzag: Vec<String> = ones.iter().zip(&twos).flat_map(|(one, two)| [one.clone(), two.clone()]).collect();
    let first = one.actor::<Probe>(&zigzag[0]);
    assert_eq!(first.ask(Via { path: zigzag[1..32].to_vec() }).await.expect("31 actors wait"), 31);
    let (kind, message) = failed(first.ask(Via { path: zigzag[1..33].to_vec() }).await);
    assert_eq!(kind, "chain_too_long", "{message}");
}

/// A tell is no cycle, whoever it is for: nobody waits for its turn.
async fn r1_what_is_told_waits_for_nobody(ground: Ground) {
    let (one, _two, ones, twos) = two(&ground).await;
    for (key, other) in [(&ones[0], &ones[1]), (&ones[2], &twos[0]), (&twos[1], &ones[3])] {
        let actor = one.actor::<Probe>(key);
        actor.tell(Again { left: 3 }).await.expect("told");
        let expected = ["3 left", "2 left", "1 left", "0 left"];
        eventually(SOON, "an actor tells itself to go on", async || {
            let notes = actor.ask(Notes).await.expect("an answer");
            holds(notes == expected, || format!("{notes:?}"))
        })
        .await;
        actor.ask(Poke { key: other.clone() }).await.expect("the other is told");
        eventually(SOON, "who was told may ask back", async || {
            let notes = one.actor::<Probe>(other).ask(Notes).await.expect("an answer");
            holds(notes == ["1"], || format!("{notes:?}"))
        })
        .await;
    }
}

async fn r6_two_roots_that_wait_for_each_other_end_in_time(ground: Ground) {
    let (one, two, ones, twos) = two(&ground).await;
    for (a, b) in [(&ones[0], &ones[1]), (&ones[2], &twos[0])] {
        let gate = Gate::closed();
        let root = |node: &Node, from: &str, to: &str| {
            let actor = node.actor::<Probe>(from).within(Duration::from_millis(1_500));
            let late = Late { gate: gate.name(), key: to.to_owned() };
            tokio::spawn(async move { actor.ask(late).await })
        };
        let (forth, back) = (root(&one, a, b), root(&two, b, a));
        gate.arrived(2).await;
        let began = Instant::now();
        gate.open(2);
        for ask in [forth, back] {
            let outcome = soon("its time is over", ask).await.expect("no panic");
            assert!(outcome.is_err() || outcome.is_ok_and(|total| total == 1), "one of them may be let through");
        }
        assert!(began.elapsed() < AT_ONCE);
        for key in [a, b] {
            soon("the actor is free again", one.actor::<Probe>(key).ask(Total)).await.expect("an answer");
        }
    }
}

/// A service that asks itself.
#[contract(service, name = "mirror", messages(Reflect))]
pub(super) struct Mirror;

#[message(Mirror, ask, reply = u32, refusal = Refused)]
pub(super) struct Reflect {
    pub times: u32,
}

#[derive(Default)]
pub(super) struct MirrorService;

#[service(Mirror)]
impl MirrorService {
    #[ask]
    async fn reflect(&mut self, msg: Reflect, ctx: &mut Context<'_, Self>) -> Result<u32, Refused> {
        if msg.times == 0 {
            return Ok(0);
        }
        let again = ctx.service::<Mirror>().ask(Reflect { times: msg.times - 1 }).await;
        again.map(|count| count + 1).map_err(|error| match error {
            AskError::Refused(refusal) => refusal,
            AskError::Failed(error) => Refused::Failed { kind: error.kind().name(), message: error.to_string() },
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_asks_itself_is_told_at_once() {
    bounded(async {
        let options = greenroom::HostOptions::new().pool(1);
        let node = Node::local("demo").host_with::<MirrorService>(options).start().await.expect("a node starts");
        let began = Instant::now();
        let asked = node.service::<Mirror>().within(Duration::from_secs(5)).ask(Reflect { times: 1 }).await;
        let (kind, message) = failed(asked);
        assert_eq!(kind, "call_cycle", "{} has one instance, and it waits: {message}", Mirror::NAME);
        assert!(began.elapsed() < AT_ONCE, "at once, not at its deadline");
        assert_eq!(node.service::<Mirror>().ask(Reflect { times: 0 }).await.expect("it is free again"), 0);
    })
    .await;
}
