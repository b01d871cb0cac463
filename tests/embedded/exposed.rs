//! Existing ractor actors on subjects: what callers get from them, whatever becomes of the actor.

use std::collections::HashMap;

use greenroom::prelude::*;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::json;

use super::ground::{Ground, on_both, soon};
use crate::harness::nats;

on_both!(c4_an_exposed_actor_is_asked_like_a_service);

/// Knows prices, and nothing of greenroom. It drops what it is asked of "nothing".
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
        if sku != "nothing" {
            reply.send(prices.get(&sku).copied())?;
        }
        Ok(())
    }
}

#[contract(service, messages(Get))]
struct Legacy;

#[message(Legacy, ask, reply = Option<u64>)]
struct Get(String);

async fn prices() -> ActorRef<PricesMsg> {
    ractor::Actor::spawn(None, Prices, ()).await.expect("it starts").0
}

async fn c4_an_exposed_actor_is_asked_like_a_service(ground: Ground) {
    let prices = prices().await;
    let host = ground.node("host").expose("legacy.get", prices.clone(), PricesMsg::Get).start().await;
    let (host, client) = (host.expect("a node starts"), ground.node("client").start().await.expect("a node starts"));
    for node in [&host, &client] {
        let legacy = node.service::<Legacy>();
        assert_eq!(legacy.ask(Get("tea".to_owned())).await.expect("a reply"), Some(350));
        assert_eq!(legacy.ask(Get("gold".to_owned())).await.expect("a reply"), None);
        let dropped = legacy.ask(Get("nothing".to_owned())).await.expect_err("no answer");
        assert_eq!(dropped.failure().map(Error::kind), Some(ErrorKind::Interrupted), "{dropped}");
    }

    // Its owner may stop it; callers are told at once.
    prices.stop_and_wait(None, None).await.expect("it stops");
    let dead = soon("an answer", client.service::<Legacy>().ask(Get("tea".to_owned()))).await.expect_err("it is dead");
    let failure = dead.failure().expect("not a refusal");
    assert_eq!(failure.kind(), ErrorKind::Unavailable, "{dead}");
    assert!(failure.message().contains("legacy.get"), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_an_exposed_actor_answers_the_cli() {
    let ground = Ground::nats_alone().await;
    let server = ground.server().expect("a server of its own");
    let node = ground.node("host").expose("legacy.get", prices().await, PricesMsg::Get).start().await;
    let node = node.expect("a node starts");
    let req = async |body: &str| nats(server, &["req", &format!("{}.legacy.get", ground.app()), body]).await;
    assert_eq!(req(r#""tea""#).await.reply(), json!(350));
    for bad in ["tea", r#"{"sku":"tea"}"#] {
        let refused = req(bad).await;
        assert_eq!(refused.header("Nats-Service-Error-Code").as_deref(), Some("400"), "{refused:?}");
        let body = refused.body();
        assert_eq!(body["kind"], json!("bad_request"), "{body}");
        assert!(body["message"].as_str().is_some_and(|said| said.contains("legacy.get")), "{body}");
    }
    node.drain().await.expect("drained");
}
