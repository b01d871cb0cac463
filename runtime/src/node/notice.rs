//! What the broker says of connections that have ended, as far as it concerns the owning connections of nodes.
//!
//! The broker publishes these for each of its accounts; `nats.conf` passes an app's own on to `{app}.node.sys.disconnect`.
//! A broker that does not do so is silent, and leases decide alone.

use serde::Deserialize;

use crate::ownership::{Input, NodeId};

/// What the name of a node's owning connection ends with, after the node's id.
pub(super) const OWN: &str = "/own";
/// A server that shuts down has not lost its clients: they go to another, or come back.
const SHUTDOWN: &str = "Server Shutdown";

/// The part of `io.nats.server.advisory.v1.client_disconnect` that is read here.
#[derive(Deserialize)]
struct Notice {
    server: Server,
    client: Client,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Client {
    id: u64,
    #[serde(default)]
    name: String,
}

/// What the machine is told about a notice; `None` if it is about anything but a node's owning connection.
///
/// # Errors
/// If it is not the JSON that the broker writes.
pub(super) fn read(body: &[u8]) -> Result<Option<Input>, serde_json::Error> {
    let Notice { server, client, reason } = serde_json::from_slice(body)?;
    let node = client.name.strip_suffix(OWN).filter(|node| !node.is_empty() && reason != SHUTDOWN);
    Ok(node.map(|node| Input::ConnectionGone { node: NodeId::new(node), server: server.id, client: client.id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nats-server 2.15.1 writes it, less some counters.
    fn notice(name: &str, reason: &str) -> String {
        format!(
            r#"{{"type":"io.nats.server.advisory.v1.client_disconnect","id":"x","timestamp":"2026-01-01T00:00:00Z",
            "server":{{"name":"n","host":"127.0.0.1","id":"NSERVER","ver":"2.15.1","jetstream":true,"seq":7}},
            "client":{{"start":"2026-01-01T00:00:00Z","host":"127.0.0.1","id":12,"acc":"APP","user":"app",
            "name":"{name}","lang":"rust","ver":"0.51.0","rtt":77000,"stop":"2026-01-01T00:00:01Z","kind":"Client"}},
            "sent":{{"msgs":1,"bytes":2}},"received":{{"msgs":1,"bytes":2}},"reason":"{reason}"}}"#
        )
    }

    #[test]
    fn only_owning_connections_count() {
        let told = read(notice("web-1f/own", "Client Closed").as_bytes()).expect("readable");
        let gone = Input::ConnectionGone { node: "web-1f".into(), server: "NSERVER".into(), client: 12 };
        assert_eq!(told, Some(gone));
        for name in ["web-1f/lease", "NATS CLI Version 0.3.0", "/own", ""] {
            assert_eq!(read(notice(name, "Client Closed").as_bytes()).expect("readable"), None, "{name}");
        }
        assert_eq!(read(notice("web-1f/own", SHUTDOWN).as_bytes()).expect("readable"), None);
    }

    #[test]
    fn what_is_no_notice_is_an_error_and_no_panic() {
        for body in ["", "{}", "[]", r#"{"server":{"id":"S"},"client":{"id":-1}}"#, r#"{"server":7}"#] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
        let bare = r#"{"server":{"id":"S"},"client":{"id":1}}"#;
        assert_eq!(read(bare.as_bytes()).expect("readable"), None, "a client without a name");
    }
}
