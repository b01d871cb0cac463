//! The server itself: version, JetStream, the disk, the size of messages.

use greenroom::transport::{SERVER_FLOOR, Transport};
use serde_json::{Value, json};

use super::Patient;
use super::monitor::Seen;
use super::report::Finding;

/// What a message of an app may hold unless its nodes are told otherwise, and what stands around that.
const PAYLOAD: usize = 512 * 1024;
const BESIDE_PAYLOAD: usize = 64 * 1024;
/// More than anybody means. `2m` without quotes is two million seconds to the server.
const INTERVAL_MAX: f64 = 3_600.0;
/// From this share of its limit on, a store is as good as full.
const NEARLY_FULL: f64 = 0.9;

/// The server's version, by what is known of it.
pub(super) fn version(patient: &Patient, seen: &Seen) -> Finding {
    let server = &patient.server;
    let (major, minor, patch) = SERVER_FLOOR;
    let place = server.cluster.as_ref().map_or_else(String::new, |name| format!(" of the cluster {name}"));
    let found = format!("nats-server {}, {}{place}", server.version, server.name);
    if server.is_below_floor() {
        return Finding::fail(
            "server",
            format!("{found}: older than {major}.{minor}.{patch}"),
            "greenroom is tested with nothing older: whether such a server keeps what it has acknowledged is not known",
            format!("run nats-server {major}.{minor}.{patch} or newer, on every server of the cluster"),
        );
    }
    let relaxed = matches!(server.numbers(), Some((2, 15, 0 | 1)));
    if relaxed && seen.always_syncs() == Some(true) {
        return Finding::warn(
            "server",
            format!("{found}, with sync_interval: always"),
            "in 2.15.0 and 2.15.1 `always` writes the log of a replicated stream through to the disk, and the stream \
             itself later: whether a power cut can lose what was acknowledged is not settled",
            "run 2.14.9, or 2.15.2 or newer",
        );
    }
    Finding::ok("server", found)
}

/// Whether JetStream is there for this user, and how much of it. `Err` if there is none to look at.
pub(super) async fn jetstream(patient: &Patient) -> Result<Finding, Finding> {
    let none = |why: &str| {
        Finding::fail(
            "jetstream",
            format!("JetStream does not answer: {why}"),
            "nodes do not start: claims, leases and journals are kept there",
            "write `jetstream { store_dir: \"/data/nats\" }` in the server's configuration, and `jetstream: enabled` in \
             this user's account",
        )
    };
    let info = patient.jetstream("INFO", &json!({})).await.map_err(|error| none(error.message()))?;
    if let Some(error) = info.get("error") {
        return Err(none(error["description"].as_str().unwrap_or("an error without description")));
    }
    let text = |used: &Value, limit: &Value| {
        let limit = limit.as_i64().unwrap_or(-1);
        let of = if limit < 0 { "no limit of the account".to_owned() } else { format!("at most {limit}") };
        format!("{}, {of}", used.as_u64().unwrap_or_default())
    };
    let limits = &info["limits"];
    let found = format!(
        "JetStream is enabled; bytes on disk {}; streams {}; consumers {}",
        text(&info["storage"], &limits["max_storage"]),
        text(&info["streams"], &limits["max_streams"]),
        text(&info["consumers"], &limits["max_consumers"])
    );
    let share = match (info["storage"].as_f64(), limits["max_storage"].as_f64()) {
        (Some(used), Some(limit)) if limit > 0.0 => used / limit,
        _ => 0.0,
    };
    Ok(if share > NEARLY_FULL {
        Finding::warn(
            "jetstream",
            found,
            "when the limit is reached every durable turn is refused",
            "raise max_file of the account, or shorten what streams keep",
        )
    } else {
        Finding::ok("jetstream", found)
    })
}

/// When what was acknowledged is on the disk.
pub(super) fn sync_interval(seen: &Seen) -> Finding {
    let (address, jetstream, other) = match seen {
        Seen::Nothing(why) => {
            return Finding::warn(
                "sync_interval",
                format!("it cannot be seen: {why}"),
                "whether a power cut loses what was acknowledged is not known",
                "name the server's monitoring port with --monitor http://host:8222 (`http: 127.0.0.1:8222` in its \
                 configuration opens one), or look for sync_interval in `curl http://host:8222/jsz`",
            );
        }
        Seen::Pages { address, jetstream, other, .. } => (address, jetstream, other),
    };
    let of = other.as_ref().map_or_else(String::new, |name| format!(", of the server {name}"));
    if !jetstream.is_object() {
        return Finding::warn(
            "sync_interval",
            format!("{address}{of} shows no settings of JetStream"),
            "whether a power cut loses what was acknowledged is not known",
            "name a server that runs JetStream with --monitor",
        );
    }
    if jetstream["sync_always"] == Value::Bool(true) {
        return Finding::ok("sync_interval", format!("always{of}: what is acknowledged is on the disk"));
    }
    let seconds = jetstream["sync_interval"].as_f64().unwrap_or(120e9) / 1e9;
    let always = "write `sync_interval: always` in the jetstream block of every server, and keep three replicas";
    if seconds > INTERVAL_MAX {
        let days = seconds / 86_400.0;
        return Finding::fail(
            "sync_interval",
            format!("{seconds:.0} s, which is {days:.1} days{of}: 2m without quotes is two million seconds"),
            "a power cut may lose everything acknowledged in that time",
            format!("{always}; or a time in quotes: `sync_interval: \"2m\"`"),
        );
    }
    Finding::warn(
        "sync_interval",
        format!("{seconds} s{of}"),
        format!(
            "a power cut or a crash of the machine loses up to {seconds} s of what was acknowledged (a crash of the \
             server alone loses nothing)"
        ),
        always,
    )
}

/// Whether the broker takes messages as large as the app's.
pub(super) fn payload(patient: &Patient) -> Finding {
    let limit = patient.transport.max_payload();
    if limit >= PAYLOAD + BESIDE_PAYLOAD {
        return Finding::ok("max_payload", format!("{limit} bytes; messages of an app hold {PAYLOAD} at most"));
    }
    let left = limit.saturating_sub(BESIDE_PAYLOAD).max(limit / 2);
    Finding::warn(
        "max_payload",
        format!("{limit} bytes, which leaves {left} for a message; an app's limit is {PAYLOAD}"),
        "larger calls, replies and events are refused with 413",
        "write `max_payload: 1MB` in the server's configuration, on every server",
    )
}
