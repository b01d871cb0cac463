//! Actors that are told of others' events: a paper that prints stories, and who takes them.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex};

use greenroom::prelude::*;
use greenroom::subscribe::Received;

/// Prints stories.
#[contract(name = "paper", messages(Print), event = Printed)]
pub(super) struct Paper;

/// Prints a story for each of these numbers and receivers, in one turn.
#[message(Paper, ask, reply = u32)]
#[derive(Clone)]
pub(super) struct Print {
    pub to: Vec<String>,
    pub numbers: Vec<u32>,
    pub tone: Tone,
}

/// What becomes of a story where it is taken.
#[data]
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tone {
    Plain,
    /// Whoever takes it panics.
    Shrill,
    /// Whoever asks for whom it is panics, until its paper was mended.
    Garbled,
    /// It is for nobody.
    Idle,
}

#[event(Paper)]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Printed {
    Story {
        to: String,
        number: u32,
        tone: Tone,
    },
    /// Of no interest to anybody.
    Counted,
}

#[data]
#[derive(Default)]
pub(super) struct Edition {
    stories: u32,
}

impl State for Edition {
    type Event = Printed;

    fn apply(&mut self, _: &Printed) {
        self.stories += 1;
    }
}

pub(super) struct PaperActor {
    edition: Durable<Edition>,
}

#[actor(Paper, state = edition, durable)]
impl PaperActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { edition: ctx.durable().await? })
    }

    #[ask]
    fn print(&mut self, msg: Print) -> u32 {
        for number in msg.numbers {
            for to in &msg.to {
                self.edition.emit(Printed::Story { to: to.clone(), number, tone: msg.tone });
            }
            self.edition.emit(Printed::Counted);
        }
        self.edition.stories
    }
}

/// Whose garbled stories can be read now.
static MENDED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

pub(super) fn mend(paper: &str) {
    MENDED.lock().expect("no panic in it").insert(paper.to_owned());
}

fn receiver(happened: &Received<Printed>) -> Option<String> {
    match &happened.event {
        Printed::Story { tone: Tone::Idle, .. } | Printed::Counted => None,
        Printed::Story { to, tone, number } => {
            let mended = || MENDED.lock().expect("no panic in it").contains(happened.key.as_str());
            assert!(*tone != Tone::Garbled || mended(), "story {number} is garbled");
            Some(to.clone())
        }
    }
}

/// Keeps the stories that are for it.
#[contract(name = "reader", messages(Stories), event = Kept)]
pub(super) struct Reader;

/// All of them, as `paper number`.
#[message(Reader, read, reply = Vec<String>)]
pub(super) struct Stories;

#[event(Reader)]
pub(super) enum Kept {
    Kept { story: String },
}

#[data]
#[derive(Default)]
pub(super) struct Shelf {
    stories: Vec<String>,
}

impl State for Shelf {
    type Event = Kept;

    fn apply(&mut self, event: &Kept) {
        let Kept::Kept { story } = event;
        self.stories.push(story.clone());
    }
}

pub(super) struct ReaderActor {
    shelf: Durable<Shelf>,
}

#[actor(Reader, state = shelf, durable)]
impl ReaderActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { shelf: ctx.durable().await? })
    }

    #[on(key = receiver)]
    fn story_printed(&mut self, happened: Received<Printed>) {
        let Printed::Story { number, tone, .. } = happened.event else { return };
        self.shelf.emit(Kept::Kept { story: format!("{} {number}", happened.key) });
        assert!(tone != Tone::Shrill, "the reader falls at {number}");
    }

    #[read]
    fn stories(&self, _: Stories) -> Vec<String> {
        self.shelf.stories.clone()
    }
}

/// Counts what its paper prints, in memory, and only what comes from now on.
#[contract(name = "tape", messages(Length))]
pub(super) struct Tape;

/// The places in the paper's journal, in the order in which they came.
#[message(Tape, read, reply = Vec<u64>)]
pub(super) struct Length;

#[derive(Default)]
pub(super) struct TapeActor {
    places: Vec<u64>,
}

#[actor(Tape)]
impl TapeActor {
    #[on(from = now)]
    async fn printed(&mut self, happened: Received<Printed>, ctx: &mut Context<'_, Self>) {
        assert_eq!(happened.key, *ctx.key(), "it goes to the actor of the same key");
        self.places.push(happened.sequence);
    }

    #[read]
    fn length(&self, _: Length) -> Vec<u64> {
        self.places.clone()
    }
}
