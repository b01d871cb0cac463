//! The machine's alphabet: what it is configured with, what it is told, and what it asks for.
//!
//! Owns the types and what each obliges the driver to do; the decisions are in the sibling modules.

use std::collections::BTreeMap;

use crate::ownership::record::{Entry, HostInfo, Key, NodeId, Part};

/// Milliseconds on the node's own monotonic clock, from any origin.
pub(crate) type Millis = u64;

/// Numbers a write, so that its answer finds it. Never reused by one machine.
pub(crate) type CasId = u64;

/// What a machine is made with. All durations are in milliseconds, and below 2^60.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// This node. With a nonce that no earlier start had.
    pub(crate) me: NodeId,
    /// Its name, for the member record.
    pub(crate) name: String,
    /// The nonce of this start; nonces of claims begin with it.
    pub(crate) incarnation: String,
    /// Wall time of the start, for the member record only.
    pub(crate) started_ms: u64,
    /// The keyed actors it hosts.
    pub(crate) hosts: BTreeMap<String, HostInfo>,
    /// The services it runs: nobody owns them, but others can see who runs what.
    pub(crate) services: BTreeMap<String, HostInfo>,
    /// Partitions of each actor type.
    pub(crate) partitions: u16,
    /// Below the epochs of all claims: see [`Meta`](crate::ownership::record::Meta).
    pub(crate) first_epoch: u64,
    /// How long a lease lives after its last renewal: for so long the broker keeps a heartbeat.
    pub(crate) lease_ttl_ms: u64,
    /// How often it is renewed; a third of the TTL or less.
    pub(crate) renew_every_ms: u64,
    /// How many others' heartbeats this node watches: those that come after it on a ring.
    pub(crate) neighbours: usize,
    /// Handovers this node has under way at once as the giving side.
    pub(crate) handovers_at_once: usize,
    /// How long a free partition waits for the first in rendezvous order before the second may claim it (twice that:
    /// anybody).
    pub(crate) orphan_patience_ms: u64,
    /// How long an offer waits for its reply.
    pub(crate) offer_patience_ms: u64,
    /// How long an heir holds messages for a claim that does not come.
    pub(crate) hold_patience_ms: u64,
    /// How long after an answer was lost the watch has time to tell, before the same write is tried again.
    pub(crate) unsure_patience_ms: u64,
    /// How long a round trip on the owning connection proves that it stands, from before it began. The same at every
    /// node: whoever hears that a connection has ended relies on its node not serving longer than this.
    pub(crate) stands_ms: u64,
    /// How long a node waits before it attracts partitions if one of its name has died of late; twice that after two,
    /// and so on.
    pub(crate) loop_pause_ms: u64,
    /// The longest of these pauses.
    pub(crate) loop_pause_max_ms: u64,
}

impl Config {
    /// The defaults of the design for a node that hosts `hosts`: TTL 30 s, renewed every 10 s, 8 neighbours watched,
    /// 8 handovers at once.
    pub(crate) fn new(name: &str, incarnation: &str, hosts: BTreeMap<String, HostInfo>, partitions: u16) -> Self {
        Self {
            me: NodeId::new(format!("{name}-{incarnation}")),
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            started_ms: 0,
            hosts,
            services: BTreeMap::new(),
            partitions,
            first_epoch: 0,
            lease_ttl_ms: 30_000,
            renew_every_ms: 10_000,
            neighbours: 8,
            handovers_at_once: 8,
            orphan_patience_ms: 2_000,
            offer_patience_ms: 2_000,
            hold_patience_ms: 5_000,
            unsure_patience_ms: 2_000,
            stands_ms: 1_000,
            loop_pause_ms: 1_000,
            loop_pause_max_ms: 60_000,
        }
    }

    /// Whether the node hosts nothing: it watches, and writes nothing.
    pub(crate) fn is_client(&self) -> bool {
        self.hosts.is_empty() && self.services.is_empty()
    }
}

/// Why a key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Somebody deleted or purged it.
    Deleted,
    /// Its TTL ran out (marker reason `MaxAge`); or a watch that was lost and made again has left it out.
    Expired,
}

/// What became of a write. Every write is answered exactly once, within a bound the driver chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CasResult {
    /// Stored at this revision.
    Ok(u64),
    /// Refused: the key was at another revision (both 10071 and 10164).
    Conflict,
    /// No answer: it may have been stored, may yet be, or never.
    Unknown,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The node begins. With [`Connected`](Self::Connected), in either order, it lets the lease be written.
    Started,
    /// The owning connection stands, as the server numbers it; also after every reconnect.
    Connected {
        /// The server's id.
        server: String,
        /// The connection's number on it.
        client: u64,
    },
    /// The owning connection is down.
    Disconnected,
    /// The answer to [`Effect::RoundTrip`].
    RoundTripDone {
        /// The effect's `id`.
        id: u64,
        /// True if it went to the broker and back, all of it on the connection that the effect names.
        ok: bool,
    },
    /// The broker says that a node's owning connection has ended. A hint, which may be late, lost, or about a
    /// connection that the node has replaced: the lease that names it decides.
    ConnectionGone {
        /// Whose connection it was.
        node: NodeId,
        /// The server it was on.
        server: String,
        /// Its number there.
        client: u64,
    },
    /// The watch starts, or starts over: what follows up to [`SnapshotDone`](Self::SnapshotDone) is everything there
    /// is.
    SnapshotBegun,
    /// The watch shows a key with a value. In revision order; repeats and revisions already known are harmless.
    Record {
        /// The revision of the key.
        revision: u64,
        /// What it holds.
        entry: Entry,
    },
    /// The watch shows a key deleted, purged or expired.
    Deleted {
        /// The revision of the marker.
        revision: u64,
        /// The key.
        key: Key,
        /// Why.
        reason: Gone,
    },
    /// The watch has shown everything there was when it began.
    SnapshotDone,
    /// The watch of heartbeats that was asked for last ([`Effect::WatchBeats`]) starts, or starts over.
    BeatsBegun,
    /// It shows a heartbeat, or that one has stopped.
    Beat {
        /// Whose.
        id: NodeId,
        /// The revision of the heartbeat, or of its marker.
        revision: u64,
        /// False if it has stopped.
        beating: bool,
    },
    /// It has shown every heartbeat there was when it began.
    BeatsShown,
    /// The answer to [`Effect::Renew`].
    RenewDone {
        /// The effect's `sent_at`.
        sent_at: Millis,
        /// What became of it.
        result: CasResult,
    },
    /// The answer to [`Effect::Cas`], [`Effect::Delete`] or [`Effect::Transfer`].
    CasDone {
        /// The effect's `id`.
        id: CasId,
        /// What became of it.
        result: CasResult,
    },
    /// Another node's [`Effect::Offer`] has arrived. The machine answers by `Join { reply_to: Some }` or `Decline`.
    Offered {
        /// What is offered.
        part: Part,
        /// The epoch at which the offering node holds it.
        epoch: u64,
        /// The offering node.
        from: NodeId,
    },
    /// The heir's reply to [`Effect::Offer`].
    HandoverReply {
        /// What was offered.
        part: Part,
        /// The epoch of the offer.
        epoch: u64,
        /// Who replies.
        heir: NodeId,
        /// True: it is subscribed, flushed and holds. False: it declined.
        ready: bool,
    },
    /// The old owner tells that the last turn of a busy key ended. To be repeated until [`Machine::settled`] is true.
    ///
    /// [`Machine::settled`]: super::Machine::settled
    Idle {
        /// The partition this node took over.
        part: Part,
        /// The epoch at which this node holds it.
        epoch: u64,
        /// The key token.
        key: String,
    },
    /// No turn of a partition that is left ([`Effect::Leave`]) runs any more. Comes before its
    /// [`Quiesced`](Self::Quiesced), or is implied by it.
    Stilled {
        /// The effect's partition.
        part: Part,
        /// The effect's epoch.
        epoch: u64,
    },
    /// The driver has done a [`Effect::Leave`] to its end: out of the queue group without loss, no turn runs.
    Quiesced {
        /// The effect's partition.
        part: Part,
        /// The effect's epoch.
        epoch: u64,
    },
    /// The bucket is not there any more, and stays away.
    RecordsGone,
    /// Hand everything over and leave. While another host lives, partitions are offered for three quarters of this time;
    /// then they are released to whoever claims them.
    Drain {
        /// How long the node has for it.
        within: Millis,
    },
    /// Time has passed. Every 250 ms or so.
    Tick,
}

/// Why a node leaves a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaveCause {
    /// It was handed over: finish the running turns, forward what still comes to the heir.
    HandedOver,
    /// It drains and nobody can take it: finish the running turns; the release follows [`Input::Quiesced`].
    Released,
    /// It held messages for a handover that did not come: forward them to the heir, if there is one.
    NotNeeded,
    /// It was taken: drop the activations, commit nothing more from them.
    Superseded,
}

/// Why a node cannot go on under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetireReason {
    /// Its lease was deleted by somebody else.
    LeaseDeleted,
    /// Its lease names another start.
    LeaseTaken,
    /// Its lease was made a tombstone: its owning connection had ended, or its heartbeat had stopped, and another node
    /// was quicker than it was with a new one.
    Tombstoned,
    /// A claim of its own was taken: it was believed dead.
    ClaimTaken,
    /// The records of the app are gone, its own with them: somebody deleted the bucket, or the broker lost its store.
    RecordsGone,
    /// The app has other partitions or another wire version: do not come back, report it.
    MetaMismatch,
}

/// What the machine asks for. To be carried out in the order given, each before the next step's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write the own heartbeat with the lease's TTL, whatever is there. Answer: [`Input::RenewDone`].
    Renew {
        /// When this step ran; validity counts from here, so sending later is safe.
        sent_at: Millis,
    },
    /// From now on watch these nodes' heartbeats, and no others but the own, in place of those before
    /// ([`Input::BeatsBegun`] and so on).
    WatchBeats {
        /// Whose.
        of: Vec<NodeId>,
    },
    /// Send something to the broker and back on the owning connection, if it is still this one. Answer:
    /// [`Input::RoundTripDone`], also when that took long.
    RoundTrip {
        /// For the answer.
        id: u64,
        /// The server it is on.
        server: String,
        /// Its number there.
        client: u64,
    },
    /// Write an entry if its key is at `expect` (0: not there), without a TTL but for a past. Answer: [`Input::CasDone`].
    Cas {
        /// For the answer.
        id: CasId,
        /// Key and value.
        entry: Entry,
        /// The expected revision.
        expect: u64,
    },
    /// Delete a key if it is at `expect`. Answer: [`Input::CasDone`].
    Delete {
        /// For the answer.
        id: CasId,
        /// The key.
        key: Key,
        /// The expected revision.
        expect: u64,
    },
    /// Stop admitting turns of the partition **now**, note the keys whose turn still runs, and write `claim` with them
    /// as `busy` if the key is at `expect`. Answer: [`Input::CasDone`]. Then comes `Leave`, or `Serve` if it failed, or
    /// another `Transfer`, to be written with the same busy keys: any of them may be the one that is stored. Whatever
    /// those keys' turns do, the heir hears of it ([`Input::Idle`]).
    Transfer {
        /// For the answer.
        id: CasId,
        /// The partition.
        part: Part,
        /// The claim to write, complete but for `busy`.
        claim: crate::ownership::record::Claim,
        /// The expected revision.
        expect: u64,
    },
    /// Offer a partition to a node. Its reply: [`Input::HandoverReply`]; the machine keeps the time itself.
    Offer {
        /// The partition.
        part: Part,
        /// The epoch at which this node holds it.
        epoch: u64,
        /// To whom.
        to: NodeId,
    },
    /// Tell a node that its offer is not taken (`ready: false`).
    Decline {
        /// The partition.
        part: Part,
        /// The epoch of the offer.
        epoch: u64,
        /// Whose offer.
        to: NodeId,
    },
    /// Be in the queue group of the partition and hold what comes, until [`Serve`](Self::Serve) or
    /// [`Leave`](Self::Leave). May come again while joined, and before the [`Input::Quiesced`] of an earlier `Leave`,
    /// whose subscription goes on leaving beside the new one.
    Join {
        /// The partition.
        part: Part,
        /// The epoch at which it will be, or is, held.
        epoch: u64,
        /// Whose offer this answers: once subscribed and flushed, reply `ready: true` with the epoch of the offer.
        reply_to: Option<(NodeId, u64)>,
    },
    /// Admit turns at this epoch, all but those of the `busy` keys. May come again, after a transfer that failed.
    Serve {
        /// The partition.
        part: Part,
        /// The epoch, for the records.
        epoch: u64,
        /// The keys that still wait for the old owner.
        busy: Vec<String>,
        /// The old owner if it handed over or released; `None` if it was taken for dead, or nobody ever had it.
        from: Option<NodeId>,
    },
    /// Admit these keys too.
    Admit {
        /// The partition.
        part: Part,
        /// The keys.
        keys: Vec<String>,
    },
    /// Leave the queue group without loss, forward stragglers to the heir. Answers: [`Input::Stilled`],
    /// [`Input::Quiesced`].
    Leave {
        /// The partition.
        part: Part,
        /// The epoch that ends.
        epoch: u64,
        /// Who has it now, if anybody.
        heir: Option<NodeId>,
        /// Why.
        cause: LeaveCause,
    },
    /// Tell the holder of a partition when the last turns of those keys have ended here: it took the partition from an
    /// heir of this node that is gone. Asked for again with each such claim.
    ReportIdle {
        /// The partition.
        part: Part,
        /// The epoch of the claim.
        epoch: u64,
        /// The holder.
        to: NodeId,
        /// The key tokens.
        keys: Vec<String>,
    },
    /// The lease cannot be proved: volatile actors and reads answer `Unavailable`. Claims are kept.
    Fence,
    /// The lease is proved again, and no claim still served was anybody else's in between.
    Unfence,
    /// A claim has another holder now. For the callers: re-send or fail what was asked of the old one.
    Moved {
        /// The partition.
        part: Part,
        /// The holder before.
        from: Option<NodeId>,
        /// The holder now.
        to: Option<NodeId>,
        /// The epoch of the claim now.
        epoch: u64,
        /// True if the old holder handed it over or released it.
        planned: bool,
    },
    /// A node is gone: calls in flight to it are `Unknown`. Once for each time it goes.
    NodeLost {
        /// The node.
        id: NodeId,
    },
    /// A node lives on, on another connection: what was asked of it over the one before, or was to be answered by it,
    /// may be lost.
    Reconnected {
        /// The node.
        id: NodeId,
    },
    /// Start the watch over ([`Input::SnapshotBegun`] and so on): a write was refused and the watch does not say why.
    Rewatch,
    /// Nothing is held any more, every turn has ended: delete lease and member, exit. Nothing follows.
    Drained,
    /// Drop every activation and subscription, then delete lease and member, and come back with a new machine under a
    /// new id. Nothing follows.
    Retire {
        /// Why.
        reason: RetireReason,
    },
}
