//! From the bytes of a call to its message, and what is said if they are none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::WireCall;
use crate::codec::{Codec, from_person};
use crate::contract::{Contract, Message};
use crate::engine::cause_of;
use crate::error::{Error, ErrorKind};

/// Reads the message of a call. Who asks has other messages to take: an author's decoder must not end that.
pub(super) fn decode<M: Message>(call: &WireCall) -> Result<M, Error> {
    let read = catch_unwind(AssertUnwindSafe(|| match call.codec {
        Codec::Json if call.by_hand => from_person(&call.body),
        codec => codec.decode(&call.body),
    }));
    let read = read.map_err(|panic| undecoded::<M>(&cause_of(panic.as_ref())))?;
    read.map_err(|why| {
        let kind = if call.codec == Codec::Bincode { ErrorKind::CodecMismatch } else { ErrorKind::BadRequest };
        Error::new(kind, format!("{}.{} takes {}: {why}", M::Contract::NAME, M::VERB, expected_text::<M>()))
            .with_details(serde_json::json!({ "expected": schemars::schema_for!(M) }))
    })
}

fn undecoded<M: Message>(cause: &str) -> Error {
    let why = format!("the decoder of {}.{} panicked at this message: {cause}", M::Contract::NAME, M::VERB);
    tracing::error!(actor = M::Contract::NAME, verb = M::VERB, cause, "a message's decoder panicked");
    Error::new(ErrorKind::BadRequest, why)
}

/// The fields of a message in words, for error texts: `{user: string, lines: array, card: string}`.
fn expected_text<M: Message>() -> String {
    let schema = schemars::schema_for!(M);
    let Some(fields) = schema.get("properties").and_then(|fields| fields.as_object()) else {
        let plain = |kind: &str| schema.get("type").and_then(|named| named.as_str()) == Some(kind);
        let nothing = plain("null") || plain("object");
        return if nothing { "no fields: an empty body or {}" } else { "a message of another form" }.to_owned();
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(|names| names.as_array())
        .map(|names| names.iter().filter_map(|name| name.as_str()).collect())
        .unwrap_or_default();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, field)| {
            let optional = if required.contains(&name.as_str()) { "" } else { "?" };
            let kind = field.get("type").and_then(|kind| kind.as_str()).unwrap_or("value");
            format!("{name}{optional}: {kind}")
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}
