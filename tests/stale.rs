//! Reads while the owner changes without its own doing: what was acknowledged before a read began is in its answer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::prelude::*;

use crate::harness::{Profile, Proxy, Server, eventually, holds};

/// So long that nothing here waits for it.
const LONG_LEASE: Duration = Duration::from_secs(30);
/// The broker's word and some patience; the rest is for a machine that is busy.
const TAKES_OVER: Duration = Duration::from_secs(10);
/// How long a reader asks a node that cannot answer.
const BRIEF: Duration = Duration::from_millis(50);

#[contract(name = "slate", messages(Count, Look, Same, SameLater, Whose), event = Counted)]
struct Slate;

/// Adds one.
#[message(Slate, ask, reply = u64)]
struct Count;

#[message(Slate, read, reply = u64)]
struct Look;

/// A turn that changes nothing: its answer rests on the state alone, as a read's does.
#[message(Slate, ask, reply = u64)]
struct Same;

/// The same by an `async fn`.
#[message(Slate, ask, reply = u64)]
struct SameLater;

/// The id of the node that has it.
#[message(Slate, read, reply = String)]
struct Whose;

#[event(Slate)]
#[derive(PartialEq)]
enum Counted {
    One,
}

#[data]
#[derive(Default)]
struct Marks {
    count: u64,
}

impl State for Marks {
    type Event = Counted;

    fn apply(&mut self, _: &Counted) {
        self.count += 1;
    }
}

struct SlateActor {
    marks: Durable<Marks>,
}

#[actor(Slate, state = marks, durable)]
impl SlateActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { marks: ctx.durable().await? })
    }

    #[ask]
    fn count(&mut self, _: Count) -> u64 {
        self.marks.emit(Counted::One);
        self.marks.count
    }

    #[read]
    fn look(&self, _: Look) -> u64 {
        self.marks.count
    }

    #[ask]
    fn same(&mut self, _: Same) -> u64 {
        self.marks.count
    }

    #[ask]
    async fn same_later(&mut self, _: SameLater) -> u64 {
        self.marks.count
    }

    #[read]
    fn whose(&self, _: Whose, ctx: &mut Context<'_, Self>) -> String {
        ctx.node().map(|node| node.id().to_owned()).unwrap_or_default()
    }
}

/// How an actor is looked at.
#[derive(Clone, Copy, Debug)]
enum By {
    Read,
    Turn,
    AsyncTurn,
}

/// When each look began, and what it saw if it was answered.
type Looks = Arc<Mutex<Vec<(Instant, Option<u64>)>>>;

/// Looks on its own node at what lives there, all the time.
fn watch(node: &Node, key: &str, by: By) -> (Looks, tokio::task::JoinHandle<()>) {
    let looks = Looks::default();
    let (seen, slate) = (looks.clone(), node.actor::<Slate>(key).within(BRIEF));
    let task = tokio::spawn(async move {
        loop {
            let began = Instant::now();
            let look = match by {
                By::Read => slate.ask(Look).await.ok(),
                By::Turn => slate.ask(Same).await.ok(),
                By::AsyncTurn => slate.ask(SameLater).await.ok(),
            };
            seen.lock().expect("no panic in it").push((began, look));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    (looks, task)
}

/// The broker has closed the connections of a node that lives on and notices nothing: for a second it believes that it
/// is the owner, while another is, and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_stale_owner_read() {
    let server = Server::start(Profile::Shop).await;
    let proxy = Proxy::before(&server).await;
    let node = |name, url: &str| Node::builder("shop").name(name).connect(url).lease(LONG_LEASE);
    let one = node("one", proxy.url()).host::<SlateActor>().start().await.expect("a node starts");
    let other = node("other", server.url()).host::<SlateActor>().start().await.expect("a node starts");
    let caller = node("caller", server.url()).start().await.expect("a node starts");
    eventually(TAKES_OVER, "the nodes share", async || {
        let claims = caller.info().claims;
        let shares = [&one, &other].map(|node| {
            let its = claims.iter().filter(|claim| claim.node == node.id());
            its.map(|claim| claim.partitions.len()).sum::<usize>()
        });
        holds(shares.iter().all(|share| *share > 8) && shares.iter().sum::<usize>() == 64, || format!("{shares:?}"))
    })
    .await;
    let mut keys = Vec::new();
    for number in 0..40 {
        let key = format!("s-{number}");
        let slate = caller.actor::<Slate>(&key).within(TAKES_OVER);
        if slate.ask(Whose).await.expect("an answer") == one.id() {
            assert_eq!(slate.ask(Count).await.expect("an answer"), 1);
            keys.push(key);
        }
    }
    let ways = [By::Read, By::Turn, By::AsyncTurn];
    let watched: Vec<_> = keys.iter().zip(ways).map(|(key, by)| (key, by, watch(&one, key, by))).collect();
    assert_eq!(watched.len(), ways.len(), "that node has an actor for each way");
    for (key, by, (looks, _)) in &watched {
        eventually(TAKES_OVER, "its owner answers looks at it", async || {
            let looks = looks.lock().expect("no panic in it");
            let seen = looks.iter().filter(|(_, seen)| *seen == Some(1)).count();
            holds(seen > 50, || format!("{key}, {by:?}: {seen} of {} looks were answered", looks.len()))
        })
        .await;
    }

    let cut = Instant::now();
    proxy.cut(&[0, 1]);
    let mut written = Vec::new();
    for (key, ..) in &watched {
        let total = caller.actor::<Slate>(*key).within(TAKES_OVER).ask(Count).await.expect("the other node serves it");
        assert_eq!(total, 2, "{key}");
        written.push(Instant::now());
    }
    println!("another owner has written after {:?}", cut.elapsed());
    // Longer than the one that was superseded may think that its connection stands.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for ((key, by, (looks, task)), written) in watched.into_iter().zip(written) {
        task.abort();
        let looks = looks.lock().expect("no panic in it").clone();
        let after: Vec<_> = looks.iter().filter(|(began, _)| *began > written).collect();
        assert!(after.len() > 10, "{key}, {by:?}: it went on looking: {} times", after.len());
        let stale = after.iter().filter(|(_, seen)| seen.is_some_and(|seen| seen < 2)).count();
        assert_eq!(
            stale,
            0,
            "{key}, {by:?}: {stale} of {} looks that began after the write did not see it",
            after.len()
        );
    }
}
