//! Codecs: JSON for everyone, bincode between nodes whose message has the same form.
//!
//! bincode is positional: two ends that disagree about a type's fields would exchange values
//! silently. So it is used only when both ends show the same [`Fingerprint`], and never for types
//! whose serde attributes make their form depend on their value.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_reflection::{ContainerFormat, Format, FormatHolder, Registry, Samples, Tracer, TracerConfig};
use sha2::{Digest, Sha256};

use crate::contract::{Contract, Message};
use crate::error::{Error, ErrorKind};
use crate::wire::WIRE_VERSION;

/// The largest value that is encoded or decoded, in bytes: above every payload limit.
const LIMIT: usize = 64 * 1024 * 1024;

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
                bincode::serde::encode_to_vec(value, binary()).map_err(|error| unwritable(error.to_string()))
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

/// Tells whether two ends agree about a message, its reply and its refusal, down to the order of
/// their fields.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Fingerprint {
    /// The fingerprint of a message; `None` if it must not travel as bincode.
    pub(crate) fn of<M: Message>() -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update([WIRE_VERSION]);
        for text in [M::Contract::NAME, M::VERB, M::Contract::VERSION] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        for form in [form_of::<M>()?, form_of::<M::Reply>()?, form_of::<M::Refusal>()?] {
            hash.update(form.as_bytes());
            hash.update([0]);
        }
        let schemas = (schemars::schema_for!(M), schemars::schema_for!(M::Reply), schemars::schema_for!(M::Refusal));
        hash.update(serde_json::to_vec(&schemas).ok()?);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Some(Self(bytes))
    }
}

/// The positional form of a type, as text: every struct's fields and every enum's variants in
/// their order, found by watching how the type deserializes. `None` if the type is not positional:
/// `flatten`, `tag` and `untagged` ask for self-describing input, `skip_serializing_if` does not
/// survive the round trip of a sample, and a type that holds itself could nest without end.
fn form_of<T: Serialize + DeserializeOwned>() -> Option<String> {
    if std::mem::size_of::<T>() == 0 && serde_json::from_str::<T>("null").is_err() && is_uninhabited::<T>() {
        return Some("never".to_owned());
    }
    let (format, registry, samples) = trace::<T>()?;
    if holds_itself(&registry) || !samples.iter().all(survives_the_round_trip) {
        return None;
    }
    serde_json::to_string(&(format, registry)).ok()
}

/// Passes over one type before its tracing is given up: each finds a variant of every enum in it.
const PASSES: usize = 1_024;

fn trace<T: DeserializeOwned>() -> Option<(Format, Registry, Vec<T>)> {
    let samples = Samples::new();
    // The tracer wants to be told of each enum that still has variants to show, by name; the names
    // come from its complaint about those it was not asked for.
    let mut enums: Vec<String> = Vec::new();
    loop {
        let mut tracer = Tracer::new(TracerConfig::default().is_human_readable(false));
        let mut values = Vec::new();
        let mut format = None;
        for _ in 0..PASSES {
            let (found, value) = tracer.trace_type_once::<T>(&samples).ok()?;
            values.push(value);
            format = Some(found);
            let incomplete = enums.iter().filter(|name| tracer.check_incomplete_enum(name).is_some()).count();
            if incomplete == 0 {
                break;
            }
        }
        match tracer.registry() {
            Ok(registry) => return Some((format?, registry, values)),
            Err(serde_reflection::Error::MissingVariants(more)) => {
                let known = enums.len();
                enums.extend(more.into_iter().filter(|name| !enums.contains(name)).collect::<Vec<_>>());
                if enums.len() == known {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

/// An enum without variants has no sample; tracing it fails in a way of its own.
fn is_uninhabited<T: DeserializeOwned>() -> bool {
    serde_json::from_str::<T>("\"\"").is_err()
        && serde_json::from_str::<T>("{}").is_err()
        && serde_json::from_str::<T>("[]").is_err()
}

fn survives_the_round_trip<T: Serialize + DeserializeOwned>(sample: &T) -> bool {
    let Ok(bytes) = Codec::Bincode.encode(sample) else { return false };
    let Ok(again) = Codec::Bincode.decode::<T>(&bytes) else { return false };
    Codec::Bincode.encode(&again).is_ok_and(|same| same == bytes)
}

fn holds_itself(registry: &Registry) -> bool {
    fn names(format: &ContainerFormat) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let visited = format.visit(&mut |part: &Format| {
            if let Format::TypeName(name) = part {
                names.insert(name.clone());
            }
            Ok(())
        });
        if visited.is_err() {
            names.clear();
        }
        names
    }
    registry.keys().any(|start| {
        let mut seen = BTreeSet::new();
        let mut todo = vec![start.clone()];
        while let Some(name) = todo.pop() {
            let Some(format) = registry.get(&name) else { continue };
            for next in names(format) {
                if next == *start {
                    return true;
                }
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        false
    })
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "codec_input_tests.rs"]
mod input_tests;
