//! Durable tells: what a turn sends is kept with the turn, and arrives once, whoever dies meanwhile.
//!
//! ```text
//! cargo run -p greenroom-examples --example tells
//! cargo run -p greenroom-examples --example tells -- serve    # on a real broker, until Ctrl-C
//! nats req demo.till.1.buy '{"what":"tea","by":"ada"}'
//! nats req demo.drawer.ada.receipts ''
//! ```

use std::time::Duration;

use greenroom::prelude::*;
use greenroom_examples::stop_signal;

/// Where things are bought.
#[contract(messages(Buy), event = Sale)]
struct Till;

#[message(Till, ask, reply = u32, refusal = NotSold)]
struct Buy {
    what: String,
    by: String,
}

/// Where somebody's receipts are kept.
#[contract(messages(Receipt, Receipts), event = Filing)]
struct Drawer;

#[message(Drawer, tell)]
struct Receipt {
    number: u32,
    what: String,
}

#[message(Drawer, read, reply = Vec<String>)]
struct Receipts;

#[event(Till)]
enum Sale {
    Sold,
}

#[data]
#[derive(Default)]
struct Sales(u32);

impl State for Sales {
    type Event = Sale;

    fn apply(&mut self, _: &Sale) {
        self.0 += 1;
    }
}

struct TillActor {
    sales: Durable<Sales>,
}

#[actor(Till, state = sales, durable)]
impl TillActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { sales: ctx.durable().await? })
    }

    #[ask]
    fn buy(&mut self, msg: Buy, ctx: &mut Context<'_, Self>) -> Result<u32, NotSold> {
        self.sales.emit(Sale::Sold);
        // Sale and receipt are one record: there is never one without the other.
        ctx.tell_durably(&msg.by, Receipt { number: self.sales.0, what: msg.what })?;
        Ok(self.sales.0)
    }
}

struct DrawerActor {
    filed: Durable<Filed>,
}

#[actor(Drawer, state = filed, durable)]
impl DrawerActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { filed: ctx.durable().await? })
    }

    #[tell]
    fn receipt(&mut self, msg: Receipt) {
        self.filed.emit(Filing::Filed { receipt: format!("{} #{}", msg.what, msg.number) });
    }

    #[read]
    fn receipts(&self, _: Receipts) -> Vec<String> {
        self.filed.0.clone()
    }
}

#[event(Drawer)]
enum Filing {
    Filed { receipt: String },
}

#[data]
#[derive(Default)]
struct Filed(Vec<String>);

impl State for Filed {
    type Event = Filing;

    fn apply(&mut self, Filing::Filed { receipt }: &Filing) {
        self.0.push(receipt.clone());
    }
}

/// The receipt could not be added to the turn.
#[refusal]
#[derive(thiserror::Error)]
#[error("not sold: {why}")]
struct NotSold {
    why: String,
}

impl From<Error> for NotSold {
    fn from(error: Error) -> Self {
        Self { why: error.to_string() }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let node = Node::builder("demo").lease(Duration::from_secs(3)).host::<TillActor>().host::<DrawerActor>();
        let node = node.start().await?;
        println!("ready {}; Ctrl-C ends it", node.id());
        stop_signal().await?;
        return Ok(node.drain().await?);
    }
    let node = Node::local("demo").host::<TillActor>().host::<DrawerActor>().start().await?;
    for what in ["tea", "jam", "bread"] {
        node.actor::<Till>("1").ask(Buy { what: what.into(), by: "ada".into() }).await?;
    }
    // They are on their way: the answer did not wait for them.
    let ada = node.actor::<Drawer>("ada");
    let mut filed = ada.ask(Receipts).await?;
    while filed.len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        filed = ada.ask(Receipts).await?;
    }
    println!("ada has {}", filed.join(", "));
    Ok(node.drain().await?)
}
