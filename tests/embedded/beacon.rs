//! An actor that does things without being asked: it ticks, and watches others.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use greenroom::prelude::*;

/// Ticks in memory.
#[contract(name = "beacon", messages(Tick, Begin, Stop, Seen, Listed, Burn, Fill, Keep, Lost, Hold))]
pub(super) struct Beacon;

/// What its timers send.
#[message(Beacon, tell)]
pub(super) struct Tick;

/// Begins a timer: once, or every so often. The reply is its id.
#[message(Beacon, ask, reply = u64)]
pub(super) struct Begin {
    pub ms: u64,
    pub again: bool,
}

/// Cancels the timer of that id. The reply is whether it ran.
#[message(Beacon, ask, reply = bool)]
pub(super) struct Stop {
    pub id: u64,
}

/// How often it has ticked in this activation, and what it was told of those it watches.
#[message(Beacon, read, reply = (u64, Vec<String>))]
pub(super) struct Seen;

/// The ids of its timers and watches.
#[message(Beacon, read, reply = Vec<u64>)]
pub(super) struct Listed;

/// Panics.
#[message(Beacon, ask)]
pub(super) struct Burn;

/// Begins so many long timers; the reply is how many there were when one was refused, and why.
#[message(Beacon, ask, reply = (u64, String))]
pub(super) struct Fill {
    pub timers: u64,
}

/// Watches another.
#[message(Beacon, ask)]
pub(super) struct Keep {
    pub key: String,
}

/// One that it watches has ended.
#[message(Beacon, tell)]
pub(super) struct Lost {
    pub text: String,
}

/// Waits, and so holds the actor, for so long.
#[message(Beacon, ask)]
pub(super) struct Hold {
    pub ms: u64,
}

/// By node and key: how many activations there were.
static LIT: LazyLock<Mutex<HashMap<(String, String), u32>>> = LazyLock::new(Mutex::default);

/// How many activations of a key there were on a node.
pub(super) fn lit(node: &Node, key: &str) -> u32 {
    let lit = LIT.lock().expect("no panic in it");
    lit.get(&(node.id().to_owned(), key.to_owned())).copied().unwrap_or(0)
}

pub(super) struct BeaconActor {
    ticks: u64,
    lost: Vec<String>,
}

#[actor(Beacon)]
impl BeaconActor {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        let node = ctx.node()?.id().to_owned();
        let times = {
            let mut lit = LIT.lock().expect("no panic in it");
            let times = lit.entry((node, ctx.key().to_string())).or_default();
            *times += 1;
            *times
        };
        // A key that says so fails to light up for the first few times, or ticks from the beginning.
        if ctx.key().as_str().starts_with("damp") && times < 3 {
            return Err(Error::new(ErrorKind::Internal, "the wood is damp"));
        }
        if ctx.key().as_str().starts_with("ticks") {
            ctx.every(Duration::from_millis(20), Tick)?;
        }
        Ok(Self { ticks: 0, lost: Vec::new() })
    }

    #[tell]
    fn tick(&mut self, _: Tick) {
        self.ticks += 1;
    }

    #[ask]
    fn begin(&mut self, msg: Begin, ctx: &mut Context<'_, Self>) -> u64 {
        let after = Duration::from_millis(msg.ms);
        let timer = if msg.again { ctx.every(after, Tick) } else { ctx.after(after, Tick) };
        timer.map_or(0, |timer| timer.id())
    }

    #[ask]
    fn stop(&mut self, msg: Stop, ctx: &mut Context<'_, Self>) -> bool {
        ctx.timers().into_iter().any(|timer| timer.id() == msg.id && timer.cancel())
    }

    #[read]
    fn seen(&self, _: Seen) -> (u64, Vec<String>) {
        (self.ticks, self.lost.clone())
    }

    #[read]
    fn listed(&self, _: Listed, ctx: &mut Context<'_, Self>) -> Vec<u64> {
        ctx.timers().iter().map(greenroom::Timer::id).collect()
    }

    #[ask]
    async fn burn(&mut self, _: Burn) {
        panic!("burnt down");
    }

    #[ask]
    fn fill(&mut self, msg: Fill, ctx: &mut Context<'_, Self>) -> (u64, String) {
        for number in 0..msg.timers {
            if let Err(error) = ctx.after(Duration::from_secs(3_600), Tick) {
                return (number, error.kind().name().to_owned());
            }
        }
        (msg.timers, String::new())
    }

    #[ask]
    fn keep(&mut self, msg: Keep, ctx: &mut Context<'_, Self>) {
        let watched = ctx.watch::<Beacon, _>(&msg.key, |gone| Lost { text: gone.to_string() });
        self.lost.extend(watched.err().map(|error| error.to_string()));
    }

    #[tell]
    fn lost(&mut self, msg: Lost) {
        self.lost.push(msg.text);
    }

    #[ask]
    async fn hold(&mut self, msg: Hold) {
        tokio::time::sleep(Duration::from_millis(msg.ms)).await;
    }
}

/// The same with a journal; its keys that say so have one tick to wait for.
#[contract(name = "lamp", messages(Flick, Flicks), event = Flicked)]
pub(super) struct Lamp;

/// When that one comes: long after an actor that nobody asks for has left memory.
pub(super) const LATER: Duration = Duration::from_secs(4);

/// Adds one.
#[message(Lamp, tell)]
pub(super) struct Flick;

/// How many there were, over all activations.
#[message(Lamp, read, reply = u64)]
pub(super) struct Flicks;

#[event(Lamp)]
pub(super) enum Flicked {
    On,
}

#[data]
#[derive(Default)]
pub(super) struct Count {
    flicks: u64,
}

impl State for Count {
    type Event = Flicked;

    fn apply(&mut self, _: &Flicked) {
        self.flicks += 1;
    }
}

pub(super) struct LampActor {
    count: Durable<Count>,
}

#[actor(Lamp, state = count, durable)]
impl LampActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        if ctx.key().as_str().starts_with("waits") {
            ctx.after(LATER, Flick)?;
        }
        Ok(Self { count: ctx.durable().await? })
    }

    #[tell]
    fn flick(&mut self, _: Flick) {
        self.count.emit(Flicked::On);
    }

    #[read]
    fn flicks(&self, _: Flicks) -> u64 {
        self.count.flicks
    }
}
