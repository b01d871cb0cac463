//! Discovery: `$SRV` answers for `nats micro`, and what a node says of itself and the others.
//!
//! The client library's own service module is not used: requests reach owners on mapped subjects,
//! so it would see none of them and count nothing. Its public response types are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::service::{Info, PingResponse, Stats, endpoint, error};
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;

use super::always::{self, AlwaysOn};
use super::hosted::Hosted;
use super::surroundings::Surroundings;
use crate::key::Key;
use crate::ownership::HostInfo;
use crate::routes::Verb;
use crate::subject::Subject;
use crate::transport::{Inbound, Outbound};
use crate::wire::reply_headers;

/// Answers `$SRV.{PING|INFO|STATS}[.{name}[.{id}]]`.
pub(super) struct Discovery {
    around: Arc<Surroundings>,
    started: OffsetDateTime,
}

impl Discovery {
    pub(super) fn new(around: Arc<Surroundings>) -> Self {
        Self { around, started: OffsetDateTime::now_utc() }
    }

    /// Answers one message on `$SRV.>`; says nothing to what is not meant for this node.
    pub(super) fn answer(&self, message: &Inbound) {
        let mut tokens = message.subject.split('.').skip(1);
        let Some(what) = tokens.next() else { return };
        let (name, id) = (tokens.next(), tokens.next());
        if id.is_some_and(|id| id != self.around.id) {
            return;
        }
        for hosted in self.around.all_hosted().values() {
            if name.is_some_and(|name| name != self.around.subjects.announced(hosted.name)) {
                continue;
            }
            match what {
                "PING" => self.reply(message, &self.ping(hosted)),
                "INFO" => self.reply(message, &self.info(hosted)),
                "STATS" => self.reply(message, &self.stats(hosted)),
                _ => return,
            }
        }
    }

    fn reply(&self, message: &Inbound, answer: &impl Serialize) {
        let reply = message.reply.as_deref().filter(|reply| self.around.subjects.may_reply_to(reply));
        let (Some(Ok(reply)), Ok(body)) = (reply.map(Subject::parse), serde_json::to_vec(answer)) else { return };
        if let Err(error) = self.around.transport.publish(Outbound::new(reply, body).with_headers(reply_headers())) {
            tracing::debug!(%error, "a discovery answer was not sent");
        }
    }

    fn ping(&self, hosted: &Hosted) -> PingResponse {
        PingResponse {
            kind: "io.nats.micro.v1.ping_response".to_owned(),
            name: self.around.subjects.announced(hosted.name),
            id: self.around.id.clone(),
            version: hosted.version.to_owned(),
            metadata: self.metadata(hosted),
        }
    }

    fn info(&self, hosted: &Hosted) -> Info {
        Info {
            kind: "io.nats.micro.v1.info_response".to_owned(),
            name: self.around.subjects.announced(hosted.name),
            id: self.around.id.clone(),
            description: hosted.description.to_owned(),
            version: hosted.version.to_owned(),
            metadata: self.metadata(hosted),
            endpoints: hosted.verbs.iter().map(|verb| self.endpoint(hosted, verb)).collect(),
        }
    }

    fn stats(&self, hosted: &Hosted) -> Stats {
        Stats {
            kind: "io.nats.micro.v1.stats_response".to_owned(),
            name: self.around.subjects.announced(hosted.name),
            id: self.around.id.clone(),
            version: hosted.version.to_owned(),
            started: self.started,
            endpoints: hosted.verbs.iter().map(|verb| self.counts(hosted, verb)).collect(),
        }
    }

    fn metadata(&self, hosted: &Hosted) -> HashMap<String, String> {
        let kind = if hosted.keyed { "keyed" } else { "service" };
        let entries = [
            ("greenroom.kind", kind.to_owned()),
            ("greenroom.node", self.around.id.clone()),
            ("greenroom.contract", hosted.contract_version.to_owned()),
        ];
        let mut metadata: HashMap<String, String> =
            entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let standing = always::all(&self.around).into_iter().filter(|one| one.actor == hosted.name);
        let named = |one: AlwaysOn| {
            let token = Key::new(&one.key).map(|key| key.token()).unwrap_or_default();
            format!("{token}@{}", one.node.as_deref().unwrap_or("-"))
        };
        let standing: Vec<String> = standing.map(named).collect();
        if !standing.is_empty() {
            metadata.insert("greenroom.always_on".to_owned(), standing.join(","));
        }
        metadata
    }

    fn endpoint(&self, hosted: &Hosted, verb: &Verb) -> endpoint::Info {
        let contract = &verb.contract;
        let mode = serde_json::to_value(contract.mode)
            .ok()
            .and_then(|mode| mode.as_str().map(str::to_owned))
            .unwrap_or_default();
        let schemas = [("request", &contract.request), ("reply", &contract.reply), ("refusal", &contract.refusal)];
        let mut metadata: HashMap<String, String> =
            schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema.as_value().to_string())).collect();
        metadata.insert("mode".to_owned(), mode);
        endpoint::Info {
            name: contract.verb.to_owned(),
            subject: self.public_subject(hosted, contract.verb),
            queue_group: queue_group(hosted),
            metadata,
        }
    }

    fn counts(&self, hosted: &Hosted, verb: &Verb) -> endpoint::Stats {
        let stats = &verb.stats;
        let spent = stats.processing_ns.load(Ordering::Relaxed);
        let timed = stats.timed.load(Ordering::Relaxed);
        endpoint::Stats {
            name: verb.contract.verb.to_owned(),
            subject: self.public_subject(hosted, verb.contract.verb),
            requests: as_usize(stats.requests.load(Ordering::Relaxed)),
            errors: as_usize(stats.errors.load(Ordering::Relaxed)),
            processing_time: Duration::from_nanos(spent),
            average_processing_time: Duration::from_nanos(spent.checked_div(timed).unwrap_or(0)),
            last_error: error_of(&stats.last_error()),
            data: Some(serde_json::json!({ "local": stats.local.load(Ordering::Relaxed) })),
            queue_group: queue_group(hosted),
        }
    }

    fn public_subject(&self, hosted: &Hosted, verb: &str) -> String {
        let app = self.around.subjects.app();
        if hosted.keyed { format!("{app}.{}.*.{verb}", hosted.name) } else { format!("{app}.{}.{verb}", hosted.name) }
    }
}

fn queue_group(hosted: &Hosted) -> String {
    if hosted.keyed { super::partition::OWNERS.to_owned() } else { hosted.name.to_owned() }
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn error_of(text: &str) -> Option<error::Error> {
    let (code, status) = text.split_once(':')?;
    Some(error::Error { code: code.parse().unwrap_or(0), status: status.to_owned() })
}

/// What a node knows: itself, the others, and who owns what. The answer to
/// `nats req {app}.node.any.info ''`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClusterInfo {
    /// The app.
    pub app: String,
    /// The node that answers.
    pub node: String,
    /// Partitions of each actor type.
    pub partitions: u16,
    /// Every node that is known, this one among them.
    pub nodes: Vec<NodeInfo>,
    /// By actor, node and epoch: the partitions it owns.
    pub claims: Vec<ClaimInfo>,
    /// Actors in memory on the node that answers, by type.
    pub resident: HashMap<String, usize>,
    /// Actors that the node that answers keeps from running: `actor/key` and the cause.
    pub quarantined: HashMap<String, String>,
    /// The actors that are kept active, and where each lives.
    pub always_on: Vec<AlwaysOn>,
    /// Bytes that they take there, by estimate, of the types that have a memory budget.
    pub memory: HashMap<String, usize>,
    /// How many actors of the node that answers are watched.
    pub watched: usize,
}

/// One node of an app.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    /// Whether its lease is live.
    pub live: bool,
    /// Whether it is leaving.
    pub draining: bool,
    /// The keyed actors it hosts, with the version of each.
    pub hosts: BTreeMap<String, String>,
    /// The services it runs, with the version of each.
    pub services: BTreeMap<String, String>,
}

/// The partitions of one actor type that a node owns.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClaimInfo {
    /// The actor type.
    pub actor: String,
    /// The owner's id.
    pub node: String,
    /// The partitions.
    pub partitions: Vec<u16>,
}

fn versions(hosts: &BTreeMap<String, HostInfo>) -> BTreeMap<String, String> {
    hosts.iter().map(|(name, host)| (name.clone(), host.version.clone())).collect()
}

impl ClusterInfo {
    pub(super) fn of(around: &Surroundings) -> Self {
        let view = around.cluster.view();
        let nodes = view
            .members()
            .map(|member| NodeInfo {
                id: member.id.as_str().to_owned(),
                live: view.is_live(&member.id),
                draining: member.draining,
                hosts: versions(&member.hosts),
                services: versions(&member.services),
            })
            .collect();
        let mut owned: BTreeMap<(String, String), Vec<u16>> = BTreeMap::new();
        for (part, claim) in view.owners() {
            owned.entry((part.actor.to_string(), claim.as_str().to_owned())).or_default().push(part.number);
        }
        let claims =
            owned.into_iter().map(|((actor, node), partitions)| ClaimInfo { actor, node, partitions }).collect();
        let hosted = around.all_hosted();
        let keyed = || hosted.values().filter(|hosted| hosted.keyed);
        Self {
            app: around.subjects.app().to_string(),
            node: around.id.clone(),
            partitions: around.settings.partitions,
            nodes,
            claims,
            resident: keyed().map(|hosted| (hosted.name.to_owned(), hosted.control.resident())).collect(),
            quarantined: keyed()
                .flat_map(|hosted| {
                    hosted
                        .control
                        .quarantined()
                        .into_iter()
                        .map(|(key, cause)| (format!("{}/{key}", hosted.name), cause))
                })
                .collect(),
            always_on: always::all(around),
            memory: keyed().filter_map(|one| Some((one.name.to_owned(), one.control.held()?))).collect(),
            watched: around.watched.len(),
        }
    }

    pub(super) fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
    }
}
