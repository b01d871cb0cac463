//! Actors that tell each other durably: one that sends, one that receives, and one without a journal that does both.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{LazyLock, Mutex};

use greenroom::prelude::*;

/// Sends letters.
#[contract(name = "post", messages(Mail, Kept, Peek), event = Sent)]
pub(super) struct Post;

/// Sends each of these numbers to each of these letterboxes, and then ends so.
#[message(Post, ask, reply = u32, refusal = NotSent)]
pub(super) struct Mail {
    pub to: Vec<String>,
    pub numbers: Vec<u32>,
    pub mood: Mood,
}

/// Uses the address that an earlier turn has kept; says what came of it.
#[message(Post, ask, reply = String)]
pub(super) struct Kept;

/// Tries to send from a read; says what came of it.
#[message(Post, read, reply = String)]
pub(super) struct Peek;

/// Keeps letters.
#[contract(name = "box", messages(Letter, Jot, Letters), event = Came)]
pub(super) struct Letterbox;

#[message(Letterbox, tell)]
#[derive(Clone)]
pub(super) struct Letter {
    pub from: String,
    pub number: u32,
    pub mood: Mood,
}

/// A letter by hand.
#[message(Letterbox, ask, reply = u32)]
pub(super) struct Jot {
    pub number: u32,
}

#[message(Letterbox, read, reply = Vec<String>)]
pub(super) struct Letters;

/// Counts strokes in memory.
#[contract(name = "slate", messages(Stroke, Chalk))]
pub(super) struct Slate;

#[message(Slate, tell)]
pub(super) struct Stroke;

/// Tells these letterboxes and these slates; the reply is how many strokes there are here.
#[message(Slate, ask, reply = u32)]
pub(super) struct Chalk {
    pub tell: Vec<String>,
    pub slates: Vec<String>,
}

/// How a turn goes.
#[data]
#[derive(Clone, PartialEq)]
pub(super) enum Mood {
    Accept,
    Refuse,
    Panic,
    /// Commits what goes with the first number, and refuses then.
    RefuseAfterStep,
    /// Emits nothing.
    Silent,
    ToSlates,
    KeepAddress,
    /// Sends more than one may.
    Many,
    /// Panics until its sender was mended.
    Fragile,
}

#[refusal]
#[derive(PartialEq)]
pub(super) struct NotSent(pub String);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent: {}", self.0)
    }
}

#[event(Post)]
#[derive(PartialEq)]
pub(super) enum Sent {
    Sent { numbers: u32 },
}

#[data]
#[derive(Default)]
pub(super) struct Book {
    turns: u32,
}

impl State for Book {
    type Event = Sent;

    fn apply(&mut self, _: &Sent) {
        self.turns += 1;
    }
}

/// By node and key: addresses that turns have kept.
static ADDRESSES: LazyLock<Mutex<HashMap<String, Ref<Letterbox>>>> = LazyLock::new(Mutex::default);

pub(super) struct PostActor {
    book: Durable<Book>,
}

#[actor(Post, state = book, durable)]
impl PostActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { book: ctx.durable().await? })
    }

    #[ask]
    async fn mail(&mut self, msg: Mail, ctx: &mut Context<'_, Self>) -> Result<u32, NotSent> {
        let refused = |error: Error| NotSent(error.to_string());
        let from = ctx.key().to_string();
        if msg.mood != Mood::Silent {
            self.book.emit(Sent::Sent { numbers: msg.numbers.len() as u32 });
        }
        for number in &msg.numbers {
            for to in &msg.to {
                if msg.mood == Mood::ToSlates {
                    ctx.tell_durably(to, Stroke).map_err(refused)?;
                    continue;
                }
                let letter = Letter { from: from.clone(), number: *number, mood: Mood::Accept };
                // Both ways into the turn's outbox.
                if number % 2 == 0 {
                    ctx.tell_durably(to, letter).map_err(refused)?;
                } else {
                    ctx.actor::<Letterbox>(to).tell_durably(letter).await.map_err(refused)?;
                }
            }
            if msg.mood == Mood::RefuseAfterStep && *number == msg.numbers[0] {
                ctx.commit(&mut self.book).await.map_err(refused)?;
            }
        }
        match msg.mood {
            Mood::Refuse | Mood::RefuseAfterStep => Err(NotSent("as it was asked".into())),
            Mood::Panic => panic!("the post falls"),
            Mood::KeepAddress => {
                let address = ctx.actor::<Letterbox>(&msg.to[0]);
                ADDRESSES.lock().expect("no panic in it").insert(place(ctx), address);
                Ok(self.book.turns)
            }
            Mood::Many => {
                for number in 0..=256 {
                    let letter = Letter { from: from.clone(), number, mood: Mood::Accept };
                    ctx.tell_durably("many", letter).map_err(refused)?;
                }
                Ok(self.book.turns)
            }
            _ => Ok(self.book.turns),
        }
    }

    #[ask]
    async fn kept(&mut self, _: Kept, ctx: &mut Context<'_, Self>) -> String {
        let address = ADDRESSES.lock().expect("no panic in it").remove(&place(ctx));
        let Some(address) = address else { return "no address".into() };
        let letter = Letter { from: "late".into(), number: 0, mood: Mood::Accept };
        said(address.tell_durably(letter).await)
    }

    #[read]
    async fn peek(&self, _: Peek, ctx: &mut Context<'_, Self>) -> String {
        let letter = || Letter { from: "read".into(), number: 0, mood: Mood::Accept };
        let by_address = ctx.actor::<Letterbox>("a").tell_durably(letter()).await;
        format!("{} / {}", said(ctx.tell_durably("a", letter())), said(by_address))
    }
}

fn place(ctx: &Context<'_, PostActor>) -> String {
    format!("{} {}", ctx.node().map(|node| node.id().to_owned()).unwrap_or_default(), ctx.key())
}

fn said(outcome: Result<(), Error>) -> String {
    outcome.map_or_else(|error| error.to_string(), |()| "sent".to_owned())
}

#[event(Letterbox)]
#[derive(PartialEq)]
pub(super) enum Came {
    Came { letter: String },
}

#[data]
#[derive(Default)]
pub(super) struct Pile {
    letters: Vec<String>,
}

impl State for Pile {
    type Event = Came;

    fn apply(&mut self, event: &Came) {
        let Came::Came { letter } = event;
        self.letters.push(letter.clone());
    }
}

/// Whose fragile letters are taken now.
static MENDED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

pub(super) fn mend(from: &str) {
    MENDED.lock().expect("no panic in it").insert(from.to_owned());
}

pub(super) struct LetterboxActor {
    pile: Durable<Pile>,
}

#[actor(Letterbox, state = pile, durable)]
impl LetterboxActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { pile: ctx.durable().await? })
    }

    #[tell]
    fn letter(&mut self, msg: Letter) {
        self.pile.emit(Came::Came { letter: format!("{} {}", msg.from, msg.number) });
        let mended = || MENDED.lock().expect("no panic in it").contains(&msg.from);
        let falls = msg.mood == Mood::Panic || msg.mood == Mood::Fragile && !mended();
        assert!(!falls, "the letterbox falls at {}", msg.number);
    }

    #[ask]
    fn jot(&mut self, msg: Jot) -> u32 {
        self.pile.emit(Came::Came { letter: format!("jot {}", msg.number) });
        msg.number
    }

    #[read]
    fn letters(&self, _: Letters) -> Vec<String> {
        self.pile.letters.clone()
    }
}

#[derive(Default)]
pub(super) struct SlateActor {
    strokes: u32,
}

#[actor(Slate)]
impl SlateActor {
    fn activate() -> Result<Self, Error> {
        Ok(Self::default())
    }

    #[tell]
    fn stroke(&mut self, _: Stroke) {
        self.strokes += 1;
    }

    #[ask]
    async fn chalk(&mut self, msg: Chalk, ctx: &mut Context<'_, Self>) -> u32 {
        let from = ctx.key().to_string();
        for to in &msg.tell {
            let letter = Letter { from: from.clone(), number: self.strokes, mood: Mood::Accept };
            assert!(ctx.tell_durably(to, letter.clone()).is_err(), "it has no journal to keep that in");
            ctx.actor::<Letterbox>(to).tell_durably(letter).await.expect("it is stored");
        }
        for to in &msg.slates {
            ctx.actor::<Slate>(to).tell_durably(Stroke).await.expect("it is stored");
        }
        self.strokes
    }
}
