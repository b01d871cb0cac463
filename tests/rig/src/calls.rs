//! One call, and what is written down of it.

use std::time::Duration;

use greenroom::{AskError, Node};
use greenroom_history::{Call, Operation, Outcome, now_us};

use crate::cell::{Append, Appended, Cas, Cell, Differs, Get, Set, View, Written};

/// Makes the call, waits for its end, and says what was learned.
pub(crate) async fn call(node: &Node, client: u32, key: &str, operation: Operation, budget: Duration) -> Call {
    let cell = node.actor::<Cell>(key).within(budget);
    let mut call = Call::begin(client, key, operation);
    match operation {
        Operation::Append { value } => {
            let answer = cell.ask(Append { value }).await;
            end(&mut call, answer, |call, Appended { length, node }| {
                call.length = Some(length);
                call.node = Some(node);
            });
        }
        Operation::Set { value } => {
            let answer = cell.ask(Set { value }).await;
            end(&mut call, answer, |call, Written { node }| call.node = Some(node));
        }
        Operation::Cas { expected, value } => {
            let answer = cell.ask(Cas { expected, value }).await;
            if let Err(AskError::Refused(Differs { found, node })) = &answer {
                (call.outcome, call.register, call.node) = (Outcome::Refused, Some(*found), Some(node.clone()));
                call.ended_us = now_us();
                return call;
            }
            end(&mut call, answer, |call, Written { node }| call.node = Some(node));
        }
        Operation::Get => {
            let answer = cell.ask(Get).await;
            end(&mut call, answer, |call, View { register, length, digest, node }| {
                (call.register, call.length, call.digest) = (Some(register), Some(length), Some(digest));
                call.node = Some(node);
            });
        }
    }
    call
}

fn end<T, R: std::fmt::Debug>(call: &mut Call, answer: Result<T, AskError<R>>, learn: impl FnOnce(&mut Call, T)) {
    call.ended_us = now_us();
    match answer {
        Ok(reply) => {
            call.outcome = Outcome::Ok;
            learn(call, reply);
        }
        Err(AskError::Failed(error)) => {
            // Retryable means that it was certainly not run; anything else stays open.
            call.outcome = if error.is_retryable() { Outcome::Failed } else { Outcome::Info };
            call.error = Some(format!("{}: {error}", error.kind()));
        }
        Err(AskError::Refused(refusal)) => {
            call.outcome = Outcome::Info;
            call.error = Some(format!("a refusal that nobody expects: {refusal:?}"));
        }
    }
}
