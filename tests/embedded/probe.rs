//! The actor that most tests ask: one verb for each thing that a turn can do.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use greenroom::prelude::*;

use super::gate::Gate;

/// Does what it is told.
#[contract(
    name = "probe",
    messages(
        Add, AddAsync, Total, Wait, Peek, Note, NoteAtGate, Notes, Block, Fall, Refuse, Via, Alone, Where, Twice, Late,
        Big, Again, Poke, CallBack
    )
)]
pub(super) struct Probe;

/// Ends in the caller's own poll: its handler is a plain `fn`.
#[message(Probe, ask, reply = u64)]
pub(super) struct Add {
    pub by: u64,
}

/// The same by an `async fn` that never waits.
#[message(Probe, ask, reply = u64)]
pub(super) struct AddAsync {
    pub by: u64,
}

#[message(Probe, read, reply = u64)]
pub(super) struct Total;

/// Passes a gate, then adds.
#[message(Probe, ask, reply = u64)]
pub(super) struct Wait {
    pub gate: String,
    pub by: u64,
}

/// Passes a gate as a read.
#[message(Probe, read, reply = u64)]
pub(super) struct Peek {
    pub gate: String,
}

#[message(Probe, tell)]
pub(super) struct Note {
    pub text: String,
}

#[message(Probe, tell)]
pub(super) struct NoteAtGate {
    pub gate: String,
    pub text: String,
}

#[message(Probe, read, reply = Vec<String>)]
pub(super) struct Notes;

/// Keeps its thread for so long.
#[message(Probe, ask)]
pub(super) struct Block {
    pub ms: u64,
    pub spin: bool,
}

/// Panics, after it has passed the gate if there is one.
#[message(Probe, ask)]
pub(super) struct Fall {
    pub why: String,
    pub gate: Option<String>,
}

#[message(Probe, ask, refusal = Refused)]
pub(super) struct Refuse {
    pub why: String,
}

/// Asks the next of these keys the same; the reply is how many there were.
#[message(Probe, ask, reply = u32, refusal = Refused)]
pub(super) struct Via {
    pub path: Vec<String>,
}

/// The same by calls of their own, which do not belong to the turn: `depth` of them.
#[message(Probe, ask, reply = u32, refusal = Refused)]
pub(super) struct Alone {
    pub depth: u32,
}

#[message(Probe, read, reply = Place)]
pub(super) struct Where;

/// Asks another actor twice, by one address, and gives what it said.
#[message(Probe, ask, reply = Vec<Place>, refusal = Refused)]
pub(super) struct Twice {
    pub key: String,
}

/// Passes a gate, and then asks another actor to add one.
#[message(Probe, ask, reply = u64, refusal = Refused)]
pub(super) struct Late {
    pub gate: String,
    pub key: String,
}

/// Answers with so many bytes.
#[message(Probe, ask, reply = String)]
pub(super) struct Big {
    pub bytes: usize,
}

/// Tells itself the same, so many times, and notes each.
#[message(Probe, tell)]
pub(super) struct Again {
    pub left: u32,
}

/// Tells another actor to call back, which asks this one to add one.
#[message(Probe, ask, refusal = Refused)]
pub(super) struct Poke {
    pub key: String,
}

#[message(Probe, tell)]
pub(super) struct CallBack {
    pub key: String,
}

/// Where a turn ran, and what it knew.
#[data]
#[derive(PartialEq)]
pub(super) struct Place {
    pub node: String,
    pub turn: String,
    pub remaining_ms: u64,
    pub attempt: u32,
}

/// The actor's own no, or what one that it asked failed with.
#[refusal]
#[derive(PartialEq)]
pub(super) enum Refused {
    #[code(418)]
    No {
        why: String,
    },
    Failed {
        kind: String,
        message: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::No { why } => f.write_str(why),
            Refused::Failed { kind, message } => write!(f, "{kind}: {message}"),
        }
    }
}

impl Refused {
    fn of(error: AskError<impl fmt::Debug>) -> Self {
        match error {
            AskError::Failed(error) => Refused::Failed { kind: error.kind().name(), message: error.to_string() },
            AskError::Refused(refusal) => Refused::No { why: format!("{refusal:?}") },
        }
    }

    fn passed_on(error: AskError<Refused>) -> Self {
        match error {
            AskError::Refused(refusal) => refusal,
            failed @ AskError::Failed(_) => Refused::of(failed),
        }
    }
}

#[derive(Default)]
pub(super) struct ProbeActor {
    total: u64,
    notes: Vec<String>,
}

#[actor(Probe)]
impl ProbeActor {
    #[ask]
    fn add(&mut self, msg: Add) -> u64 {
        self.total += msg.by;
        self.total
    }

    #[ask]
    async fn add_async(&mut self, msg: AddAsync) -> u64 {
        self.total += msg.by;
        self.total
    }

    #[read]
    fn total(&self, _: Total) -> u64 {
        self.total
    }

    #[ask]
    async fn wait(&mut self, msg: Wait) -> u64 {
        // Read before and written after: a turn beside this one would be lost.
        let before = self.total;
        pass(&msg.gate).await;
        self.total = before + msg.by;
        self.total
    }

    #[read]
    async fn peek(&self, msg: Peek) -> u64 {
        pass(&msg.gate).await;
        self.total
    }

    #[tell]
    fn note(&mut self, msg: Note) {
        self.notes.push(msg.text);
    }

    #[tell]
    async fn note_at_gate(&mut self, msg: NoteAtGate) {
        pass(&msg.gate).await;
        self.notes.push(msg.text);
    }

    #[read]
    fn notes(&self, _: Notes) -> Vec<String> {
        self.notes.clone()
    }

    #[ask]
    fn block(&mut self, msg: Block) {
        let until = Instant::now() + Duration::from_millis(msg.ms);
        while msg.spin && Instant::now() < until {
            std::hint::spin_loop();
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        self.total += 1;
    }

    #[ask]
    async fn fall(&mut self, msg: Fall) {
        if let Some(gate) = msg.gate {
            pass(&gate).await;
        }
        panic!("{}", msg.why);
    }

    #[ask]
    async fn refuse(&mut self, msg: Refuse) -> Result<(), Refused> {
        Err(Refused::No { why: msg.why })
    }

    #[ask]
    async fn via(&mut self, msg: Via, ctx: &mut Context<'_, Self>) -> Result<u32, Refused> {
        let Some((next, rest)) = msg.path.split_first() else { return Ok(0) };
        let further = ctx.actor::<Probe>(next).ask(Via { path: rest.to_vec() }).await;
        further.map(|count| count + 1).map_err(Refused::passed_on)
    }

    #[ask]
    async fn alone(&mut self, msg: Alone, ctx: &mut Context<'_, Self>) -> Result<u32, Refused> {
        if msg.depth == 0 {
            return Ok(0);
        }
        let node = ctx.node().map_err(|error| Refused::of(AskError::<()>::Failed(error)))?;
        let next = node.actor::<Probe>(format!("alone-{}", msg.depth));
        let further = next.ask(Alone { depth: msg.depth - 1 }).await;
        further.map(|count| count + 1).map_err(Refused::passed_on)
    }

    #[read]
    fn r#where(&self, _: Where, ctx: &mut Context<'_, Self>) -> Place {
        let remaining_ms = u64::try_from(ctx.remaining().as_millis()).unwrap_or(u64::MAX);
        let node = ctx.node().map(|node| node.id().to_owned()).unwrap_or_default();
        Place { node, turn: ctx.turn().to_string(), remaining_ms, attempt: ctx.attempt() }
    }

    #[ask]
    async fn twice(&mut self, msg: Twice, ctx: &mut Context<'_, Self>) -> Result<Vec<Place>, Refused> {
        let other = ctx.actor::<Probe>(&msg.key);
        let first = other.ask(Where).await.map_err(Refused::of)?;
        let second = other.ask(Where).await.map_err(Refused::of)?;
        Ok(vec![first, second])
    }

    #[ask]
    async fn late(&mut self, msg: Late, ctx: &mut Context<'_, Self>) -> Result<u64, Refused> {
        pass(&msg.gate).await;
        ctx.actor::<Probe>(&msg.key).ask(Add { by: 1 }).await.map_err(Refused::of)
    }

    #[tell]
    async fn again(&mut self, msg: Again, ctx: &mut Context<'_, Self>) {
        self.notes.push(format!("{} left", msg.left));
        if msg.left > 0 {
            let key = ctx.key().to_string();
            let told = ctx.actor::<Probe>(key).tell(Again { left: msg.left - 1 }).await;
            self.notes.extend(told.err().map(|error| error.to_string()));
        }
    }

    #[ask]
    async fn poke(&mut self, msg: Poke, ctx: &mut Context<'_, Self>) -> Result<(), Refused> {
        let key = ctx.key().to_string();
        let told = ctx.actor::<Probe>(&msg.key).tell(CallBack { key }).await;
        told.map_err(|error| Refused::of(AskError::<()>::Failed(error)))
    }

    #[tell]
    async fn call_back(&mut self, msg: CallBack, ctx: &mut Context<'_, Self>) {
        let asked = ctx.actor::<Probe>(&msg.key).ask(Add { by: 1 }).await;
        self.notes.push(asked.map_or_else(|error| error.to_string(), |total| total.to_string()));
    }

    #[ask]
    fn big(&mut self, msg: Big) -> String {
        "x".repeat(msg.bytes)
    }
}

async fn pass(gate: &str) {
    // A gate whose test has gone holds nobody.
    if let Some(gate) = Gate::named(gate) {
        gate.pass().await;
    }
}

/// Keys whose actors live on this node.
pub(super) async fn keys_on(node: &Node, from: &Node, wanted: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let mut seen = HashSet::new();
    for number in 0..1_000 {
        let key = format!("k-{number}");
        let place = from.actor::<Probe>(&key).ask(Where).await.expect("every key has an owner");
        seen.insert(place.node.clone());
        if place.node == node.id() {
            keys.push(key);
            if keys.len() == wanted {
                return keys;
            }
        }
    }
    panic!("{} owns too few keys; owners were {seen:?}", node.id());
}
