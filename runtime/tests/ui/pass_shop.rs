//! All attributes together, on the good path.

#![deny(warnings)]

use std::fmt;

use greenroom::contract::{Contract, Message, Refusal};
use greenroom::event::Event;
use greenroom::prelude::*;
use greenroom::{Handle, Read};

/// An order of the shop, e.g. a phone. Has a second sentence.
///
/// And more.
#[contract(messages(Place, Get, Cancel, Note), event = OrderEvent)]
pub struct Order;

#[message(Order, ask, reply = Placed, refusal = PlaceRefused)]
pub struct Place {
    pub user: String,
    #[serde(default)]
    pub lines: Vec<Line>,
}

#[message(Order, read, reply = OrderView, refusal = NoSuchOrder)]
#[derive(Default, Clone, PartialEq)]
pub struct Get {}

#[message(Order, ask)]
pub struct Cancel;

#[message(Order, tell, verb = "write_down")]
pub struct Note {
    pub text: String,
}

#[data]
pub struct Line {
    pub sku: String,
    pub qty: u32,
}

#[data]
pub struct Placed {
    pub lines: usize,
}

#[data]
#[derive(PartialEq)]
pub enum OrderView {
    Open { notes: usize },
    IsEmpty,
}

#[refusal]
#[derive(thiserror::Error, PartialEq)]
pub enum PlaceRefused {
    #[error("no such user")]
    #[code(404)]
    NoSuchUser,
    #[error("{sku} is short by {short}")]
    OutOfStock { sku: String, short: u32 },
}

#[refusal(code = 404)]
pub struct NoSuchOrder;

impl fmt::Display for NoSuchOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such order")
    }
}

#[event(Order, version = 2)]
#[derive(PartialEq)]
pub enum OrderEvent {
    Placed {
        lines: usize,
    },
    NoteTaken(String),
    #[serde(rename = "called_off")]
    Cancelled,
}

#[derive(Default, Serialize, Deserialize)]
pub struct OrderState {
    lines: usize,
    notes: Vec<String>,
}

impl State for OrderState {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { lines } => self.lines = *lines,
            OrderEvent::NoteTaken(text) => self.notes.push(text.clone()),
            OrderEvent::Cancelled => self.lines = 0,
        }
    }
}

pub struct OrderActor {
    order: Durable<OrderState>,
}

#[actor(Order, state = order)]
impl OrderActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { order: ctx.volatile()? })
    }

    /// Documented, as any method.
    #[ask(resumes)]
    async fn place(&mut self, msg: Place, ctx: &mut Context<'_, Self>) -> Result<Placed, PlaceRefused> {
        let _ = ctx;
        self.check(&msg)?;
        self.order.emit(OrderEvent::Placed { lines: msg.lines.len() });
        Ok(Placed { lines: self.order.lines })
    }

    #[read]
    fn get(&self, _: Get) -> Result<OrderView, NoSuchOrder> {
        if self.order.lines == 0 {
            return Err(NoSuchOrder);
        }
        Ok(OrderView::Open { notes: self.order.notes.len() })
    }

    #[ask]
    fn cancel(&mut self, _: Cancel) {
        self.order.emit(OrderEvent::Cancelled);
    }

    #[tell]
    async fn write_down(&mut self, Note { text }: Note) {
        self.order.emit(OrderEvent::NoteTaken(text));
    }

    fn check(&self, msg: &Place) -> Result<(), PlaceRefused> {
        if msg.user.is_empty() {
            return Err(PlaceRefused::NoSuchUser);
        }
        Ok(())
    }
}

/// What things cost
/// today.
#[contract(service, name = "prices", version = "2.0.0-rc.1", messages(Quote))]
pub struct Pricing;

#[message(Pricing, read, reply = u64)]
pub struct Quote {
    pub sku: String,
}

pub trait Catalog: Default + Send + Sync + 'static {
    fn price(&self, sku: &str) -> u64;
}

#[derive(Default)]
pub struct ByLength;

impl Catalog for ByLength {
    fn price(&self, sku: &str) -> u64 {
        sku.len() as u64
    }
}

#[derive(Default)]
pub struct PricingService<C> {
    catalog: C,
}

#[service(Pricing)]
impl<C: Catalog> PricingService<C> {
    #[read]
    async fn quote(&self, msg: Quote, _: &Context<'_, Self>) -> u64 {
        self.catalog.price(&msg.sku)
    }
}

fn main() {
    assert_eq!((Order::NAME, Order::VERSION), ("order", env!("CARGO_PKG_VERSION")));
    assert_eq!(Order::DESCRIPTION, "An order of the shop, e.g. a phone.");
    assert_eq!((Pricing::NAME, Pricing::VERSION), ("prices", "2.0.0-rc.1"));
    assert_eq!(Pricing::DESCRIPTION, "What things cost today.");
    assert_eq!((Place::VERB, Note::VERB), ("place", "write_down"));

    assert_eq!(PlaceRefused::NoSuchUser.code(), 404);
    assert_eq!(PlaceRefused::OutOfStock { sku: "x".into(), short: 1 }.code(), 409);
    assert_eq!(NoSuchOrder.code(), 404);

    assert_eq!(OrderEvent::ACTOR, "order");
    assert_eq!(OrderEvent::VERSION, 2);
    assert_eq!(OrderEvent::NAMES, ["placed", "note_taken", "called_off"]);
    for event in [OrderEvent::Placed { lines: 1 }, OrderEvent::NoteTaken(String::new()), OrderEvent::Cancelled] {
        let json = serde_json::to_value(&event).unwrap();
        let tag = json.as_str().or_else(|| json.as_object()?.keys().next().map(String::as_str));
        assert_eq!(tag, Some(event.name()));
        assert_eq!(serde_json::from_value::<OrderEvent>(json).unwrap(), event);
    }
    assert_eq!(serde_json::to_string(&OrderView::IsEmpty).unwrap(), r#""is_empty""#);
    assert!(serde_json::from_str::<Place>(r#"{"user":"ann"}"#).unwrap().lines.is_empty());
    let schema = serde_json::to_value(greenroom::__private::schemars::schema_for!(PlaceRefused)).unwrap();
    assert!(schema.to_string().contains("no_such_user"));

    const {
        assert!(!<OrderActor as Handle<Place>>::READY && !<OrderActor as Handle<Note>>::READY);
        assert!(<OrderActor as Handle<Cancel>>::READY && <OrderActor as Read<Get>>::READY);
        assert!(<OrderActor as Handle<Place>>::RESUMES && !<OrderActor as Handle<Note>>::RESUMES);
        assert!(!<PricingService<ByLength> as Read<Quote>>::READY);
    }
}
