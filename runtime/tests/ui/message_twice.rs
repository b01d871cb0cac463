//! One message type for two verbs.

use greenroom::prelude::*;

#[contract(messages(Place))]
pub struct Order;

#[message(Order, ask)]
#[message(Order, tell, verb = "put")]
pub struct Place;

fn main() {}
