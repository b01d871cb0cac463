//! The orders of the shop.
//!
//! It owns what was ordered and how the order stands. Goods and money are not its own: placing an
//! order asks [inventory](shop_contract::inventory) and [payment](shop_contract::payment) by
//! address, line by line, and undoes what it did, last first, when one of them says no or cannot
//! be asked. It asks only services that ask nobody, so orders never wait for each other.
//!
//! Before the first step that others would see, the attempt is committed as begun. So whatever
//! cuts a turn, the order knows that it may hold something. If the same message comes again, it
//! goes on with that attempt, and asks under the ids that it asked under before; any other `place`
//! or `cancel` begins by giving everything back.

mod order;

mod state;

mod lines;

mod attempt;

mod insist;

pub use order::OrderActor;

#[cfg(test)]
mod tests;
