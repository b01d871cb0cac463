//! Durable asks while the process that serves them is killed: each is answered, and takes effect once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use greenroom::prelude::*;
use tokio::process::{Child, Command};

use crate::harness::{Profile, Server, eventually, holds};

/// Where the broker is, for the process that this test starts of its own program.
const BROKER: &str = "GREENROOM_TEST_PURSES_AT";
/// How long a call may take: far more than a take-over on the broker's word.
const BUDGET: Duration = Duration::from_secs(20);
const PURSES: u64 = 16;

#[contract(name = "purse", messages(Put, Count), event = PutIn)]
struct Purse;

/// Puts one coin in.
#[message(Purse, ask, reply = u64)]
struct Put;

#[message(Purse, read, reply = u64)]
struct Count;

#[event(Purse)]
#[derive(PartialEq)]
enum PutIn {
    Coin,
}

#[data]
#[derive(Default)]
struct Coins {
    count: u64,
}

impl State for Coins {
    type Event = PutIn;

    fn apply(&mut self, _: &PutIn) {
        self.count += 1;
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
        self.coins.emit(PutIn::Coin);
        // Long enough that some turn always runs.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.coins.count
    }

    #[read]
    fn count(&self, _: Count) -> u64 {
        self.coins.count
    }
}

async fn host(name: &str, url: &str) -> Node {
    Node::builder("shop").name(name).connect(url).host::<PurseActor>().start().await.expect("a node starts")
}

/// No test by itself: the process that [`e1_kill_9_under_durable_asks_loses_and_doubles_nothing`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_purses() {
    let Ok(url) = std::env::var(BROKER) else { return };
    let _node = host("victim", &url).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_kill_9_under_durable_asks_loses_and_doubles_nothing() {
    let server = Server::start(Profile::Shop).await;
    let mut victim = victim(&server);
    let heir = host("heir", server.url()).await;
    let client = Node::builder("shop").name("client").connect(server.url()).start().await.expect("a client starts");
    eventually(BUDGET, "two processes share the purses", async || {
        let shares = (owned(&client, "victim"), owned(&client, "heir"));
        holds(shares.0 > 10 && shares.0 + shares.1 == 64, || format!("{shares:?}"))
    })
    .await;
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
