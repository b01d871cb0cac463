//! JSON by hand, for what is written with every command: by way of serde's maps it takes several times as long.
//!
//! Each function writes what stands before a value, as it is, and then the value.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::call::TurnId;

/// What may go wrong. Nothing can with numbers, texts and what is JSON already, written to memory.
pub(super) type Written = Result<(), serde_json::Error>;

/// The digits of ids.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A number, a text, or whatever else serde can write.
pub(super) fn value<T: Serialize + ?Sized>(to: &mut Vec<u8>, before: &str, value: &T) -> Written {
    to.extend_from_slice(before.as_bytes());
    serde_json::to_writer(to, value)
}

/// What is JSON already.
pub(super) fn raw(to: &mut Vec<u8>, before: &str, value: &RawValue) {
    parts(to, before, [value.get().as_bytes()]);
}

/// The same, in parts.
pub(super) fn parts<const N: usize>(to: &mut Vec<u8>, before: &str, parts: [&[u8]; N]) {
    to.extend_from_slice(before.as_bytes());
    parts.iter().for_each(|part| to.extend_from_slice(part));
}

/// An id, as people see it elsewhere.
pub(super) fn id(to: &mut Vec<u8>, before: &str, id: TurnId) {
    to.extend_from_slice(before.as_bytes());
    let mut text = [b'"'; 34];
    for (pair, byte) in text[1..33].chunks_exact_mut(2).zip(id.0.to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    to.extend_from_slice(&text);
}

/// A list, each of whose items `one` writes.
pub(super) fn list<T>(
    to: &mut Vec<u8>,
    before: &str,
    items: impl IntoIterator<Item = T>,
    one: impl Fn(&mut Vec<u8>, T) -> Written,
) -> Written {
    to.extend_from_slice(before.as_bytes());
    let mut comma = b'[';
    for item in items {
        to.push(comma);
        one(to, item)?;
        comma = b',';
    }
    if comma == b'[' {
        to.push(b'[');
    }
    to.push(b']');
    Ok(())
}
