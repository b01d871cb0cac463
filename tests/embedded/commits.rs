//! Long turns that are cut by the death of their node: at every boundary between their commits.

use std::fmt;

use greenroom::ErrorKind;
use greenroom::prelude::*;

use super::gate::Gate;
use super::ground::{Ground, SOON, on_both, settled, soon};

/// Commits in the middle of a turn; what its end keeps comes on top.
const COMMITS: u32 = 3;
/// What a whole turn leaves.
const WHOLE: [u32; 4] = [1, 2, 3, 4];

#[contract(name = "stair", messages(Climb, ClimbOn, Toll, Steps), event = Climbed)]
struct Stair;

/// Pays a toll and takes a step, four times, with a commit after each of the first three. Passes the gate at one
/// boundary: at 0 nothing is kept yet, at 3 all but the end.
#[message(Stair, ask, reply = Vec<u32>, refusal = Fell)]
struct Climb {
    gate: String,
    at: u32,
}

/// The same by a handler that goes on where it was cut.
#[message(Stair, ask, reply = Vec<u32>, refusal = Fell)]
struct ClimbOn {
    gate: String,
    at: u32,
}

#[message(Stair, ask, reply = u32)]
struct Toll;

#[message(Stair, read, reply = Vec<u32>)]
struct Steps;

#[refusal]
#[derive(PartialEq)]
struct Fell {
    why: String,
}

impl fmt::Display for Fell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[event(Stair)]
#[derive(PartialEq)]
enum Climbed {
    Step { number: u32 },
}

#[data]
#[derive(Default)]
struct Height {
    steps: Vec<u32>,
}

impl State for Height {
    type Event = Climbed;

    fn apply(&mut self, event: &Climbed) {
        let Climbed::Step { number } = event;
        self.steps.push(*number);
    }
}

struct StairActor {
    height: Durable<Height>,
}

#[actor(Stair, state = height, durable)]
impl StairActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { height: ctx.durable().await? })
    }

    #[ask]
    async fn climb(&mut self, msg: Climb, ctx: &mut Context<'_, Self>) -> Result<Vec<u32>, Fell> {
        self.rise(&msg.gate, msg.at, ctx).await
    }

    #[ask(resumes)]
    async fn climb_on(&mut self, msg: ClimbOn, ctx: &mut Context<'_, Self>) -> Result<Vec<u32>, Fell> {
        self.rise(&msg.gate, msg.at, ctx).await
    }

    #[ask]
    fn toll(&mut self, _: Toll) -> u32 {
        let number = self.height.steps.len() as u32 + 1;
        self.height.emit(Climbed::Step { number });
        number
    }

    #[read]
    fn steps(&self, _: Steps) -> Vec<u32> {
        self.height.steps.clone()
    }

    async fn rise(&mut self, gate: &str, at: u32, ctx: &mut Context<'_, Self>) -> Result<Vec<u32>, Fell> {
        let why = |what: &str, error: String| Fell { why: format!("{what}: {error}") };
        let (key, kept) = (toll_of(ctx.key().as_str()), ctx.resumed());
        for boundary in 0..=COMMITS {
            if let (true, Some(gate)) = (boundary == at, Gate::named(gate)) {
                gate.pass().await;
            }
            // Asked again for what is kept too, so that the calls are the same in every run.
            ctx.actor::<Stair>(&key).ask(Toll).await.map_err(|error| why("toll", error.to_string()))?;
            if boundary >= kept {
                self.height.emit(Climbed::Step { number: boundary + 1 });
                if boundary < COMMITS {
                    ctx.commit(&mut self.height).await.map_err(|error| why("commit", error.to_string()))?;
                }
            }
        }
        Ok(self.height.steps.clone())
    }
}

/// Where a stair's tolls are paid.
fn toll_of(key: &str) -> String {
    format!("toll-of-{key}")
}

on_both!(e1_crash_at_every_commit);

/// One turn that is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: u32,
    resumes: bool,
}

impl Cut {
    fn key(self) -> String {
        format!("s-{}-{}", self.at, if self.resumes { "on" } else { "not" })
    }

    /// The turn as a command with an id of its caller's, so that the same can be asked again afterwards.
    async fn ask(self, node: &Node, gate: String) -> Result<Vec<u32>, ErrorKind> {
        let (at, key) = (self.at, self.key());
        let stair = node.actor::<Stair>(&key).id(&key).within(SOON * 3);
        let outcome =
            if self.resumes { stair.ask(ClimbOn { gate, at }).await } else { stair.ask(Climb { gate, at }).await };
        outcome.map_err(|error| match error {
            AskError::Failed(error) => error.kind(),
            AskError::Refused(fell) => panic!("{self:?}: {fell}"),
        })
    }

    /// What its caller is to be told.
    fn outcome(self) -> Result<Vec<u32>, ErrorKind> {
        if self.resumes || self.at == 0 { Ok(WHOLE.to_vec()) } else { Err(ErrorKind::Interrupted) }
    }

    /// What is to be there, whatever its caller is told.
    fn kept(self) -> Vec<u32> {
        self.outcome().unwrap_or_else(|_| WHOLE[..self.at as usize].to_vec())
    }
}

async fn host(ground: &Ground, name: &str) -> Node {
    ground.node(name).host::<StairActor>().start().await.expect("a node starts")
}

async fn e1_crash_at_every_commit(ground: Ground) {
    let one = host(&ground, "one").await;
    let client = ground.node("client").start().await.expect("a node starts");
    settled("stair", &[&one], &[&client]).await;
    let cuts = (0..=COMMITS).flat_map(|at| [Cut { at, resumes: false }, Cut { at, resumes: true }]);
    let mut cut = Vec::new();
    for turn in cuts {
        let gate = Gate::closed();
        let asked = {
            let (client, gate) = (client.clone(), gate.name());
            tokio::spawn(async move { turn.ask(&client, gate).await })
        };
        gate.arrived(1).await;
        cut.push((turn, gate, asked));
    }
    // Every one of them dies where it stands.
    drop(one);
    let two = host(&ground, "two").await;
    for (turn, gate, asked) in cut {
        // The ghost of the first run, and another run if there is one.
        gate.open(2);
        assert_eq!(soon("it is told", asked).await.expect("no panic"), turn.outcome(), "{turn:?}");
        let stair = two.actor::<Stair>(turn.key()).within(SOON);
        let tolls = two.actor::<Stair>(toll_of(&turn.key())).within(SOON);
        for round in 0..2 {
            assert_eq!(stair.ask(Steps).await.expect("an answer"), turn.kept(), "{turn:?}, round {round}");
            let paid = tolls.ask(Steps).await.expect("an answer").len();
            assert_eq!(paid, turn.kept().len(), "{turn:?}, round {round}: one toll for each step");
            // The same command after its end: it is told the same, and nothing more happens.
            assert_eq!(turn.ask(&client, gate.name()).await, turn.outcome(), "{turn:?}, again");
        }
    }
}
