//! The event of another contract.

use greenroom::prelude::*;

#[contract(messages(Get), event = InvoiceEvent)]
pub struct Order;

#[message(Order, read, reply = u32)]
pub struct Get;

#[contract(messages(Pay), event = InvoiceEvent)]
pub struct Invoice;

#[message(Invoice, ask)]
pub struct Pay;

#[event(Invoice)]
pub enum InvoiceEvent {
    Paid,
}

fn main() {}
