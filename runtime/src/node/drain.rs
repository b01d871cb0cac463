//! Draining: leaving in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::hosted::Hosted;
use super::surroundings::{Life, Surroundings};
use crate::error::{Error, ErrorKind};
use crate::ownership::Input;

/// How long a node that leaves goes on answering what is on its way to it.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
/// How often a node that cannot hand over looks whether there is anything left to do so for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a longer bound of a drain is cut to, so that a clock can show it.
const WITHIN_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// See [`Node::drain`](super::Node::drain).
pub(super) async fn drain(inner: &Arc<Inner>, within: Duration) -> Result<(), Error> {
    let around = &inner.around;
    let within = within.min(WITHIN_MAX);
    let deadline = Instant::now() + within;
    around.enter_life(Life::Draining);
    inner.leave_services.cancel();
    inner.services.close();
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    inner.feed.tell(Input::Drain { within: millis }).await;
    let released = around.until(deadline, released(inner)).await.is_some();
    let served = around.until(deadline, served(inner)).await.is_some();
    around.duties.end();
    around.until(deadline, around.duties.ended()).await;
    // What came to partitions that are others' now is on its way to them.
    around.passing.close();
    around.until(deadline, around.passing.wait()).await;
    let busy = keys_that_run(around);
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    inner.tree.stop(left).await;
    around.all_hosted().values().for_each(|hosted| hosted.close());
    around.enter_life(Life::Stopped);
    // Frames that are on their way are answered `Moved`; then the others may learn that we are gone.
    inner.leave_nodes.cancel();
    inner.nodes.close();
    if around.until(Instant::now() + ANSWER_WITHIN, inner.nodes.wait()).await.is_none() {
        tracing::warn!(node = around.id, "leaving although not all that was asked is answered");
    }
    // What they watched forgets them, and has told them what it could.
    around.leave_watches.cancel();
    around.followers.close();
    around.until(Instant::now() + ANSWER_WITHIN, around.followers.wait()).await;
    // Fails where the connection is gone, and then there is nothing to flush to.
    around.frames.send(&*around.transport);
    drop(around.transport.flush().await);
    inner.stop.cancel();
    around.transport.close().await;
    inner.cut();
    let threads = std::mem::take(&mut *inner.threads.lock());
    if !threads.is_empty() {
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        drop(around.runtime.spawn_blocking(join).await);
    }
    if released && served {
        return Ok(());
    }
    let why = if busy.is_empty() {
        format!("not everything could be handed over within {within:?}; the leases of this node end it")
    } else {
        format!("turns still ran after {within:?}: {}; the node has stopped all the same", busy.join(", "))
    };
    Err(Error::new(ErrorKind::Interrupted, why))
}

/// Waits until every partition is handed over or released. Where the broker is gone that cannot be
/// written; once no turn runs and the lease has run out, there is nothing left to hand over.
async fn released(inner: &Arc<Inner>) {
    let around = &inner.around;
    let mut over = inner.over.clone();
    let status = around.transport.status();
    loop {
        let look = Instant::now() + LOOK_AGAIN;
        if around.until(look, over.wait_for(Option::is_some)).await.is_some() {
            return;
        }
        let cut_off = !status.borrow().is_connected() && !around.proof.holds();
        if cut_off && keys_that_run(around).is_empty() {
            tracing::warn!(node = around.id, "leaving without handing over: the broker is gone");
            return;
        }
    }
}

/// Waits until no call of a service is left: none on its way, none waiting, none running.
async fn served(inner: &Arc<Inner>) {
    inner.services.wait().await;
    for hosted in inner.around.all_hosted().values() {
        hosted.control.idle().await;
    }
}

fn keys_that_run(around: &Surroundings) -> Vec<String> {
    let hosted = around.all_hosted();
    let keyed = hosted.values().filter(|hosted| hosted.keyed);
    let running = |hosted: &Arc<Hosted>| -> Vec<String> {
        let partitions = 0..around.settings.partitions;
        partitions.flat_map(|n| hosted.control.busy(n)).map(|key| format!("{}/{key}", hosted.name)).collect()
    };
    keyed.flat_map(running).take(8).collect()
}
