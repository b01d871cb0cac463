//! Getting the shop ready: users who may order, products that can be.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::{StreamExt, TryStreamExt, stream};
use greenroom::contract::{Contract, IsMode, Keyed, Message, Mode, Replies};
use greenroom::{AskError, Node};
use shop_contract::inventory::{Inventory, Restock};
use shop_contract::user::{Register, User};

use crate::data::{ProductRow, UserRow};
use crate::pause;

/// How long the shop's nodes may take to be there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Registers every user. Those who are registered already are none the worse for it.
pub(crate) async fn register(node: &Node, users: &[UserRow], in_flight: usize) -> anyhow::Result<()> {
    stream::iter(users)
        .map(async |user| {
            let register = Register { name: user.name.clone(), email: user.email.clone() };
            ask::<User, _>(node, &user.id, register).await.map(drop)
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await
}

/// Restocks every product by what the file says.
pub(crate) async fn restock(node: &Node, products: &[ProductRow], in_flight: usize) -> anyhow::Result<()> {
    stream::iter(products)
        .map(async |product| {
            let restock = Restock {
                qty: product.stock,
                price_cents: Some(product.price_cents),
                name: Some(product.name.clone()),
            };
            ask::<Inventory, _>(node, &product.sku, restock).await.map(drop)
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await
}

/// Asks, and asks again while that is safe. A refusal is an error.
pub(crate) async fn ask<C, M>(node: &Node, key: &str, msg: M) -> anyhow::Result<M::Reply>
where
    C: Contract<Kind = Keyed>,
    M: Message<Contract = C, Mode: Replies> + Clone,
{
    let at = format!("{} of {}/{key}", M::VERB, C::NAME);
    match try_ask(node, key, msg).await {
        Ok(reply) => Ok(reply),
        Err(AskError::Refused(refused)) => Err(anyhow!("{at}: refused: {refused}")),
        Err(AskError::Failed(error)) => Err(anyhow!(error).context(at)),
    }
}

/// Asks, and asks again while that is safe: after any failure of a read, and of other messages if
/// they were certainly not run.
pub(crate) async fn try_ask<C, M>(node: &Node, key: &str, msg: M) -> Result<M::Reply, AskError<M::Refusal>>
where
    C: Contract<Kind = Keyed>,
    M: Message<Contract = C, Mode: Replies> + Clone,
{
    let until = Instant::now() + PATIENCE;
    let is_read = <M::Mode as IsMode>::MODE == Mode::Read;
    let mut tries = 0;
    loop {
        match node.actor::<C>(key).ask(msg.clone()).await {
            Err(AskError::Failed(error)) if (is_read || error.is_retryable()) && Instant::now() < until => {}
            answer => return answer,
        }
        tries += 1;
        tokio::time::sleep(pause(tries)).await;
    }
}
