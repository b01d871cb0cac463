//! The look for actors that nobody asks for any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Inner;

/// How long it takes until every partition has been looked at once.
const ROUND: Duration = Duration::from_secs(10);

/// Passivates idle actors while the node runs: a partition at a time, so that nobody waits for long.
pub(super) fn passivate(inner: &Arc<Inner>) {
    let around = &inner.around;
    let (stop, weak) = (inner.stop.clone(), Arc::downgrade(inner));
    let round = ROUND.min(around.settings.passivate_after.max(Duration::from_secs(1)));
    let pause = (round / u32::from(around.settings.partitions.max(1))).max(Duration::from_millis(5));
    around.runtime.spawn(async move {
        stop.run_until_cancelled(rounds(weak, pause)).await;
    });
}

async fn rounds(weak: Weak<Inner>, pause: Duration) {
    let mut partition = 0;
    loop {
        tokio::time::sleep(pause).await;
        let Some(inner) = weak.upgrade() else { return };
        let (around, settings) = (&inner.around, &inner.around.settings);
        for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
            let left = hosted.control.passivate(partition, settings.passivate_after);
            if left > 0 {
                tracing::debug!(actor = hosted.name, partition, left, "idle actors have left memory");
            }
        }
        if partition == 0 {
            around.watched.sweep();
        }
        partition = (partition + 1) % settings.partitions.max(1);
    }
}
