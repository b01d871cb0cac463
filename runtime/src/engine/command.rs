//! Commands: turns of durable actors that take effect once, however often their message comes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::group::Stake;
use super::job::Outcome;
use super::turn::{Ended, Env, WAITED, conclude, run_once};
use crate::actor::{Actor, Handle};
use crate::call::{Call, digest};
use crate::context::{Context, Left};
use crate::contract::Message;
use crate::error::{AskError, Error, ErrorKind};
use crate::journal::{self, Answer, Draft, Fate, Known, Mark, NotAppended, Outbox, Write};

/// What is to be done with a message, as far as the actor's journal knows.
pub(crate) enum Before<M: Message> {
    /// Run its turn; `resumed` steps of it were kept before.
    Run { mark: Option<Mark>, resumed: u32 },
    /// It has taken effect already, or must not.
    Answered(Outcome<M>),
}

/// Looks the message up among the commands that the actor remembers.
pub(crate) fn before<A: Actor, M: Message>(actor: &mut A, call: &Call, message: &M, resumes: bool) -> Before<M> {
    let run = Before::Run { mark: None, resumed: 0 };
    let Some(ledger) = actor.cell().and_then(|cell| cell.ledger()) else { return run };
    let Some(id) = call.turn else { return run };
    let digest = call.digest.unwrap_or_else(|| digest(&serde_json::to_vec(message).unwrap_or_default()));
    let mark = Mark { id, born: call.born, verb: M::VERB, digest, stored: call.stored };
    let failed = |kind: ErrorKind, why: String| Before::Answered(Err(AskError::Failed(Error::new(kind, why))));
    match ledger.look(&mark) {
        Known::New => Before::Run { mark: Some(mark), resumed: 0 },
        Known::Here(command) => match command.fate {
            Fate::Replied(reply) => Before::Answered(stored(reply).map_err(AskError::Failed)),
            Fate::Refused(refusal) => {
                Before::Answered(Err(stored(refusal).map_or_else(AskError::Failed, AskError::Refused)))
            }
            Fate::Begun(steps) if resumes => Before::Run { resumed: steps, mark: Some(mark) },
            Fate::Begun(steps) => {
                failed(ErrorKind::Interrupted, format!("the turn {id} was cut after {steps} of its steps were kept"))
            }
        },
        Known::Reused => failed(ErrorKind::IdReused, format!("the id {id} was used for another message")),
        Known::Ahead => failed(ErrorKind::BadRequest, "the command says that it was made in the future".to_owned()),
        Known::Full => failed(
            ErrorKind::Overloaded,
            "too many commands that do not say when they were made are remembered".to_owned(),
        ),
        Known::Expired(low) => {
            let why = "too many commands were made after this one; whether it took effect is not known any more";
            let error = Error::new(ErrorKind::Expired, why).with_details(serde_json::json!({ "born_after": low }));
            Before::Answered(Err(AskError::Failed(error)))
        }
    }
}

/// What is to be kept of a turn that has ended.
struct Wanted {
    fate: Option<Result<Fate, Error>>,
    write: Write,
    /// Whether the state holds what must not be kept.
    undone: bool,
}

/// What is to be kept of a turn that ended so; `None`: nothing.
fn wanted<M: Message>(
    dirty: bool,
    call: &Call,
    mark: Option<&Mark>,
    (steps, outbox): (u32, &Outbox),
    result: &Result<Result<M::Reply, M::Refusal>, String>,
) -> Wanted {
    let undone = dirty && matches!(result, Ok(Err(_)));
    let (fate, write) = match result {
        Ok(Ok(reply)) if dirty || steps > 0 || !outbox.is_empty() => (Some(raw(reply).map(Fate::Replied)), Write::Turn),
        // A caller that was told no may have an earlier attempt on its way: it must not take effect after that.
        // And a turn that was refused after some of its steps is over, not cut; that of a reminder has fired.
        Ok(Err(refusal)) if ((call.attempt > 1 || steps > 0) && mark.is_some()) || !outbox.is_empty() => {
            (Some(raw(refusal).map(Fate::Refused)), Write::Refusal)
        }
        Ok(_) | Err(_) => (None, Write::Turn),
    };
    Wanted { fate, write, undone }
}

/// Makes what a turn of a durable actor did permanent, and only then its outcome.
pub(crate) async fn settle_durable<A: Actor, M: Message>(
    actor: &mut A,
    env: &Env<'_>,
    call: &Call,
    mark: Option<Mark>,
    Left { steps, unsure, outbox }: Left,
    result: Result<Result<M::Reply, M::Refusal>, String>,
) -> (Ended, Outcome<M>) {
    let Some(cell) = actor.cell() else { return super::turn::settle::<A, M>(actor, env, result) };
    // Whatever the handler made of that: nobody may say that nothing was kept.
    if unsure {
        let why = format!("{}/{} has run, and it is not known whether a step of it is kept", env.actor, env.key);
        return (Ended::Lost, Err(AskError::Failed(Error::new(ErrorKind::Unknown, why))));
    }
    let Wanted { fate, write, undone } = wanted::<M>(cell.is_dirty(), call, mark.as_ref(), (steps, &outbox), &result);
    // An answer that keeps nothing rests on the state alone, as a read's does: nothing else would tell an owner that was
    // superseded.
    if fate.is_none()
        && result.is_ok()
        && let Err(error) = env.around.permit().await
    {
        let error = cut_after(steps, error);
        return (if undone { Ended::Lost } else { Ended::Fine }, Err(AskError::Failed(error)));
    }
    if let Some(fate) = fate {
        let kept = match fate {
            Ok(fate) => journal::commit(env.around, cell, mark.as_ref().map(|mark| (mark, fate)), write, outbox).await,
            Err(error) => Err(NotAppended::NotStored(error)),
        };
        match kept {
            Ok(committed) => env.around.echo(env.key, committed),
            Err(why) => return (Ended::Lost, Err(AskError::Failed(cut_after(steps, not_kept(env, why))))),
        }
    }
    let (ended, outcome) = conclude::<M>(env, result);
    // What the refused turn emitted is in the state still: the next activation begins without it.
    (if undone { Ended::Lost } else { ended }, outcome)
}

/// What a turn came to that is not kept yet: how it ended, what is to be kept of it, what its caller has to do with
/// that, and its outcome.
pub(crate) type Ran<M> = (Ended, Option<Draft>, Stake, Outcome<M>);

/// Runs a turn that never waits, on whatever state the actor has, and gathers what is to be kept of it.
pub(crate) fn stage_durable<A, M>(actor: &mut A, message: M, call: &Call, env: &Env<'_>) -> Ran<M>
where
    A: Actor + Handle<M>,
    M: Message<Contract = A::Contract>,
{
    let mark = match before::<A, M>(actor, call, &message, false) {
        Before::Answered(outcome) => return (Ended::Fine, None, Stake::Repeat, outcome),
        Before::Run { mark, .. } => mark,
    };
    let reminders = actor.cell().and_then(|cell| cell.ledger()).map(|ledger| ledger.draft());
    let mut ctx = Context::new(env.clone(), call).with_command(mark.clone(), 0);
    if let Some(reminders) = reminders {
        ctx = ctx.with_reminders(reminders);
    }
    let ran = run_once(async { actor.handle(message, &mut ctx).await });
    let result = ran.unwrap_or_else(|| Err(WAITED.to_owned()));
    let Left { outbox, .. } = ctx.end(!matches!(result, Ok(Ok(_))));
    // It takes nothing any more: whoever has an address of this turn is told so.
    drop(ctx);
    let Some(cell) = actor.cell() else {
        let (ended, outcome) = super::turn::settle::<A, M>(actor, env, result);
        return (ended, None, Stake::Sight, outcome);
    };
    let Wanted { fate, write, undone } = wanted::<M>(cell.is_dirty(), call, mark.as_ref(), (0, &outbox), &result);
    let draft = fate.map(|fate| {
        let command = fate.map(|fate| mark.as_ref().map(|mark| (mark, fate)));
        command.and_then(|command| Draft::of(cell, command, matches!(write, Write::Turn), outbox))
    });
    let draft = match draft.transpose() {
        Ok(draft) => draft,
        Err(error) => return (Ended::Lost, None, Stake::Sight, Err(AskError::Failed(error))),
    };
    if let Some(draft) = &draft {
        cell.kept();
        if let Some(ledger) = cell.ledger() {
            ledger.remember(draft);
        }
    }
    let (ended, outcome) = conclude::<M>(env, result);
    let stake = if draft.is_some() { Stake::Part } else { Stake::Sight };
    (if undone { Ended::Lost } else { ended }, draft, stake, outcome)
}

/// What a caller is told whose turn was not made permanent.
pub(crate) fn not_kept(env: &Env<'_>, why: NotAppended) -> Error {
    let who = format!("{}/{}", env.actor, env.key);
    match why {
        NotAppended::NotStored(error) => error,
        NotAppended::Superseded => {
            tracing::warn!(actor = env.actor, key = %env.key, "somebody else writes this journal; the activation is dropped");
            Error::new(ErrorKind::Unavailable, format!("another owner of {who} has written since; nothing was kept"))
        }
        NotAppended::Unknown(error) => {
            let why = format!("{who} has run, and this node was lost or stopped before it knew whether that is kept");
            Error::new(ErrorKind::Unknown, why).with_source(error)
        }
    }
}

/// Of a turn whose earlier steps were kept nobody may say that it was not run. Asked again, it goes on or says so.
fn cut_after(steps: u32, error: Error) -> Error {
    if steps == 0 || !error.is_retryable() {
        return error;
    }
    let why = format!("the turn was cut after {steps} of its steps were kept: {error}");
    Error::new(ErrorKind::Interrupted, why).with_details(serde_json::json!({ "stopped": true })).with_source(error)
}

fn raw(value: &impl Serialize) -> Result<Box<serde_json::value::RawValue>, Error> {
    journal::raw(value, "the answer")
}

fn stored<T: DeserializeOwned>(answer: Answer<'_>) -> Result<T, Error> {
    answer.read().map_err(|error| {
        let why = "the command has taken effect; what was answered then cannot be read in the present form";
        Error::new(ErrorKind::BadReply, why).with_source(error)
    })
}
