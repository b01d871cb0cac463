//! What an app keeps on the broker: its bucket of claims and its journals.

use std::collections::BTreeSet;
use std::time::SystemTime;

use greenroom::transport::Transport;
use greenroom::{Error, ErrorKind};
use serde_json::{Value, json};

use super::Patient;
use super::report::Finding;

const STREAM_NOT_FOUND: u64 = 10_059;

/// An app, as the broker knows it.
pub(super) struct App {
    /// With how many partitions it was born; `None` if it was not.
    pub(super) partitions: Option<u16>,
    /// The actor types that nodes host, or have hosted.
    pub(super) actors: BTreeSet<String>,
    /// The time on the broker's clock at a moment, and that moment on ours.
    pub(super) time: Option<(String, SystemTime)>,
    bucket: String,
    /// The name of the stream of wake-ups.
    reminders: String,
    /// Name and configuration of each stream; that of the bucket is the first.
    streams: Vec<(String, Value)>,
}

impl App {
    pub(super) async fn read(patient: &Patient) -> Result<Self, Error> {
        let bucket = patient.subjects.ownership_bucket();
        let reminders = patient.subjects.reminder_stream();
        let (actors, streams_found) = (BTreeSet::new(), Vec::new());
        let mut app = Self { partitions: None, actors, time: None, bucket, reminders, streams: streams_found };
        let stream = format!("KV_{}", app.bucket);
        if app.take_in(patient, &stream).await?.is_some() {
            app.read_records(patient).await?;
        }
        let prefix = patient.subjects.journal_stream("");
        let relays = format!("KV_{}", patient.subjects.relay_bucket());
        let others = [
            patient.subjects.command_stream(),
            patient.subjects.dead_stream(),
            patient.subjects.reminder_stream(),
            relays,
        ];
        for name in streams(patient).await?.iter().filter(|name| name.starts_with(&prefix) || others.contains(name)) {
            app.take_in(patient, name).await?;
        }
        Ok(app)
    }

    /// Reads a stream's configuration, if it is there.
    async fn take_in(&mut self, patient: &Patient, stream: &str) -> Result<Option<()>, Error> {
        let before = SystemTime::now();
        let Some(mut info) = info(patient, stream, &json!({})).await? else { return Ok(None) };
        if let Some(time) = info["ts"].as_str() {
            let half = before.elapsed().unwrap_or_default() / 2;
            self.time = Some((time.to_owned(), before + half));
        }
        self.streams.push((stream.to_owned(), info["config"].take()));
        Ok(Some(()))
    }

    async fn read_records(&mut self, patient: &Patient) -> Result<(), Error> {
        // It is there: this does not make one.
        let bucket = patient.transport.bucket(&self.bucket).await?;
        let json = async |key: &str| -> Result<Value, Error> {
            let record = bucket.get(key).await?.and_then(|record| record.value.ok());
            Ok(record.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default())
        };
        self.partitions = json("meta").await?["partitions"].as_u64().and_then(|number| number.try_into().ok());
        for key in keys(patient, &self.bucket, "member.>").await? {
            let member = json(&key).await?;
            self.actors.extend(member["hosts"].as_object().into_iter().flat_map(|hosts| hosts.keys().cloned()));
        }
        for key in keys(patient, &self.bucket, "part.*.0").await? {
            self.actors.extend(key.split('.').nth(1).map(str::to_owned));
        }
        Ok(())
    }

    /// What is to be said of its streams.
    pub(super) fn findings(&self) -> Vec<Finding> {
        if self.streams.is_empty() {
            let why = format!("there is no bucket {} and no journal: no node of this app has run here", self.bucket);
            return vec![Finding::ok("streams", why)];
        }
        let mut findings = vec![self.replicas(), self.direct(), self.storage()];
        findings.extend(self.reminders());
        findings
    }

    /// Whether the stream of wake-ups, if there is one, can wake anybody.
    fn reminders(&self) -> Option<Finding> {
        let (name, config) = self.streams.iter().find(|(name, _)| *name == self.reminders)?;
        let able = config["allow_msg_schedules"] == json!(true) && config["retention"] == json!("workqueue");
        if able {
            return Some(Finding::ok("reminders", format!("{name} publishes what is due, and forgets what is done")));
        }
        Some(Finding::fail(
            "reminders",
            format!("{name} is no work queue with scheduled messages"),
            "turns that arm a reminder fail, or reminders fire only when their actor is in memory for another reason",
            format!(
                "somebody made it by hand: stop the nodes, `nats stream rm {name}`, and start them; what is armed is in the \
                 journals, and fires when its actor is asked something"
            ),
        ))
    }

    /// The streams of which this holds.
    fn which(&self, holds: impl Fn(&Value) -> bool) -> Vec<&str> {
        self.streams.iter().filter(|(_, config)| holds(config)).map(|(name, _)| name.as_str()).collect()
    }

    fn replicas(&self) -> Finding {
        let single = self.which(|config| config["num_replicas"].as_u64().unwrap_or(1) < 2);
        if single.is_empty() {
            return Finding::ok("replicas", format!("{} streams, each on several servers", self.streams.len()));
        }
        Finding::warn(
            "replicas",
            format!("one replica: {}", single.join(", ")),
            "whoever loses that one disk loses all of it: every journal there (orders, money), and with the bucket every \
             claim; and while that server is down nothing of it can be read or written",
            format!(
                "on three servers or more: {}; and `Connect::replicas(3)` for what nodes make from then on",
                single
                    .iter()
                    .map(|name| format!("`nats stream edit {name} --replicas 3`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )
    }

    fn direct(&self) -> Finding {
        let direct = self.which(|config| config["allow_direct"] == json!(true));
        if direct.is_empty() {
            return Finding::ok("direct reads", "off: whoever reads, reads at the leader");
        }
        Finding::warn(
            "direct reads",
            format!("on: {}", direct.join(", ")),
            "a follower answers too, and may not know yet what was acknowledged. Nodes read at the leader all the same; \
             `nats kv get` and other programs may see what was true before",
            direct
                .iter()
                .map(|name| format!("`nats stream edit {name} --no-allow-direct`"))
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    fn storage(&self) -> Finding {
        let memory = self.which(|config| config["storage"] != json!("file"));
        if memory.is_empty() {
            return Finding::ok("storage", "every stream is kept in files");
        }
        Finding::fail(
            "storage",
            format!("in memory: {}", memory.join(", ")),
            "a restart of the server loses it: acknowledged events of a journal, every claim of the bucket",
            "storage cannot be changed: stop the nodes, `nats stream backup`, remove the stream, restore it with storage \
             `file`; an empty one may simply be removed, and nodes make it anew",
        )
    }
}

/// The app's streams could not be looked at.
pub(super) fn unread(why: &str) -> Finding {
    Finding::fail(
        "streams",
        format!("they cannot be read: {why}"),
        "nodes cannot read them either: they do not start, and durable actors do not answer",
        "see whether the streams have a leader (`nats stream report`), and what this user may do",
    )
}

async fn info(patient: &Patient, stream: &str, body: &Value) -> Result<Option<Value>, Error> {
    let info = patient.jetstream(&format!("STREAM.INFO.{stream}"), body).await?;
    match info.get("error") {
        None => Ok(Some(info)),
        Some(error) if error["err_code"] == STREAM_NOT_FOUND => Ok(None),
        Some(error) => Err(said(error)),
    }
}

/// The names of all streams of the account.
async fn streams(patient: &Patient) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    loop {
        let page = patient.jetstream("STREAM.NAMES", &json!({ "offset": names.len() })).await?;
        if let Some(error) = page.get("error") {
            return Err(said(error));
        }
        let before = names.len();
        let listed = page["streams"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.extend(listed.map(str::to_owned));
        if names.len() == before || names.len() as u64 >= page["total"].as_u64().unwrap_or_default() {
            return Ok(names);
        }
    }
}

/// The keys of a bucket that match; of very many, the first.
async fn keys(patient: &Patient, bucket: &str, filter: &str) -> Result<Vec<String>, Error> {
    let prefix = format!("$KV.{bucket}.");
    let wanted = json!({ "subjects_filter": format!("{prefix}{filter}") });
    let info = info(patient, &format!("KV_{bucket}"), &wanted).await?.unwrap_or_default();
    let subjects = info["state"]["subjects"].as_object().into_iter().flat_map(|subjects| subjects.keys());
    Ok(subjects.filter_map(|subject| subject.strip_prefix(&prefix)).map(str::to_owned).collect())
}

fn said(error: &Value) -> Error {
    let text = error["description"].as_str().unwrap_or("JetStream answers with an error that says nothing");
    Error::new(ErrorKind::Unavailable, text)
}
