//! Activations: slow ones, failing ones, and what their callers learn.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greenroom::prelude::*;

use super::gate::Gate;
use super::ground::{Ground, SOON, bounded, on_both, settled, soon};
use crate::harness::eventually;

/// Wakes up as its key says: `ok`, `slow gate-7`, `fail`, `fall`, `once …`.
#[contract(name = "sleeper", messages(Rouse, Count))]
pub(super) struct Sleeper;

#[message(Sleeper, ask, reply = u32)]
pub(super) struct Rouse;

#[message(Sleeper, read, reply = u32)]
pub(super) struct Count;

pub(super) struct SleeperActor {
    roused: u32,
}

static FAILED_ONCE: AtomicU32 = AtomicU32::new(0);

#[actor(Sleeper)]
impl SleeperActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        let key = ctx.key().to_string();
        match key.split_once(' ').unwrap_or((&key, "")) {
            ("slow", gate) => {
                if let Some(gate) = Gate::named(gate) {
                    gate.pass().await;
                }
            }
            ("fail", _) => return Err(Error::new(ErrorKind::Unavailable, "the bed is too warm")),
            ("fall", _) => panic!("out of bed"),
            ("once", _) if FAILED_ONCE.fetch_add(1, Ordering::SeqCst) == 0 => {
                return Err(Error::new(ErrorKind::Internal, "not the first time"));
            }
            _ => {}
        }
        Ok(Self { roused: 0 })
    }

    #[ask]
    fn rouse(&mut self, _: Rouse) -> u32 {
        self.roused += 1;
        self.roused
    }

    #[read]
    fn count(&self, _: Count) -> u32 {
        self.roused
    }
}

on_both!(
    r5_a_turn_whose_time_went_with_the_activation_is_not_run,
    r6_an_activation_that_fails_fails_its_callers,
    h7_an_activation_that_panics_is_quarantined_as_a_turn_is,
);

async fn pair(ground: &Ground) -> (Node, Node) {
    let host = ground.node("host").host::<SleeperActor>().start().await.expect("a node starts");
    let client = ground.node("client").start().await.expect("a node starts");
    settled("sleeper", &[&host], &[&client]).await;
    (host, client)
}

async fn r5_a_turn_whose_time_went_with_the_activation_is_not_run(ground: Ground) {
    let (host, client) = pair(&ground).await;
    for node in [&host, &client] {
        let gate = Gate::closed();
        let key = format!("slow {}", gate.name());
        let error = node.actor::<Sleeper>(&key).within(Duration::from_millis(200)).ask(Rouse).await;
        let error = error.expect_err("it is not awake yet");
        let kind = error.failure().map(Error::kind);
        // On another node it cannot be known.
        let expected = if node.id() == host.id() { ErrorKind::DeadlineExceeded } else { ErrorKind::Unknown };
        assert_eq!(kind, Some(expected), "its turn was not started: {error}");
        // And one whose caller has gone before its deadline; a caller elsewhere cannot be seen to go.
        if node.id() == host.id() {
            let asked = node.actor::<Sleeper>(&key);
            tokio::select! {
                outcome = asked.ask(Rouse) => panic!("it is not awake yet: {outcome:?}"),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        } else {
            // Its time at the owner ends a message's way later than at its caller.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        gate.open(1);
        let count = soon("it is awake", node.actor::<Sleeper>(&key).ask(Count)).await;
        assert_eq!(count.expect("an answer"), 0, "from {}", node.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_activation_holds_its_own_callers_alone() {
    bounded(async {
        let node = Node::local("demo").host::<SleeperActor>().start().await.expect("a node starts");
        let gate = Gate::closed();
        let key = format!("slow {}", gate.name());
        let asks: Vec<_> = (0..10)
            .map(|_| {
                let actor = node.actor::<Sleeper>(&key);
                tokio::spawn(async move { actor.ask(Rouse).await })
            })
            .collect();
        gate.arrived(1).await;
        assert_eq!(soon("others wake up", node.actor::<Sleeper>("ok").ask(Rouse)).await.expect("an answer"), 1);
        assert_eq!(gate.arrivals_after_quiet().await, 1, "it is activated once");
        gate.open(1);
        let mut replies = Vec::new();
        for ask in asks {
            replies.push(ask.await.expect("no panic").expect("an answer"));
        }
        replies.sort_unstable();
        assert!(replies.iter().copied().eq(1..=10), "{replies:?}");
    })
    .await;
}

async fn r6_an_activation_that_fails_fails_its_callers(ground: Ground) {
    let (host, client) = pair(&ground).await;
    for node in [&host, &client] {
        for _ in 0..7 {
            let error = node.actor::<Sleeper>("fail").ask(Rouse).await.expect_err("it does not wake up");
            let error = error.failure().expect("no refusal");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.message().contains("the bed is too warm"), "{error}");
        }
        let once = format!("once {}", node.id());
        FAILED_ONCE.store(0, Ordering::SeqCst);
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(node.actor::<Sleeper>(&once).ask(Rouse).await.ok());
        }
        // The other broker's case may have taken the failure; then all went well.
        assert!(outcomes == [None, Some(1), Some(2)] || outcomes == [Some(1), Some(2), Some(3)], "{outcomes:?}");
    }
    assert!(host.info().quarantined.is_empty(), "an error is no panic");
}

async fn h7_an_activation_that_panics_is_quarantined_as_a_turn_is(ground: Ground) {
    let (host, client) = pair(&ground).await;
    let mut panics = 0;
    eventually(SOON, "it is quarantined", async || {
        let error = client.actor::<Sleeper>("fall").ask(Rouse).await.expect_err("it does not wake up");
        match error.failure().map(Error::kind) {
            Some(ErrorKind::Quarantined) => return Ok(()),
            Some(ErrorKind::Panicked) => panics += 1,
            Some(ErrorKind::Unavailable) => {}
            other => panic!("{other:?}: {error}"),
        }
        Err(format!("{panics} panics"))
    })
    .await;
    assert_eq!(panics, 5);
    assert_eq!(host.info().quarantined.get("sleeper/fall").map(String::as_str), Some("out of bed"));
    assert_eq!(client.actor::<Sleeper>("ok").ask(Rouse).await.expect("others wake up"), 1);
}
