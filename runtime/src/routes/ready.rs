//! Turns that need no queue: a handler that never waits, run on the stack of its caller.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::actor::{Actor, Handle, Read};
use crate::call::{Call, not_started};
use crate::context::Context;
use crate::contract::Message;
use crate::engine::{Ended, Entered, Env, Host, Outcome, WAITED, cause_of, conclude, run_once, settle};
use crate::error::{AskError, Error, ErrorKind};
use crate::reference::Target;

/// Runs a turn whose handler never waits, on the stack of its caller, if its actor is idle. `begins` is called when it
/// certainly will be run, and before it is.
pub(super) fn run_ready<A, M>(
    host: &Arc<Host<A>>,
    to: &Target,
    message: &mut Option<M>,
    call: &Call,
    begins: &dyn Fn(),
) -> Result<Option<Outcome<M>>, Error>
where
    M: Message<Contract = A::Contract>,
    A: Handle<M>,
{
    if !<A as Handle<M>>::READY {
        return Ok(None);
    }
    with_idle(host, to, message, (call, begins), |actor, message, call, env| {
        let mut ctx = Context::new(env.clone(), call);
        let result =
            run_once(async { actor.handle(message, &mut ctx).await }).unwrap_or_else(|| Err(WAITED.to_owned()));
        settle::<A, M>(actor, env, result)
    })
}

/// The same for a read.
pub(super) fn look_ready<A, M>(
    host: &Arc<Host<A>>,
    to: &Target,
    message: &mut Option<M>,
    call: &Call,
    begins: &dyn Fn(),
) -> Result<Option<Outcome<M>>, Error>
where
    M: Message<Contract = A::Contract>,
    A: Read<M>,
{
    if !<A as Read<M>>::READY {
        return Ok(None);
    }
    with_idle(host, to, message, (call, begins), |actor, message, call, env| {
        let mut ctx = Context::new(env.clone(), call).without_turn();
        let actor: &A = actor;
        let result = run_once(async { actor.read(message, &mut ctx).await }).unwrap_or_else(|| Err(WAITED.to_owned()));
        conclude::<M>(env, result)
    })
}

fn with_idle<A, M>(
    host: &Arc<Host<A>>,
    to: &Target,
    message: &mut Option<M>,
    (call, begins): (&Call, &dyn Fn()),
    run: impl FnOnce(&mut A, M, &Call, &Env<'_>) -> (Ended, Outcome<M>),
) -> Result<Option<Outcome<M>>, Error>
where
    A: Actor,
    M: Message<Contract = A::Contract>,
{
    if host.is_durable() {
        return Ok(None);
    }
    if call.deadline.has_passed() {
        return Err(not_started(host.name, to.key.as_str()));
    }
    let taken = host.enter(to, |slot, inner| {
        if !inner.is_idle() {
            return Ok(None);
        }
        call.chain.admit(host.name, to.key.as_str())?;
        Ok(match Host::take(inner) {
            Entered::Taken(actor) => Some((slot.clone(), actor)),
            Entered::Empty | Entered::Busy => None,
        })
    })?;
    let Some((slot, mut actor)) = taken else { return Ok(None) };
    begins();
    let (ended, outcome) = {
        let _runtime = host.around.runtime.enter();
        match message.take() {
            Some(message) => {
                let env = host.env(&slot);
                let run = AssertUnwindSafe(|| run(&mut actor, message, call, &env));
                std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                    let cause = cause_of(panic.as_ref());
                    let error = env.panicked(&cause);
                    (Ended::Panicked(cause), Err(AskError::Failed(error)))
                })
            }
            None => (Ended::Fine, Err(AskError::Failed(Error::new(ErrorKind::Internal, "the message was sent twice")))),
        }
    };
    host.leave(&slot, Some(actor), ended);
    Ok(Some(outcome))
}
