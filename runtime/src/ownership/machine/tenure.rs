//! The own lease: writing it, renewing it by heartbeats, and knowing whether it can be proved.
//!
//! Owns the time until which the node may serve, and the fence. Two things bound it: what the last heartbeat proves, and
//! what the last round trip on the owning connection proves. The second is short, so that whoever hears of a
//! connection's end need not wait for a lease: see [`tombstones`](super::tombstones). And the lease has to be written,
//! with the present connection, and anew after each lapse: others may be about to make a tombstone of it
//! ([`heartbeats`](super::heartbeats)). Other nodes' leases are in [`peers`](super::peers).

use super::heartbeats::Heard;
use super::protocol::{CasResult, Effect, Millis};
use super::{Entry, Machine, NodeId};
use crate::ownership::record::Lease;

/// The state of the own lease.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Tenure {
    pub(super) started: bool,
    connection: Option<(String, u64)>,
    /// Counts connections, so that an answer is known to speak of this one.
    generation: u64,
    /// The revision at which the lease came into being, after which it has never ended. Claims from before it have to
    /// be written anew.
    pub(super) birth: u64,
    /// The end of what the last acknowledged heartbeat proves, measured from before it was sent.
    pub(super) valid_until: Millis,
    /// The connection that the lease names, by a write that was sent after the last lapse and acknowledged; 0 if none.
    declared: u64,
    /// The heartbeat after which that was written.
    follows: u64,
    /// The same two of a write in flight, unless there was a lapse since.
    declaring: Option<(u64, u64)>,
    /// The last end of the own heartbeat that a watch has shown.
    ended: u64,
    /// The lease is to be written again although it is as it should be: a watch does not show it.
    pub(super) restate: bool,
    /// When the heartbeat was sent that has no answer yet.
    in_flight: Option<Millis>,
    due_at: Millis,
    /// The end of what the last round trip on this connection proves, measured from before it began.
    stands_until: Millis,
    trip: Option<Trip>,
    trips: u64,
    trip_due_at: Millis,
    pub(super) fenced: bool,
    /// The last acknowledged heartbeat: its revision, and when it was sent.
    acked: (u64, Millis),
    /// The last of them that each watch has shown; that of records, since its last snapshot began.
    shown: [u64; 2],
    /// When the last heartbeat was sent that was both acknowledged and seen to come back through both watches: up to
    /// here, the broker takes writes and the watches show them.
    pub(super) heard_at: Option<Millis>,
}

/// What shows a node its own heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watching {
    /// The watch of everything but others' heartbeats.
    Records,
    /// The watch of heartbeats.
    Beats,
}

/// A round trip that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Trip {
    id: u64,
    sent_at: Millis,
}

impl Default for Tenure {
    fn default() -> Self {
        Self {
            started: false,
            connection: None,
            generation: 0,
            birth: 0,
            valid_until: 0,
            declared: 0,
            follows: 0,
            declaring: None,
            ended: 0,
            restate: false,
            in_flight: None,
            due_at: 0,
            stands_until: 0,
            trip: None,
            trips: 0,
            trip_due_at: 0,
            fenced: true,
            acked: (0, 0),
            shown: [0; 2],
            heard_at: None,
        }
    }
}

impl Tenure {
    pub(super) fn connect(&mut self, server: String, client: u64) {
        self.connection = Some((server, client));
        self.generation += 1;
        self.forget_trips();
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.forget_trips();
    }

    /// What was proved of an earlier connection says nothing about the next.
    fn forget_trips(&mut self) {
        self.trip = None;
        self.trip_due_at = 0;
        self.stands_until = 0;
    }

    /// Until when the lease, less the margin that clocks need, and the connection are proved.
    pub(super) fn serves_until(&self, margin: Millis) -> Millis {
        self.valid_until.saturating_sub(margin).min(self.stands_until)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Takes in that a watch has shown the own heartbeat.
    pub(super) fn heard(&mut self, by: Watching, revision: u64) {
        let shown = &mut self.shown[by as usize];
        *shown = revision.max(*shown);
        self.listen();
    }

    fn listen(&mut self) {
        if self.acked.0 > 0 && self.shown.iter().all(|shown| *shown >= self.acked.0) {
            self.heard_at = Some(self.acked.1);
        }
    }

    /// The heartbeat has stopped, or may have: the lease has to be written again after the next one.
    fn lapse(&mut self) {
        self.declared = 0;
        self.declaring = None;
    }

    pub(super) fn declared(&mut self, stored: bool) {
        if let Some(declared) = self.declaring.take().filter(|_| stored) {
            (self.declared, self.follows) = declared;
            self.restate = false;
        }
    }

    /// From now on, what the watch of records shows is a snapshot.
    pub(super) fn snapshot_begun(&mut self) {
        self.shown[Watching::Records as usize] = 0;
    }

    /// A time from before the snapshot that was just shown: that of the own heartbeat in it.
    pub(super) fn snapshot_newer_than(&self) -> Millis {
        let (revision, sent_at) = self.acked;
        if revision > 0 && self.shown[Watching::Records as usize] >= revision { sent_at } else { 0 }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }
}

impl Machine {
    /// True if the lease and the connection are proved now, with the margin that clocks need.
    pub(super) fn lease_holds(&self) -> bool {
        let tenure = &self.tenure;
        let declared = tenure.connection.is_some() && tenure.declared == tenure.generation;
        declared && self.now < self.serves_until() && self.view.is_live(&self.config.me)
    }

    /// True if the last heartbeat proves something, with the margin that clocks need.
    fn beats(&self) -> bool {
        self.now + self.config.lease_ttl_ms / 10 < self.tenure.valid_until
    }

    /// True if the lease that began at revision `birth` has not ended, as far as the watch and the answers tell.
    pub(super) fn unbroken_since(&self, birth: u64) -> bool {
        self.view.is_live(&self.config.me) && self.tenure.birth == birth
    }

    /// What time alone does: the heartbeat stops. That may be sooner by the broker's clock, which counts its TTL, than by
    /// the own one, by the margin that clocks need.
    pub(super) fn watch_clock(&mut self, out: &mut Vec<Effect>) {
        if self.tenure.valid_until > 0 && !self.beats() {
            self.tenure.lapse();
            self.blame_for_own_lapse();
        }
        if !self.lease_holds() {
            self.fence(out);
        }
    }

    pub(super) fn renew_if_due(&mut self, out: &mut Vec<Effect>) {
        let tenure = &mut self.tenure;
        if tenure.connection.is_none() || self.config.is_client() || !tenure.started || tenure.in_flight.is_some() {
            return;
        }
        if self.now >= tenure.due_at {
            tenure.in_flight = Some(self.now);
            out.push(Effect::Renew { sent_at: self.now });
        }
    }

    /// Writes the lease if it does not name the present connection, or if others may be about to end it. Only while a
    /// heartbeat proves something: the lease is what comes after it.
    pub(super) fn declare(&mut self, out: &mut Vec<Effect>) {
        let tenure = &self.tenure;
        let there = tenure.declared == tenure.generation && !tenure.restate && self.view.is_live(&self.config.me);
        if there || !self.beats() || tenure.acked.0 <= tenure.ended {
            return;
        }
        let Some((server, client)) = tenure.connection.clone() else { return };
        let generation = tenure.generation;
        let incarnation = self.config.incarnation.clone();
        let lease = Lease { incarnation, server, client, ended_by: None, lapsed: false };
        if self.cas(Entry::Lease(self.config.me.clone(), lease), out) {
            self.tenure.declaring = Some((generation, self.tenure.acked.0));
        }
    }

    /// Keeps the proof that the owning connection stands fresh, four times in its life.
    pub(super) fn prove_connection(&mut self, out: &mut Vec<Effect>) {
        let tenure = &mut self.tenure;
        let waits = tenure.trip.is_some_and(|trip| self.now < trip.sent_at + self.config.stands_ms);
        if self.config.is_client() || !tenure.started || waits || self.now < tenure.trip_due_at {
            return;
        }
        let Some((server, client)) = tenure.connection.clone() else { return };
        tenure.trips += 1;
        tenure.trip = Some(Trip { id: tenure.trips, sent_at: self.now });
        tenure.trip_due_at = self.now + self.config.stands_ms / 4;
        out.push(Effect::RoundTrip { id: tenure.trips, server, client });
    }

    pub(super) fn returned(&mut self, id: u64, ok: bool) {
        if let Some(trip) = self.tenure.trip.take_if(|trip| trip.id == id)
            && ok
        {
            self.tenure.stands_until = trip.sent_at + self.config.stands_ms;
        }
    }

    pub(super) fn renewed(&mut self, sent_at: Millis, result: CasResult) {
        let tenure = &mut self.tenure;
        if tenure.in_flight.take_if(|sent| *sent == sent_at).is_none() {
            return;
        }
        match result {
            CasResult::Ok(revision) if revision > tenure.ended => {
                tenure.valid_until = tenure.valid_until.max(sent_at + self.config.lease_ttl_ms);
                tenure.acked = (revision, sent_at);
                tenure.listen();
                tenure.due_at = sent_at + self.config.renew_every_ms;
                self.blame_until_after_renewal(sent_at);
            }
            // Or it has ended since, as a watch has shown already.
            CasResult::Ok(_) | CasResult::Conflict | CasResult::Unknown => {
                tenure.due_at = self.now + (self.config.renew_every_ms / 10).max(1);
            }
        }
    }

    /// The watch shows a heartbeat, or that one has stopped.
    pub(super) fn beat(&mut self, id: NodeId, revision: u64, beating: bool) {
        if !self.is_me(&id) {
            match self.heartbeats.beat(&id, revision, beating, self.now) {
                Heard::Stops => self.count_expiries(1),
                Heard::Beats if self.view.is_lapsed(&id) => {
                    self.view.lapse(&id, false, self.now);
                    self.doubt.lost.remove(&id);
                }
                Heard::Beats | Heard::Nothing => {}
            }
        } else if beating {
            self.tenure.heard(Watching::Beats, revision);
        } else if revision > self.tenure.ended {
            // It may be made up, one above the last: see there.
            self.tenure.ended = revision - 1;
            if revision > self.tenure.follows {
                self.tenure.lapse();
                self.blame_for_own_lapse();
            }
            if revision > self.tenure.acked.0 {
                self.tenure.valid_until = self.tenure.valid_until.min(self.now);
                self.tenure.due_at = self.now;
            }
        }
    }

    pub(super) fn fence_or_unfence(&mut self, out: &mut Vec<Effect>) {
        if !self.lease_holds() {
            self.fence(out);
        } else if self.tenure.fenced
            && !self.parts.iter().rev().any(|(part, local)| local.admits() && !self.stands(part))
        {
            self.tenure.fenced = false;
            out.push(Effect::Unfence);
        }
    }

    fn fence(&mut self, out: &mut Vec<Effect>) {
        if !self.tenure.fenced {
            self.tenure.fenced = true;
            out.push(Effect::Fence);
        }
    }
}
