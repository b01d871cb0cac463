//! Keys: which actor of its type. Any UTF-8 text of 1 to 128 bytes, one subject token each.

mod fnv;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::fnv::fnv1a32;
use self::fnv::{FNV_START, fnv_step};
use crate::error::{Error, ErrorKind};

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 128;

/// Names one actor of its type: any UTF-8 text of 1 to 128 bytes.
///
/// On the wire a key is one subject token: bytes outside `[A-Za-z0-9_-]` are written `=XX` with
/// upper-case hex digits, and nothing else is escaped, so every key has exactly one token and
/// every token at most one key.
///
/// ```
/// use greenroom::Key;
///
/// let key = Key::new("table 7.b")?;
/// assert_eq!(key.token(), "table=207=2Eb");
/// assert_eq!(Key::from_token("table=207=2Eb")?, key);
/// assert!(Key::from_token("table=207=2eb").is_err()); // lower-case hex is not canonical
/// # Ok::<(), greenroom::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks and takes a key.
    ///
    /// # Errors
    /// [`ErrorKind::BadKey`] if it is empty or longer than [`KEY_BYTES_MAX`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(Error::new(ErrorKind::BadKey, "the key is empty; a key is 1 to 128 bytes of UTF-8"));
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::BadKey,
                format!("the key has {} bytes; a key is 1 to {KEY_BYTES_MAX} bytes of UTF-8", text.len()),
            ));
        }
        Ok(Self(text.into()))
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one subject token that stands for this key.
    pub fn token(&self) -> String {
        let mut token = String::with_capacity(self.0.len() + 8);
        for byte in self.0.bytes() {
            if is_plain(byte) {
                token.push(byte as char);
            } else {
                token.push('=');
                token.push(HEX[usize::from(byte >> 4)] as char);
                token.push(HEX[usize::from(byte & 15)] as char);
            }
        }
        token
    }

    /// FNV-1a (32 bits) of the token: what the broker's `partition` mapping computes.
    pub(crate) fn token_hash(&self) -> u32 {
        self.0.bytes().fold(FNV_START, |hash, byte| {
            if is_plain(byte) {
                fnv_step(hash, byte)
            } else {
                let digits = [b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                digits.into_iter().fold(hash, fnv_step)
            }
        })
    }

    /// Reads a token back.
    ///
    /// # Errors
    /// [`ErrorKind::BadKey`] if the token is not the canonical form of a key; the message names
    /// the canonical one where there is one. A token that is not canonical hashes to another
    /// partition than its key, so it must never be served.
    pub fn from_token(token: &str) -> Result<Self, Error> {
        let bytes = decode(token).map_err(|why| {
            Error::new(ErrorKind::BadKey, format!("the key token {token:?} is not well formed: {why}"))
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::new(ErrorKind::BadKey, format!("the key token {token:?} does not decode to UTF-8")))?;
        let key = Key::new(&text)?;
        let canonical = key.token();
        if canonical == token {
            return Ok(key);
        }
        Err(Error::new(ErrorKind::BadKey, format!("the key token {token:?} is not canonical; write {canonical:?}"))
            .with_details(serde_json::json!({ "canonical": canonical })))
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Decodes leniently (raw bytes and lower-case hex pass), so that the canonical form can be named.
fn decode(token: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err("'=' stands before two hex digits, as in =2E for a dot");
        };
        bytes.push((high * 16 + low) as u8);
    }
    Ok(bytes)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        Key::new(text)
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
