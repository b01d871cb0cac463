//! What both transports refuse before they send anything.

use std::time::Duration;

use super::{ConsumerConfig, Headers, Outbound, Retention, Start, StreamConfig};
use crate::error::{Error, ErrorKind};

/// A bucket's name: `[A-Za-z0-9_-]+`.
pub(super) fn bucket_name(name: &str) -> Result<(), Error> {
    named("bucket", name)
}

/// The name of a bucket, a stream or a consumer: `[A-Za-z0-9_-]+`.
pub(super) fn named(what: &str, name: &str) -> Result<(), Error> {
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if sound {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("{name:?} is not a {what}'s name: write letters, digits, '-' and '_'")))
}

/// A stream that can be.
pub(super) fn stream(name: &str, config: &StreamConfig) -> Result<(), Error> {
    named("stream", name)?;
    if config.subjects.is_empty() {
        return Err(Error::new(ErrorKind::Config, format!("the stream {name} has no subjects: name at least one")));
    }
    Ok(())
}

/// A stream that can be followed.
pub(super) fn followed(name: &str, config: &StreamConfig) -> Result<(), Error> {
    if config.retention == Retention::WorkQueue {
        let message = format!("the stream {name} is a work queue, which cannot be followed: take a consumer");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

/// A consumer that can be.
pub(super) fn consumer(name: &str, stream: &StreamConfig, config: &ConsumerConfig) -> Result<(), Error> {
    named("consumer", name)?;
    if stream.retention == Retention::WorkQueue && !matches!(config.start, Start::At(0 | 1)) {
        let message = format!("the consumer {name} of a work queue can only begin with the stream's first record");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

/// A record that the stream takes.
pub(super) fn append(stream: &str, config: &StreamConfig, append: &Outbound, max_payload: usize) -> Result<(), Error> {
    if !config.takes(&append.subject) {
        let message = format!("{} is no subject of the stream {stream}", append.subject);
        return Err(Error::new(ErrorKind::BadRequest, message));
    }
    message(append, max_payload)
}

/// A key of a bucket: `[A-Za-z0-9_=.-]+`, no empty token.
pub(super) fn key(key: &str) -> Result<(), Error> {
    let sound = key.split('.').all(|token| !token.is_empty())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'.'));
    if sound {
        return Ok(());
    }
    let message = format!("{key:?} is not a key of a bucket: write [A-Za-z0-9_=.-]+, and no dot at either end");
    Err(Error::new(ErrorKind::BadRequest, message))
}

/// A time to live in whole seconds, rounded up.
pub(super) fn ttl(ttl: Duration) -> Result<u64, Error> {
    if ttl < Duration::from_secs(1) {
        let message = format!("a record's time to live is {ttl:?}; one second is the least");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}

/// Header names that can be read back, and a size that the broker takes.
pub(super) fn message(message: &Outbound, max_payload: usize) -> Result<(), Error> {
    let size = message.body.len() + wire_size(&message.headers);
    if size > max_payload {
        let message = format!("the message has {size} bytes with its headers; the broker takes {max_payload} at most");
        return Err(Error::new(ErrorKind::PayloadTooLarge, message));
    }
    for (name, _) in message.headers.iter() {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            let message = format!("{name:?} is not a header's name: write printable ASCII without ':' and spaces");
            return Err(Error::new(ErrorKind::BadRequest, message));
        }
    }
    Ok(())
}

/// How many bytes headers take on the wire.
fn wire_size(headers: &Headers) -> usize {
    if headers.is_empty() {
        return 0;
    }
    let lines: usize = headers.iter().map(|(name, value)| name.len() + ": ".len() + value.len() + "\r\n".len()).sum();
    "NATS/1.0\r\n".len() + lines + "\r\n".len()
}
