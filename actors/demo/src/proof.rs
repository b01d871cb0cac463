//! The proof from the streams: what has happened to orders, money and goods, replayed from the journals alone.
//!
//! No actor is asked, so nothing that an actor holds in memory can hide what its journal lacks. It must be made while
//! nobody orders: the streams are read one after the other.

use std::collections::BTreeMap;
use std::fmt;

use greenroom::Key;
use greenroom::transport::Transport;
use serde::Serialize;
use shop_contract::inventory::InventoryEvent;
use shop_contract::notification::NotificationEvent;
use shop_contract::order::{Line, OrderEvent};
use shop_contract::payment::PaymentEvent;

use crate::audit::Complaints;
use crate::goods::Goods;
use crate::journals::{Entry, read};

/// What the streams prove, and what in them is wrong.
#[derive(Default, Serialize)]
pub(crate) struct Proof {
    /// Whether nothing is wrong.
    pub(crate) adds_up: bool,
    pub(crate) records: usize,
    pub(crate) events: usize,
    pub(crate) confirmed: usize,
    pub(crate) refused: usize,
    pub(crate) cancelled: usize,
    /// Orders that are neither.
    pub(crate) stuck: usize,
    pub(crate) charged_cents: u64,
    pub(crate) refunded_cents: u64,
    pub(crate) products: usize,
    pub(crate) restocked: u64,
    pub(crate) free: u64,
    pub(crate) reserved: u64,
    pub(crate) sold: u64,
    /// What users were told of their orders.
    pub(crate) notices: usize,
    /// What they are to be told and were not yet.
    pub(crate) notices_missing: usize,
    /// The first of what is wrong, in words.
    pub(crate) wrong: Vec<String>,
    #[serde(skip)]
    pub(crate) complaints: Complaints,
}

/// The records of the streams.
pub(crate) struct Journals {
    pub(crate) orders: Vec<Entry<OrderEvent>>,
    pub(crate) payments: Vec<Entry<PaymentEvent>>,
    pub(crate) products: Vec<Entry<InventoryEvent>>,
    pub(crate) inboxes: Vec<Entry<NotificationEvent>>,
}

impl Journals {
    /// Reads all of them.
    ///
    /// # Errors
    /// If the broker does not answer, or a record cannot be read.
    pub(crate) async fn read(transport: &dyn Transport, app: &str) -> anyhow::Result<Self> {
        Ok(Self {
            orders: read(transport, app).await?,
            payments: read(transport, app).await?,
            products: read(transport, app).await?,
            inboxes: read(transport, app).await?,
        })
    }
}

/// An order by its events.
#[derive(Default)]
struct Order {
    stands: Stands,
    /// Whether its journal's first record is there.
    begins: bool,
    attempt: u32,
    lines: Vec<Line>,
    total_cents: u64,
    shipped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stands {
    #[default]
    Nowhere,
    Placed,
    Confirmed,
    Refused,
    Cancelling,
    Cancelled,
}

/// The payment of one order by its events.
#[derive(Default)]
struct Payment {
    charged: u64,
    refunded: u64,
    /// The attempts whose charges stand.
    standing: Vec<u32>,
}

impl Proof {
    /// Replays the journals.
    pub(crate) fn of(journals: &Journals) -> Self {
        let mut proof = Self::default();
        proof.unbroken("order", &journals.orders);
        proof.unbroken("payment", &journals.payments);
        proof.unbroken("inventory", &journals.products);
        proof.unbroken("notification", &journals.inboxes);
        let orders = proof.orders(&journals.orders);
        proof.money(&journals.payments, &orders);
        proof.goods(&journals.products, &orders);
        crate::notices::prove(&mut proof, &journals.orders, &journals.inboxes);
        proof.adds_up = proof.complaints.is_empty();
        proof.wrong.clone_from(&proof.complaints.first);
        proof
    }

    /// No event is missing, none is there twice, and no record was written by an owner who had been superseded.
    fn unbroken<E>(&mut self, actor: &str, entries: &[Entry<E>]) {
        let mut next: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for entry in entries {
            let (number, epoch) = next.entry(&entry.token).or_insert((1, 0));
            if entry.first != *number {
                let (token, first) = (&entry.token, entry.first);
                self.complaints.add(format!("{actor} {token}: event {number} should follow, and {first} does"));
            }
            if entry.epoch < *epoch {
                self.complaints.add(format!("{actor} {}: epoch {} after {epoch}", entry.token, entry.epoch));
            }
            (*number, *epoch) = (entry.first + entry.events.len() as u64, entry.epoch);
            self.records += 1;
            self.events += entry.events.len();
        }
    }

    fn orders<'a>(&mut self, entries: &'a [Entry<OrderEvent>]) -> BTreeMap<&'a str, Order> {
        let mut orders: BTreeMap<&str, Order> = BTreeMap::new();
        for entry in entries {
            let order = orders.entry(&entry.token).or_default();
            order.begins |= entry.begins;
            for event in &entry.events {
                let before = order.stands;
                if !order.apply(event) {
                    let name = greenroom::Event::name(event);
                    self.complaints.add(format!("order {}: {name} while it was {before:?}", entry.token));
                }
            }
        }
        for (token, order) in &orders {
            match order.stands {
                Stands::Confirmed => self.confirmed += 1,
                Stands::Refused => self.refused += 1,
                Stands::Cancelled => self.cancelled += 1,
                // Refused before anything of it was kept: what its journal remembers is the refusal alone, so that an
                // attempt that comes late has no effect after it.
                Stands::Nowhere if order.begins => {}
                stuck @ (Stands::Nowhere | Stands::Placed | Stands::Cancelling) => {
                    self.stuck += 1;
                    self.complaints.add(format!("order {token}: it is stuck as {stuck:?}"));
                }
            }
            if order.stands == Stands::Confirmed && !order.shipped {
                self.complaints.add(format!("order {token}: it is confirmed and not shipped"));
            }
        }
        orders
    }

    /// What a confirmed order costs is charged once, in the attempt that was confirmed, and nothing else is.
    fn money(&mut self, entries: &[Entry<PaymentEvent>], orders: &BTreeMap<&str, Order>) {
        let mut payments: BTreeMap<&str, Payment> = BTreeMap::new();
        for entry in entries {
            let payment = payments.entry(&entry.token).or_default();
            for event in &entry.events {
                match event {
                    PaymentEvent::Charged { attempt, cents, .. } => {
                        payment.charged += cents;
                        payment.standing.push(*attempt);
                    }
                    PaymentEvent::Refunded { attempt, cents } => {
                        payment.refunded += cents;
                        payment.standing.retain(|charged| charged > attempt);
                    }
                }
            }
        }
        let mut due_cents = 0;
        for (token, order) in orders.iter().filter(|(_, order)| order.stands == Stands::Confirmed) {
            due_cents += order.total_cents;
            let standing = payments.get(token).map_or(&[][..], |payment| &payment.standing);
            if standing != [order.attempt] {
                let attempt = order.attempt;
                self.complaints.add(format!("order {token}: attempt {attempt} is confirmed, charged are {standing:?}"));
            }
        }
        for (token, payment) in &payments {
            self.charged_cents += payment.charged;
            self.refunded_cents += payment.refunded;
            let due = orders.get(token).filter(|order| order.stands == Stands::Confirmed);
            let due = due.map_or(0, |order| order.total_cents);
            if payment.charged != payment.refunded + due {
                let Payment { charged, refunded, .. } = payment;
                self.complaints.add(format!("order {token}: {charged} - {refunded} cents were paid, {due} are due"));
            }
        }
        if self.charged_cents != self.refunded_cents + due_cents {
            let (charged, refunded) = (self.charged_cents, self.refunded_cents);
            self.complaints.add(format!("money: {charged} - {refunded} cents were paid, {due_cents} are due"));
        }
    }

    /// What ever came in is free, reserved or sold; and sold is what confirmed orders have.
    fn goods(&mut self, entries: &[Entry<InventoryEvent>], orders: &BTreeMap<&str, Order>) {
        let mut products: BTreeMap<&str, Goods> = BTreeMap::new();
        for entry in entries {
            let goods = products.entry(&entry.token).or_default();
            for event in &entry.events {
                if let Err(why) = goods.apply(event) {
                    self.complaints.add(format!("product {}: {why}", entry.token));
                }
            }
            if let Some(Err(why)) = entry.state.as_ref().map(|state| goods.is_as_in(state)) {
                self.complaints.add(format!("product {}: {why}", entry.token));
            }
        }
        let mut owed: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (token, order) in orders.iter().filter(|(_, order)| order.stands == Stands::Confirmed) {
            for Line { sku, qty } in &order.lines {
                owed.insert((token_of(sku), (*token).to_owned()), u64::from(*qty));
            }
        }
        for (sku, goods) in &products {
            self.products += 1;
            self.restocked += goods.restocked;
            self.free += goods.free;
            self.reserved += goods.reserved;
            self.sold += goods.sold;
            if goods.restocked != goods.free + goods.reserved + goods.sold {
                self.complaints.add(format!("product {sku}: {goods}"));
            }
            for (order, held) in goods.held() {
                let order = token_of(order);
                let due = owed.remove(&((*sku).to_owned(), order.clone())).unwrap_or_default();
                if (held.reserved, held.shipped) != (0, due) {
                    let (reserved, shipped) = (held.reserved, held.shipped);
                    let told = format!("{due} are due to it, {shipped} were shipped and {reserved} are reserved");
                    self.complaints.add(format!("product {sku}, order {order}: {told}"));
                }
            }
        }
        for ((sku, order), qty) in owed {
            self.complaints.add(format!("product {sku}, order {order}: {qty} are due to it, nothing was shipped"));
        }
    }
}

/// An id as it stands in subjects.
pub(crate) fn token_of(id: &str) -> String {
    Key::new(id).map_or_else(|_| id.to_owned(), |key| key.token().to_owned())
}

impl Order {
    /// Takes an event in; false if it cannot follow what was before.
    fn apply(&mut self, event: &OrderEvent) -> bool {
        let before = self.stands;
        match event {
            OrderEvent::Placed { attempt, lines, .. } => {
                let follows = *attempt == self.attempt + 1;
                *self = Self { stands: Stands::Placed, attempt: *attempt, lines: lines.clone(), ..Self::default() };
                follows && matches!(before, Stands::Nowhere | Stands::Refused)
            }
            OrderEvent::Confirmed { total_cents, .. } => {
                (self.stands, self.total_cents) = (Stands::Confirmed, *total_cents);
                before == Stands::Placed
            }
            OrderEvent::Shipped { .. } => before == Stands::Confirmed && !std::mem::replace(&mut self.shipped, true),
            OrderEvent::Rejected { .. } => {
                self.stands = Stands::Refused;
                before == Stands::Placed
            }
            OrderEvent::Cancelling { .. } => {
                self.stands = Stands::Cancelling;
                before == Stands::Confirmed
            }
            OrderEvent::Cancelled { .. } => {
                self.stands = Stands::Cancelled;
                matches!(before, Stands::Cancelling | Stands::Placed)
            }
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, events, confirmed, refused, cancelled, notices, complaints, .. } = self;
        let cancelled = if *cancelled == 0 { String::new() } else { format!(", {cancelled} cancelled") };
        let of = format!("{events} events in {records} records");
        let fine = format!(
            "prove it: {confirmed} confirmed, {refused} refused{cancelled}, none stuck, {notices} notices; {of}"
        );
        crate::report::told(f, "streams", complaints, &fine)
    }
}
