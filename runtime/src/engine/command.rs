//! Commands: turns of durable actors that take effect once, however often their message comes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::job::Outcome;
use super::turn::{Ended, Env, conclude};
use crate::actor::Actor;
use crate::call::Call;
use crate::contract::Message;
use crate::error::{AskError, Error, ErrorKind};
use crate::journal::{self, Fate, Known, Mark, NotAppended, Write};

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
    let mark = Mark { id, born: call.born, verb: M::VERB, digest: digest(message) };
    let failed = |kind: ErrorKind, why: String| Before::Answered(Err(AskError::Failed(Error::new(kind, why))));
    match ledger.look(&mark) {
        Known::New => Before::Run { mark: Some(mark), resumed: 0 },
        Known::Here(command) => match &command.fate {
            Fate::Replied(reply) => Before::Answered(stored(reply.get()).map_err(AskError::Failed)),
            Fate::Refused(refusal) => {
                Before::Answered(Err(stored(refusal.get()).map_or_else(AskError::Failed, AskError::Refused)))
            }
            Fate::Begun(steps) if resumes => Before::Run { resumed: *steps, mark: Some(mark) },
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

/// Makes what a turn of a durable actor did permanent, and only then its outcome.
pub(crate) async fn settle_durable<A: Actor, M: Message>(
    actor: &mut A,
    env: &Env<'_>,
    call: &Call,
    mark: Option<Mark>,
    steps: u32,
    result: Result<Result<M::Reply, M::Refusal>, String>,
) -> (Ended, Outcome<M>) {
    let Some(cell) = actor.cell() else { return super::turn::settle::<A, M>(actor, env, result) };
    let dirty = cell.is_dirty();
    let (fate, write) = match &result {
        Err(_) => (None, None),
        Ok(Ok(reply)) if dirty || steps > 0 => (Some(raw(reply).map(Fate::Replied)), Some(Write::Turn)),
        Ok(Ok(_)) => (None, None),
        // A caller that was told no may have an earlier attempt on its way: it must not take effect after that.
        // And a turn that was refused after some of its steps is over, not cut.
        Ok(Err(refusal)) if (call.attempt > 1 || steps > 0) && mark.is_some() => {
            (Some(raw(refusal).map(Fate::Refused)), Some(Write::Refusal))
        }
        Ok(Err(_)) => (None, None),
    };
    let undone = dirty && matches!(result, Ok(Err(_)));
    // An answer that keeps nothing rests on the state alone, as a read's does: nothing else would tell an owner that was
    // superseded.
    if write.is_none()
        && result.is_ok()
        && let Err(error) = env.around.permit().await
    {
        let error = cut_after(steps, error);
        return (if undone { Ended::Lost } else { Ended::Fine }, Err(AskError::Failed(error)));
    }
    if let (Some(fate), Some(write)) = (fate, write) {
        let kept = match fate {
            Ok(fate) => journal::commit(env.around, cell, mark.as_ref().map(|mark| (mark, fate)), write).await,
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
            let why = format!("{who} has run, and this node stopped before it was known whether that is kept");
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

fn stored<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| {
        let why = "the command has taken effect; what was answered then cannot be read in the present form";
        Error::new(ErrorKind::BadReply, why).with_source(error)
    })
}

/// Tells messages apart, whatever codec brought them: 53 bits, which every reader of JSON can hold.
fn digest(message: &impl Serialize) -> u64 {
    let json = serde_json::to_vec(message).unwrap_or_default();
    let hash = Sha256::digest(&json);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(bytes) >> 11
}
