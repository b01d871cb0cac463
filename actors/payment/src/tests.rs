use greenroom::contract::{Message, Replies};
use greenroom::{AskError, Node};
use shop_contract::payment::{Charge, ChargeRefused, Charged, Get, NoSuchPayment, Payment, PaymentView, Refund};

use crate::PaymentActor;

/// The payment of one order, in a shop of its own.
struct Paid(Node);

impl Paid {
    async fn nothing() -> Self {
        Self(Node::local("shop").host::<PaymentActor>().start().await.expect("a local node starts"))
    }

    async fn ask<M>(&self, msg: M) -> Result<M::Reply, M::Refusal>
    where
        M: Message<Contract = Payment, Mode: Replies>,
    {
        match self.0.actor::<Payment>("o-1").ask(msg).await {
            Ok(reply) => Ok(reply),
            Err(AskError::Refused(refused)) => Err(refused),
            Err(AskError::Failed(error)) => panic!("{error}"),
        }
    }

    /// (charged, refunded), in cents.
    async fn sums(&self) -> (u64, u64) {
        match self.ask(Get {}).await {
            Ok(PaymentView { charged_cents, refunded_cents, .. }) => (charged_cents, refunded_cents),
            Err(NoSuchPayment { .. }) => (0, 0),
        }
    }
}

fn charge(attempt: u32, cents: u64, card: &str) -> Charge {
    Charge { user: "u-1".into(), cents, card: card.into(), attempt }
}

fn refund(attempt: u32) -> Refund {
    Refund { attempt: Some(attempt) }
}

#[tokio::test]
async fn a_charge_is_made_once_however_often_it_is_sent() {
    let paid = Paid::nothing().await;
    assert_eq!(paid.ask(Get {}).await, Err(NoSuchPayment { order: "o-1".into() }));
    for _ in 0..3 {
        let charged = Charged { cents: 500, card_end: "4242".into() };
        assert_eq!(paid.ask(charge(1, 500, "tok_ok_4242")).await, Ok(charged));
        assert_eq!(paid.sums().await, (500, 0));
    }
    for other in [
        charge(1, 501, "tok_ok_4242"),
        charge(1, 500, "tok_ok_4343"),
        charge(2, 501, "tok_ok_4242"),
        Charge { user: "u-2".into(), ..charge(1, 500, "tok_ok_4242") },
    ] {
        assert_eq!(paid.ask(other).await, Err(ChargeRefused::AlreadyCharged { cents: 500 }));
    }
    assert_eq!(paid.sums().await, (500, 0));
}

#[tokio::test]
async fn a_refused_card_is_charged_nothing_and_another_may_pay() {
    let paid = Paid::nothing().await;
    for (card, why) in [
        ("tok_declined", ChargeRefused::CardDeclined),
        ("tok_insufficient_9", ChargeRefused::InsufficientFunds),
        ("tok_", ChargeRefused::BadCard),
        ("4111 1111 1111 1111", ChargeRefused::BadCard),
        ("tok_ok tok_ok", ChargeRefused::BadCard),
        ("", ChargeRefused::BadCard),
        (&format!("tok_ok{}", "9".repeat(99)), ChargeRefused::BadCard),
    ] {
        assert_eq!(paid.ask(charge(1, 500, card)).await, Err(why), "{card:?}");
    }
    for cents in [0, u64::MAX] {
        assert!(matches!(paid.ask(charge(1, cents, "tok_ok")).await, Err(ChargeRefused::BadAmount { .. })));
    }
    let nobody = Charge { user: String::new(), ..charge(1, 500, "tok_ok") };
    assert_eq!(paid.ask(nobody).await, Err(ChargeRefused::BadUser));
    assert_eq!(paid.sums().await, (0, 0));
    paid.ask(charge(1, 500, "tok_ok")).await.expect("a good card");
}

#[tokio::test]
async fn a_refund_gives_back_once_and_closes_the_attempt() {
    let paid = Paid::nothing().await;
    paid.ask(charge(1, 500, "tok_ok")).await.expect("charged");
    for _ in 0..3 {
        let view = PaymentView { order: "o-1".into(), charged_cents: 500, refunded_cents: 500 };
        assert_eq!(paid.ask(refund(1)).await, Ok(view));
    }
    assert_eq!(paid.ask(charge(1, 500, "tok_ok")).await, Err(ChargeRefused::Closed { attempt: 1 }));
    paid.ask(charge(2, 700, "tok_ok")).await.expect("a new attempt");
    paid.ask(refund(1)).await.expect("late, and without effect");
    assert_eq!(paid.sums().await, (1200, 500));
}

#[tokio::test]
async fn a_charge_that_its_refund_overtook_is_refused() {
    let paid = Paid::nothing().await;
    paid.ask(refund(1)).await.expect("nothing to refund");
    assert_eq!(paid.ask(charge(1, 500, "tok_ok")).await, Err(ChargeRefused::Closed { attempt: 1 }));
    assert_eq!(paid.sums().await, (0, 0));
}

#[tokio::test]
async fn a_refund_that_names_no_attempt_gives_back_whatever_is_charged() {
    let paid = Paid::nothing().await;
    paid.ask(charge(7, 500, "tok_ok")).await.expect("charged");
    let by_hand: Refund = serde_json::from_str("{}").expect("nothing must be said");
    for _ in 0..2 {
        paid.ask(by_hand.clone()).await.expect("refunded");
        assert_eq!(paid.sums().await, (500, 500));
    }
}

#[tokio::test]
async fn s3_money_adds_up_after_any_sequence() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let paid = Paid::nothing().await;
        // What is charged now, going by the answers alone: the attempt and the amount.
        let mut held: Option<(u32, u64)> = None;
        for step in 0..250 {
            let attempt = rng.u32(1..60);
            if rng.bool() {
                let card = ["tok_ok", "tok_declined", "tok_bad"][rng.usize(..3)];
                let cents = rng.u64(1..4) * 100;
                if paid.ask(charge(attempt, cents, card)).await.is_ok() && held.is_none() {
                    held = Some((attempt, cents));
                }
            } else {
                paid.ask(refund(attempt)).await.expect("never refused");
                held.take_if(|(charged, _)| *charged <= attempt);
            }
            let (charged, refunded) = paid.sums().await;
            assert_eq!(charged - refunded, held.map_or(0, |(_, cents)| cents), "seed {seed}, step {step}");
        }
    }
}
