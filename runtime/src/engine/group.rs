//! Groups: turns of a durable actor that share an append.
//!
//! While an append is under way, turns whose handler never waits run on the state that it will leave. Nothing of them
//! leaves the actor before it is kept: what they emitted and the commands that they were for are gathered for the next
//! append, and their callers hear of them after it. So a key with many callers is not as slow as an append each, and
//! one with a single caller does not wait for company. Whatever else the actor does (a handler that may wait, a read,
//! the end of a handover) begins when the group is over: then everything is kept, or the activation is dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use super::command::not_kept;
use super::drain::BURST;
use super::host::Host;
use super::job::Job;
use super::slot::{Popped, Slot};
use super::turn::{Ended, Env, cause_of};
use crate::actor::Actor;
use crate::error::{Error, ErrorKind};
use crate::journal::{Append, Draft, Kept, NotAppended, prepare};
use crate::state::Committed;

/// Turns of which one append holds at most something.
const TURNS_MAX: usize = 256;
/// What one append holds at most, in bytes, unless a single turn leaves more.
const BYTES_MAX: usize = 64 * 1024;

/// A turn that has run, and of which nothing has left the actor.
pub(crate) struct Staged {
    pub(crate) ended: Ended,
    /// What is to be kept of it; the cell has given it up, and remembers its command.
    pub(crate) draft: Option<Draft>,
    pub(crate) voice: Voice,
}

impl Staged {
    /// Of a job that was no turn, and has been answered.
    pub(super) fn nothing() -> Self {
        Self { ended: Ended::Fine, draft: None, voice: Voice { stake: Stake::Sight, speak: Box::new(|_| {}) } }
    }
}

/// What a caller has to do with an append that its answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stake {
    /// Its turn is a part of what is appended.
    Part,
    /// Its command came before, and may be a part of what is kept already or under way.
    Repeat,
    /// Its turn saw what is appended, and leaves nothing itself.
    Sight,
}

/// Tells a caller what its turn came to, when that may be known.
pub(crate) struct Voice {
    pub(crate) stake: Stake,
    /// Told why, if what it is about was not kept.
    pub(crate) speak: Box<dyn FnOnce(Option<Error>) + Send>,
}

impl Voice {
    /// What an author wrote is encoded and dropped here, and may panic.
    fn say(self, lost: Option<Error>) {
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| (self.speak)(lost))) {
            tracing::error!(cause = cause_of(panic.as_ref()), "an answer could not be given: it panicked");
        }
    }
}

/// Whoever waits for one append: mostly one.
type Voices = SmallVec<[Voice; 1]>;

/// What waits for one append.
#[derive(Default)]
struct Batch {
    draft: Option<Draft>,
    /// Turns of which it holds something.
    turns: usize,
    voices: Voices,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.turns >= TURNS_MAX || self.bytes() >= BYTES_MAX
    }

    fn bytes(&self) -> usize {
        self.draft.as_ref().map_or(0, Draft::bytes)
    }

    fn add(&mut self, draft: Draft, voice: Voice) {
        match &mut self.draft {
            Some(earlier) => earlier.join(draft),
            None => self.draft = Some(draft),
        }
        self.turns += 1;
        self.voices.push(voice);
    }
}

/// What a group has on its way, and what it has gathered meanwhile.
struct Group {
    /// At most one: a second one would be refused, or overtake it.
    under_way: Option<UnderWay>,
    next: Batch,
    /// A turn that no longer fitted into the next append. No other runs before that is under way.
    carried: Option<Batch>,
    /// How the last turn ended, if the actor cannot go on after it.
    over: Option<Ended>,
    turns_left: usize,
    alone: bool,
    polled: bool,
    /// What is kept, and not told yet to whoever watches. Told behind the next append, which somebody waits for.
    told: Vec<Committed>,
}

/// How a group begins.
pub(super) struct Begin {
    /// How many turns may run before other tasks have the thread.
    pub(super) turns_left: usize,
    /// What was kept before, and is to be told.
    pub(super) told: Vec<Committed>,
    /// Whether its first turn is the only one.
    pub(super) alone: bool,
}

/// What a group leaves to its drain.
pub(super) struct Over {
    pub(super) ended: Ended,
    /// How many turns may run before other tasks have the thread.
    pub(super) turns_left: usize,
    /// What is still to be told to whoever watches.
    pub(super) told: Vec<Committed>,
}

struct UnderWay {
    append: BoxFuture<'static, Result<Kept, NotAppended>>,
    /// What became of it, if that was known at once.
    known: Option<Result<Kept, NotAppended>>,
    voices: Voices,
}

impl UnderWay {
    /// Puts it on its way.
    fn start(&mut self, context: &mut TaskContext<'_>) {
        if let Poll::Ready(kept) = self.append.poll_unpin(context) {
            self.known = Some(kept);
        }
    }

    fn poll(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<Kept, NotAppended>> {
        self.known.take().map_or_else(|| self.append.poll_unpin(context), Poll::Ready)
    }
}

impl<A: Actor> Host<A> {
    /// Runs a turn that never waits, and those that stand behind it or arrive while it is being kept, as long as they
    /// never wait either. When it ends, all of them are kept and answered, or the actor must be dropped.
    pub(super) async fn group(
        &self,
        slot: &Arc<Slot<A>>,
        actor: &mut A,
        first: Box<dyn Job<A>>,
        Begin { turns_left, told, alone }: Begin,
    ) -> Over {
        let env = self.env(slot);
        let (next, polled) = (Batch::default(), false);
        let mut group = Group { under_way: None, next, carried: None, over: None, turns_left, alone, polled, told };
        group.run(actor, first, &env);
        let ended = std::future::poll_fn(|context| group.poll(self, slot, actor, &env, context)).await;
        Over { ended, turns_left: group.turns_left, told: group.told }
    }
}

impl Group {
    fn poll<A: Actor>(
        &mut self,
        host: &Host<A>,
        slot: &Arc<Slot<A>>,
        actor: &mut A,
        env: &Env<'_>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Ended> {
        // A poll begins after others had the thread, but for the first.
        if self.turns_left == 0 && self.polled {
            self.turns_left = BURST;
        }
        self.polled = true;
        loop {
            if let Some(under_way) = &mut self.under_way
                && let Poll::Ready(kept) = under_way.poll(context)
            {
                let voices = std::mem::take(&mut under_way.voices);
                self.under_way = None;
                match kept {
                    Ok(kept) => self.kept(actor, env, kept, voices),
                    Err(why) => return Poll::Ready(self.lost(env, why, voices)),
                }
            }
            if self.has_room(actor) {
                match slot.lock().pop_turn(context.waker(), self.turns_left > 0) {
                    Popped::Job(job) => {
                        self.take(host, actor, job, env);
                        continue;
                    }
                    Popped::Later => context.waker().wake_by_ref(),
                    Popped::Nothing => {}
                }
            }
            if self.under_way.is_some() {
                return Poll::Pending;
            }
            if self.next.draft.is_none() {
                return Poll::Ready(self.over.take().unwrap_or(Ended::Fine));
            }
            if let Err((why, voices)) = self.send(actor, env) {
                return Poll::Ready(self.lost(env, why, voices));
            }
            // Its first poll puts it on its way.
            if let Some(under_way) = &mut self.under_way
                && !self.told.is_empty()
            {
                under_way.start(context);
                env.around.echo(env.key, std::mem::take(&mut self.told));
            }
        }
    }

    /// Whether one more turn may run. What was read of a key that never was is good for one turn only.
    fn has_room<A: Actor>(&self, actor: &mut A) -> bool {
        let open = !self.alone && self.over.is_none() && self.carried.is_none() && !self.next.is_full();
        open && !(self.under_way.is_none() && self.next.draft.is_none() && is_new(actor))
    }

    fn take<A: Actor>(&mut self, host: &Host<A>, actor: &mut A, job: Box<dyn Job<A>>, env: &Env<'_>) {
        self.turns_left = self.turns_left.saturating_sub(1);
        if let Some(job) = host.may_start(job, env.key.as_str()) {
            self.run(actor, job, env);
        }
    }

    fn run<A: Actor>(&mut self, actor: &mut A, job: Box<dyn Job<A>>, env: &Env<'_>) {
        let Staged { ended, draft, voice } = job.stage(actor, env);
        if !matches!(ended, Ended::Fine) {
            self.over = Some(ended);
        }
        match draft {
            Some(draft) if self.next.turns > 0 && self.next.bytes() + draft.bytes() > BYTES_MAX => {
                let mut carried = Batch::default();
                carried.add(draft, voice);
                self.carried = Some(carried);
            }
            Some(draft) => self.next.add(draft, voice),
            // It leaves nothing, and saw what those before it leave.
            None if self.next.turns > 0 => self.next.voices.push(voice),
            None => match &mut self.under_way {
                Some(under_way) => under_way.voices.push(voice),
                None => say_with_permit(env, voice),
            },
        }
    }

    /// Sends what was gathered.
    fn send<A: Actor>(&mut self, actor: &mut A, env: &Env<'_>) -> Result<(), (NotAppended, Voices)> {
        let Batch { draft, voices, .. } = std::mem::take(&mut self.next);
        // The state is what the record leaves only if no turn has run since, and none is to be undone.
        let whole = self.carried.is_none() && self.over.is_none();
        self.next = self.carried.take().unwrap_or_default();
        match draft.map_or_else(|| Err(nothing()), |draft| append_of(actor, env, draft, whole)) {
            Ok(append) => {
                self.under_way =
                    Some(UnderWay { append: append.send(env.around.clone()).boxed(), known: None, voices });
                Ok(())
            }
            Err(why) => Err((why, voices)),
        }
    }

    fn kept<A: Actor>(&mut self, actor: &mut A, env: &Env<'_>, kept: Kept, voices: Voices) {
        let told = actor.cell().and_then(|cell| cell.ledger()).map(|ledger| ledger.took(env.around, kept));
        voices.into_iter().for_each(|voice| voice.say(None));
        self.told.extend(told.unwrap_or_default());
    }

    /// Ends the group: what was to be appended is not, or nobody knows. Whoever only saw it, or ran behind it, has
    /// certainly not been kept.
    fn lost(&mut self, env: &Env<'_>, why: NotAppended, voices: Voices) -> Ended {
        let repeat = || {
            let why = "was asked before under this id, and what became of that is not known just now";
            Error::new(ErrorKind::Unknown, format!("{}/{} {why}", env.actor, env.key))
        };
        let error = not_kept(env, why);
        for voice in voices {
            let error = match voice.stake {
                Stake::Part => error.again(),
                Stake::Repeat => repeat(),
                Stake::Sight => behind(env),
            };
            voice.say(Some(error));
        }
        let next = std::mem::take(&mut self.next).voices;
        let carried = self.carried.take().unwrap_or_default().voices;
        for voice in next.into_iter().chain(carried) {
            let error = if voice.stake == Stake::Repeat { repeat() } else { behind(env) };
            voice.say(Some(error));
        }
        Ended::Lost
    }
}

/// What is told to whoever stood behind a turn that was not kept.
pub(super) fn behind(env: &Env<'_>) -> Error {
    let why = "a turn that was not kept stood before this one, which so was not kept either";
    Error::new(ErrorKind::Unavailable, format!("{}/{}: {why}", env.actor, env.key))
}

/// What keeps nothing rests on the state alone, as a read does: that this node is still the owner has to be shown. What
/// was kept before is as true as it was.
fn say_with_permit(env: &Env<'_>, voice: Voice) {
    if voice.stake == Stake::Repeat {
        return voice.say(None);
    }
    let around = env.around.clone();
    env.around.runtime.spawn(async move { voice.say(around.permit().await.err()) });
}

/// That the state can be written is up to its author.
fn append_of<A: Actor>(actor: &mut A, env: &Env<'_>, draft: Draft, whole: bool) -> Result<Append, NotAppended> {
    let Some(cell) = actor.cell() else { return Err(nothing()) };
    let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| prepare(env.around, cell, draft, whole)));
    prepared.unwrap_or_else(|panic| {
        let why = format!("the state of {}/{} cannot be written: {}", env.actor, env.key, cause_of(panic.as_ref()));
        Err(NotAppended::NotStored(Error::new(ErrorKind::Panicked, why)))
    })
}

fn nothing() -> NotAppended {
    NotAppended::NotStored(Error::new(ErrorKind::Internal, "there is nothing to keep, or no cell to keep it"))
}

/// Whether nothing was ever written to the actor's journal.
pub(super) fn is_new<A: Actor>(actor: &mut A) -> bool {
    actor.cell().and_then(|cell| cell.ledger()).is_some_and(|ledger| ledger.is_new())
}
