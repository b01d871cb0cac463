//! Codecs: JSON for everyone, bincode between nodes whose message has the same form.
//!
//! bincode is positional: two ends that disagree about a type's fields would exchange values
//! silently. So it is used only when both ends show the same [`Fingerprint`], and never for types
//! whose serde attributes make their form depend on their value.

mod form;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::form::Fingerprint;
use crate::error::{Error, ErrorKind};

/// The largest value that is encoded or decoded, in bytes: above every payload limit.
const LIMIT: usize = 64 * 1024 * 1024;

/// What a payload is given at first: most have enough of it.
const ROOM: usize = 128;

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Codec {
    Json,
    Bincode,
}

fn binary() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

impl Codec {
    pub(crate) fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, Error> {
        match self {
            Codec::Json => serde_json::to_vec(value).map_err(|error| unwritable(error.to_string())),
            Codec::Bincode => {
                let mut bytes = Vec::with_capacity(ROOM);
                bincode::serde::encode_into_std_write(value, &mut bytes, binary())
                    .map_err(|error| unwritable(error.to_string()))
                    .map(|_| bytes)
            }
        }
        .map(Bytes::from)
    }

    /// Reads a value; the whole input must be used.
    pub(crate) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        match self {
            Codec::Json => from_json(body),
            Codec::Bincode => {
                let (value, used) =
                    bincode::serde::decode_from_slice(body, binary()).map_err(|error| error.to_string())?;
                if used == body.len() { Ok(value) } else { Err(format!("{} bytes are left over", body.len() - used)) }
            }
        }
    }
}

fn unwritable(why: String) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the message cannot be written: {why}"))
}

/// Reads JSON; an empty body stands for `null`, and where that does not fit for `{}`, so that
/// `nats req shop.order.1.get ''` needs no body.
fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return serde_json::from_str("null")
            .or_else(|_| serde_json::from_str("{}"))
            .map_err(|error| format!("the body is empty: {error}"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Reads JSON that a person wrote: a field that nobody knows is a mistake, not a newer version.
pub(crate) fn from_person<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return from_json(body);
    }
    let mut unknown = BTreeSet::new();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_ignored::deserialize(&mut reader, |path| {
        if unknown.len() < 8 {
            unknown.insert(path.to_string());
        }
    })
    .map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    if unknown.is_empty() {
        return Ok(value);
    }
    let names: Vec<_> = unknown.iter().map(|name| format!("`{name}`")).collect();
    Err(format!("unknown field {}", names.join(", ")))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "codec_input_tests.rs"]
mod input_tests;
