//! Stand-ins for the services that an order asks: they write their calls down, and do what the
//! SKU, the card or the user's id says.

use std::time::Duration;

use greenroom::Node;
use greenroom::prelude::*;
use shop_contract::inventory::{self, Inventory, StockView};
use shop_contract::order::{Get, Line, Order, OrderView, Place, PlaceRefused, Placed};
use shop_contract::payment::{self, Payment, PaymentView};
use shop_contract::user::{self, User, UserView};

use crate::OrderActor;

/// How often what is `stuck` panics before it works: as often as an order tries in one turn.
const STUCK: usize = 4;

/// How long what is `slow` takes.
pub(super) const SLOW: Duration = Duration::from_millis(600);

/// The calls that were made, in their order.
#[contract(name = "calls", messages(Write, Show))]
pub(super) struct Calls;

/// Writes a call down; says how often it was made.
#[message(Calls, ask, reply = usize)]
pub(super) struct Write {
    call: String,
}

/// Shows all.
#[message(Calls, read, reply = Vec<String>)]
pub(super) struct Show {}

#[derive(Default)]
struct CallsActor {
    calls: Vec<String>,
}

#[actor(Calls)]
impl CallsActor {
    #[ask]
    fn write(&mut self, msg: Write) -> usize {
        self.calls.push(msg.call.clone());
        self.calls.iter().filter(|call| **call == msg.call).count()
    }

    #[read]
    fn show(&self, _: Show) -> Vec<String> {
        self.calls.clone()
    }
}

/// Writes a call down and does what its subject's name asks for.
async fn called<A: Actor>(ctx: &mut Context<'_, A>, call: String) {
    let times = ctx.actor::<Calls>("all").within(SLOW).ask(Write { call: call.clone() }).await;
    let times = times.expect("the list of calls is on this node");
    if call.contains("slow") {
        tokio::time::sleep(SLOW).await;
    }
    let stuck = ["release stuck", "ship unshippable", "refund o-poor"].iter().any(|it| call.starts_with(it));
    assert!(!call.contains("broken") || call.starts_with("release"), "{call} is broken");
    assert!(!stuck || times > STUCK, "{call} is stuck");
}

#[derive(Default)]
struct Users;

#[actor(User)]
impl Users {
    #[ask]
    fn register(&mut self, msg: user::Register) -> Result<UserView, user::RegisterRefused> {
        Err(user::RegisterRefused::BadEmail { email: msg.email })
    }

    #[read]
    async fn get(&self, _: user::Get, ctx: &mut Context<'_, Self>) -> Result<UserView, user::NoSuchUser> {
        let id = ctx.key().as_str().to_owned();
        called(ctx, format!("user {id}")).await;
        if id == "nobody" {
            return Err(user::NoSuchUser { id });
        }
        Ok(UserView { id, name: "Ada".into(), email: "ada@example.org".into() })
    }
}

#[derive(Default)]
struct Stocks;

#[actor(Inventory)]
impl Stocks {
    #[ask]
    fn restock(&mut self, _: inventory::Restock) -> Result<StockView, inventory::RestockRefused> {
        Err(inventory::RestockRefused::BadQuantity { max: 0 })
    }

    #[read]
    fn get(&self, _: inventory::Get, ctx: &mut Context<'_, Self>) -> Result<StockView, inventory::NoSuchProduct> {
        Ok(view(ctx.key()))
    }

    #[ask]
    async fn reserve(
        &mut self,
        msg: inventory::Reserve,
        ctx: &mut Context<'_, Self>,
    ) -> Result<inventory::Reserved, inventory::ReserveRefused> {
        let sku = ctx.key().as_str().to_owned();
        called(ctx, format!("reserve {sku} {} for {}#{}", msg.qty, msg.order, msg.attempt)).await;
        match sku.as_str() {
            "gone" => Err(inventory::ReserveRefused::OutOfStock { sku, short: 1 }),
            "unknown" => Err(inventory::ReserveRefused::NoSuchProduct { sku }),
            "busy" => Err(inventory::ReserveRefused::TooManyOpen { open: 9 }),
            _ => Ok(inventory::Reserved { qty: msg.qty, price_cents: 100 }),
        }
    }

    #[ask]
    async fn release(
        &mut self,
        msg: inventory::Release,
        ctx: &mut Context<'_, Self>,
    ) -> Result<StockView, inventory::ReleaseRefused> {
        let sku = ctx.key().as_str().to_owned();
        called(ctx, format!("release {sku} for {}#{}", msg.order, msg.attempt)).await;
        Ok(view(ctx.key()))
    }

    #[ask]
    async fn ship(
        &mut self,
        msg: inventory::Ship,
        ctx: &mut Context<'_, Self>,
    ) -> Result<StockView, inventory::ShipRefused> {
        let sku = ctx.key().as_str().to_owned();
        called(ctx, format!("ship {sku} for {}#{}", msg.order, msg.attempt)).await;
        Ok(view(ctx.key()))
    }

    #[ask]
    async fn take_back(
        &mut self,
        msg: inventory::TakeBack,
        ctx: &mut Context<'_, Self>,
    ) -> Result<StockView, inventory::TakeBackRefused> {
        let sku = ctx.key().as_str().to_owned();
        called(ctx, format!("take_back {sku} {} of {}#{}", msg.qty, msg.order, msg.attempt)).await;
        Ok(view(ctx.key()))
    }
}

fn view(sku: &Key) -> StockView {
    let sku = sku.as_str().to_owned();
    StockView { name: sku.clone(), sku, price_cents: 100, restocked: 0, free: 0, reserved: 0, sold: 0 }
}

#[derive(Default)]
struct Payments;

#[actor(Payment)]
impl Payments {
    #[ask]
    async fn charge(
        &mut self,
        msg: payment::Charge,
        ctx: &mut Context<'_, Self>,
    ) -> Result<payment::Charged, payment::ChargeRefused> {
        let order = ctx.key().as_str().to_owned();
        called(ctx, format!("charge {order}#{} {} {}", msg.attempt, msg.cents, msg.card)).await;
        match msg.card.as_str() {
            "declined" => Err(payment::ChargeRefused::CardDeclined),
            _ => Ok(payment::Charged { cents: msg.cents, card_end: msg.card }),
        }
    }

    #[ask]
    async fn refund(&mut self, msg: payment::Refund, ctx: &mut Context<'_, Self>) -> PaymentView {
        let order = ctx.key().as_str().to_owned();
        called(ctx, format!("refund {order}#{}", msg.attempt.unwrap_or_default())).await;
        PaymentView { order, charged_cents: 0, refunded_cents: 0 }
    }

    #[read]
    fn get(&self, _: payment::Get, ctx: &mut Context<'_, Self>) -> Result<PaymentView, payment::NoSuchPayment> {
        Err(payment::NoSuchPayment { order: ctx.key().as_str().to_owned() })
    }
}

/// The order actor among stand-ins.
pub(super) struct Stage(pub(super) Node);

impl Stage {
    pub(super) async fn new() -> Self {
        let node = Node::local("shop").host::<OrderActor>().host::<CallsActor>();
        let node = node.host::<Users>().host::<Stocks>().host::<Payments>();
        Self(node.start().await.expect("a local node starts"))
    }

    pub(super) async fn place(&self, order: &str, msg: Place) -> Result<Placed, PlaceRefused> {
        match self.0.actor::<Order>(order).ask(msg).await {
            Ok(placed) => Ok(placed),
            Err(AskError::Refused(refused)) => Err(refused),
            Err(AskError::Failed(error)) => panic!("{error}"),
        }
    }

    pub(super) async fn order(&self, order: &str) -> OrderView {
        self.0.actor::<Order>(order).ask(Get {}).await.expect("the order is known")
    }

    /// The calls since the last time this was asked, joined by a comma.
    pub(super) async fn calls(&self, seen: &mut usize) -> String {
        let all = self.0.actor::<Calls>("all").ask(Show {}).await.expect("shown");
        let new = all[*seen..].join(", ");
        *seen = all.len();
        new
    }
}

/// An order of one of each of these, or of as many as stand behind a `*`.
pub(super) fn place(lines: &str, card: &str) -> Place {
    let line = |text: &str| {
        let (sku, qty) = text.split_once('*').unwrap_or((text, "1"));
        Line { sku: sku.into(), qty: qty.parse().expect("a number") }
    };
    Place { user: "u-1".into(), lines: lines.split_whitespace().map(line).collect(), card: card.into() }
}
