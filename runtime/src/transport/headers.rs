//! Message headers, whatever the transport.

use std::borrow::Cow;

/// The headers of a message, in order. Names compare without case, as people write them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No headers; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a header. Line breaks and other control characters in the value become spaces, since
    /// they would end the header on the wire.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let mut value = value.into();
        let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !plain && value.chars().any(char::is_control) {
            value = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        }
        self.0.push((name.into(), value));
    }

    /// Puts a header in the place of every other of its name.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let name = name.into();
        self.remove(&name);
        self.push(name, value);
    }

    /// Takes every header of this name away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }
}
