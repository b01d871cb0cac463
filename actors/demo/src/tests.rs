use clap::Parser;
use greenroom::Node;
use greenroom::transport::MemoryBroker;
use shop_contract::inventory::{Inventory, Reserve, Restock, Ship};
use shop_contract::order::{Line, PlaceRefused};
use shop_contract::payment::{ChargeRefused, Payment, Refund};
use shop_inventory::InventoryActor;
use shop_notification::NotificationActor;
use shop_order::OrderActor;
use shop_payment::PaymentActor;
use shop_user::UserActor;

use crate::audit::{Before, audit};
use crate::data::{Data, OrderRow, ProductRow, UserRow};
use crate::journals::Entry;
use crate::place::{Placing, place, reason};
use crate::proof::{Journals, Proof};
use crate::{Args, setup, split, visit};

async fn shop() -> Node {
    let node = Node::local("shop").host::<OrderActor>().host::<UserActor>();
    let node = node.host::<InventoryActor>().host::<PaymentActor>().start().await;
    node.expect("a local node starts")
}

fn order(id: u32, user: &str, qty: u32, card: &str) -> OrderRow {
    let lines = vec![Line { sku: "tea-01".into(), qty }];
    OrderRow { id: format!("o-{id}"), user: user.into(), lines, card: card.into() }
}

fn data() -> Data {
    let users = vec![UserRow { id: "u-1".into(), name: "Ada".into(), email: "ada@example.org".into() }];
    let products = vec![ProductRow { sku: "tea-01".into(), name: "Sencha".into(), price_cents: 350, stock: 100 }];
    let mut orders: Vec<OrderRow> = (0..30).map(|n| order(n, "u-1", 3, "tok_ok")).collect();
    orders.push(order(30, "u-1", 3, "tok_declined"));
    orders.push(order(31, "u-2", 3, "tok_ok"));
    orders.push(order(32, "u-1", 1000, "tok_ok"));
    Data { users, products, orders }
}

fn args() -> Args {
    Args::parse_from(["shop-demo", "--cli-sample", "0"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_visit_adds_up_and_so_does_the_next() {
    let node = shop().await;
    let data = data();
    for sold in [90, 0] {
        let report = visit(&node, &data, None, &args()).await.expect("the shop is there");
        assert!(report.is_fine(), "{report}");
        let figures = report.figures();
        assert_eq!((figures.orders, figures.confirmed, figures.failed), (33, 30, 0), "{report}");
        let refused: Vec<_> = figures.refused.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        assert_eq!(refused, [("card_declined", 1), ("out_of_stock", 1), ("unknown_user", 1)]);
        assert_eq!(figures.net_cents, 90 * 350);
        assert!(report.to_string().contains(&format!("1 products, {sold} sold")), "{report}");
    }
}

/// Runs the demo up to the audit, lets somebody meddle, and returns what the audit finds.
async fn meddled(meddle: impl AsyncFnOnce(&Node)) -> [usize; 3] {
    let node = shop().await;
    let data = data();
    let before = Before::look(&node, &data, 8).await.expect("looked");
    setup::register(&node, &data.users, 8).await.expect("registered");
    setup::restock(&node, &data.products, 8).await.expect("restocked");
    let mut placings: Vec<Placing<'_>> = Vec::new();
    for order in &data.orders {
        placings.push(place(&node, order, setup::PATIENCE).await);
    }
    meddle(&node).await;
    let audit = audit(&node, &data, &before, placings.iter(), 8).await.expect("audited");
    [audit.stock.count, audit.money.count, audit.answers.count]
}

#[tokio::test]
async fn the_audit_finds_what_does_not_add_up() {
    assert_eq!(meddled(async |_| {}).await, [0, 0, 0]);
    let refund = async |node: &Node| {
        node.actor::<Payment>("o-7").ask(Refund { attempt: None }).await.expect("refunded");
    };
    assert_eq!(meddled(refund).await, [0, 1, 0]);
    let reserve = async |node: &Node| {
        let reserve = Reserve { order: "o-99".into(), qty: 2, attempt: 1 };
        node.actor::<Inventory>("tea-01").ask(reserve).await.expect("reserved");
    };
    assert_eq!(meddled(reserve).await, [1, 0, 0]);
    let steal = async |node: &Node| {
        let product = node.actor::<Inventory>("tea-01");
        product.ask(Reserve { order: "o-99".into(), qty: 2, attempt: 1 }).await.expect("reserved");
        product.ask(Ship { order: "o-99".into(), attempt: 1 }).await.expect("shipped");
    };
    assert_eq!(meddled(steal).await, [1, 0, 0]);
    let restock = async |node: &Node| {
        let restock = Restock { qty: 1, price_cents: None, name: None };
        node.actor::<Inventory>("tea-01").ask(restock).await.expect("restocked");
    };
    assert_eq!(meddled(restock).await, [1, 0, 0]);
    let cancel = async |node: &Node| {
        let cancel = shop_contract::order::Cancel {};
        node.actor::<shop_contract::order::Order>("o-3").ask(cancel).await.expect("cancelled");
    };
    assert_eq!(meddled(cancel).await, [0, 0, 1]);
}

/// Leaves one entry out after the other, and each time gives the first complaint. If `closed`, the gap is not left to
/// be seen: those after it are numbered as if nothing had been there.
fn without_each<E>(journals: &mut Journals, of: fn(&mut Journals) -> &mut Vec<Entry<E>>, closed: bool) {
    for at in 0..of(journals).len() {
        if of(journals)[at].events.is_empty() {
            // It remembers how a command ended, and proves nothing about goods and money.
            continue;
        }
        let gone = of(journals).remove(at);
        let shift = if closed { gone.events.len() as u64 } else { 0 };
        let after = |entry: &&mut Entry<E>| entry.token == gone.token && entry.first > gone.first;
        of(journals).iter_mut().filter(after).for_each(|entry| entry.first -= shift);
        let proof = Proof::of(journals);
        assert!(!proof.adds_up, "without record {at}, event {} of {}: {proof}", gone.first, gone.token);
        let after = |entry: &&mut Entry<E>| entry.token == gone.token && entry.first >= gone.first;
        of(journals).iter_mut().filter(after).for_each(|entry| entry.first += shift);
        of(journals).insert(at, gone);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_the_streams_prove_it_and_lack_no_record_unnoticed() {
    let broker = MemoryBroker::new();
    let node = Node::builder("shop").memory(&broker).host::<OrderActor>().host::<UserActor>();
    let node = node.host::<InventoryActor>().host::<PaymentActor>().host::<NotificationActor>();
    let node = node.start().await.expect("a node starts");
    let report = visit(&node, &data(), None, &args()).await.expect("the shop is there");
    assert!(report.is_fine(), "{report}");
    let outside = broker.transport("audit");
    let mut journals = Journals::read(&outside, "shop").await.expect("they can be read");
    for _ in 0..500 {
        if Proof::of(&journals).notices_missing == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        journals = Journals::read(&outside, "shop").await.expect("they can be read");
    }
    let proof = Proof::of(&journals);
    assert!(proof.adds_up, "{proof}");
    // Confirmed and shipped, or refused.
    assert_eq!(proof.notices, 2 * 30 + 2);
    let Proof { confirmed, refused, stuck, charged_cents, refunded_cents, restocked, sold, .. } = proof;
    assert_eq!((confirmed, refused, stuck), (30, 2, 0));
    assert_eq!((charged_cents - refunded_cents, restocked, sold), (90 * 350, 100, 90));
    for closed in [false, true] {
        without_each(&mut journals, |journals| &mut journals.orders, closed);
        without_each(&mut journals, |journals| &mut journals.payments, closed);
        without_each(&mut journals, |journals| &mut journals.products, closed);
        without_each(&mut journals, |journals| &mut journals.inboxes, closed);
    }
    assert!(Proof::of(&journals).adds_up, "all are there again");
}

#[test]
fn a_sample_is_spread_evenly() {
    let orders: Vec<OrderRow> = (0..100).map(|n| order(n, "u-1", 1, "tok_ok")).collect();
    for sample in [0, 1, 3, 20, 100, 1000] {
        let (picked, rest) = split(&orders, sample);
        assert_eq!((picked.len(), rest.len()), (sample.min(100), 100 - sample.min(100)));
    }
    let picked: Vec<_> = split(&orders, 4).0.iter().map(|order| order.id.as_str()).collect();
    assert_eq!(picked, ["o-24", "o-49", "o-74", "o-99"]);
}

#[test]
fn refusals_are_counted_under_their_names() {
    for (refused, name) in [
        (PlaceRefused::EmptyOrder, "empty_order"),
        (PlaceRefused::OutOfStock { sku: "tea-01".into(), short: 1 }, "out_of_stock"),
        (PlaceRefused::CardRefused { reason: ChargeRefused::CardDeclined }, "card_declined"),
        (PlaceRefused::CardRefused { reason: ChargeRefused::AlreadyCharged { cents: 1 } }, "already_charged"),
    ] {
        assert_eq!(reason(&refused), name);
    }
}
