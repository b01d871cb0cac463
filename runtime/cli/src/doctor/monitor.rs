//! The server's monitoring port: plain HTTP, and all that is asked of it is two pages.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the monitoring port of a server on this machine is, by custom.
const CUSTOM: &str = "http://127.0.0.1:8222";
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A page is some kilobytes.
const PAGE_MAX: u64 = 4 << 20;

/// Where a monitoring port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    authority: String,
    /// What stands before `/varz`, for a server with an `http_base_path`.
    base: String,
}

impl Address {
    /// Reads `http://host:port`, perhaps with a path behind it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let shape = || format!("{text:?} is no monitoring address: write http://host:port (https is not spoken here)");
        let rest = text.strip_prefix("http://").ok_or_else(shape)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = authority.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let sound = port.is_some() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@');
        let base = path.trim_end_matches('/');
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        if sound { Ok(Self { authority: authority.to_owned(), base }) } else { Err(shape()) }
    }

    async fn page(&self, name: &str) -> Result<Value, String> {
        let look = async {
            let mut stream = TcpStream::connect(&self.authority).await.map_err(|error| error.to_string())?;
            // HTTP/1.0, so that the end of the page is the end of the connection.
            let request = format!("GET {}/{name} HTTP/1.0\r\nHost: {}\r\n\r\n", self.base, self.authority);
            stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let mut answer = Vec::new();
            stream.take(PAGE_MAX).read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
            read(&answer)
        };
        let within = tokio::time::timeout(PATIENCE, look).await;
        within.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base)
    }
}

fn read(answer: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("what answers there does not speak HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        return Err(format!("it answers {status:?}"));
    }
    serde_json::from_str(body).map_err(|_| "what answers there is no NATS server".to_owned())
}

/// What the monitoring port shows.
#[derive(Debug)]
pub(super) enum Seen {
    /// Its settings for JetStream.
    Pages {
        /// Where they were read.
        address: String,
        /// `config` of `/jsz`, or of JetStream in `/varz`; null without JetStream.
        jetstream: Value,
        /// The server's time when `/varz` was asked for, and the local one.
        now: Option<(String, std::time::SystemTime)>,
        /// The name of the server, if it is not the one that the connection is to.
        other: Option<String>,
    },
    /// Why there is nothing to see.
    Nothing(String),
}

impl Seen {
    /// Whether each write waits for the disk, if that can be seen.
    pub(super) fn always_syncs(&self) -> Option<bool> {
        match self {
            Seen::Pages { jetstream, .. } if jetstream.is_object() => {
                Some(jetstream["sync_always"] == Value::Bool(true))
            }
            _ => None,
        }
    }
}

/// Reads the pages at `address`, or where they are by custom. Whoever has named an address means it, though it be
/// another member of the cluster.
pub(super) async fn look(address: Option<&Address>, server: &str) -> Seen {
    let is_named = address.is_some();
    let address = match address.cloned().map_or_else(|| Address::parse(CUSTOM), Ok) {
        Ok(address) => address,
        Err(why) => return Seen::Nothing(why),
    };
    let before = std::time::SystemTime::now();
    let varz = match address.page("varz").await {
        Ok(page) if page["server_id"].is_string() => page,
        Ok(_) => return Seen::Nothing(format!("{address}: what answers there is no NATS server")),
        Err(why) => return Seen::Nothing(format!("{address}: {why}")),
    };
    let is_other = varz["server_id"] != server;
    if is_other && !is_named {
        return Seen::Nothing(format!("{address} belongs to another server"));
    }
    let config = address.page("jsz").await.map(|mut page| page["config"].take()).unwrap_or_default();
    let jetstream = if config.is_object() { config } else { varz["jetstream"]["config"].clone() };
    Seen::Pages {
        address: address.to_string(),
        jetstream,
        now: varz["now"].as_str().map(|now| (now.to_owned(), before)),
        other: is_other.then(|| varz["server_name"].as_str().unwrap_or("without a name").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_with_a_port() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(shown("http://127.0.0.1:8222").as_deref(), Ok("http://127.0.0.1:8222"));
        assert_eq!(shown("http://broker:8222/nats/").as_deref(), Ok("http://broker:8222/nats"));
        for text in
            ["", "broker:8222", "https://broker:8222", "http://broker", "http://:8222", "http://a b:1", "http://u@a:1"]
        {
            let why = Address::parse(text).expect_err(text);
            assert!(why.contains("http://host:port"), "{why}");
        }
    }

    #[test]
    fn what_is_no_page_is_said_to_be_none() {
        assert!(read(b"SSH-2.0").expect_err("no HTTP").contains("HTTP"));
        assert!(read(b"HTTP/1.0 404 Not Found\r\n\r\n").expect_err("no page").contains("404"));
        assert!(read(b"HTTP/1.0 200 OK\r\n\r\n<html>").expect_err("no JSON").contains("no NATS server"));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\n{}"), Ok(serde_json::json!({})));
    }
}
