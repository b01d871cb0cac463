//! Asking until there is an answer: for what has to be done, and may be done twice.

use std::time::Duration;

use greenroom::contract::{Contract, Keyed, Message, Replies};
use greenroom::prelude::*;
use tokio::time::Instant;

use crate::order::OrderActor;

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
/// These calls are not the turn's: each try has a time and an id of its own. The caller may have given up long ago, and
/// what was begun must still come to an end, however much the one who is asked has done since the turn began.
///
/// # Errors
/// A refusal as it is, and the last failure when the tries or the time are used up.
pub(crate) async fn ask<M>(
    ctx: &Context<'_, OrderActor>,
    key: &str,
    msg: M,
    until: Instant,
) -> Result<M::Reply, AskError<M::Refusal>>
where
    M: Message<Mode: Replies> + Clone,
    M::Contract: Contract<Kind = Keyed>,
{
    let target = ctx.node()?.actor::<M::Contract>(key).within(TRY_TIME);
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
