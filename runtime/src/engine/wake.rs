//! Waking: an actor is brought into memory without a message.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::command::not_kept;
use super::host::Host;
use super::job::Job;
use super::turn::{Ended, Env};
use crate::actor::Actor;
use crate::call::Call;
use crate::error::Error;
use crate::journal::{self, Outbox, Write};
use crate::key::Key;
use crate::reference::Target;

/// A turn in which nothing happens: before it, the actor is activated.
struct WakeJob {
    call: Call,
    woken: oneshot::Sender<Result<(), Error>>,
}

impl<A: Actor> Job<A> for WakeJob {
    fn call(&self) -> &Call {
        &self.call
    }

    fn is_stale(&self) -> bool {
        self.woken.is_closed()
    }

    fn is_hopeless(&self) -> bool {
        self.woken.is_closed()
    }

    fn run<'a>(self: Box<Self>, actor: &'a mut A, env: Env<'a>) -> BoxFuture<'a, Ended> {
        Box::pin(async move {
            let signed = sign(actor, &env).await;
            let ended = if signed.is_ok() { Ended::Fine } else { Ended::Lost };
            drop(self.woken.send(signed));
            ended
        })
    }

    fn fail(self: Box<Self>, error: Error) {
        drop(self.woken.send(Err(error)));
    }
}

/// A durable actor to whose journal nothing was ever written would not be kept in memory: what another owner still had
/// on its way would find nothing that refuses it. So its first activation is written down.
async fn sign<A: Actor>(actor: &mut A, env: &Env<'_>) -> Result<(), Error> {
    let Some(cell) = actor.cell() else { return Ok(()) };
    if !cell.ledger().is_some_and(|ledger| ledger.is_new()) {
        return Ok(());
    }
    let kept = journal::commit(env.around, cell, None, Write::Activated, Outbox::default()).await;
    kept.map(drop).map_err(|why| not_kept(env, why))
}

impl<A: Actor> Host<A> {
    /// Brings an actor into memory, if this node serves its partition.
    pub(crate) async fn wake(self: &Arc<Self>, key: &Key) -> Result<(), Error> {
        let target = Target { key: key.clone(), partition: self.around.partition_of(key) };
        let call = Call::root(self.around.settings.budget);
        let (woken, wait) = oneshot::channel();
        let job = WakeJob { call: call.clone(), woken };
        self.admit(&target, &call, (false, false), || Some(Box::new(job)))?;
        wait.await.unwrap_or_else(|_| Err(self.around.stopped()))
    }

    /// Looks, as often as it is asked, whether an actor is in memory, and under which epoch.
    pub(crate) fn live(self: &Arc<Self>, key: &Key) -> Box<dyn Fn() -> Option<u64> + Send> {
        let partition = self.around.partition_of(key);
        let (slot, gate) = (self.slots.get(partition, key), self.gate.clone());
        Box::new(move || slot.as_ref().filter(|slot| slot.is_live()).map(|_| gate.epoch(partition)))
    }
}
