//! Whether the broker tells of connections that end: tried once at a node's start, aside, with one opened for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Inner;
use crate::error::Error;
use crate::node::Surroundings;
use crate::transport::{Connect, NatsTransport, Transport};

/// The broker says it within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Notices of others that may come meanwhile.
const CAPACITY: usize = 1_024;

/// Warns if the broker is silent about them.
pub(super) fn warn_of(inner: &Arc<Inner>, at: Connect) {
    let (around, stop) = (inner.around.clone(), inner.stop.clone());
    inner.around.runtime.spawn(async move {
        if let Some(Ok(false)) = stop.run_until_cancelled(tells(&around, at)).await {
            let (app, subject) = (around.subjects.app(), around.subjects.disconnects());
            tracing::warn!(
                node = around.id,
                "the broker says nothing of connections that end: the actors of a node that dies are taken over when its \
                 lease runs out, not in little more than a second; import $SYS.ACCOUNT.<account>.DISCONNECT as {subject} \
                 into the app's account, as `greenroom doctor --app {app}` shows"
            );
        }
    });
}

/// Whether it told of a connection that was opened and closed. One that cannot be opened tells nothing of that.
async fn tells(around: &Surroundings, at: Connect) -> Result<bool, Error> {
    let mut notices = around.transport.subscribe(&around.subjects.disconnects(), None, CAPACITY).await?;
    let name = format!("{}/trial", around.id);
    NatsTransport::connect(at.name(&name)).await?.close().await;
    let told = async {
        while let Some(notice) = notices.next().await {
            let notice: Value = serde_json::from_slice(&notice.body).unwrap_or_default();
            if notice["client"]["name"] == name.as_str() {
                return true;
            }
        }
        false
    };
    Ok(tokio::time::timeout(PATIENCE, told).await.unwrap_or(false))
}
