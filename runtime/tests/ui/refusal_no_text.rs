//! A refusal that people cannot read.

use greenroom::prelude::*;

#[refusal]
pub enum PlaceRefused {
    NoSuchUser,
}

fn main() {}
