//! Durable asks while the process that serves them is killed: each is answered, and takes effect once.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use greenroom::prelude::*;
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Connect, NatsTransport, StreamConfig, Transport};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::harness::{Profile, Server, eventually, holds};

/// Whose the broker is, for the process that this test starts of its own program.
const BROKER: &str = "GREENROOM_TEST_PURSES_AT";
/// How long a call may take: far more than a take-over on the broker's word.
const BUDGET: Duration = Duration::from_secs(20);
const PURSES: u64 = 16;
/// The name of the node that is killed.
const VICTIM: &str = "victim";

#[contract(name = "purse", messages(Put, PutNow, Pay, Count, Whose), event = Coin)]
struct Purse;

/// Puts one coin in.
#[message(Purse, ask, reply = u64)]
struct Put;

/// The same by a handler that never waits.
#[message(Purse, ask, reply = u64)]
struct PutNow;

/// Takes one coin out and asks another purse to put it in. On the node that is to be killed it ends there: it is never
/// noted.
#[message(Purse, ask, refusal = NotPaid)]
struct Pay {
    into: String,
}

#[message(Purse, read, reply = u64)]
struct Count;

/// The name of the node that has it.
#[message(Purse, read, reply = String)]
struct Whose;

#[refusal]
#[derive(PartialEq)]
struct NotPaid {
    why: String,
}

impl std::fmt::Display for NotPaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

#[event(Purse)]
#[derive(PartialEq)]
enum Coin {
    In,
    Out,
}

#[data]
#[derive(Default)]
struct Coins {
    count: u64,
}

impl State for Coins {
    type Event = Coin;

    fn apply(&mut self, coin: &Coin) {
        match coin {
            Coin::In => self.count += 1,
            Coin::Out => self.count -= 1,
        }
    }
}

struct PurseActor {
    coins: Durable<Coins>,
}

#[actor(Purse, state = coins, durable)]
impl PurseActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { coins: ctx.durable().await? })
    }

    #[ask]
    async fn put(&mut self, _: Put) -> u64 {
        self.coins.emit(Coin::In);
        // Long enough that some turn always runs.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.coins.count
    }

    #[ask]
    fn put_now(&mut self, _: PutNow) -> u64 {
        self.coins.emit(Coin::In);
        self.coins.count
    }

    #[ask]
    async fn pay(&mut self, msg: Pay, ctx: &mut Context<'_, Self>) -> Result<(), NotPaid> {
        let not_paid = |why: String| NotPaid { why };
        if self.coins.count == 0 {
            return Err(not_paid("it is empty".to_owned()));
        }
        self.coins.emit(Coin::Out);
        ctx.actor::<Purse>(&msg.into).ask(Put).await.map_err(|error| not_paid(error.to_string()))?;
        if on(ctx) == VICTIM {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    #[read]
    fn whose(&self, _: Whose, ctx: &mut Context<'_, Self>) -> String {
        on(ctx)
    }

    #[read]
    fn count(&self, _: Count) -> u64 {
        self.coins.count
    }
}

/// The name of the node that runs a turn.
fn on(ctx: &Context<'_, PurseActor>) -> String {
    let id = ctx.node().map(|node| node.id().to_owned()).unwrap_or_default();
    id.rsplit_once('-').map_or(String::new(), |(name, _)| name.to_owned())
}

async fn host(name: &str, url: &str) -> Node {
    Node::builder("shop").name(name).connect(url).host::<PurseActor>().start().await.expect("a node starts")
}

/// No test by itself: the process that the tests here kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_purses() {
    let Ok(url) = std::env::var(BROKER) else { return };
    let _node = host(VICTIM, &url).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}

fn victim(server: &Server) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "resending::a_process_with_purses"]).env(BROKER, server.url());
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts")
}

/// How many partitions the node of that name owns, as another knows it.
fn owned(node: &Node, name: &str) -> usize {
    let claims = node.info().claims;
    let its = claims.iter().filter(|claim| claim.actor == "purse" && claim.node.starts_with(&format!("{name}-")));
    its.map(|claim| claim.partitions.len()).sum()
}

/// A process that shares the purses with a node of this one, and a client of both.
async fn victim_and_heir(server: &Server) -> (Child, Node, Node) {
    let victim = victim(server);
    let heir = host("heir", server.url()).await;
    let client = Node::builder("shop").name("client").connect(server.url()).start().await.expect("a client starts");
    eventually(BUDGET, "two processes share the purses", async || {
        let shares = (owned(&client, "victim"), owned(&client, "heir"));
        holds(shares.0 > 10 && shares.0 + shares.1 == 64, || format!("{shares:?}"))
    })
    .await;
    (victim, heir, client)
}

/// Two processes that share the purses, and a caller.
struct Shared {
    victim: Child,
    heir: Node,
    client: Node,
    // After the nodes on it.
    _server: Server,
}

impl Shared {
    async fn open() -> Self {
        let server = Server::start(Profile::Shop).await;
        let victim = victim(&server);
        let heir = host("heir", server.url()).await;
        let client = Node::builder("shop").name("client").connect(server.url()).start().await.expect("a client starts");
        let mut before = (0, 0);
        eventually(BUDGET, "two processes share the purses, and nothing moves any more", async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let shares = (owned(&client, VICTIM), owned(&client, "heir"));
            let still = std::mem::replace(&mut before, shares) == shares;
            holds(still && shares.0 > 10 && shares.0 + shares.1 == 64, || format!("{shares:?}"))
        })
        .await;
        Self { victim, heir, client, _server: server }
    }

    /// Purses of that node, each with some coins.
    async fn purses(&self, node: &str, coins: usize) -> Vec<String> {
        let mut purses = Vec::new();
        for number in 0..40 {
            let key = format!("{node}-{number}");
            let purse = self.client.actor::<Purse>(&key).within(BUDGET);
            if purse.ask(Whose).await.expect("an answer") == node {
                for _ in 0..coins {
                    purse.ask(Put).await.expect("an answer");
                }
                purses.push(key);
            }
        }
        assert!(purses.len() >= 4, "{node} has {purses:?}");
        purses.truncate(4);
        purses
    }

    async fn count(&self, key: &str) -> u64 {
        self.client.actor::<Purse>(key).within(BUDGET).ask(Count).await.expect("an answer")
    }
}

/// The owner of the payer is killed between its ask to the payee, which lives elsewhere, and its own append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_kill_9_crash_between_ask_and_append() {
    let mut shared = Shared::open().await;
    let (payers, payees) = (shared.purses(VICTIM, 3).await, shared.purses("heir", 0).await);
    let paying: Vec<_> = payers
        .iter()
        .zip(&payees)
        .map(|(payer, payee)| {
            let (payer, into) = (shared.client.actor::<Purse>(payer).within(BUDGET), payee.clone());
            tokio::spawn(async move { payer.ask(Pay { into }).await })
        })
        .collect();
    for payee in &payees {
        eventually(BUDGET, "it is paid", async || {
            let count = shared.count(payee).await;
            holds(count == 1, || count.to_string())
        })
        .await;
    }
    assert!(paying.iter().all(|paid| !paid.is_finished()), "not noted yet");
    shared.victim.start_kill().expect("it is killed");
    for paid in paying {
        paid.await.expect("no panic").expect("the turn is run again, and asks the same");
    }
    for (payer, payee) in payers.iter().zip(&payees) {
        let money = (shared.count(payer).await, shared.count(payee).await);
        assert_eq!(money, (2, 1), "money adds up, {payer} to {payee}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_kill_9_under_durable_asks_loses_and_doubles_nothing() {
    let Shared { mut victim, heir, client, _server } = Shared::open().await;
    let until = Instant::now() + Duration::from_secs(5);
    let callers: Vec<_> = [&client, &client, &client, &client, &client, &client, &heir, &heir]
        .map(|node| {
            let node = node.clone();
            tokio::spawn(async move {
                let (mut asked, mut slowest) = (0_u64, Duration::ZERO);
                while Instant::now() < until {
                    let began = Instant::now();
                    let purse = node.actor::<Purse>(format!("p-{}", asked % PURSES)).within(BUDGET);
                    purse.ask(Put).await.unwrap_or_else(|error| panic!("call {asked} from {}: {error:?}", node.id()));
                    (asked, slowest) = (asked + 1, slowest.max(began.elapsed()));
                }
                (asked, slowest)
            })
        })
        .into();
    tokio::time::sleep(Duration::from_secs(1)).await;
    victim.start_kill().expect("it is killed");
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    for caller in callers {
        let (its, its_slowest) = caller.await.expect("every call is answered");
        (asked, slowest) = (asked + its, slowest.max(its_slowest));
    }
    println!("kill -9 under {asked} durable asks: all answered, the slowest after {slowest:?}");
    assert!(slowest > Duration::from_millis(20), "the slowest took {slowest:?}: was nothing on its way?");
    let mut there = 0;
    for number in 0..PURSES {
        there += client.actor::<Purse>(format!("p-{number}")).within(BUDGET).ask(Count).await.expect("an answer");
    }
    assert_eq!(there, asked, "each call once");
}

/// A key that so many ask at once that its turns share appends: the raw stream tells what was kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_kill_9_under_hot_keys_keeps_what_was_acknowledged_once() {
    const HOT: usize = 4;
    let server = Server::start(Profile::Shop).await;
    let (mut victim, heir, client) = victim_and_heir(&server).await;
    let until = Instant::now() + Duration::from_secs(4);
    let callers: Vec<_> = (0..HOT * 12)
        .map(|caller| {
            let node = if caller % 3 == 2 { heir.clone() } else { client.clone() };
            tokio::spawn(async move {
                let mut told = Vec::new();
                while Instant::now() < until {
                    let purse = node.actor::<Purse>(format!("hot-{}", caller % HOT)).within(BUDGET);
                    told.push(purse.ask(PutNow).await.unwrap_or_else(|error| panic!("{}: {error:?}", told.len())));
                }
                (caller % HOT, told)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    victim.start_kill().expect("it is killed");
    let mut told: [Vec<u64>; HOT] = Default::default();
    for caller in callers {
        let (purse, its) = caller.await.expect("every call is answered");
        told[purse].extend(its);
    }
    let (mut shared, mut taken_over) = (0, 0);
    for (purse, told) in told.iter_mut().enumerate() {
        told.sort_unstable();
        let story = Story::read(&server, &format!("hot-{purse}")).await;
        // Each call was answered, each with a count of its own: the coins in the order in which they were put in.
        assert_eq!(*told, (1..=told.len() as u64).collect::<Vec<_>>(), "hot-{purse}");
        assert_eq!((story.coins, story.replies), (told.len() as u64, told.clone()), "hot-{purse}");
        shared += story.shared;
        taken_over += usize::from(story.epochs > 1);
    }
    println!("kill -9 under hot keys: {} calls, {shared} appends shared", told.iter().map(Vec::len).sum::<usize>());
    assert!(shared > 10 && taken_over > 0, "{shared} appends were shared, {taken_over} keys changed hands");
}

/// A purse's journal as it stands in the stream.
#[derive(Default)]
struct Story {
    coins: u64,
    /// What the commands were answered, in ascending order.
    replies: Vec<u64>,
    /// Records of several commands.
    shared: usize,
    epochs: usize,
}

impl Story {
    async fn read(server: &Server, key: &str) -> Self {
        let settings = Connect::try_from(server.url()).expect("an address").name("story");
        let transport = NatsTransport::connect(settings).await.expect("a connection");
        let subjects = Subjects::new(Name::new("shop").expect("a name"));
        let subject = subjects.journal("purse", &Key::new(key).expect("a key"));
        let config = StreamConfig::new([subjects.journals("purse")]);
        let stream = transport.stream(&subjects.journal_stream("purse"), config).await.expect("the stream");
        let last = stream.last(&subject).await.expect("an answer").expect("it has a journal").sequence;
        let (mut story, mut next, mut epoch) = (Self::default(), 1, 0);
        let mut commands = BTreeMap::<String, u64>::new();
        while next <= last {
            let part = stream.read(&subject, next, last).await.expect("records");
            next = part.last().expect("at least one").sequence + 1;
            for record in part {
                let record: Value = serde_json::from_slice(&record.body).expect("JSON");
                let its = record["epoch"].as_u64().expect("a number");
                assert!(its >= epoch, "{key}: an older owner wrote after a newer one");
                story.epochs += usize::from(its > epoch);
                epoch = its;
                story.coins += record["events"].as_array().map_or(0, Vec::len) as u64;
                let kept = record["commands"].as_array().cloned().unwrap_or_default();
                story.shared += usize::from(kept.len() > 1);
                for command in kept {
                    let reply = command["fate"]["replied"].as_u64().expect("a count");
                    let before = commands.insert(command["id"].to_string(), reply);
                    assert_eq!(before, None, "{key}: a command is there twice");
                }
            }
        }
        story.replies = commands.into_values().collect();
        story.replies.sort_unstable();
        story
    }
}
