//! Draining: leaving in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::surroundings::Life;
use crate::error::{Error, ErrorKind};
use crate::ownership::Input;

/// How long a node that leaves goes on answering what is on its way to it.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// See [`Node::drain`].
pub(super) async fn drain(inner: &Arc<Inner>, within: Duration) -> Result<(), Error> {
    let around = &inner.around;
    let deadline = Instant::now() + within;
    around.enter_life(Life::Draining);
    inner.leave_services.cancel();
    inner.services.close();
    inner.feed.tell(Input::Drain).await;
    let mut over = inner.over.clone();
    let released = around.until(deadline, over.wait_for(Option::is_some)).await.is_some();
    let served = around.until(deadline, inner.services.wait()).await.is_some();
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    inner.tree.stop(left).await;
    around.enter_life(Life::Stopped);
    // Frames that are on their way are answered `Moved`; then the others may learn that we are gone.
    inner.leave_nodes.cancel();
    inner.nodes.close();
    if around.until(Instant::now() + ANSWER_WITHIN, inner.nodes.wait()).await.is_none() {
        tracing::warn!(node = around.id, "leaving although not all that was asked is answered");
    }
    inner.stop.cancel();
    drop(around.transport.flush().await);
    around.transport.close().await;
    inner.cut();
    let threads = std::mem::take(&mut *inner.threads.lock());
    let joined = around.runtime.spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    if released {
        drop(joined.await);
    }
    if released && served {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Interrupted,
        format!("turns still ran after {within:?}; the node has stopped all the same"),
    ))
}
