use greenroom::prelude::*;
use shop_contract::inventory::Ship;
use shop_contract::order::{
    Cancel, CancelRefused, Get, Line, NoSuchOrder, Order, OrderEvent, OrderView, Place, PlaceRefused, Placed, Status,
};
use shop_contract::user::{self, User};
use tokio::time::Instant;

use crate::attempt::{Attempt, give_back, step_time, unavailable};
use crate::state::OrderState;
use crate::{insist, lines};

/// One order.
pub struct OrderActor {
    order: Durable<OrderState>,
}

#[actor(Order, state = order, durable)]
impl OrderActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { order: ctx.durable().await? })
    }

    #[ask(resumes)]
    async fn place(&mut self, msg: Place, ctx: &mut Context<'_, Self>) -> Result<Placed, PlaceRefused> {
        let lines = lines::merged(&msg.lines)?;
        let is_same = self.order.user == msg.user && self.order.lines == lines;
        let was_cut = ctx.resumed() > 0;
        match self.order.status {
            Status::Confirmed if is_same => {
                // The first answer may have been lost, and with it the end of that turn.
                self.ship(ctx).await;
                return Ok(self.placed(ctx));
            }
            status @ (Status::Confirmed | Status::Cancelling | Status::Cancelled) => {
                return Err(PlaceRefused::AlreadyPlaced { status });
            }
            Status::Placing if is_same && was_cut => return self.go_on(msg.card, ctx).await,
            Status::Placing => self.clear(ctx).await?,
            Status::Rejected if is_same && was_cut => {
                // This very message was refused, and its answer was lost.
                return Err(self.order.refused.clone().unwrap_or_else(cut_short));
            }
            Status::Absent | Status::Rejected => {}
        }
        known_user(&msg.user, ctx).await?;

        let attempt = self.order.attempt + 1;
        self.order.emit(OrderEvent::Placed { attempt, user: msg.user, lines });
        self.commit(ctx).await?;

        let attempt = Attempt::begun(ctx.key(), &self.order);
        self.run(attempt, msg.card, ctx).await
    }

    #[read]
    fn get(&self, _: Get, ctx: &mut Context<'_, Self>) -> Result<OrderView, NoSuchOrder> {
        match self.order.status {
            Status::Absent => Err(NoSuchOrder { order: ctx.key().as_str().to_owned() }),
            _ => Ok(self.order.view(ctx.key())),
        }
    }

    #[ask(resumes)]
    async fn cancel(&mut self, _: Cancel, ctx: &mut Context<'_, Self>) -> Result<OrderView, CancelRefused> {
        let order = ctx.key().as_str().to_owned();
        let failed = |error: Error| CancelRefused::Unavailable { message: error.to_string() };
        match self.order.status {
            Status::Absent => return Err(CancelRefused::NoSuchOrder { order }),
            Status::Cancelled => return Ok(self.order.view(ctx.key())),
            status @ Status::Rejected => return Err(CancelRefused::NotCancellable { status }),
            Status::Placing => Attempt::left_over(ctx.key(), &self.order).undo(ctx).await.map_err(failed)?,
            Status::Confirmed | Status::Cancelling => {
                if self.order.status == Status::Confirmed {
                    let (user, _) = self.content();
                    self.order.emit(OrderEvent::Cancelling { user });
                    ctx.commit(&mut self.order).await.map_err(failed)?;
                }
                give_back(&order, &self.order, ctx).await.map_err(failed)?;
            }
        }
        let (user, _) = self.content();
        let refunded_cents = self.order.total_cents;
        self.order.emit(OrderEvent::Cancelled { user, refunded_cents });
        Ok(self.order.view(ctx.key()))
    }

    /// Goes on with the attempt in whose middle this very turn was cut. It asks what it asked then, in the same
    /// order, and so under the same ids: who has answered before answers again and does nothing.
    async fn go_on(&mut self, card: String, ctx: &mut Context<'_, Self>) -> Result<Placed, PlaceRefused> {
        let attempt = Attempt::left_over(ctx.key(), &self.order);
        match known_user(&self.order.user, ctx).await {
            Ok(()) => self.run(attempt, card, ctx).await,
            Err(reason) => Err(self.reject(attempt, reason, ctx).await),
        }
    }

    /// Runs an attempt to one of its two ends.
    async fn run(
        &mut self,
        mut attempt: Attempt,
        card: String,
        ctx: &mut Context<'_, Self>,
    ) -> Result<Placed, PlaceRefused> {
        match self.reserve_and_charge(&mut attempt, card, ctx).await {
            Ok(total_cents) => {
                let (user, lines) = self.content();
                self.order.emit(OrderEvent::Confirmed { user, lines, total_cents });
                self.commit(ctx).await?;
                self.ship(ctx).await;
                Ok(self.placed(ctx))
            }
            Err(reason) => Err(self.reject(attempt, reason, ctx).await),
        }
    }

    /// Runs the steps of an attempt and returns what was charged.
    async fn reserve_and_charge(
        &self,
        attempt: &mut Attempt,
        card: String,
        ctx: &mut Context<'_, Self>,
    ) -> Result<u64, PlaceRefused> {
        let mut total_cents: u64 = 0;
        for line in &self.order.lines {
            let cents = attempt.reserve(line, ctx).await?;
            total_cents = total_cents.saturating_add(cents);
        }
        attempt.charge(&self.order.user, total_cents, card, ctx).await?;
        Ok(total_cents)
    }

    /// Undoes an attempt and remembers why. Returns what the caller is told.
    async fn reject(&mut self, attempt: Attempt, reason: PlaceRefused, ctx: &mut Context<'_, Self>) -> PlaceRefused {
        if let Err(error) = attempt.undo(ctx).await {
            tracing::warn!(order = %ctx.key(), %reason, %error, "the attempt is not undone yet");
            let message = format!("{reason}; undoing that: {error}");
            return PlaceRefused::Unavailable { message, undone: false };
        }
        let (user, _) = self.content();
        self.order.emit(OrderEvent::Rejected { user, reason: reason.clone() });
        // A refused turn is undone back to its last commit, and this is to be remembered.
        match self.commit(ctx).await {
            Ok(()) => reason,
            Err(refused) => refused,
        }
    }

    /// Undoes the attempt that an earlier turn left behind.
    async fn clear(&mut self, ctx: &mut Context<'_, Self>) -> Result<(), PlaceRefused> {
        let attempt = Attempt::left_over(ctx.key(), &self.order);
        match self.reject(attempt, cut_short(), ctx).await {
            PlaceRefused::Unavailable { undone: true, .. } => Ok(()),
            still_there => Err(still_there),
        }
    }

    /// Ships every line of the confirmed order. What cannot be shipped now is shipped when the
    /// order is placed again: it is paid for, so its caller hears no failure.
    async fn ship(&mut self, ctx: &Context<'_, Self>) {
        if self.order.shipped {
            return;
        }
        let until = Instant::now() + insist::TIME;
        for Line { sku, .. } in &self.order.lines {
            let ship = Ship { order: ctx.key().as_str().to_owned(), attempt: self.order.attempt };
            if let Err(error) = insist::ask(ctx, sku, ship, until).await {
                tracing::warn!(order = %ctx.key(), %sku, %error, "not shipped yet");
                return;
            }
        }
        let (user, _) = self.content();
        self.order.emit(OrderEvent::Shipped { user });
    }

    /// Ends a step: what was emitted stays, whatever becomes of the turn.
    async fn commit(&mut self, ctx: &mut Context<'_, Self>) -> Result<(), PlaceRefused> {
        ctx.commit(&mut self.order).await.map_err(|error| PlaceRefused::Unavailable {
            message: format!("the order's journal: {error}"),
            undone: false,
        })
    }

    fn content(&self) -> (String, Vec<Line>) {
        (self.order.user.clone(), self.order.lines.clone())
    }

    fn placed(&self, ctx: &Context<'_, Self>) -> Placed {
        Placed { order: ctx.key().as_str().to_owned(), total_cents: self.order.total_cents, status: self.order.status }
    }
}

/// Why an attempt was undone that nobody went on with.
fn cut_short() -> PlaceRefused {
    PlaceRefused::Unavailable { message: "the attempt before was cut short".to_owned(), undone: true }
}

/// # Errors
/// If there is no such user, or nobody can say.
async fn known_user(id: &str, ctx: &mut Context<'_, OrderActor>) -> Result<(), PlaceRefused> {
    let user = lines::shown(id);
    if Key::new(id).is_err() {
        return Err(PlaceRefused::UnknownUser { user });
    }
    let budget = step_time(ctx);
    match ctx.actor::<User>(id).within(budget).ask(user::Get {}).await {
        Ok(_) => Ok(()),
        Err(AskError::Refused(_)) => Err(PlaceRefused::UnknownUser { user }),
        Err(AskError::Failed(error)) => Err(unavailable("user", &error)),
    }
}
