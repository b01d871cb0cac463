//! What is written down about ownership: the keys of the bucket `{app}-own` and the JSON behind each of them.
//!
//! Owns the shapes and their parsing, both ways. It does not know which record may follow which: that is
//! [`machine`](super::machine). Unknown JSON fields are tolerated, so that a newer node can add some.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The version of these records; a node that finds another in [`Meta`] does not start.
pub(crate) const WIRE: u32 = 1;

/// Names one start of one node: `{name}-{nonce}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) struct NodeId(Arc<str>);

impl NodeId {
    /// Wraps an id. The caller sees to it that it is one or more valid key tokens.
    pub(crate) fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text that others may keep.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<&str> for NodeId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unit of ownership: one partition of one actor type. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    /// The actor type.
    pub(crate) actor: Arc<str>,
    /// The partition's number, below [`Meta::partitions`].
    pub(crate) number: u16,
}

impl Part {
    /// Names partition `number` of `actor`.
    pub(crate) fn new(actor: impl Into<Arc<str>>, number: u16) -> Self {
        Self { actor: actor.into(), number }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.actor, self.number)
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key of the bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// `meta`
    Meta,
    /// `member.{id}`
    Member(NodeId),
    /// `lease.{id}`
    Lease(NodeId),
    /// `beat.{id}`
    Beat(NodeId),
    /// `part.{actor}.{n}`
    Part(Part),
    /// `past.{name}`
    Past(Arc<str>),
}

impl Key {
    /// Reads a key as the bucket spells it; `None` for one that is not ours.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        if key == "meta" {
            return Some(Self::Meta);
        }
        match key.split_once('.')? {
            ("member", id) if !id.is_empty() => Some(Self::Member(id.into())),
            ("lease", id) if !id.is_empty() => Some(Self::Lease(id.into())),
            ("beat", id) if !id.is_empty() => Some(Self::Beat(id.into())),
            ("past", name) if !name.is_empty() => Some(Self::Past(name.into())),
            ("part", rest) => {
                let (actor, number) = rest.rsplit_once('.')?;
                let canonical: u16 = number.parse().ok().filter(|n: &u16| n.to_string() == number)?;
                (!actor.is_empty()).then(|| Self::Part(Part::new(actor, canonical)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Member(id) => write!(f, "member.{id}"),
            Self::Lease(id) => write!(f, "lease.{id}"),
            Self::Beat(id) => write!(f, "beat.{id}"),
            Self::Part(part) => write!(f, "part.{part}"),
            Self::Past(name) => write!(f, "past.{name}"),
        }
    }
}

/// What an app is born with; never changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// How many partitions each actor type has.
    pub(crate) partitions: u16,
    /// The version of the records, [`WIRE`].
    pub(crate) wire: u32,
    /// When the app was born, in seconds since 1970. Epochs of claims begin above it: an app whose records were lost
    /// must not fall below the epochs that stand in its journals, and no partition changes hands once a second.
    #[serde(default)]
    pub(crate) born: u64,
}

/// What a node says about one actor type that it hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostInfo {
    /// The version of the actor's implementation.
    pub(crate) version: String,
    /// Its share relative to the other hosts'; 0 attracts nothing while another host lives.
    pub(crate) weight: u32,
    /// Whether its actors remember the commands that took effect, so that one may be sent to them again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) durable: bool,
    /// The keys that this node wants to be always on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) always_on: Vec<String>,
}

/// A node that hosts something. It stays when the node is gone, until somebody tidies it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The node.
    pub(crate) id: NodeId,
    /// Its name, the same at every start.
    pub(crate) name: String,
    /// What it hosts.
    pub(crate) hosts: BTreeMap<String, HostInfo>,
    /// The services it runs, which nobody owns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) services: BTreeMap<String, HostInfo>,
    /// True once it hands everything over in order to leave.
    #[serde(default)]
    pub(crate) draining: bool,
    /// True while it attracts nothing, because nodes of its name have died again and again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) waiting: bool,
    /// Wall time of its start, for people.
    pub(crate) started_ms: u64,
}

impl Member {
    /// True if it neither leaves nor waits.
    pub(crate) fn is_ready(&self) -> bool {
        !self.draining && !self.waiting
    }
}

/// Who a node is, and the connection that it stands and falls with. Written by compare-and-set when that connection
/// changes; it stays until the node leaves, or somebody makes a tombstone of it. That the node lives is proved by its
/// heartbeat, `beat.{id}`: a record with a TTL, which only a few other nodes watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The nonce of this start.
    pub(crate) incarnation: String,
    /// The server that its owning connection is on.
    pub(crate) server: String,
    /// The number of that connection on that server.
    pub(crate) client: u64,
    /// Who made a tombstone of it, because that connection had ended or the heartbeat had stopped. A tombstone stays
    /// while a claim names the node, and whoever set it takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<NodeId>,
    /// Whether that was because the heartbeat had stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lapsed: bool,
}

/// Who owns a partition. Written by compare-and-set only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The holder; `None` once released.
    pub(crate) node: Option<NodeId>,
    /// Grows by one whenever the claim gets another holder, and stays at a release.
    pub(crate) epoch: u64,
    /// Tells two writes apart that are otherwise equal.
    pub(crate) nonce: String,
    /// A revision of the holder's lease at which it was alive when this was written. The claim stands until that lease
    /// is seen gone at a *later* revision, so knowledge of an older death cannot free a newer claim.
    #[serde(default)]
    pub(crate) lease: u64,
    /// The key tokens that had a running turn when the claim was handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) busy: Vec<String>,
    /// Who handed it over; `None` if it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<NodeId>,
    /// Where the busy keys' turns run, if not at the one who handed it over: whoever takes a partition from an heir that
    /// is gone, or writes its claim anew, waits for those turns as the heir did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy_at: Option<NodeId>,
}

impl Claim {
    /// A claim that waits for no turn elsewhere, and was handed over by nobody.
    pub(crate) fn new(node: Option<NodeId>, epoch: u64, nonce: String, lease: u64) -> Self {
        Self { node, epoch, nonce, lease, busy: Vec::new(), from: None, busy_at: None }
    }

    /// Where turns of busy keys run, whichever field says so; `None` if there are none.
    pub(crate) fn turns_run_at(&self) -> Option<&NodeId> {
        self.busy_at.as_ref().or(self.from.as_ref()).filter(|_| !self.busy.is_empty())
    }
}

/// How nodes of one name have fared. Written with a TTL, so that a quiet while makes it forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// How many have died, without a quiet while in between.
    pub(crate) deaths: u32,
}

/// A key with its value, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `meta`
    Meta(Meta),
    /// `member.{id}`
    Member(NodeId, Member),
    /// `lease.{id}`
    Lease(NodeId, Lease),
    /// `beat.{id}`: that it is there says all.
    Beat(NodeId),
    /// `part.{actor}.{n}`
    Claim(Part, Claim),
    /// `past.{name}`
    Past(Arc<str>, Past),
}

impl Entry {
    /// Reads a value as the bucket holds it behind `key`.
    ///
    /// # Errors
    /// If the value is not the JSON that belongs behind this key.
    pub(crate) fn parse(key: Key, value: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match key {
            Key::Meta => Self::Meta(serde_json::from_slice(value)?),
            Key::Member(id) => Self::Member(id, serde_json::from_slice(value)?),
            Key::Lease(id) => Self::Lease(id, serde_json::from_slice(value)?),
            Key::Beat(id) => Self::Beat(id),
            Key::Part(part) => Self::Claim(part, serde_json::from_slice(value)?),
            Key::Past(name) => Self::Past(name, serde_json::from_slice(value)?),
        })
    }

    /// The key it belongs behind.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Meta(_) => Key::Meta,
            Self::Member(id, _) => Key::Member(id.clone()),
            Self::Lease(id, _) => Key::Lease(id.clone()),
            Self::Beat(id) => Key::Beat(id.clone()),
            Self::Claim(part, _) => Key::Part(part.clone()),
            Self::Past(name, _) => Key::Past(name.clone()),
        }
    }

    /// The value as the bucket holds it.
    ///
    /// # Errors
    /// Never with these types; the signature is serde's.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Meta(meta) => serde_json::to_vec(meta),
            Self::Member(_, member) => serde_json::to_vec(member),
            Self::Lease(_, lease) => serde_json::to_vec(lease),
            Self::Beat(_) => Ok(b"{}".to_vec()),
            Self::Claim(_, claim) => serde_json::to_vec(claim),
            Self::Past(_, past) => serde_json::to_vec(past),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for text in
            ["meta", "member.a-1", "lease.web.example-x9", "beat.a-1", "part.order.0", "part.order.63", "past.web-1"]
        {
            assert_eq!(Key::parse(text).map(|key| key.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "metal",
            "member.",
            "part.order",
            "part..1",
            "part.order.01",
            "part.order.-1",
            "part.order.70000",
            "x.y",
        ] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn records_have_their_shape_on_the_wire() {
        let check = |key: &str, json: &str| {
            let entry = Entry::parse(Key::parse(key).expect("a key"), json.as_bytes()).expect("a value");
            assert_eq!(entry.key().to_string(), key);
            assert_eq!(String::from_utf8(entry.to_json().expect("json")).expect("text"), json);
        };
        check("meta", r#"{"partitions":64,"wire":1,"born":1767225600}"#);
        check(
            "member.a-1",
            r#"{"id":"a-1","name":"a","hosts":{"order":{"version":"1","weight":2}},"draining":false,"started_ms":7}"#,
        );
        check("lease.a-1", r#"{"incarnation":"1","server":"S","client":5}"#);
        check("lease.a-1", r#"{"incarnation":"1","server":"S","client":5,"ended_by":"b-2"}"#);
        check("lease.a-1", r#"{"incarnation":"1","server":"S","client":5,"ended_by":"b-2","lapsed":true}"#);
        check("beat.a-1", "{}");
        check("past.web", r#"{"deaths":3}"#);
        check("part.order.3", r#"{"node":null,"epoch":4,"nonce":"n","lease":9}"#);
        check("part.order.3", r#"{"node":"b-2","epoch":5,"nonce":"n","lease":9,"busy":["42"],"from":"a-1"}"#);
    }

    #[test]
    fn a_newer_nodes_fields_are_tolerated() {
        let claim = Entry::parse(Key::Part(Part::new("order", 1)), br#"{"node":"a","epoch":1,"nonce":"n","new":{}}"#);
        assert!(claim.is_ok());
        assert!(Entry::parse(Key::Part(Part::new("order", 1)), b"[]").is_err());
    }
}
