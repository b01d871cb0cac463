//! Asking until there is an answer: for what has to be done, and may be done twice.

use std::time::Duration;

use greenroom::contract::{Contract, Keyed, Message, Replies};
use greenroom::prelude::*;
use tokio::time::Instant;

/// How long one try may take.
const TRY_TIME: Duration = Duration::from_secs(2);

/// How many tries there are.
const TRIES_MAX: u32 = 4;

/// How long the first pause between two tries is; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// How long undoing or finishing an order may take altogether.
pub(crate) const TIME: Duration = Duration::from_secs(10);

/// Asks again after each failure, until `until`. The message must be idempotent.
///
/// Each try has a time of its own: the caller of the turn may have given up long ago, and what was
/// begun must still come to an end.
///
/// # Errors
/// A refusal as it is, and the last failure when the tries or the time are used up.
pub(crate) async fn ask<M>(target: Ref<M::Contract>, msg: M, until: Instant) -> Result<M::Reply, AskError<M::Refusal>>
where
    M: Message<Mode: Replies> + Clone,
    M::Contract: Contract<Kind = Keyed>,
{
    let target = target.within(TRY_TIME);
    let mut pause = PAUSE_FIRST;
    for _ in 1..TRIES_MAX {
        match target.ask(msg.clone()).await {
            Err(AskError::Failed(error)) if Instant::now() + pause < until => {
                tracing::debug!(verb = M::VERB, %error, "asking again");
            }
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    target.ask(msg).await
}
