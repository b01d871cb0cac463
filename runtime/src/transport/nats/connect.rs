//! Where to connect and as whom: settings, the variables that the `nats` CLI honours, its contexts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::context::Context;
use crate::error::{Error, ErrorKind};

/// The broker that is meant when nothing else is said.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// How to reach the broker.
///
/// Everything has a default; what is set by a method here wins over what [`from_env`] found.
/// Secrets never appear in its `Debug` output, nor in an error's message.
///
/// [`from_env`]: Connect::from_env
#[derive(Clone)]
pub struct Connect {
    pub(super) servers: Vec<String>,
    pub(super) name: String,
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
    pub(super) inbox_prefix: String,
    pub(super) api_prefix: String,
    pub(super) timeout: Duration,
    pub(super) replicas: usize,
    pub(super) queue: usize,
    pub(super) backlog: usize,
}

/// As whom to connect. Files are read again at each connection, so a renewed one is picked up.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular: what the broker calls its `no_auth_user`, or the URL's user.
    #[default]
    None,
    /// A file with a JWT and its seed.
    CredsFile(PathBuf),
    /// A file with the seed of an NKey.
    NkeyFile(PathBuf),
    /// A name and a password.
    User {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
}

/// Files for TLS; a `tls://` URL or a broker that asks for it turns it on.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) authority: Option<PathBuf>,
    pub(super) first: bool,
}

impl Connect {
    /// These servers (several are separated by commas), and nothing from the environment.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not a list of NATS URLs.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut connect = Self {
            servers: Vec::new(),
            name: "greenroom".to_owned(),
            credentials: Credentials::None,
            tls: Tls::default(),
            inbox_prefix: "_INBOX".to_owned(),
            api_prefix: "$JS.API".to_owned(),
            timeout: Duration::from_secs(5),
            replicas: 1,
            queue: 2_048,
            backlog: 65_536,
        };
        connect.set_url(url, "the URL")?;
        Ok(connect)
    }

    /// What the variables say that the `nats` CLI honours: `NATS_CONTEXT` (or the context that was
    /// selected with `nats context select`), over it `NATS_URL`, `NATS_CREDS`, `NATS_NKEY`,
    /// `NATS_USER` and `NATS_PASSWORD` (a user alone is a token), `NATS_TOKEN`, `NATS_CERT`,
    /// `NATS_KEY`, `NATS_CA` and `NATS_TIMEOUT`. Contexts lie in `XDG_CONFIG_HOME` or
    /// `HOME/.config`. An empty variable counts as none.
    ///
    /// Pass `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the variable or file and what is wrong with it.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let var = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let mut connect = Self::new(DEFAULT_URL)?;
        if let Some(context) = Context::find(&var)? {
            context.apply(&mut connect)?;
        }
        if var("NATS_SOCKS_PROXY").is_some() {
            return Err(config("NATS_SOCKS_PROXY is set, and nodes do not connect through proxies; unset it"));
        }
        if let Some(url) = var("NATS_URL") {
            connect.set_url(&url, "NATS_URL")?;
        }
        let path = |name: &str| var(name).map(|path| super::context::expand(&path, &var));
        match (var("NATS_USER"), var("NATS_PASSWORD"), var("NATS_TOKEN")) {
            (Some(name), Some(password), _) => connect.credentials = Credentials::User { name, password },
            (None, Some(_), _) => {
                return Err(config("NATS_PASSWORD is set, but NATS_USER is not: set both, or neither"));
            }
            (_, None, Some(token)) | (Some(token), None, None) => connect.credentials = Credentials::Token(token),
            (None, None, None) => {
                if let Some(file) = path("NATS_CREDS") {
                    connect.credentials = Credentials::CredsFile(file);
                } else if let Some(file) = path("NATS_NKEY") {
                    connect.credentials = Credentials::NkeyFile(file);
                }
            }
        }
        for (name, slot) in [
            ("NATS_CERT", &mut connect.tls.certificate),
            ("NATS_KEY", &mut connect.tls.key),
            ("NATS_CA", &mut connect.tls.authority),
        ] {
            if let Some(file) = path(name) {
                *slot = Some(file);
            }
        }
        if let Some(text) = var("NATS_TIMEOUT") {
            connect.timeout = parse_duration(&text).filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
                config(format!("NATS_TIMEOUT is {text:?}: write a duration such as 5s, 500ms or 1m30s"))
            })?;
        }
        Ok(connect)
    }

    /// These servers instead; several are separated by commas.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not a list of NATS URLs.
    pub fn url(mut self, url: &str) -> Result<Self, Error> {
        self.set_url(url, "the URL")?;
        Ok(self)
    }

    /// The name of the connection, as `nats server report connections` shows it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// As whom to connect.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Where inboxes lie, for users that may subscribe to their own only: `_INBOX` by default.
    /// Keep `_INBOX.` in front of it, as nodes answer to no other subject.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// How long the first connection may take: five seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many servers keep each bucket that is created: one by default, three in production.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.clamp(1, 5);
        self
    }

    /// How many messages may wait to be written to the socket: 2,048 by default. One more is
    /// `Overloaded`.
    #[must_use]
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(16);
        self
    }

    /// How many messages may wait in each subscription: 65,536 by default. The client library
    /// has one bound for all subscriptions of a connection, so this is what counts, and the
    /// `capacity` of a single subscription only says how many that one needs at least.
    #[must_use]
    pub fn backlog(mut self, messages: usize) -> Self {
        self.backlog = messages.max(16);
        self
    }

    /// The servers, for messages to people.
    pub(super) fn servers_text(&self) -> String {
        self.servers.join(", ")
    }

    /// Takes a list of URLs apart; a user in one of them becomes the credentials, since the
    /// client library ignores it there.
    pub(super) fn set_url(&mut self, list: &str, source: &str) -> Result<(), Error> {
        let mut servers = Vec::new();
        for url in list.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
            let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
            let server = format!("{scheme}://{host}");
            if !matches!(scheme, "nats" | "tls") || server.parse::<async_nats::ServerAddr>().is_err() {
                // Not the URL as it stands: it may hold a password.
                return Err(config(format!("{source} names {server:?}: write nats://host:port or tls://host:port")));
            }
            if let Some(user) = user {
                // As everywhere in a URL: `p%40ss` is `p@ss`.
                let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
                self.credentials = match user.split_once(':') {
                    Some((name, password)) => Credentials::User { name: plain(name), password: plain(password) },
                    None => Credentials::Token(plain(user)),
                };
            }
            servers.push(server);
        }
        if servers.is_empty() {
            return Err(config(format!("{source} names no server: write nats://host:port")));
        }
        self.servers = servers;
        Ok(())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("servers", &self.servers)
            .field("name", &self.name)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::None => f.write_str("None"),
            Credentials::CredsFile(path) => f.debug_tuple("CredsFile").field(path).finish(),
            Credentials::NkeyFile(path) => f.debug_tuple("NkeyFile").field(path).finish(),
            Credentials::User { name, .. } => f.debug_struct("User").field("name", name).finish_non_exhaustive(),
            Credentials::Token(_) => f.write_str("Token(..)"),
        }
    }
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Reads a duration as Go writes it: `1m30s`, `500ms`, `1.5h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

impl TryFrom<&str> for Connect {
    type Error = Error;

    fn try_from(url: &str) -> Result<Self, Error> {
        Self::new(url)
    }
}

impl TryFrom<String> for Connect {
    type Error = Error;

    fn try_from(url: String) -> Result<Self, Error> {
        Self::new(&url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn variables_of_the_cli_are_read() {
        let connect = Connect::from_env(env(&[
            ("NATS_URL", "nats://a:4222, tls://b:4333"),
            ("NATS_USER", "u"),
            ("NATS_PASSWORD", "hunter2"),
            ("NATS_CA", "/etc/ca.pem"),
            ("NATS_TIMEOUT", "1m500ms"),
        ]))
        .expect("settings");
        assert_eq!(connect.servers, ["nats://a:4222", "tls://b:4333"]);
        assert_eq!(connect.credentials, Credentials::User { name: "u".into(), password: "hunter2".into() });
        assert_eq!(connect.timeout, Duration::from_millis(60_500));
        let shown = format!("{connect:?}");
        assert!(shown.contains("/etc/ca.pem") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_a_url_escapes_is_taken_as_it_is_meant() {
        let connect = Connect::new("nats://ada:p%40ss%3Aword@localhost:4222").expect("an address");
        let Credentials::User { name, password } = &connect.credentials else { panic!("{connect:?}") };
        assert_eq!((name.as_str(), password.as_str()), ("ada", "p@ss:word"));
    }

    #[test]
    fn a_user_in_the_url_becomes_credentials_and_is_not_shown() {
        let connect = Connect::new("nats://u:hunter2@a:4222").expect("settings");
        assert_eq!(connect.servers, ["nats://a:4222"]);
        assert_eq!(connect.credentials, Credentials::User { name: "u".into(), password: "hunter2".into() });
        let refused = Connect::new("http://u:hunter2@a").expect_err("not NATS").to_string();
        assert!(refused.contains("http://a") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (vars, part) in [
            (&[("NATS_PASSWORD", "x")] as &'static [_], "NATS_USER"),
            (&[("NATS_TIMEOUT", "soon")], "5s"),
            (&[("NATS_TIMEOUT", "5")], "5s"),
            (&[("NATS_URL", " , ")], "NATS_URL"),
            (&[("NATS_SOCKS_PROXY", "socks5://localhost:1080")], "NATS_SOCKS_PROXY"),
        ] {
            let refused = Connect::from_env(env(vars)).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::Config);
            assert!(refused.message().contains(part), "{refused}");
        }
    }
}
