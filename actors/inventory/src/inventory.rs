use greenroom::prelude::*;
use shop_contract::inventory::{
    Get, Inventory, InventoryEvent, NoSuchProduct, Release, ReleaseRefused, Reserve, ReserveRefused, Reserved, Restock,
    RestockRefused, Ship, ShipRefused, StockView, TakeBack, TakeBackRefused,
};

use crate::stock::{Standing, Stock};

/// What one costs when nobody has ever said.
const PRICE_CENTS_FIRST: u64 = 100;

/// The highest price.
const PRICE_CENTS_MAX: u64 = 100_000_000;

/// The largest delivery.
const RESTOCK_QTY_MAX: u32 = 1_000_000_000;

/// The most that one order may set aside.
const RESERVE_QTY_MAX: u32 = 1_000_000;

/// The most reservations of one product that may be open at once.
const OPEN_MAX: u32 = 10_000;

/// The longest name of a product, in bytes.
const NAME_BYTES_MAX: u32 = 200;

/// The stock of one product.
pub struct InventoryActor {
    stock: Durable<Stock>,
}

#[actor(Inventory, state = stock, durable)]
impl InventoryActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { stock: ctx.durable().await? })
    }

    #[ask]
    fn restock(&mut self, msg: Restock, ctx: &mut Context<'_, Self>) -> Result<StockView, RestockRefused> {
        let (name, price_cents) = match &self.stock.product {
            Some(known) => (known.name.as_str(), known.price_cents),
            None => (ctx.key().as_str(), PRICE_CENTS_FIRST),
        };
        let name = msg.name.unwrap_or_else(|| name.to_owned());
        let price_cents = msg.price_cents.unwrap_or(price_cents);
        if msg.qty > RESTOCK_QTY_MAX {
            return Err(RestockRefused::BadQuantity { max: RESTOCK_QTY_MAX });
        }
        if price_cents == 0 || price_cents > PRICE_CENTS_MAX {
            return Err(RestockRefused::BadPrice { max_cents: PRICE_CENTS_MAX });
        }
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX as usize {
            return Err(RestockRefused::BadName { max: NAME_BYTES_MAX });
        }
        self.stock.emit(InventoryEvent::Restocked { qty: msg.qty, price_cents, name });
        Ok(self.view(ctx.key()))
    }

    #[read]
    fn get(&self, _: Get, ctx: &mut Context<'_, Self>) -> Result<StockView, NoSuchProduct> {
        if self.stock.product.is_none() {
            return Err(NoSuchProduct { sku: ctx.key().as_str().to_owned() });
        }
        Ok(self.view(ctx.key()))
    }

    #[ask]
    fn reserve(&mut self, msg: Reserve, ctx: &mut Context<'_, Self>) -> Result<Reserved, ReserveRefused> {
        let Reserve { order, qty, attempt } = msg;
        let sku = ctx.key().as_str();
        if !is_order(&order) {
            return Err(ReserveRefused::BadOrder);
        }
        if qty == 0 || qty > RESERVE_QTY_MAX {
            return Err(ReserveRefused::BadQuantity { max: RESERVE_QTY_MAX });
        }
        if let Some(reserved) = self.repeated(&order, qty, attempt)? {
            return Ok(reserved);
        }
        let Some(product) = &self.stock.product else {
            return Err(ReserveRefused::NoSuchProduct { sku: sku.to_owned() });
        };
        let price_cents = product.price_cents;
        if self.stock.free < u64::from(qty) {
            // What is free is less than a u32 here, so the difference is one.
            let short = qty - self.stock.free as u32;
            return Err(ReserveRefused::OutOfStock { sku: sku.to_owned(), short });
        }
        if self.stock.open >= OPEN_MAX {
            return Err(ReserveRefused::TooManyOpen { open: self.stock.open });
        }
        self.stock.emit(InventoryEvent::Reserved { order, attempt, qty, price_cents });
        Ok(Reserved { qty, price_cents })
    }

    #[ask]
    fn release(&mut self, msg: Release, ctx: &mut Context<'_, Self>) -> Result<StockView, ReleaseRefused> {
        let Release { order, attempt } = msg;
        if !is_order(&order) {
            return Err(ReleaseRefused::BadOrder);
        }
        let qty = match self.stock.held(&order) {
            // A later attempt has begun, which closed this one.
            Some(held) if held.attempt > attempt => None,
            Some(held) => match held.standing {
                Standing::Reserved => Some(held.qty),
                Standing::Shipped => return Err(ReleaseRefused::Shipped),
                Standing::Closed => (held.attempt < attempt).then_some(0),
            },
            // The reservation may still be on its way here.
            None => Some(0),
        };
        if let Some(qty) = qty {
            self.stock.emit(InventoryEvent::Released { order, attempt, qty });
        }
        Ok(self.view(ctx.key()))
    }

    #[ask]
    fn ship(&mut self, msg: Ship, ctx: &mut Context<'_, Self>) -> Result<StockView, ShipRefused> {
        let Ship { order, attempt } = msg;
        match self.stock.held(&order).filter(|held| held.attempt == attempt) {
            Some(held) if held.standing == Standing::Reserved => {
                let qty = held.qty;
                self.stock.emit(InventoryEvent::Shipped { order, attempt, qty });
            }
            Some(held) if held.standing == Standing::Shipped => {}
            _ => return Err(ShipRefused::NotReserved { order, attempt }),
        }
        Ok(self.view(ctx.key()))
    }

    #[ask]
    fn take_back(&mut self, msg: TakeBack, ctx: &mut Context<'_, Self>) -> Result<StockView, TakeBackRefused> {
        let TakeBack { order, qty, attempt } = msg;
        let (shipped, taken_back) = match self.stock.held(&order) {
            Some(held) if held.attempt == attempt => {
                (held.standing == Standing::Shipped && held.qty == qty, held.standing == Standing::Closed)
            }
            Some(_) => (false, false),
            // It may have been shipped so long ago that it is forgotten: the order itself knows what
            // it got, and no more is believed than went out to forgotten orders.
            None => (is_order(&order) && u64::from(qty) <= self.stock.forgotten, false),
        };
        if shipped {
            self.stock.emit(InventoryEvent::TakenBack { order, attempt, qty });
        } else if !taken_back {
            return Err(TakeBackRefused::NotShipped { order, qty, attempt });
        }
        Ok(self.view(ctx.key()))
    }

    /// The answer to a reservation that was made before, or why there can be none any more.
    /// `None` if it is new.
    fn repeated(&mut self, order: &str, qty: u32, attempt: u32) -> Result<Option<Reserved>, ReserveRefused> {
        let Some(held) = self.stock.held(order).cloned() else {
            return Ok(None);
        };
        let newer = attempt > held.attempt;
        match held.standing {
            Standing::Reserved if newer => {
                // Whoever begins another attempt has given the last one up.
                let order = order.to_owned();
                self.stock.emit(InventoryEvent::Released { order, attempt: held.attempt, qty: held.qty });
                Ok(None)
            }
            Standing::Closed if newer => Ok(None),
            Standing::Reserved | Standing::Shipped if attempt == held.attempt => {
                if held.qty != qty {
                    return Err(ReserveRefused::ReservedOtherwise { qty: held.qty });
                }
                Ok(Some(Reserved { qty, price_cents: held.price_cents }))
            }
            _ => Err(ReserveRefused::Closed { attempt: held.attempt }),
        }
    }

    fn view(&self, sku: &Key) -> StockView {
        let stock = &self.stock;
        let (name, price_cents) = match &stock.product {
            Some(product) => (product.name.as_str(), product.price_cents),
            None => (sku.as_str(), PRICE_CENTS_FIRST),
        };
        StockView {
            sku: sku.as_str().to_owned(),
            name: name.to_owned(),
            price_cents,
            restocked: stock.restocked,
            free: stock.free,
            reserved: stock.reserved,
            sold: stock.sold,
        }
    }
}

/// Whether it can be an order's id: whether it is a key.
fn is_order(order: &str) -> bool {
    Key::new(order).is_ok()
}
