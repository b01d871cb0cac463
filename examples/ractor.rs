//! An existing ractor actor on a subject, without changing it.
//!
//! ```text
//! cargo run -p greenroom-examples --example ractor
//! ```
//!
//! On a real broker `nats req shop.legacy.get '"tea"'` asks the same actor.

use std::collections::HashMap;

use greenroom::prelude::*;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

/// What was there before: nothing in it knows of greenroom.
struct Prices;

enum PricesMsg {
    Get(String, RpcReplyPort<Option<u64>>),
}

impl ractor::Actor for Prices {
    type Msg = PricesMsg;
    type State = HashMap<String, u64>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<PricesMsg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::from([("tea".to_owned(), 350)]))
    }

    async fn handle(
        &self,
        _: ActorRef<PricesMsg>,
        PricesMsg::Get(sku, reply): PricesMsg,
        prices: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(reply.send(prices.get(&sku).copied())?)
    }
}

/// What Rust callers need to know of it; `nats req` needs nothing.
#[contract(service, messages(Get))]
struct Legacy;

#[message(Legacy, ask, reply = Option<u64>)]
struct Get(String);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (prices, handle) = ractor::Actor::spawn(None, Prices, ()).await?;
    let node = Node::local("shop").expose("legacy.get", prices.clone(), PricesMsg::Get).start().await?;
    for sku in ["tea", "gold"] {
        let cents = node.service::<Legacy>().ask(Get(sku.to_owned())).await?;
        println!("{sku}: {cents:?}");
    }
    node.drain().await?;
    // It is still its owner's to stop.
    prices.stop(None);
    Ok(handle.await?)
}
