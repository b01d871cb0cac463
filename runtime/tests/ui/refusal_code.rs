//! A code for failures.

use greenroom::prelude::*;

#[refusal]
#[derive(thiserror::Error)]
pub enum PlaceRefused {
    #[error("no such user")]
    #[code(500)]
    NoSuchUser,
}

fn main() {}
