//! The probe: whether the broker maps keyed subjects to partitions, and to as many as the app has.

use std::sync::Arc;
use std::time::Duration;

use super::surroundings::Surroundings;
use crate::error::{Error, ErrorKind};
use crate::ownership::partition_of;
use crate::subject::PROBE_VERB;
use crate::transport::Outbound;

/// Keys tried: if the broker's number of partitions differs, the chance that it does not show on
/// any of them is below one in a million for the sizes that apps have.
const TRIES: u32 = 8;
/// How long a probe's message may take to come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stands between a caller and an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// The broker computes the partition: calls reach owners directly.
    Present,
    /// Calls must be passed on by whichever host gets them.
    Absent,
}

/// Finds out by sending messages to oneself.
pub(super) async fn mapping(around: &Arc<Surroundings>, actor: &str) -> Result<Mapping, Error> {
    let (subjects, transport) = (&around.subjects, &around.transport);
    let mut found = None;
    for number in 0..TRIES {
        let token = format!("{}-{number}", around.id);
        let mut mapped = transport.subscribe(&subjects.probe(actor, &token), None, 16).await?;
        let plain = subjects.call_token(actor, &token, PROBE_VERB);
        let mut unmapped = transport.subscribe(&plain.to_filter(), None, 16).await?;
        transport.publish(Outbound::new(plain, "probe"))?;
        let now = tokio::time::sleep(PATIENCE);
        let one = tokio::select! {
            Some(message) = mapped.next() => {
                check(around, actor, &token, &message.subject)?;
                Mapping::Present
            }
            Some(_) = unmapped.next() => Mapping::Absent,
            () = now => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("a message of this node to itself, on {}.{actor}.*.*, did not come back; may its user publish and subscribe there?", subjects.app()),
                ));
            }
        };
        if *found.get_or_insert(one) != one {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the broker maps some keys of {actor} and not others: mend its mapping"),
            ));
        }
        if one == Mapping::Absent {
            break;
        }
    }
    Ok(found.unwrap_or(Mapping::Absent))
}

fn check(around: &Surroundings, actor: &str, token: &str, subject: &str) -> Result<(), Error> {
    let partitions = around.settings.partitions;
    let expected = partition_of(token, partitions).to_string();
    let found = subject.split('.').nth(2).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    let app = around.subjects.app();
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "the broker's mapping of {app}.{actor}.*.* sends the key {token} to partition {found}; with the app's {partitions} partitions \
             that is {expected}. Write: \"{app}.{actor}.*.*\": \"{app}.@.{{{{partition({partitions},1)}}}}.{actor}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}\""
        ),
    ))
}
