//! What a tool for operators asks of a broker, beyond what a node needs: who it is, what JetStream says, what a user
//! may do.

use bytes::Bytes;

use super::calls::CallError;
use super::link::to_wire;
use super::{NatsTransport, ROUND_TRIP};
use crate::error::Error;
use crate::subject::Subject;
use crate::transport::Headers;

/// The oldest server that is tested.
pub const SERVER_FLOOR: (u32, u32, u32) = (2, 14, 9);

/// A stream that exists nowhere: a message that expects it is stored by none.
const NO_STREAM: &str = "greenroom-no-such-stream";

/// What a server says of itself when a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its id, another at each of its starts.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version, as it writes it.
    pub version: String,
    /// The cluster that it is in, if it is in one.
    pub cluster: Option<String>,
    /// The number of this connection.
    pub client: u64,
}

impl ServerFacts {
    /// The three numbers of its version; `None` if it is written in another way.
    pub fn numbers(&self) -> Option<(u32, u32, u32)> {
        let plain = self.version.split(['-', '+']).next()?;
        let mut parts = plain.trim_start_matches('v').split('.').map(str::parse);
        let numbers = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        parts.next().is_none().then_some(numbers)
    }

    /// Whether it is older than [`SERVER_FLOOR`]. A version that cannot be read is taken for new enough.
    pub fn is_below_floor(&self) -> bool {
        self.numbers().is_some_and(|numbers| numbers < SERVER_FLOOR)
    }
}

impl NatsTransport {
    /// The server that this is connected to.
    ///
    /// # Errors
    /// `Unavailable` while disconnected.
    pub fn server(&self) -> Result<ServerFacts, Error> {
        let info = self.shared.live()?.link.client()?.server_info();
        Ok(ServerFacts {
            id: info.server_id,
            name: info.server_name,
            version: info.version,
            cluster: info.cluster.filter(|name| !name.is_empty()),
            client: info.client_id,
        })
    }

    /// JetStream's own subject for this request, such as `STREAM.INFO.orders`, with the prefix of the settings.
    ///
    /// # Errors
    /// `BadRequest` if it is not part of a subject.
    pub fn jetstream_subject(&self, request: &str) -> Result<Subject, Error> {
        Subject::parse(&format!("{}.{request}", self.shared.settings.api_prefix))
    }

    /// A request, and the first answer to it.
    ///
    /// # Errors
    /// `Unavailable` if nobody answers within two seconds or this user may not publish there.
    pub async fn request(&self, subject: &Subject, body: impl Into<Bytes>) -> Result<Bytes, Error> {
        let live = self.shared.live()?;
        let answer = live.link.call(subject.as_str(), None, body.into(), ROUND_TRIP).await;
        answer.map(|answer| answer.payload).map_err(CallError::into_error)
    }

    /// Publishes, and says whether the broker let it: whoever listens there gets the message, and no stream keeps it.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not answer.
    pub async fn may_publish(&self, subject: &Subject, body: impl Into<Bytes>) -> Result<bool, Error> {
        let mut headers = Headers::new();
        headers.push("Nats-Expected-Stream", NO_STREAM);
        let live = self.shared.live()?;
        live.link.may_publish(subject.as_str(), to_wire(&headers)?, body.into(), ROUND_TRIP).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let below = |version: &str| {
            let (id, name) = (String::new(), String::new());
            ServerFacts { id, name, version: version.to_owned(), cluster: None, client: 1 }.is_below_floor()
        };
        for old in ["2.14.8", "2.9.20", "v2.14.0", "1.99.99", "2.14.8-RC.1"] {
            assert!(below(old), "{old}");
        }
        for sound in ["2.14.9", "2.14.10", "2.15.0", "3.0.0", "2.14.9+build", "unknown"] {
            assert!(!below(sound), "{sound}");
        }
    }
}
