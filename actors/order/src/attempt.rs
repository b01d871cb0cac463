//! One attempt at an order: the steps that others see, and how they are undone.

use greenroom::prelude::*;
use shop_contract::inventory::{Inventory, Release, ReleaseRefused, Reserve, ReserveRefused, TakeBack};
use shop_contract::order::{Line, PlaceRefused};
use shop_contract::payment::{Charge, ChargeRefused, Payment, Refund};
use tokio::time::Instant;

use crate::insist;
use crate::order::OrderActor;
use crate::state::OrderState;

type Ctx<'a> = Context<'a, OrderActor>;

/// What an attempt may hold of others. A step is here from the moment in which it may have been
/// run until it certainly is undone.
pub(crate) struct Attempt {
    order: String,
    number: u32,
    steps: Vec<Step>,
}

#[derive(PartialEq)]
enum Step {
    /// Goods of this SKU may be set aside.
    Reserved(String),
    /// The card may be charged.
    Charged,
}

impl Attempt {
    /// The attempt that the state says is begun, holding nothing.
    pub(crate) fn begun(order: &Key, state: &OrderState) -> Self {
        Self { order: order.as_str().to_owned(), number: state.attempt, steps: Vec::new() }
    }

    /// The attempt that a turn before, or a run of this one that was cut, left behind. How far that came is not
    /// known, so it may hold everything.
    pub(crate) fn left_over(order: &Key, state: &OrderState) -> Self {
        let mut attempt = Self::begun(order, state);
        attempt.steps = state.lines.iter().map(|line| Step::Reserved(line.sku.clone())).collect();
        attempt.steps.push(Step::Charged);
        attempt
    }

    /// Sets a line's goods aside and returns what they cost.
    ///
    /// # Errors
    /// Why not; the attempt then still holds what it held before.
    pub(crate) async fn reserve(&mut self, line: &Line, ctx: &mut Ctx<'_>) -> Result<u64, PlaceRefused> {
        let reserve = Reserve { order: self.order.clone(), qty: line.qty, attempt: self.number };
        let budget = step_time(ctx);
        let answer = ctx.actor::<Inventory>(&line.sku).within(budget).ask(reserve).await;
        if may_have_run(&answer) {
            self.holds(Step::Reserved(line.sku.clone()));
        }
        match answer {
            // Saturating: payment refuses such an amount, whatever made it.
            Ok(reserved) => Ok(reserved.price_cents.saturating_mul(u64::from(line.qty))),
            Err(AskError::Refused(refused)) => Err(not_reserved(&line.sku, refused)),
            Err(AskError::Failed(error)) => Err(unavailable(&format!("inventory of {}", line.sku), &error)),
        }
    }

    /// Charges the card.
    ///
    /// # Errors
    /// Why not; the attempt then still holds what it held before.
    pub(crate) async fn charge(
        &mut self,
        user: &str,
        cents: u64,
        card: String,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), PlaceRefused> {
        let charge = Charge { user: user.to_owned(), cents, card, attempt: self.number };
        let budget = step_time(ctx);
        let answer = ctx.actor::<Payment>(&self.order).within(budget).ask(charge).await;
        if may_have_run(&answer) {
            self.holds(Step::Charged);
        }
        match answer {
            Ok(_) => Ok(()),
            Err(AskError::Refused(refused @ ChargeRefused::Closed { .. })) => {
                Err(PlaceRefused::Unavailable { message: refused.to_string(), undone: true })
            }
            Err(AskError::Refused(reason)) => Err(PlaceRefused::CardRefused { reason }),
            Err(AskError::Failed(error)) => Err(unavailable("payment", &error)),
        }
    }

    fn holds(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    /// Gives everything back, the last first. Goes on past a step that cannot be undone now.
    ///
    /// # Errors
    /// The first failure. Undoing again is safe.
    pub(crate) async fn undo(mut self, ctx: &Ctx<'_>) -> Result<(), Error> {
        let until = Instant::now() + insist::TIME;
        let mut first = Ok(());
        while let Some(step) = self.steps.pop() {
            let undone = match step {
                Step::Charged => refund(&self.order, self.number, until, ctx).await,
                Step::Reserved(sku) => release(&sku, &self.order, self.number, until, ctx).await.map(drop),
            };
            first = first.and(undone);
        }
        first
    }
}

/// Gives the money of a confirmed order and its goods back.
///
/// # Errors
/// The first failure. Doing it again is safe.
pub(crate) async fn give_back(order: &str, state: &OrderState, ctx: &Ctx<'_>) -> Result<(), Error> {
    let until = Instant::now() + insist::TIME;
    refund(order, state.attempt, until, ctx).await?;
    for line in &state.lines {
        // Without the order's own mark some lines may have been shipped and others not.
        if state.shipped || release(&line.sku, order, state.attempt, until, ctx).await? == Goods::Shipped {
            take_back(line, order, state.attempt, until, ctx).await?;
        }
    }
    Ok(())
}

/// What somebody who could not be asked means for the order, before anything is undone.
pub(crate) fn unavailable(what: &str, error: &Error) -> PlaceRefused {
    PlaceRefused::Unavailable { message: format!("{what}: {error}"), undone: true }
}

#[derive(PartialEq, Eq)]
enum Goods {
    Here,
    Shipped,
}

async fn refund(order: &str, attempt: u32, until: Instant, ctx: &Ctx<'_>) -> Result<(), Error> {
    match insist::ask(ctx, order, Refund { attempt: Some(attempt) }, until).await {
        Ok(_) => Ok(()),
        Err(AskError::Failed(error)) => Err(error),
        Err(AskError::Refused(never)) => match never {},
    }
}

async fn release(sku: &str, order: &str, attempt: u32, until: Instant, ctx: &Ctx<'_>) -> Result<Goods, Error> {
    let release = Release { order: order.to_owned(), attempt };
    match insist::ask(ctx, sku, release, until).await {
        Ok(_) => Ok(Goods::Here),
        Err(AskError::Refused(ReleaseRefused::Shipped)) => Ok(Goods::Shipped),
        Err(AskError::Refused(refused)) => {
            // It says that nothing of ours can be there, so nothing is left to undo.
            tracing::error!(%order, %sku, %refused, "a reservation was not released");
            Ok(Goods::Here)
        }
        Err(AskError::Failed(error)) => Err(error),
    }
}

async fn take_back(line: &Line, order: &str, attempt: u32, until: Instant, ctx: &Ctx<'_>) -> Result<(), Error> {
    let take_back = TakeBack { order: order.to_owned(), qty: line.qty, attempt };
    match insist::ask(ctx, &line.sku, take_back, until).await {
        Ok(_) => Ok(()),
        Err(AskError::Refused(refused)) => {
            // Nobody could ever take these goods back, and the user's money must not wait for that.
            tracing::error!(%order, sku = line.sku, %refused, "shipped goods were not taken back");
            Ok(())
        }
        Err(AskError::Failed(error)) => Err(error),
    }
}

/// Whether the callee may have done, or may yet do, what it was asked for.
fn may_have_run<T, R>(answer: &Result<T, AskError<R>>) -> bool {
    match answer {
        Ok(_) => true,
        Err(AskError::Refused(_)) => false,
        // Retryable means: certainly not run.
        Err(AskError::Failed(error)) => !error.is_retryable(),
    }
}

/// Three quarters of what is left, so that the caller hears what became of the rest.
pub(crate) fn step_time(ctx: &Ctx<'_>) -> std::time::Duration {
    ctx.remaining() * 3 / 4
}

fn not_reserved(sku: &str, refused: ReserveRefused) -> PlaceRefused {
    match refused {
        ReserveRefused::NoSuchProduct { sku } => PlaceRefused::UnknownProduct { sku },
        ReserveRefused::OutOfStock { sku, short } => PlaceRefused::OutOfStock { sku, short },
        ReserveRefused::BadQuantity { max } => PlaceRefused::BadQuantity { sku: sku.to_owned(), max },
        other => PlaceRefused::Unavailable { message: format!("inventory of {sku}: {other}"), undone: true },
    }
}
