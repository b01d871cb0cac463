//! A tell with a reply.

use greenroom::prelude::*;

#[contract(messages(Note))]
pub struct Order;

#[message(Order, tell, reply = u32)]
pub struct Note;

fn main() {}
