//! The thread that drives the socket, and nothing else.
//!
//! It runs one connection after another, each in a runtime of its own: when a connection is lost
//! its runtime is dropped, and with it every task and every unsent message of the client library.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use futures_util::StreamExt;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ROUND_TRIP;
use super::calls::unavailable;
use super::connect::{Connect, Credentials, config};
use super::link::Link;
use super::shared::{Live, Shared};
use crate::error::{Error, ErrorKind};

/// Three unanswered pings in a row are a lost connection: a dead network is noticed in 15 s.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The state is looked at this often, should the event that announces a loss get lost itself.
const CHECK_EVERY: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// One attempt to connect, TLS and authentication included.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Tells the one who connects how it went, once.
type First = oneshot::Sender<Result<(), Error>>;

/// Runs until the transport is closed, or gives up at once if the first connection fails.
pub(super) fn run(shared: &Arc<Shared>, first: First) {
    let mut first = Some(first);
    let mut known = shared.settings.servers.clone();
    let mut pause = Duration::ZERO;
    while !shared.stop.is_cancelled() {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot make a runtime for the connection");
                let error =
                    Error::new(ErrorKind::Internal, "cannot make a runtime for the connection").with_source(error);
                if let Some(first) = first.take() {
                    first.send(Err(error)).ok();
                    break;
                }
                std::thread::sleep(BACK_OFF_MAX);
                continue;
            }
        };
        let outcome = runtime.block_on(async {
            tokio::select! {
                () = shared.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            session(shared, &mut known, &mut first).await
        });
        shared.disconnected();
        runtime.shutdown_background();
        pause = match outcome {
            // The connection had been up: its successor is tried at once.
            Ok(()) => Duration::ZERO,
            Err(error) => {
                if let Some(first) = first.take() {
                    first.send(Err(error)).ok();
                    break;
                }
                tracing::debug!(connection = shared.settings.name, %error, "still not connected");
                (pause * 2).clamp(Duration::from_millis(10), BACK_OFF_MAX)
            }
        };
    }
    shared.closed();
}

/// One connection, from its handshake to its loss.
async fn session(shared: &Arc<Shared>, known: &mut Vec<String>, first: &mut Option<First>) -> Result<(), Error> {
    let (epoch, slots, follows) = shared.begin();
    let link = Arc::new(Link::new(epoch, &shared.settings.name, &shared.settings.inbox_prefix));
    let client = if first.is_some() {
        first_client(&shared.settings, known, &link).await?
    } else {
        client(&shared.settings, known, &link).await.map_err(|failure| failure.0)?
    };
    let info = client.server_info();
    for url in info.connect_urls.iter().map(|host| format!("nats://{host}")) {
        if !known.contains(&url) {
            known.push(url);
        }
    }
    let mut answers = link.subscribe(&link.calls.filter(), None).await?;
    tokio::spawn({
        let link = link.clone();
        async move {
            while let Some(message) = answers.next().await {
                link.calls.answer(message);
            }
        }
    });
    for slot in slots {
        let subscriber = link.subscribe(&slot.filter, slot.queue.as_deref()).await?;
        link.watch_losses(&subscriber, &slot);
        slot.offer(link.clone(), subscriber);
    }
    // From here on the subscriptions are known to the broker.
    if let Err(error) = link.round_trip(ROUND_TRIP).await {
        let inbox = link.calls.filter();
        return Err(if link.was_refused(&inbox) {
            unavailable(format!("the broker does not let this user subscribe to {inbox}: see its permissions"))
        } else {
            error
        });
    }
    let live = Live { link: link.clone(), runtime: Handle::current(), max_payload: info.max_payload };
    tokio::spawn({
        let link = link.clone();
        async move { link.outlets.run(&link, info.max_payload).await }
    });
    for follow in follows {
        tokio::spawn(follow.run(live.clone(), shared.clone()));
    }
    tracing::info!(connection = shared.settings.name, server = info.server_id, client = info.client_id, "connected");
    shared.connected(live, info.server_id, info.client_id);
    if let Some(first) = first.take() {
        first.send(Ok(())).ok();
    }
    until_lost(shared, &link, &client).await;
    shared.disconnected();
    link.lost.cancel();
    link.calls.fail();
    Ok(())
}

async fn until_lost(shared: &Shared, link: &Link, client: &Client) {
    let mut check = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            () = link.lost.cancelled() => {
                tracing::warn!(connection = shared.settings.name, "the connection to the broker was lost");
                return;
            }
            () = shared.stop.cancelled() => return,
            _ = check.tick() => {
                if client.connection_state() != async_nats::connection::State::Connected {
                    link.lost.cancel();
                }
            }
        }
    }
}

/// An attempt that failed, and whether another one may succeed.
struct Failure(Error, bool);

/// Tries until the settings' time is over, so that an app and its broker can start together.
async fn first_client(settings: &Connect, known: &[String], link: &Arc<Link>) -> Result<Client, Error> {
    let end = Instant::now() + settings.timeout;
    let mut pause = Duration::from_millis(20);
    loop {
        let attempt = tokio::time::timeout_at(end, client(settings, known, link)).await;
        let error = match attempt {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(Failure(error, false))) => return Err(error),
            Ok(Err(Failure(error, true))) => error,
            Err(_) => unavailable(cannot(settings, "the broker did not complete the handshake in time")),
        };
        if Instant::now() + pause >= end {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

/// One attempt at each known server.
async fn client(settings: &Connect, known: &[String], link: &Arc<Link>) -> Result<Client, Failure> {
    let servers: Vec<async_nats::ServerAddr> = known.iter().filter_map(|url| url.parse().ok()).collect();
    let options = options(settings, link).await.map_err(|error| Failure(error, false))?;
    match options.connect(servers).await {
        Ok(client) => {
            link.established(client.clone());
            Ok(client)
        }
        Err(error) => {
            let refused =
                matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication);
            let text = if refused {
                format!(
                    "the broker at {} refuses these credentials ({error}): check NATS_CREDS, NATS_NKEY, \
                     NATS_USER and NATS_PASSWORD, NATS_TOKEN or the context",
                    settings.servers_text()
                )
            } else {
                cannot(settings, &error.to_string())
            };
            Err(Failure(unavailable(text), !refused))
        }
    }
}

fn cannot(settings: &Connect, why: &str) -> String {
    format!(
        "cannot connect to NATS at {}: {why}; is a broker running there? Start one with `nats-server -js`, \
         or name yours in NATS_URL or NATS_CONTEXT",
        settings.servers_text()
    )
}

async fn options(settings: &Connect, link: &Arc<Link>) -> Result<ConnectOptions, Error> {
    let (reporter, brake) = (link.clone(), link.clone());
    let mut options = ConnectOptions::new()
        .name(&settings.name)
        .connection_timeout(settings.timeout.min(ATTEMPT_MAX))
        .ping_interval(PING_EVERY)
        .client_capacity(settings.queue)
        .subscription_capacity(settings.backlog)
        // Subjects are checked before they get here.
        .skip_subject_validation(true)
        // Never a second connection: the next one is a client of its own.
        .reconnect_delay_callback(
            move |_| {
                if brake.is_established() { Duration::from_secs(86_400) } else { Duration::ZERO }
            },
        )
        .event_callback(move |event| {
            reporter.event(event);
            std::future::ready(())
        });
    let read = |what: &str, path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| config(format!("cannot read {what} {}: {error}", path.display())))
    };
    options = match &settings.credentials {
        Credentials::None => options,
        Credentials::CredsFile(path) => options
            .credentials(&read("the credentials file", path)?)
            .map_err(|error| config(format!("{} is not a credentials file: {error}", path.display())))?,
        Credentials::NkeyFile(path) => {
            let text = read("the NKey file", path)?;
            let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
            options.nkey(
                seed.ok_or_else(|| {
                    config(format!("{} holds no user seed: a line that begins with SU is expected", path.display()))
                })?
                .to_owned(),
            )
        }
        Credentials::User { name, password } => options.user_and_password(name.clone(), password.clone()),
        Credentials::Token(token) => options.token(token.clone()),
    };
    if let Some(path) = &settings.tls.authority {
        options = options.add_root_certificates(path.clone());
    }
    match (&settings.tls.certificate, &settings.tls.key) {
        (Some(certificate), Some(key)) => options = options.add_client_certificate(certificate.clone(), key.clone()),
        (None, None) => {}
        _ => return Err(config("a client certificate needs both files: NATS_CERT and NATS_KEY, or neither")),
    }
    if settings.tls.first {
        options = options.tls_first();
    }
    Ok(options)
}
