//! Forms: which messages may travel as bincode, and whether two ends mean the same by one.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_reflection::{ContainerFormat, Format, FormatHolder, Registry, Samples, Tracer, TracerConfig};
use sha2::{Digest, Sha256};

use super::Codec;
use crate::contract::{Contract, Message};
use crate::wire::WIRE_VERSION;

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
/// `flatten`, `tag` and `untagged` ask for self-describing input, a field with
/// `skip_serializing_if` may be missing, and a type that holds itself could nest without end.
pub(super) fn form_of<T: Serialize + DeserializeOwned + JsonSchema>() -> Option<String> {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    if *T::json_schema(&mut generator).as_value() == Value::Bool(false) {
        return Some("never".to_owned());
    }
    let schema = generator.into_root_schema_for::<T>();
    if !is_positional(schema.as_value()) {
        return None;
    }
    let (format, registry, samples) = trace::<T>()?;
    let sound = !holds_itself(&registry) && !claims_nothing(&registry, &format);
    // A second net, for types whose schema was written by hand.
    if !sound || !samples.iter().all(survives_the_round_trip) {
        return None;
    }
    serde_json::to_string(&(format, registry)).ok()
}

/// Whether every field of every object is always written, and none says which object it is: in the
/// schema of what is serialized, a field is not required exactly if it may be skipped, and a
/// constant one is a tag.
fn is_positional(schema: &Value) -> bool {
    match schema {
        Value::Array(parts) => parts.iter().all(is_positional),
        Value::Object(parts) => {
            let required: Vec<&Value> = parts.get("required").and_then(Value::as_array).into_iter().flatten().collect();
            let fields = parts.get("properties").and_then(Value::as_object).into_iter().flatten();
            let mut fields = fields.map(|(name, field)| {
                required.iter().any(|known| known.as_str() == Some(name)) && field.get("const").is_none()
            });
            fields.all(|always| always) && parts.values().all(is_positional)
        }
        _ => true,
    }
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

/// Whether some list or map has parts that take no bytes: a few bytes could then claim millions.
fn claims_nothing(registry: &Registry, whole: &Format) -> bool {
    let mut found = false;
    let mut look = |part: &Format| {
        found |= match part {
            Format::Seq(part) => takes_nothing(registry, part),
            Format::Map { key, value } => takes_nothing(registry, key) && takes_nothing(registry, value),
            _ => false,
        };
        Ok(())
    };
    let visited = whole.visit(&mut look).and_then(|()| registry.values().try_for_each(|part| part.visit(&mut look)));
    visited.is_err() || found
}

/// Types that hold themselves have been refused before: this ends.
fn takes_nothing(registry: &Registry, format: &Format) -> bool {
    match format {
        Format::Unit => true,
        Format::TypeName(name) => match registry.get(name) {
            Some(ContainerFormat::UnitStruct) => true,
            Some(ContainerFormat::NewTypeStruct(part)) => takes_nothing(registry, part),
            Some(ContainerFormat::TupleStruct(parts)) => parts.iter().all(|part| takes_nothing(registry, part)),
            Some(ContainerFormat::Struct(fields)) => fields.iter().all(|field| takes_nothing(registry, &field.value)),
            _ => false,
        },
        Format::Tuple(parts) => parts.iter().all(|part| takes_nothing(registry, part)),
        Format::TupleArray { content, size } => *size == 0 || takes_nothing(registry, content),
        _ => false,
    }
}
