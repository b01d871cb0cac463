//! The broker's word on connections that have ended: tried with one that is opened for it.

use std::time::Duration;

use greenroom::Error;
use greenroom::transport::{NatsTransport, Transport};
use serde_json::Value;

use super::Patient;
use super::report::Finding;

/// The broker says it within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Notices of others that may come meanwhile.
const CAPACITY: usize = 1_024;

pub(super) async fn check(patient: &Patient) -> Finding {
    let (app, subject) = (patient.subjects.app(), patient.subjects.disconnects());
    let why = match tells(patient).await {
        Ok(true) => return Finding::ok("disconnects", format!("{subject} tells of a connection that has ended")),
        Ok(false) => format!("{subject} says nothing of a connection that has ended, within {PATIENCE:?}"),
        Err(error) => format!("{subject} cannot be heard: {}", error.message()),
    };
    Finding::warn(
        "disconnects",
        why,
        "the actors of a node that dies are taken over when its lease runs out (30 s unless set), not in little more than \
         a second",
        format!(
            "in the app's account: imports: [ {{ stream: {{ account: SYS, subject: \"$SYS.ACCOUNT.<account>.DISCONNECT\" }}, \
             to: \"{app}.node.sys.disconnect\" }} ]\n\
             in the system account: exports: [ {{ stream: \"$SYS.ACCOUNT.*.DISCONNECT\", account_token_position: 3 }} ]\n\
             and let nodes subscribe to {subject}"
        ),
    )
}

async fn tells(patient: &Patient) -> Result<bool, Error> {
    let mut notices = patient.transport.subscribe(&patient.subjects.disconnects(), None, CAPACITY).await?;
    let name = format!("{}-second", patient.id);
    let second = NatsTransport::connect(patient.connect.clone().name(&name)).await?;
    second.close().await;
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
