//! Calls of several roots that wait for each other: the youngest turn of a circle is told, the others go on.

use std::time::Duration;

use greenroom::HostOptions;
use greenroom::prelude::*;

use super::gate::Gate;
use super::ground::{Ground, QUIET, SOON, on_both, settled, soon};
use super::probe::{Late, Probe, ProbeActor, Refused, Total, Wait, keys_on};

/// Far more than a test may take.
const BUDGET: Duration = Duration::from_secs(50);

/// Passes a gate, and asks the guide to lead it.
#[contract(name = "walker", messages(Walk, Step))]
struct Walker;

#[message(Walker, ask, reply = u64, refusal = Refused)]
struct Walk {
    gate: String,
}

#[message(Walker, ask, reply = u64)]
struct Step;

/// Passes a gate, and asks a walker to step on, if one is named.
#[contract(service, name = "guide", messages(Lead))]
struct Guide;

#[message(Guide, ask, reply = u64, refusal = Refused)]
struct Lead {
    gate: String,
    walker: String,
}

#[derive(Default)]
struct WalkerActor {
    steps: u64,
}

fn told<T, R: std::fmt::Debug>(outcome: Result<T, AskError<R>>) -> Result<T, Refused> {
    outcome.map_err(|error| match error {
        AskError::Failed(error) => Refused::Failed { kind: error.kind().name(), message: error.to_string() },
        AskError::Refused(refusal) => Refused::No { why: format!("{refusal:?}") },
    })
}

async fn pass(gate: &str) {
    if let Some(gate) = Gate::named(gate) {
        gate.pass().await;
    }
}

#[actor(Walker)]
impl WalkerActor {
    #[ask]
    async fn walk(&mut self, msg: Walk, ctx: &mut Context<'_, Self>) -> Result<u64, Refused> {
        pass(&msg.gate).await;
        told(ctx.service::<Guide>().ask(Lead { gate: String::new(), walker: String::new() }).await)
    }

    #[ask]
    fn step(&mut self, _: Step) -> u64 {
        self.steps += 1;
        self.steps
    }
}

#[derive(Default)]
struct GuideService;

#[service(Guide)]
impl GuideService {
    #[ask]
    async fn lead(&mut self, msg: Lead, ctx: &mut Context<'_, Self>) -> Result<u64, Refused> {
        pass(&msg.gate).await;
        if msg.walker.is_empty() {
            return Ok(0);
        }
        told(ctx.actor::<Walker>(&msg.walker).ask(Step).await)
    }
}

on_both!(
    two_roots_call_cycle,
    r6_three_roots_call_cycle,
    r6_a_circle_through_a_service_is_told,
    r6_what_only_takes_long_is_left_alone,
);

type Asked = tokio::task::JoinHandle<Result<u64, AskError<Refused>>>;

/// A root that passes the gate on one actor, and then asks the other.
async fn root(client: &Node, gate: &Gate, arrivals: usize, from: &str, to: &str) -> Asked {
    let actor = client.actor::<Probe>(from).within(BUDGET);
    let late = Late { gate: gate.name(), key: to.to_owned() };
    let asked = tokio::spawn(async move { actor.ask(late).await });
    gate.arrived(arrivals).await;
    // The ages of turns are told apart by milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    asked
}

/// The message of the failure that the asked actor was told.
async fn circle(asked: Asked) -> String {
    match soon("it is told", asked).await.expect("no panic") {
        Err(AskError::Refused(Refused::Failed { kind, message })) if kind == "call_cycle" => message,
        other => panic!("it is the youngest of a circle: {other:?}"),
    }
}

async fn goes_on(asked: Asked) {
    assert_eq!(soon("it goes on", asked).await.expect("no panic").expect("an answer"), 1);
}

async fn three(ground: &Ground) -> (Node, Node, Node) {
    let one = ground.node("one").host::<ProbeActor>().start().await.expect("a node starts");
    let two = ground.node("two").host::<ProbeActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("probe", &[&one, &two], &[&client]).await;
    (one, two, client)
}

async fn two_roots_call_cycle(ground: Ground) {
    let (one, two, client) = three(&ground).await;
    let (ones, twos) = (keys_on(&one, &client, 6).await, keys_on(&two, &client, 2).await);
    // On one node, and over two.
    for (a, b) in [(&ones[0], &ones[1]), (&ones[2], &twos[0]), (&twos[1], &ones[3])] {
        let gate = Gate::closed();
        let older = root(&client, &gate, 1, a, b).await;
        let younger = root(&client, &gate, 2, b, a).await;
        gate.open(2);
        let message = circle(younger).await;
        for (left, right) in [(a, b), (b, a)] {
            assert!(message.contains(&format!("probe/{left} -> probe/{right}")), "it names the circle: {message}");
        }
        goes_on(older).await;
        for (key, total) in [(a, 0), (b, 1)] {
            let there = client.actor::<Probe>(key).ask(Total).await.expect("it is free again");
            assert_eq!(there, total, "{key}: what failed was not run, what went on was");
        }
    }
    // By roots of the actors' own nodes, whose turns have no age before they ask.
    let gate = Gate::closed();
    let roots = [root(&one, &gate, 1, &ones[4], &ones[5]).await, root(&one, &gate, 2, &ones[5], &ones[4]).await];
    gate.open(2);
    let mut told = Vec::new();
    for asked in roots {
        told.push(soon("it is over", asked).await.expect("no panic").is_ok());
    }
    told.sort_unstable();
    assert_eq!(told, [false, true], "one gives way");
}

async fn r6_three_roots_call_cycle(ground: Ground) {
    let (one, two, client) = three(&ground).await;
    let (ones, twos) = (keys_on(&one, &client, 2).await, keys_on(&two, &client, 1).await);
    let (a, b, c) = (&ones[0], &twos[0], &ones[1]);
    let gate = Gate::closed();
    let first = root(&client, &gate, 1, a, b).await;
    let second = root(&client, &gate, 2, b, c).await;
    let third = root(&client, &gate, 3, c, a).await;
    gate.open(3);
    let message = circle(third).await;
    assert!(message.contains(&format!("probe/{c} -> probe/{a} -> probe/{b} -> probe/{c}")), "{message}");
    goes_on(second).await;
    goes_on(first).await;
}

async fn r6_a_circle_through_a_service_is_told(ground: Ground) {
    for instances in [1, 3] {
        let options = HostOptions::new().pool(instances);
        let one = ground.node("one").host::<WalkerActor>().start().await.expect("a node starts");
        let two = ground.node("two").host_with::<GuideService>(options).start().await.expect("a node starts");
        settled("walker", &[&one], &[&two]).await;
        let gate = Gate::closed();
        let walk = {
            let (one, gate) = (one.clone(), gate.name());
            tokio::spawn(async move { one.actor::<Walker>("w").within(BUDGET).ask(Walk { gate }).await })
        };
        gate.arrived(1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        // As many as there are instances, so that none is free to serve the walker.
        let leads: Vec<_> = (0..instances)
            .map(|_| {
                let (two, gate) = (two.clone(), gate.name());
                tokio::spawn(async move {
                    two.service::<Guide>().within(BUDGET).ask(Lead { gate, walker: "w".to_owned() }).await
                })
            })
            .collect();
        gate.arrived(1 + instances).await;
        gate.open(1 + instances);
        let mut told = Vec::new();
        for asked in leads.into_iter().chain([walk]) {
            match soon("it is over", asked).await.expect("no panic") {
                Ok(_) => {}
                Err(AskError::Refused(Refused::Failed { kind, message })) => {
                    assert_eq!(kind, "call_cycle", "{message}");
                    assert!(message.contains("walker/w") && message.contains("guide"), "{message}");
                    told.push(message);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told.len(), 1, "one gives way: {told:?}");
        soon("drained", one.drain()).await.expect("drained");
        soon("drained", two.drain()).await.expect("drained");
    }
}

async fn r6_what_only_takes_long_is_left_alone(ground: Ground) {
    let (one, two, client) = three(&ground).await;
    let (ones, twos) = (keys_on(&one, &client, 2).await, keys_on(&two, &client, 1).await);
    let (a, b, c) = (&ones[0], &twos[0], &ones[1]);
    let (gate, held) = (Gate::closed(), Gate::closed());
    let last = {
        let (actor, gate) = (client.actor::<Probe>(c).within(SOON * 2), held.name());
        tokio::spawn(async move { actor.ask(Wait { gate, by: 0 }).await })
    };
    held.arrived(1).await;
    // They wait for each other in a row, and twice for the same.
    let middle = root(&client, &gate, 1, b, c).await;
    let first = root(&client, &gate, 2, a, b).await;
    gate.open(2);
    // Some probes go out in that time.
    tokio::time::sleep(QUIET * 3).await;
    assert!(!first.is_finished() && !middle.is_finished(), "they wait");
    held.open(1);
    goes_on(middle).await;
    goes_on(first).await;
    assert_eq!(soon("it is over", last).await.expect("no panic").expect("an answer"), 0);
}
