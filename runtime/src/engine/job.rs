//! Jobs: a message with whoever waits for its outcome, typed inside and not outside.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::attached::Attachment;
use super::command::{Before, before, not_kept, settle_durable, stage_durable};
use super::group::{Staged, Stake, Voice, is_new};
use super::turn::{Ended, Env, cause_of, conclude, settle, turn_of};
use crate::actor::{Actor, Freshness, Handle, Read};
use crate::call::{Call, not_started};
use crate::context::Context;
use crate::contract::Message;
use crate::error::{AskError, Error, ErrorKind};
use crate::journal::{self, Outbox, Write};
use crate::stats::VerbStats;

/// What a call comes to.
pub(crate) type Outcome<M> = Result<<M as Message>::Reply, AskError<<M as Message>::Refusal>>;

/// Set by the turn when it starts or by its caller when it gives up, whoever comes first.
pub(crate) type Started = Arc<AtomicBool>;

/// Who gets the outcome.
pub(crate) enum ReplyTo<M: Message> {
    /// A caller on this node.
    Local(oneshot::Sender<Outcome<M>>, Started),
    /// A caller elsewhere, behind whatever writes to it. The flag is there if somebody on this node gives up for it.
    Wire(Box<dyn FnOnce(Outcome<M>) + Send>, Option<Started>),
    /// Nobody: a tell, which was answered when it was admitted.
    Nobody,
}

impl<M: Message> ReplyTo<M> {
    pub(crate) fn send(self, outcome: Outcome<M>) {
        match self {
            // A caller that has gone does not mind.
            ReplyTo::Local(caller, _) => drop(caller.send(outcome)),
            ReplyTo::Wire(write, _) => write(outcome),
            ReplyTo::Nobody => {}
        }
    }

    /// Whether nobody waits any more. A turn that starts says so in the same step, so that a
    /// caller which gives up knows whether it was run.
    fn has_gone(&self) -> bool {
        match self {
            ReplyTo::Local(caller, started) => caller.is_closed() || started.swap(true, Ordering::AcqRel),
            ReplyTo::Wire(_, Some(started)) => started.swap(true, Ordering::AcqRel),
            ReplyTo::Wire(_, None) | ReplyTo::Nobody => false,
        }
    }
}

/// A message on its way through an actor's queue.
pub(crate) trait Job<A>: Send {
    /// Whether it only looks.
    fn is_read(&self) -> bool {
        false
    }

    /// Whether its turn may run on what is not kept yet: it is one of a durable actor, and cannot reach outside.
    fn is_ready(&self) -> bool {
        false
    }

    /// Whether it is content with what the node has, also while the lease is not proved.
    fn takes_stale(&self) -> bool {
        false
    }

    /// What came with its message.
    fn call(&self) -> &Call;

    /// Whether nobody waits for it any more, or its time is over: then it must not be started.
    /// Asked once, right before the start.
    fn is_stale(&self) -> bool;

    /// Whether its time is over or its caller gone, as far as can be seen now; marks nothing.
    fn is_hopeless(&self) -> bool;

    /// Runs the turn, settles the state cell, and replies.
    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended>;

    /// Runs the turn on the spot, and lets nothing of it out. Only called if [`is_ready`](Job::is_ready).
    fn stage(self: Box<Self>, _: &mut A, env: &Env<'_>) -> Staged {
        // Never reached: the engine asks first. Failing the call keeps the promise.
        let why = format!("what waits of {}/{} was taken for a turn that never waits", env.actor, env.key);
        self.fail(Error::new(ErrorKind::Internal, why));
        Staged::nothing()
    }

    /// Runs a read beside others. Only called if [`is_read`](Job::is_read).
    fn look<'a>(self: Box<Self>, _: &'a A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        // Never reached: the engine asks first. Failing the call keeps the promise.
        let why = format!("a turn of {}/{} was taken for a read", env.actor, env.key);
        self.fail(Error::new(ErrorKind::Internal, why));
        Box::pin(std::future::ready(Ended::Fine))
    }

    /// Answers that it was not run, and why.
    fn fail(self: Box<Self>, error: Error);

    /// Answers that its time was over before it was started.
    fn give_up(self: Box<Self>, actor: &str, key: &str) {
        self.fail(not_started(actor, key));
    }
}

struct Parts<M: Message> {
    message: M,
    call: Call,
    reply: ReplyTo<M>,
    stats: Arc<VerbStats>,
}

impl<M: Message> Parts<M> {
    fn is_stale(&self) -> bool {
        // The deadline first: asking whether the caller has gone marks the turn as started.
        self.call.deadline.has_passed() || self.reply.has_gone()
    }

    fn is_hopeless(&self) -> bool {
        let closed = matches!(&self.reply, ReplyTo::Local(caller, _) if caller.is_closed());
        closed || self.call.deadline.has_passed()
    }

    fn fail(self, error: Error) {
        self.stats.failed(&error);
        self.reply.send(Err(AskError::Failed(error)));
    }
}

/// A job for a [`Handle`].
pub(crate) struct AskJob<A, M: Message>(Parts<M>, PhantomData<fn(A)>);

/// A job for a [`Read`].
pub(crate) struct ReadJob<A, M: Message>(Parts<M>, PhantomData<fn(A)>);

impl<A, M: Message> AskJob<A, M> {
    pub(crate) fn new(message: M, call: Call, reply: ReplyTo<M>, stats: Arc<VerbStats>) -> Self {
        Self(Parts { message, call, reply, stats }, PhantomData)
    }
}

impl<A, M: Message> ReadJob<A, M> {
    pub(crate) fn new(message: M, call: Call, reply: ReplyTo<M>, stats: Arc<VerbStats>) -> Self {
        Self(Parts { message, call, reply, stats }, PhantomData)
    }
}

impl<A, M> Job<A> for AskJob<A, M>
where
    A: Actor + Handle<M>,
    M: Message<Contract = A::Contract>,
{
    fn is_ready(&self) -> bool {
        A::DURABLE && <A as Handle<M>>::READY
    }

    fn call(&self) -> &Call {
        &self.0.call
    }

    fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    fn is_hopeless(&self) -> bool {
        self.0.is_hopeless()
    }

    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        Box::pin(async move {
            let Parts { message, call, reply, stats } = self.0;
            let (ended, outcome) = if A::DURABLE {
                run_durable(actor, message, &call, &env).await
            } else {
                let mut ctx = Context::new(env.clone(), &call);
                let result = turn_of(async { actor.handle(message, &mut ctx).await }).await;
                settle::<A, M>(actor, &env, result)
            };
            stats.ended(outcome.as_ref().err());
            reply.send(outcome);
            ended
        })
    }

    fn stage(self: Box<Self>, actor: &mut A, env: &Env<'_>) -> Staged {
        let Parts { message, call, reply, stats } = self.0;
        // That its events and its reply can be written is up to their author too.
        let run = AssertUnwindSafe(|| stage_durable::<A, M>(actor, message, &call, env));
        let (ended, draft, stake, outcome) = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let cause = cause_of(panic.as_ref());
            let error = env.panicked(&cause);
            (Ended::Panicked(cause), None, Stake::Sight, Err(AskError::Failed(error)))
        });
        let speak = Box::new(move |lost: Option<Error>| {
            let outcome = lost.map_or(outcome, |error| Err(AskError::Failed(error)));
            stats.ended(outcome.as_ref().err());
            reply.send(outcome);
        });
        Staged { ended, draft, voice: Voice { stake, speak } }
    }

    fn fail(self: Box<Self>, error: Error) {
        self.0.fail(error);
    }
}

/// A turn that may have taken effect already, and is kept before anything of it leaves the actor.
async fn run_durable<A, M>(actor: &mut A, message: M, call: &Call, env: &Env<'_>) -> (Ended, Outcome<M>)
where
    A: Actor + Handle<M>,
    M: Message<Contract = A::Contract>,
{
    let (mark, resumed) = match before::<A, M>(actor, call, &message, <A as Handle<M>>::RESUMES) {
        Before::Answered(outcome) => return (Ended::Fine, outcome),
        Before::Run { mark, resumed } => (mark, resumed),
    };
    let draft = actor.cell().and_then(|cell| cell.ledger()).map(|ledger| ledger.draft());
    let mut ctx = Context::new(env.clone(), call).with_command(mark.clone(), resumed);
    if let Some(draft) = draft {
        ctx = ctx.with_reminders(draft);
    }
    let result = turn_of(async { actor.handle(message, &mut ctx).await }).await;
    let kept = ctx.end(!matches!(result, Ok(Ok(_))));
    // It takes nothing any more: whoever has an address of this turn is told so.
    drop(ctx);
    settle_durable::<A, M>(actor, env, call, mark, kept, result).await
}

/// Whether a read is content with what the node has.
pub(crate) fn takes_stale<A: Actor + Read<M>, M: Message<Contract = A::Contract>>() -> bool {
    A::DURABLE && A::FRESHNESS == Freshness::Stale
}

/// A message that an actor sends itself, by a timer or for a watch: run only while that goes on.
pub(crate) struct OwnJob<A, M: Message> {
    /// Left where it is if the job is not run: it is sent again then.
    message: Arc<Mutex<Option<M>>>,
    call: Call,
    stats: Arc<VerbStats>,
    by: Arc<Attachment>,
    /// Whether it is the only one.
    once: bool,
    /// Told when the turn starts; dropped if it never does.
    taken: oneshot::Sender<()>,
    actor: PhantomData<fn(A)>,
}

impl<A, M: Message> OwnJob<A, M> {
    pub(crate) fn new(
        message: Arc<Mutex<Option<M>>>,
        call: Call,
        stats: Arc<VerbStats>,
        by: Arc<Attachment>,
        once: bool,
        taken: oneshot::Sender<()>,
    ) -> Self {
        Self { message, call, stats, by, once, taken, actor: PhantomData }
    }
}

impl<A, M> Job<A> for OwnJob<A, M>
where
    A: Actor + Handle<M>,
    M: Message<Contract = A::Contract>,
{
    fn call(&self) -> &Call {
        &self.call
    }

    fn is_stale(&self) -> bool {
        !self.by.is_running()
    }

    fn is_hopeless(&self) -> bool {
        !self.by.is_running()
    }

    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        Box::pin(async move {
            let Self { message, mut call, stats, by, once, taken, .. } = *self;
            if once {
                by.finish();
            }
            // A sender that has gone was cancelled just now: the turn has begun all the same.
            let _ = taken.send(());
            let Some(message) = message.lock().take() else { return Ended::Fine };
            call.deadline = call.deadline.fixed();
            let ask: Box<AskJob<A, M>> = Box::new(AskJob::new(message, call, ReplyTo::Nobody, stats));
            ask.run(actor, env).await
        })
    }

    fn fail(self: Box<Self>, error: Error) {
        if self.by.is_running() {
            tracing::debug!(verb = M::VERB, %error, "a message of an actor to itself waits");
        }
    }
}

impl<A, M> Job<A> for ReadJob<A, M>
where
    A: Actor + Read<M>,
    M: Message<Contract = A::Contract>,
{
    fn is_read(&self) -> bool {
        // One that appends first has the actor to itself.
        !(A::DURABLE && A::FRESHNESS == Freshness::Strict)
    }

    fn takes_stale(&self) -> bool {
        takes_stale::<A, M>()
    }

    fn call(&self) -> &Call {
        &self.0.call
    }

    fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    fn is_hopeless(&self) -> bool {
        self.0.is_hopeless()
    }

    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        Box::pin(async move {
            // Of an actor that never was, the journal was read after the call came.
            let appends = A::DURABLE && !is_new(actor);
            if let Some(cell) = actor.cell().filter(|_| appends)
                && let Err(why) = journal::commit(env.around, cell, None, Write::Turn, Outbox::default()).await
            {
                // It was not looked at, whatever became of the record.
                let error = Error::new(ErrorKind::Unavailable, "it is not certain whose the actor is");
                self.0.fail(error.with_source(not_kept(&env, why)));
                return Ended::Lost;
            }
            self.look(actor, env).await
        })
    }

    fn look<'a>(self: Box<Self>, actor: &'a A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        Box::pin(async move {
            let Parts { message, call, reply, stats } = self.0;
            // First that the state is the newest, then the look at it.
            let proved = A::DURABLE && A::FRESHNESS == Freshness::Proved;
            let permit = if proved { env.around.permit().await } else { Ok(()) };
            let (ended, outcome) = match permit {
                Err(error) => (Ended::Fine, Err(AskError::Failed(error))),
                Ok(()) => {
                    let mut ctx = Context::new(env.clone(), &call).without_turn();
                    let result = turn_of(async { actor.read(message, &mut ctx).await }).await;
                    conclude::<M>(&env, result)
                }
            };
            stats.ended(outcome.as_ref().err());
            reply.send(outcome);
            ended
        })
    }

    fn fail(self: Box<Self>, error: Error) {
        self.0.fail(error);
    }
}
