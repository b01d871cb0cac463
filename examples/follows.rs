//! An actor that is driven by the events of others: each takes effect once, also those from before it was there.
//!
//! ```text
//! cargo run -p greenroom-examples --example follows
//! ```

use std::time::Duration;

use greenroom::prelude::*;
use greenroom::subscribe::Received;

/// Where parcels are handed in. It knows nothing of who cares.
#[contract(messages(HandIn), event = DeskEvent)]
struct Desk;

#[message(Desk, tell)]
struct HandIn {
    parcel: String,
    street: String,
}

#[event(Desk)]
enum DeskEvent {
    Accepted { parcel: String, street: String },
    Closed,
}

#[data]
#[derive(Default)]
struct Book {
    parcels: u32,
}

impl State for Book {
    type Event = DeskEvent;

    fn apply(&mut self, _: &DeskEvent) {
        self.parcels += 1;
    }
}

struct DeskActor {
    book: Durable<Book>,
}

#[actor(Desk, state = book, durable)]
impl DeskActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { book: ctx.durable().await? })
    }

    #[tell]
    fn hand_in(&mut self, msg: HandIn) {
        self.book.emit(DeskEvent::Accepted { parcel: msg.parcel, street: msg.street });
    }
}

/// The round of a street, which every desk's parcels are for.
#[contract(messages(Load), event = RoundEvent)]
struct Round;

#[message(Round, read, reply = Vec<String>)]
struct Load;

#[event(Round)]
enum RoundEvent {
    Loaded { parcel: String },
}

#[data]
#[derive(Default)]
struct Bag {
    parcels: Vec<String>,
}

impl State for Bag {
    type Event = RoundEvent;

    fn apply(&mut self, RoundEvent::Loaded { parcel }: &RoundEvent) {
        self.parcels.push(parcel.clone());
    }
}

/// Whose round an event is for; nobody's if it is of no interest.
fn street_of(happened: &Received<DeskEvent>) -> Option<String> {
    match &happened.event {
        DeskEvent::Accepted { street, .. } => Some(street.clone()),
        DeskEvent::Closed => None,
    }
}

struct RoundActor {
    bag: Durable<Bag>,
}

#[actor(Round, state = bag, durable)]
impl RoundActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { bag: ctx.durable().await? })
    }

    #[on(key = street_of)]
    fn parcel_accepted(&mut self, happened: Received<DeskEvent>) {
        if let DeskEvent::Accepted { parcel, .. } = happened.event {
            self.bag.emit(RoundEvent::Loaded { parcel: format!("{parcel} (from desk {})", happened.key) });
        }
    }

    #[read]
    fn load(&self, _: Load) -> Vec<String> {
        self.bag.parcels.clone()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("post").host::<DeskActor>().host::<RoundActor>().start().await?;
    for (parcel, street) in [("books", "elm"), ("a lamp", "oak"), ("tea", "elm")] {
        node.actor::<Desk>("north").tell(HandIn { parcel: parcel.into(), street: street.into() }).await?;
    }
    // They are on their way: whoever handed them in did not wait for that.
    let elm = node.actor::<Round>("elm");
    let mut load = elm.ask(Load).await?;
    while load.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        load = elm.ask(Load).await?;
    }
    println!("elm: {}", load.join(", "));
    Ok(node.drain().await?)
}
