//! Who takes over from a node that is gone, or only seems to be, and how soon.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use greenroom::node::Ended;
use greenroom::prelude::*;

use crate::harness::{
    Duo, Info, Load, Profile, Proxy, Server, ShopNode, all_partitions, each_names_its_cause, eventually, holds,
};

/// So long that nothing here waits for it.
const LONG_LEASE: Duration = Duration::from_secs(30);
/// The broker's word and a second's patience; the rest is for a machine that is busy. A lease has 20 s left at least.
const ON_ITS_WORD: Duration = Duration::from_secs(15);
const BUDGET: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn p1_kill_9_is_taken_over_on_the_brokers_word() {
    let mut duo = Duo::open_on(Profile::Shop, "30s").await;
    let [victim, heir] = duo.orders.each_ref().map(ShopNode::id);
    let load = Load::start(&duo.node, "word", 8, BUDGET);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let killed = Instant::now();
    duo.orders[0].kill9();
    duo.until_owned_by(&heir).await;
    let owned = killed.elapsed();
    let taken_over = Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let calls = load.stop().await;

    println!("kill -9: the other node owns everything after {owned:?}");
    assert!(owned < ON_ITS_WORD, "that took {owned:?}: the lease decided");
    each_names_its_cause(&calls, BUDGET);
    let slowest = calls.iter().filter(|call| call.outcome.is_ok()).map(|call| call.took).max();
    let unknown: Vec<_> =
        calls.iter().filter(|call| call.failure().is_some_and(|error| !error.is_retryable())).collect();
    println!("{} calls, {} of unknown fate, the slowest confirmed took {slowest:?}", calls.len(), unknown.len());
    for call in unknown {
        assert!(call.began < killed + Duration::from_secs(2), "the broker knew by then: {call:?}");
    }
    for call in calls.iter().filter(|call| call.began > taken_over) {
        assert!(call.outcome.is_ok(), "after the take-over: {call:?}");
    }
    duo.place_everywhere("after-word").await;
    duo.adds_up(&calls).await;
    eventually(ON_ITS_WORD, "its records are gone", async || {
        let info = Info::of(&duo.server, &heir).await;
        holds(info.node(&victim).is_none(), || info.0.to_string())
    })
    .await;
    assert_eq!(duo.rest.ids().len(), 1, "nobody else was taken for dead");
}

/// A broker that says nothing of connections: what was promised without its word holds.
#[tokio::test(flavor = "multi_thread")]
async fn p1_without_the_brokers_word_the_lease_decides() {
    let mut duo = Duo::open_on(Profile::Plain, "3s").await;
    let heir = duo.orders[1].id();
    let killed = Instant::now();
    duo.orders[0].kill9();
    duo.until_owned_by(&heir).await;
    let owned = killed.elapsed();
    println!("kill -9 without the broker's word, lease of 3 s: the other node owns everything after {owned:?}");
    assert!(owned > Duration::from_secs(2), "that took {owned:?}: what told it?");
    let info = Info::of(&duo.server, &heir).await;
    assert_eq!(info.owned_by("order", &heir), all_partitions());
    duo.place_everywhere("after-lease").await;
}

/// Notes on which node each of its turns ran.
#[contract(name = "ink", messages(Write, Hold, Look))]
struct Ink;

#[message(Ink, ask, reply = String)]
struct Write;

/// Does not end where the actor was written to before.
#[message(Ink, ask)]
struct Hold;

/// The same as a read: says where it was answered.
#[message(Ink, read, reply = String)]
struct Look;

#[derive(Default)]
struct InkActor {
    written_on: Option<String>,
}

/// Key and node of every turn, in the order in which they ran: all in this process.
static TURNS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

#[actor(Ink)]
impl InkActor {
    fn activate() -> Result<Self, Error> {
        Ok(Self::default())
    }

    #[ask]
    fn write(&mut self, _: Write, ctx: &mut Context<'_, Self>) -> String {
        let node = ctx.node().map(|node| node.id().to_owned()).unwrap_or_default();
        TURNS.lock().expect("no panic in it").push((ctx.key().as_str().to_owned(), node.clone()));
        self.written_on = Some(node.clone());
        node
    }

    #[ask]
    async fn hold(&mut self, _: Hold) {
        self.wait().await;
    }

    #[read]
    async fn look(&self, _: Look) -> String {
        self.wait().await;
        "elsewhere".to_owned()
    }

    async fn wait(&self) {
        if self.written_on.is_some() {
            tokio::time::sleep(LONG_LEASE).await;
        }
    }
}

/// A node behind a proxy, one beside it, and a caller.
struct Behind {
    proxy: Proxy,
    one: Node,
    other: Node,
    caller: Node,
    // After the nodes on it.
    _server: Server,
}

impl Behind {
    async fn open() -> Self {
        let server = Server::start(Profile::Shop).await;
        let proxy = Proxy::before(&server).await;
        let node = |name, url: &str| Node::builder("shop").name(name).connect(url).lease(LONG_LEASE);
        let one = node("one", proxy.url()).host::<InkActor>().start().await.expect("a node starts");
        let other = node("other", server.url()).host::<InkActor>().start().await.expect("a node starts");
        let caller = node("caller", server.url()).start().await.expect("a node starts");
        Self { proxy, one, other, caller, _server: server }
    }

    /// Keys that live on the node behind the proxy, once the two share and nothing moves any more.
    async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut before = Vec::new();
        eventually(Duration::from_secs(15), "the nodes share", async || {
            let mut keys = Vec::new();
            for number in 0..40 {
                let key = format!("{prefix}-{number}");
                let node = self.caller.actor::<Ink>(&key).ask(Write).await.map_err(|error| error.to_string())?;
                if node == self.one.id() {
                    keys.push(key);
                }
            }
            let still = keys == before && (4..36).contains(&keys.len());
            before.clone_from(&keys);
            tokio::time::sleep(Duration::from_millis(300)).await;
            if still { Ok(keys) } else { Err(format!("{keys:?}")) }
        })
        .await
    }
}

/// The node behind lives on, and asks its own actors all the time; the broker has closed its connections. Its turns of
/// an actor all come before the first one elsewhere.
async fn half_closed(prefix: &str, connections: &[usize]) -> Behind {
    let behind = Behind::open().await;
    let key = behind.keys(prefix).await.remove(0);
    let (one, asked) = (behind.one.clone(), key.clone());
    let local = tokio::spawn(async move {
        loop {
            // Refused once the node knows that it may not serve.
            drop(one.actor::<Ink>(&asked).within(Duration::from_millis(20)).ask(Write).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let cut = Instant::now();
    behind.proxy.cut(connections);
    let other = behind.other.id().to_owned();
    eventually(ON_ITS_WORD, "the other node serves it", async || {
        let asked = behind.caller.actor::<Ink>(&key).within(Duration::from_millis(500)).ask(Write).await;
        holds(matches!(&asked, Ok(node) if *node == other), || format!("{asked:?}"))
    })
    .await;
    println!("half-closed, connections {connections:?}: another node serves after {:?}", cut.elapsed());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    local.abort();
    let turns: Vec<String> = {
        let turns = TURNS.lock().expect("no panic in it");
        turns.iter().filter(|(turn, _)| *turn == key).map(|(_, node)| node.clone()).collect()
    };
    let first = turns.iter().position(|node| *node == other).expect("it was served there");
    let here = turns.iter().filter(|node| *node == behind.one.id()).count();
    assert!(here > 20 && first > 20, "the node behind served before: {here} turns");
    let last = turns.iter().rposition(|node| node == behind.one.id()).expect("it was served here");
    assert!(last < first, "two writers: turn {last} here, and turn {first} there");
    behind
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_half_closed_socket_of_a_live_node() {
    let behind = half_closed("own", &[0]).await;
    // What it renews its lease on still stands: it learns of its end there, and gives up its id.
    let ended = tokio::time::timeout(ON_ITS_WORD, behind.one.ended()).await;
    assert!(matches!(&ended, Ok(Ended::Retired(why)) if why.contains("Tombstoned")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_half_closed_sockets_of_a_live_node() {
    half_closed("both", &[0, 1]).await;
}

/// A proxy that closes both of its sides is a short loss of the connection: nobody takes anything.
#[tokio::test(flavor = "multi_thread")]
async fn p1_a_node_that_reconnects_keeps_what_it_has() {
    let behind = Behind::open().await;
    let key = behind.keys("blip").await.remove(0);
    let status = behind.one.status();
    let before = status.borrow().clone();
    behind.proxy.reset(0);
    let (reset, mut served, mut lost) = (Instant::now(), None::<Instant>, 0);
    while served.is_none_or(|since| since.elapsed() < Duration::from_secs(3)) {
        assert!(served.is_some() || reset.elapsed() < 3 * ON_ITS_WORD, "it does not serve again");
        let is_back = status.borrow().is_connected() && *status.borrow() != before;
        match behind.caller.actor::<Ink>(&key).within(BUDGET).ask(Write).await {
            Ok(node) => {
                assert_eq!(node, behind.one.id(), "it was taken over");
                served = served.or(is_back.then(Instant::now));
            }
            Err(AskError::Failed(error)) => {
                assert!(served.is_none(), "it served again before this: {error}");
                lost += u32::from(!error.is_retryable());
            }
            Err(AskError::Refused(never)) => match never {},
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(lost <= 1, "the reset can cost the one call that was on its way, and {lost} were lost");
    assert!(behind.one.status().borrow().is_connected());
}

/// Calls that wait for a node end with its lease, not at their deadlines; reads are asked again where it went.
#[tokio::test(flavor = "multi_thread")]
async fn p1_calls_in_flight_end_at_the_tombstone() {
    let behind = Behind::open().await;
    let keys = behind.keys("flight").await;
    let (ask, read) = (behind.caller.actor::<Ink>(&keys[0]), behind.caller.actor::<Ink>(&keys[1]));
    let ask = tokio::spawn(async move { ask.within(LONG_LEASE).ask(Hold).await });
    let read = tokio::spawn(async move { read.within(LONG_LEASE).ask(Look).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!ask.is_finished() && !read.is_finished());
    let cut = Instant::now();
    behind.proxy.cut(&[0, 1]);
    let asked =
        tokio::time::timeout(ON_ITS_WORD, ask).await.expect("it does not wait for the lease").expect("no panic");
    println!("an ask in flight ends after {:?}", cut.elapsed());
    let Err(AskError::Failed(error)) = asked else { panic!("nobody can know: {asked:?}") };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unknown, false), "{error}");
    let looked = tokio::time::timeout(ON_ITS_WORD, read).await.expect("it is asked again").expect("no panic");
    println!("a read in flight is answered elsewhere after {:?}", cut.elapsed());
    assert_eq!(looked.expect("an answer"), "elsewhere");
}
