//! The order in which an actor sees what one node sends to it, while its partition goes from node to node.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use greenroom::prelude::*;

use tokio::process::Command;

use super::ground::{Ground, SOON, on_both, settled, soon};
use crate::harness::{Profile, Server, eventually, holds};

/// Notes every number in the order of its turns, and forgets it when it moves.
#[contract(name = "slate", messages(Chalk, ChalkQuietly))]
struct Slate;

#[message(Slate, ask, reply = u64)]
struct Chalk {
    mark: Mark,
}

#[message(Slate, tell)]
struct ChalkQuietly {
    mark: Mark,
}

/// The same, and remembers it.
#[contract(name = "scroll", messages(Write, Read), event = Written)]
struct Scroll;

#[message(Scroll, ask, reply = u64)]
struct Write {
    mark: Mark,
}

#[message(Scroll, read, reply = Text)]
struct Read;

/// Which number of which sender.
#[data]
struct Mark {
    case: String,
    sender: String,
    number: u64,
}

#[event(Scroll)]
#[derive(PartialEq)]
enum Written {
    One { sender: String, number: u64 },
}

/// What was seen, in the order of the turns: by case, key and sender. All nodes are in this process.
static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

type Seen = BTreeMap<(String, String, String), Vec<u64>>;

fn note(key: &str, mark: &Mark) -> u64 {
    let who = (mark.case.clone(), key.to_owned(), mark.sender.clone());
    SEEN.lock().expect("no panic in it").entry(who).or_default().push(mark.number);
    mark.number
}

#[derive(Default)]
struct SlateActor;

#[actor(Slate)]
impl SlateActor {
    #[ask]
    async fn chalk(&mut self, msg: Chalk, ctx: &mut Context<'_, Self>) -> u64 {
        // Some turns take a while, so that partitions change hands under them.
        if msg.mark.number.is_multiple_of(16) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        note(ctx.key().as_str(), &msg.mark)
    }

    #[tell]
    fn chalk_quietly(&mut self, msg: ChalkQuietly, ctx: &mut Context<'_, Self>) {
        note(ctx.key().as_str(), &msg.mark);
    }
}

/// The last number of each sender, how many it wrote, and where a number was not above the one before.
#[data]
#[derive(Default)]
struct Text {
    last: BTreeMap<String, u64>,
    written: BTreeMap<String, u64>,
    disorder: Vec<String>,
}

impl State for Text {
    type Event = Written;

    fn apply(&mut self, event: &Written) {
        let Written::One { sender, number } = event;
        let last = self.last.entry(sender.clone()).or_default();
        if number <= last && self.disorder.len() < 20 {
            self.disorder.push(format!("{sender}: {number} after {last}"));
        }
        *last = *number;
        *self.written.entry(sender.clone()).or_default() += 1;
    }
}

struct ScrollActor {
    text: Durable<Text>,
}

#[actor(Scroll, state = text, durable)]
impl ScrollActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { text: ctx.durable().await? })
    }

    #[ask]
    fn write(&mut self, msg: Write) -> u64 {
        let Mark { sender, number, .. } = msg.mark;
        self.text.emit(Written::One { sender, number });
        number
    }

    #[read]
    fn read(&self, _: Read) -> Text {
        Text::clone(&self.text)
    }
}

on_both!(numbered_senders_under_handover);

async fn host(ground: &Ground, name: &str) -> Node {
    let node = ground.node(name).host::<SlateActor>().host::<ScrollActor>();
    node.start().await.expect("a node starts")
}

/// What became of one sender's numbers for one key.
struct Sent {
    key: String,
    sender: String,
    acknowledged: Vec<u64>,
    failed: Vec<String>,
}

type Call = BoxFuture<'static, (u64, Result<u64, String>)>;

fn call(node: &Node, durable: bool, key: &str, mark: Mark) -> Call {
    let (node, key, number) = (node.clone(), key.to_owned(), mark.number);
    async move {
        let outcome = match (durable, number % 3) {
            (true, _) => node.actor::<Scroll>(&key).within(SOON).ask(Write { mark }).await.map_err(|e| e.to_string()),
            (false, 0) => {
                let told = node.actor::<Slate>(&key).within(SOON).tell(ChalkQuietly { mark }).await;
                told.map(|()| 0).map_err(|error| error.to_string())
            }
            _ => node.actor::<Slate>(&key).within(SOON).ask(Chalk { mark }).await.map_err(|e| e.to_string()),
        };
        (number, outcome)
    }
    .boxed()
}

/// Numbers what it sends, four calls at a time, without waiting for their answers.
async fn sender(node: Node, case: String, durable: bool, key: String, stop: Arc<AtomicBool>) -> Sent {
    let name = node.id().to_owned();
    let mut sent = Sent { key: key.clone(), sender: name.clone(), acknowledged: Vec::new(), failed: Vec::new() };
    let mut on_their_way = FuturesUnordered::new();
    let mut number = 0;
    let mut take = |(number, outcome): (u64, Result<u64, String>)| match outcome {
        Ok(_) => sent.acknowledged.push(number),
        Err(error) => sent.failed.push(format!("{number}: {error}")),
    };
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..4 {
            number += 1;
            let mark = Mark { case: case.clone(), sender: name.clone(), number };
            let mut call = call(&node, durable, &key, mark);
            // Called in this order, whatever is awaited first.
            match (&mut call).now_or_never() {
                Some(outcome) => take(outcome),
                None => on_their_way.push(call),
            }
        }
        while on_their_way.len() > 12 {
            if let Some(outcome) = on_their_way.next().await {
                take(outcome);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        while let Some(Some(outcome)) = on_their_way.next().now_or_never() {
            take(outcome);
        }
    }
    while let Some(outcome) = on_their_way.next().await {
        take(outcome);
    }
    sent
}

async fn numbered_senders_under_handover(ground: Ground) {
    let case = ground.app().to_owned() + if ground.is_memory() { "-memory" } else { "" };
    let one = host(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    for actor in ["slate", "scroll"] {
        settled(actor, &[&one], &[&client]).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = [&one, &client]
        .into_iter()
        .flat_map(|node| (0..10).map(move |number| (node.clone(), number)))
        .map(|(node, number)| {
            let key = format!("k-{number}");
            tokio::spawn(sender(node, case.clone(), is_durable(number), key, stop.clone()))
        })
        .collect();
    for round in 0..3 {
        let two = host(&ground, "two").await;
        let killed = match round {
            2 => Some(ground.node("three").host::<ScrollActor>().start().await.expect("a node starts")),
            _ => None,
        };
        settled("slate", &[&one, &two], &[&client]).await;
        let scrolls: Vec<&Node> = [&one, &two].into_iter().chain(&killed).collect();
        settled("scroll", &scrolls, &[&client]).await;
        // Cut off, as if its process had died. What is volatile is elsewhere.
        drop(killed);
        settled("scroll", &[&one, &two], &[&client]).await;
        soon("drained", two.drain()).await.expect("drained");
        for actor in ["slate", "scroll"] {
            settled(actor, &[&one], &[&client]).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut wrong = Vec::new();
    let mut acknowledged = 0;
    for (number, sender) in senders.into_iter().enumerate() {
        let sent = soon("its last calls are answered", sender).await.expect("no panic");
        acknowledged += sent.acknowledged.len();
        wrong.extend(sent.failed.iter().map(|why| format!("{} of {}: {why}", sent.key, sent.sender)));
        if is_durable(number) {
            let text = client.actor::<Scroll>(&sent.key).within(SOON).ask(Read).await.expect("an answer");
            wrong.extend(text.disorder.iter().map(|what| format!("{}: {what}", sent.key)));
            let (written, asked) = (text.written.get(&sent.sender), sent.acknowledged.len() as u64);
            if written != Some(&asked) {
                wrong.push(format!("{} of {}: {asked} acknowledged, {written:?} written", sent.key, sent.sender));
            }
        }
    }
    wrong.extend(disorder(&case));
    println!("{acknowledged} numbers acknowledged, {} things are wrong", wrong.len());
    assert!(acknowledged > 500, "{acknowledged}");
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Which of ten keys are durable.
fn is_durable(number: usize) -> bool {
    number % 5 < 2
}

/// Where a volatile actor of this case saw a number that was not above the one before.
fn disorder(case: &str) -> Vec<String> {
    let seen = SEEN.lock().expect("no panic in it");
    let mut wrong = Vec::new();
    for ((_, key, sender), numbers) in seen.iter().filter(|((of, ..), _)| of == case) {
        let steps = numbers.windows(2).filter(|pair| pair[0] >= pair[1]);
        wrong.extend(steps.map(|pair| format!("{key} saw {} after {} of {sender}", pair[1], pair[0])));
    }
    wrong
}

/// Where the broker is, for the process that a test starts of its own program.
const BROKER: &str = "GREENROOM_TEST_SCROLLS_AT";

async fn scrolls(name: &str, url: &str) -> Node {
    let node = Node::builder("shop").name(name).connect(url).host::<ScrollActor>();
    node.start().await.expect("a node starts")
}

/// No test by itself: the process that [`numbered_senders_under_kill_9`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_scrolls() {
    let Ok(url) = std::env::var(BROKER) else { return };
    let _node = scrolls("victim", &url).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_senders_under_kill_9() {
    let server = Server::start(Profile::Shop).await;
    let mut victim = Command::new(std::env::current_exe().expect("this program"));
    victim.args(["--exact", "embedded::order::a_process_with_scrolls"]).env(BROKER, server.url());
    victim.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let heir = scrolls("heir", server.url()).await;
    let client = Node::builder("shop").name("client").connect(server.url()).start().await.expect("a client starts");
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = [&heir, &client]
        .into_iter()
        .flat_map(|node| (0..12).map(move |number| (node.clone(), format!("p-{number}"))))
        .map(|(node, key)| tokio::spawn(sender(node, "kill".to_owned(), true, key, stop.clone())))
        .collect();
    for _ in 0..2 {
        // Partitions go to it while the senders number on, and come back when it dies.
        let mut victim = victim.spawn().expect("it starts");
        let share = |node: &Node| {
            let claims = node.info().claims;
            let its = claims.into_iter().filter(|claim| claim.node.starts_with("victim-"));
            its.map(|claim| claim.partitions.len()).sum::<usize>()
        };
        eventually(SOON * 2, "the two share", async || holds(share(&client) > 10, || share(&client).to_string())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        victim.kill().await.expect("it is killed");
        eventually(SOON * 2, "the heir has all", async || holds(share(&client) == 0, || share(&client).to_string()))
            .await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = 0;
    for sender in senders {
        let sent = soon("its last calls are answered", sender).await.expect("no panic");
        assert!(sent.failed.is_empty(), "{:?}", sent.failed);
        let text = client.actor::<Scroll>(&sent.key).within(SOON).ask(Read).await.expect("an answer");
        assert!(text.disorder.is_empty(), "{}: {:?}", sent.key, text.disorder);
        assert_eq!(text.written.get(&sent.sender), Some(&(sent.acknowledged.len() as u64)), "{}", sent.key);
        acknowledged += sent.acknowledged.len();
    }
    println!("{acknowledged} numbers acknowledged over two kills");
}
