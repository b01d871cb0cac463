//! Firings: turns that a reminder asks for, and no caller.
//!
//! The message is the reminder's own, from the actor's state. Whoever wakes the actor says only which reminder is due,
//! under which number: if that is not what is armed, nothing is run. So a wake-up may come twice, late, or from a
//! time that is over.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::command::{not_kept, settle_durable};
use super::faults::Faults;
use super::host::Host;
use super::job::Job;
use super::slot::Slot;
use super::turn::{Ended, Env, turn_of};
use crate::actor::{Actor, Handle};
use crate::call::{Call, Chain, Deadline, TurnId, wall_ms};
use crate::context::Context;
use crate::contract::Message;
use crate::error::{AskError, Error, ErrorKind};
use crate::journal::{self, Armed, Outbox, Write};
use crate::reminder::{Draft, Due, Fired};

/// How long the turn of a reminder may wait that was found overdue; its wake-up comes as well.
const OVERDUE_WITHIN: Duration = Duration::from_secs(60);

/// Runs the turn of a reminder with its stored message.
pub(crate) type ReminderTurn<A> =
    for<'a> fn(&'a mut A, Armed, Draft, &'a Call, &'a Env<'a>) -> BoxFuture<'a, (Ended, Result<(), Error>)>;

/// A reminder's turn on its way through its actor's queue.
pub(crate) struct FireJob {
    due: Due,
    call: Call,
    answer: Option<oneshot::Sender<Result<Fired, Error>>>,
}

impl FireJob {
    pub(crate) fn new(due: Due, call: Call, answer: Option<oneshot::Sender<Result<Fired, Error>>>) -> Self {
        Self { due, call, answer }
    }

    /// The call of a reminder's turn: the same id and the same birth, however often it is tried.
    pub(crate) fn call(actor: &str, key: &str, due: &Due, born: u64, deadline: Deadline) -> Call {
        let turn = TurnId::named(&format!("{actor}/{key} reminder {} {}", due.number, due.name));
        // It may have been run before, and cut: so what it asks is no first attempt.
        Call {
            deadline,
            chain: Chain::default(),
            turn: Some(turn),
            attempt: 2,
            born,
            trace: None,
            stored: false,
            digest: None,
        }
    }

    fn say(self, outcome: Result<Fired, Error>) {
        if let Some(answer) = self.answer {
            // Whoever has gone will be told of it again.
            drop(answer.send(outcome));
        }
    }
}

impl<A: Actor> Job<A> for FireJob {
    fn call(&self) -> &Call {
        &self.call
    }

    fn is_stale(&self) -> bool {
        self.call.deadline.has_passed()
    }

    fn is_hopeless(&self) -> bool {
        self.call.deadline.has_passed()
    }

    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        async move {
            let (ended, outcome) = fire(actor, &env, &self.call, &self.due).await;
            if let Err(error) = &outcome {
                let (actor, key, name) = (env.actor, env.key, &self.due.name);
                tracing::warn!(actor, %key, reminder = name, %error, "the turn of a reminder failed");
            }
            self.say(outcome);
            ended
        }
        .boxed()
    }

    fn fail(self: Box<Self>, error: Error) {
        self.say(Err(error));
    }
}

impl<A: Actor> Host<A> {
    /// The turns of reminders whose time came while their actor was not in memory. After a panic they wait for their
    /// wake-up: it may be one of them that panicked, and whoever asks the actor something must not run it again.
    pub(super) fn overdue(&self, slot: &Slot<A>, actor: &mut A) -> Option<Vec<Box<dyn Job<A>>>> {
        if slot.lock().faults().is_some_and(Faults::is_recent) {
            return None;
        }
        let draft = actor.cell().and_then(|cell| cell.ledger()).map(|ledger| ledger.draft())?;
        let now = wall_ms();
        let jobs = draft.overdue(now).into_iter().map(|due| {
            let call =
                FireJob::call(self.name, slot.key().as_str(), &due, now, Deadline::After(OVERDUE_WITHIN).fixed());
            Box::new(FireJob::new(due, call, None)) as Box<dyn Job<A>>
        });
        Some(jobs.collect()).filter(|jobs: &Vec<_>| !jobs.is_empty())
    }
}

async fn fire<A: Actor>(actor: &mut A, env: &Env<'_>, call: &Call, due: &Due) -> (Ended, Result<Fired, Error>) {
    let draft = actor.cell().and_then(|cell| cell.ledger()).map(|ledger| ledger.draft());
    let Some((armed, draft)) = draft.and_then(|mut draft| Some((draft.fire(due, wall_ms())?, draft))) else {
        return (Ended::Fine, Ok(Fired::NotArmed));
    };
    let Some(hosted) = env.around.hosted(env.actor) else { return (Ended::Fine, Err(env.around.stopped())) };
    let verb = match hosted.verb(&armed.verb) {
        Ok(verb) => verb,
        Err(error) => return (Ended::Fine, Err(error)),
    };
    let Some(turn) = verb.reminded::<A>() else {
        let why = format!("{}.{} is no tell any more, so no reminder can have it", env.actor, armed.verb);
        return (Ended::Fine, Err(Error::new(ErrorKind::UnknownVerb, why)));
    };
    let (ended, outcome) = turn(actor, armed, draft, call, env).await;
    match &outcome {
        Ok(()) => verb.stats.ended::<()>(None),
        Err(error) => verb.stats.failed(error),
    }
    (ended, outcome.map(|()| Fired::Run))
}

/// The turn of a reminder whose message is a tell of this type.
pub(crate) fn run_reminder<'a, A, M>(
    actor: &'a mut A,
    armed: Armed,
    draft: Draft,
    call: &'a Call,
    env: &'a Env<'a>,
) -> BoxFuture<'a, (Ended, Result<(), Error>)>
where
    A: Actor + Handle<M>,
    M: Message<Contract = A::Contract>,
{
    async move {
        let name = &armed.name;
        let message: M = match serde_json::from_str(armed.body.get()) {
            Ok(message) => message,
            Err(error) => {
                let why = format!("the message of the reminder {name:?} is none of {}.{}", env.actor, M::VERB);
                return (Ended::Fine, Err(Error::new(ErrorKind::BadRequest, why).with_source(error)));
            }
        };
        if armed.begun > 0 && !<A as Handle<M>>::RESUMES {
            let (actor_name, key, steps) = (env.actor, env.key, armed.begun);
            tracing::error!(actor = actor_name, %key, reminder = name, steps, "its turn was cut after some steps");
            return move_on(actor, env, &draft).await;
        }
        let mut ctx = Context::new(env.clone(), call).with_command(None, armed.begun).with_reminders(draft);
        let result = turn_of(async { actor.handle(message, &mut ctx).await }).await;
        let kept = ctx.end(!matches!(result, Ok(Ok(_))));
        drop(ctx);
        let (ended, outcome) = settle_durable::<A, M>(actor, env, call, None, kept, result).await;
        // A refusal is the actor's own no: the reminder has fired all the same.
        (
            ended,
            match outcome {
                Ok(_) | Err(AskError::Refused(_)) => Ok(()),
                Err(AskError::Failed(error)) => Err(error),
            },
        )
    }
    .boxed()
}

/// Keeps that a reminder has fired, and nothing else.
async fn move_on<A: Actor>(actor: &mut A, env: &Env<'_>, draft: &Draft) -> (Ended, Result<(), Error>) {
    let Some(cell) = actor.cell() else { return (Ended::Fine, Ok(())) };
    let outbox = Outbox { reminders: draft.end(true), ..Outbox::default() };
    match journal::commit(env.around, cell, None, Write::Refusal, outbox).await {
        Ok(_) => (Ended::Fine, Ok(())),
        Err(why) => (Ended::Lost, Err(not_kept(env, why))),
    }
}
