//! The own lease: renewing it, and knowing whether it can be proved.
//!
//! Owns the time until which the node may serve, and the fence. Two things bound it: what the last renewal proves, and
//! what the last round trip on the owning connection proves. The second is short, so that whoever hears of a
//! connection's end need not wait for a lease: see [`tombstones`](super::tombstones). Other nodes' leases are in
//! [`peers`](super::peers).

use super::protocol::{CasResult, Effect, Millis};
use super::{Entry, Machine};
use crate::ownership::record::Lease;

/// The state of the own lease.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Tenure {
    pub(super) started: bool,
    connection: Option<(String, u64)>,
    /// Counts connections, so that an answer is known to speak of this one.
    generation: u64,
    /// The last revision known of the key, its marker's included; what the next renewal expects.
    revision: u64,
    /// False if the last thing known of the key is that it is not there.
    live: bool,
    /// The revision at which the lease came into being, after which it has never ended. Claims from before it have to
    /// be written anew.
    pub(super) birth: u64,
    /// The end of what the last acknowledged renewal proves, measured from before it was sent.
    pub(super) valid_until: Millis,
    /// The connection that the last acknowledged renewal named.
    proved: u64,
    in_flight: Option<Renewal>,
    due_at: Millis,
    /// The end of what the last round trip on this connection proves, measured from before it began.
    stands_until: Millis,
    trip: Option<Trip>,
    trips: u64,
    trip_due_at: Millis,
    /// The revision at which a renewal was refused, and when: the watch has to tell before the next.
    pub(super) refused: Option<(u64, Millis)>,
    pub(super) fenced: bool,
    /// The last acknowledged renewal: its revision, and when it was sent.
    acked: (u64, Millis),
    /// The last own revision that the watch has shown.
    watched: u64,
    /// When the last renewal was sent that was both acknowledged and seen to come back through the watch: up to here,
    /// the broker takes writes and the watch shows them.
    pub(super) heard_at: Option<Millis>,
}

/// A renewal that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    sent_at: Millis,
    generation: u64,
    expect: u64,
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
            revision: 0,
            live: false,
            birth: 0,
            valid_until: 0,
            proved: 0,
            in_flight: None,
            due_at: 0,
            stands_until: 0,
            trip: None,
            trips: 0,
            trip_due_at: 0,
            refused: None,
            fenced: true,
            acked: (0, 0),
            watched: 0,
            heard_at: None,
        }
    }
}

impl Tenure {
    pub(super) fn connect(&mut self, server: String, client: u64) {
        self.connection = Some((server, client));
        self.generation += 1;
        // Nobody may judge this node by its old connection: the new one is written down at once.
        self.due_at = 0;
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

    /// True if the lease that began at revision `birth` has not ended, as far as the watch and the answers tell.
    pub(super) fn unbroken_since(&self, birth: u64) -> bool {
        self.live && self.birth == birth
    }

    /// True if a renewal over the known revision was refused, and nothing has explained it.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some_and(|(expect, _)| expect == self.revision)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Takes in that the key is at `revision` with this start's own lease. `unbroken`: what it replaced is known to
    /// have been alive. A late write of one's own can bring a lease back whose end was never seen.
    fn own(&mut self, revision: u64, unbroken: bool) {
        if revision > self.revision {
            if !self.live || !unbroken {
                self.birth = revision;
            }
            self.live = true;
            self.revision = revision;
        }
    }

    fn listen(&mut self) {
        if self.acked.0 > 0 && self.watched >= self.acked.0 {
            self.heard_at = Some(self.acked.1);
        }
    }
}

impl Machine {
    /// True if the lease and the connection are proved now, with the margin that clocks need.
    pub(super) fn lease_holds(&self) -> bool {
        let tenure = &self.tenure;
        let connected = tenure.connection.is_some() && tenure.proved == tenure.generation;
        connected && tenure.live && self.now < self.serves_until()
    }

    /// What time alone does: the lease runs out.
    pub(super) fn watch_clock(&mut self, out: &mut Vec<Effect>) {
        if self.tenure.valid_until > 0 && self.now >= self.tenure.valid_until {
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
        match tenure.refused {
            Some((expect, _)) if expect == tenure.revision => return,
            Some(_) => tenure.refused = None,
            None if self.now < tenure.due_at => return,
            None => {}
        }
        let Some((server, client)) = tenure.connection.clone() else { return };
        let (sent_at, expect) = (self.now, tenure.revision);
        tenure.in_flight = Some(Renewal { sent_at, generation: tenure.generation, expect });
        let lease = Lease { incarnation: self.config.incarnation.clone(), server, client, ended_by: None };
        out.push(Effect::Renew { lease, expect, sent_at });
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
        let Some(Renewal { generation, expect, .. }) = tenure.in_flight.take_if(|sent| sent.sent_at == sent_at) else {
            return;
        };
        match result {
            CasResult::Ok(revision) => {
                // It replaced the expected revision, so nothing came between.
                tenure.own(revision, true);
                // A marker newer than this answer is known: the renewal held, and has ended since.
                if revision < tenure.revision && !tenure.live {
                    tenure.due_at = self.now;
                    return;
                }
                tenure.valid_until = tenure.valid_until.max(sent_at + self.config.lease_ttl_ms);
                tenure.proved = generation;
                tenure.acked = (revision, sent_at);
                tenure.listen();
                tenure.due_at = if generation == tenure.generation { sent_at + self.config.renew_every_ms } else { 0 };
                self.blame_until_after_renewal(sent_at);
                self.learn_own_lease(revision);
            }
            CasResult::Conflict => {
                // The watch may have told already: then it is not blocked.
                tenure.refused = Some((expect, self.now));
                tenure.due_at = self.now;
            }
            CasResult::Unknown => tenure.due_at = self.now + (self.config.renew_every_ms / 10).max(1),
        }
    }

    /// The watch shows the own lease, as this start wrote it.
    pub(super) fn own_lease_shown(&mut self, revision: u64) {
        if revision > self.tenure.revision && self.tenure.in_flight.is_none() {
            // A renewal whose answer was lost. It proves nothing about time; the next one will.
            self.tenure.due_at = self.now;
        }
        // While the last proof lasts, the lease it proved cannot have ended, so this replaced it.
        self.tenure.own(revision, self.now < self.tenure.valid_until);
        self.tenure.watched = self.tenure.watched.max(revision);
        self.tenure.listen();
    }

    /// The own lease has ended at the broker; `revision` is the marker's, 0 if there is none.
    pub(super) fn own_lease_gone(&mut self, revision: u64) {
        if self.tenure.live {
            self.tenure.due_at = self.now;
        }
        self.tenure.live = false;
        self.tenure.revision = revision;
        self.blame_for_own_lapse();
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

    /// What was written is known without the watch.
    fn learn_own_lease(&mut self, revision: u64) {
        let Some((server, client)) = self.tenure.connection.clone() else { return };
        let lease = Lease { incarnation: self.config.incarnation.clone(), server, client, ended_by: None };
        let me = self.config.me.clone();
        self.shown(|| crate::ownership::record::Key::Lease(me));
        self.view.learn(Entry::Lease(self.config.me.clone(), lease), revision, self.now);
    }
}
