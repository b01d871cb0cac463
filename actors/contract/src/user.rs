//! Users: who may order. The key is the user's id.

use greenroom::prelude::*;

/// A user of the shop.
#[contract(name = "user", messages(Register, Get), event = UserEvent)]
pub struct User;

/// Makes the user known. The same data again is answered as the first time; other data is refused.
#[message(User, ask, reply = UserView, refusal = RegisterRefused)]
#[derive(PartialEq, Eq)]
pub struct Register {
    /// What to call them.
    pub name: String,
    /// Where to write to them.
    pub email: String,
}

/// Why a user was not registered.
#[refusal]
#[derive(thiserror::Error, PartialEq, Eq)]
pub enum RegisterRefused {
    /// The id belongs to a user with another name or address.
    #[error("the user {id} is registered already, with another name or address")]
    AlreadyRegistered {
        /// The user's id.
        id: String,
    },
    /// The address is none.
    #[error("{email:?} is not an email address such as ada@example.org")]
    #[code(422)]
    BadEmail {
        /// What was given.
        email: String,
    },
    /// The name is empty or too long.
    #[error("a name has 1 to {max} bytes")]
    #[code(422)]
    BadName {
        /// The longest name, in bytes.
        max: u32,
    },
}

/// Shows the user.
#[message(User, read, reply = UserView, refusal = NoSuchUser)]
pub struct Get {}

/// Nobody is registered under this id.
#[refusal(code = 404)]
#[derive(thiserror::Error, PartialEq, Eq)]
#[error("there is no user {id}")]
pub struct NoSuchUser {
    /// The id that was asked for.
    pub id: String,
}

/// A user as others see them.
#[data]
#[derive(PartialEq, Eq)]
pub struct UserView {
    /// The user's id.
    pub id: String,
    /// What to call them.
    pub name: String,
    /// Where to write to them.
    pub email: String,
}

/// What happens to a user.
#[event(User)]
pub enum UserEvent {
    /// The user became known.
    Registered {
        /// What to call them.
        name: String,
        /// Where to write to them.
        email: String,
    },
}
