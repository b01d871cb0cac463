use greenroom::prelude::*;
use serde::{Deserialize, Serialize};
use shop_contract::payment::{
    Charge, ChargeRefused, Charged, Get, NoSuchPayment, Payment, PaymentEvent, PaymentView, Refund,
};

use crate::card;

/// The highest charge. Sums over any number of attempts stay far below `u64::MAX`.
const CHARGE_CENTS_MAX: u64 = 100_000_000_000_000;

/// The payment of one order.
pub struct PaymentActor {
    account: Durable<Account>,
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    charged_cents: u64,
    refunded_cents: u64,
    /// What is charged and not refunded.
    current: Option<Current>,
    /// Attempts up to this one are closed: a charge of theirs is late.
    closed: u32,
}

#[derive(Serialize, Deserialize)]
struct Current {
    attempt: u32,
    user: String,
    cents: u64,
    card_end: String,
}

impl State for Account {
    type Event = PaymentEvent;

    fn apply(&mut self, event: &PaymentEvent) {
        match event {
            PaymentEvent::Charged { attempt, user, cents, card_end } => {
                self.charged_cents += cents;
                self.current =
                    Some(Current { attempt: *attempt, user: user.clone(), cents: *cents, card_end: card_end.clone() });
            }
            PaymentEvent::Refunded { attempt, cents } => {
                self.refunded_cents += cents;
                self.closed = self.closed.max(*attempt);
                self.current.take_if(|current| current.attempt <= *attempt);
            }
        }
    }
}

#[actor(Payment, state = account, durable)]
impl PaymentActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { account: ctx.durable().await? })
    }

    #[ask]
    fn charge(&mut self, msg: Charge) -> Result<Charged, ChargeRefused> {
        let card_end = card::end(&msg.card);
        if let Some(current) = &self.account.current {
            // Whatever the attempt: the order is paid, and what it wants is what it got.
            if current.user != msg.user || current.cents != msg.cents || current.card_end != card_end {
                return Err(ChargeRefused::AlreadyCharged { cents: current.cents });
            }
            return Ok(Charged { cents: msg.cents, card_end });
        }
        if msg.attempt <= self.account.closed {
            return Err(ChargeRefused::Closed { attempt: self.account.closed });
        }
        if msg.cents == 0 || msg.cents > CHARGE_CENTS_MAX {
            return Err(ChargeRefused::BadAmount { max_cents: CHARGE_CENTS_MAX });
        }
        if Key::new(&msg.user).is_err() {
            return Err(ChargeRefused::BadUser);
        }
        card::charge(&msg.card)?;
        let charged = Charged { cents: msg.cents, card_end: card_end.clone() };
        let Charge { user, cents, attempt, .. } = msg;
        self.account.emit(PaymentEvent::Charged { attempt, user, cents, card_end });
        Ok(charged)
    }

    #[ask]
    fn refund(&mut self, msg: Refund, ctx: &mut Context<'_, Self>) -> PaymentView {
        let current = self.account.current.as_ref();
        // Somebody who names no attempt wants the money back, whichever charged it.
        let attempt = msg.attempt.or(current.map(|current| current.attempt)).unwrap_or(0);
        let cents = current.filter(|current| current.attempt <= attempt).map_or(0, |current| current.cents);
        // An attempt is closed even when nothing was charged: its charge may still be on its way.
        if cents > 0 || attempt > self.account.closed {
            self.account.emit(PaymentEvent::Refunded { attempt, cents });
        }
        self.view(ctx.key())
    }

    #[read]
    fn get(&self, _: Get, ctx: &mut Context<'_, Self>) -> Result<PaymentView, NoSuchPayment> {
        if self.account.charged_cents == 0 {
            return Err(NoSuchPayment { order: ctx.key().as_str().to_owned() });
        }
        Ok(self.view(ctx.key()))
    }

    fn view(&self, order: &Key) -> PaymentView {
        PaymentView {
            order: order.as_str().to_owned(),
            charged_cents: self.account.charged_cents,
            refunded_cents: self.account.refunded_cents,
        }
    }
}
