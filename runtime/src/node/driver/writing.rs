//! What the driver asks of the broker for its machine: writes to the bucket, and round trips.

use bytes::Bytes;

use super::{QUIET_WHILE, Running};
use crate::ownership::{CasResult, Claim, Entry, Input, Part};
use crate::transport::{Status, WriteError};

impl Running {
    pub(super) fn renew(&mut self, sent_at: u64) {
        let beat = Entry::Beat(self.driver.me());
        let key = beat.key().to_string();
        let value = beat.to_json().unwrap_or_default();
        let (bucket, ttl) = (self.driver.bucket.clone(), self.driver.lease_ttl);
        self.writes.push(Box::pin(async move {
            let result = result_of(bucket.write(&key, Bytes::from(value), None, Some(ttl)).await);
            Input::RenewDone { sent_at, result }
        }));
    }

    /// To the broker and back, on this very connection: another one in between would prove nothing about it.
    pub(super) fn round_trip(&mut self, id: u64, connection: Status) {
        let (around, own) = (self.driver.around.clone(), self.driver.own.clone());
        let transport = around.transport.clone();
        self.writes.push(Box::pin(async move {
            let before = *own.borrow() == connection;
            let sent = tokio::time::Instant::now();
            let ok = before && transport.flush().await.is_ok() && *own.borrow() == connection;
            if ok {
                around.came_back(sent);
            }
            Input::RoundTripDone { id, ok }
        }));
    }

    pub(super) fn write(&mut self, id: u64, entry: &Entry, expect: u64) {
        let key = entry.key().to_string();
        let value = entry.to_json().unwrap_or_default();
        let bucket = self.driver.bucket.clone();
        let ttl = matches!(entry, Entry::Past(..)).then_some(QUIET_WHILE);
        self.writes.push(Box::pin(async move {
            let result = result_of(bucket.write(&key, Bytes::from(value), Some(expect), ttl).await);
            Input::CasDone { id, result }
        }));
    }

    /// Lets no turn of the partition start any more, notes those that run, and writes the claim. Where
    /// the claim would not fit into a message the gate stays open, and the machine tries again later.
    pub(super) fn transfer(&mut self, id: u64, part: Part, mut claim: Claim, expect: u64) {
        if let Some(hosted) = self.driver.around.hosted(&part.actor) {
            let most = self.driver.around.transport.max_payload() / 2;
            // A token in quotes, and a comma.
            let fit = |keys: &[crate::key::Key]| keys.iter().map(|key| key.token().len() + 3).sum::<usize>() <= most;
            let (epoch, again) = (hosted.gate.epoch(part.number), self.busy.contains_key(&part));
            // Counted while the gate is open: closing it costs the idle actors their state.
            let mut running = if again { Vec::new() } else { hosted.control.busy(part.number) };
            if fit(&running) {
                hosted.gate.close(part.number);
                running = hosted.control.evict(part.number);
                // Told to stop before anybody else can begin with them.
                self.driver.around.duties.look(&self.driver.around, &part.actor, Some(part.number));
            }
            if !again && !fit(&running) {
                hosted.gate.reopen(part.number, epoch);
                tracing::warn!(?part, keys = running.len(), "more keys run than a claim can name; handed over later");
                self.writes.push(Box::pin(std::future::ready(Input::CasDone { id, result: CasResult::Unknown })));
                return;
            }
            // A transfer that is written again names the same keys as before: the heir may have seen it.
            let busy = self.busy.entry(part.clone()).or_insert(running);
            claim.busy = busy.iter().map(crate::key::Key::token).collect();
        }
        self.write(id, &Entry::Claim(part, claim), expect);
    }

    pub(super) fn fence(&self) {
        tracing::warn!(node = self.driver.around.id, "the lease cannot be proved; keyed actors answer Unavailable");
        self.driver.around.proof.end();
        self.driver.around.duties.suspend(&self.driver.around, true);
    }
}

pub(super) fn result_of(written: Result<u64, WriteError>) -> CasResult {
    match written {
        Ok(revision) => CasResult::Ok(revision),
        Err(WriteError::Conflict) => CasResult::Conflict,
        // Not sent is not stored, but the machine need not tell them apart: it looks again.
        Err(WriteError::NotSent(_) | WriteError::Unknown(_)) => CasResult::Unknown,
    }
}
