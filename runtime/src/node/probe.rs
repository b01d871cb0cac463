//! The probe: whether the broker maps keyed subjects to partitions, and to as many as the app has.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::ownership::partition_of;
use crate::subject::{PROBE_VERB, Subjects};
use crate::transport::{Outbound, Transport};

/// Keys tried: if the broker's number of partitions differs, the chance that it does not show on
/// any of them is below one in a million for the sizes that apps have.
const TRIES: u32 = 8;
/// How long a probe's message may take to come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stands between a caller and an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The broker computes the partition: calls reach owners directly.
    Present,
    /// Calls must be passed on by whichever host gets them.
    Absent,
}

/// Finds out whether the broker maps the keys of an actor type to partitions, by sending messages to oneself. `id` is
/// a token that nobody else uses.
///
/// # Errors
/// `Config` if the broker maps them otherwise than nodes do: the message holds the right line. `Unavailable` if it does
/// not answer, or the messages do not come back.
pub async fn mapping(
    transport: &dyn Transport,
    subjects: &Subjects,
    id: &str,
    partitions: u16,
    actor: &str,
) -> Result<Mapping, Error> {
    let mut found = None;
    for number in 0..TRIES {
        let token = format!("{id}-{number}");
        let mut mapped = transport.subscribe(&subjects.probe(actor, &token), None, 16).await?;
        let plain = subjects.call_token(actor, &token, PROBE_VERB);
        let mut unmapped = transport.subscribe(&plain.to_filter(), None, 16).await?;
        transport.publish(Outbound::new(plain, "probe"))?;
        let now = tokio::time::sleep(PATIENCE);
        let one = tokio::select! {
            Some(message) = mapped.next() => {
                check(subjects, partitions, actor, &token, &message.subject)?;
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

fn check(subjects: &Subjects, partitions: u16, actor: &str, token: &str, subject: &str) -> Result<(), Error> {
    let expected = partition_of(token, partitions).to_string();
    let found = subject.split('.').nth(2).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    let app = subjects.app();
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "the broker's mapping of {app}.{actor}.*.* sends the key {token} to partition {found}; with the app's {partitions} partitions \
             that is {expected}. Write: {}",
            mapping_line(subjects, partitions, actor)
        ),
    ))
}

/// The line of the broker's configuration that maps the keys of an actor type to partitions.
pub fn mapping_line(subjects: &Subjects, partitions: u16, actor: &str) -> String {
    let app = subjects.app();
    format!(
        "\"{app}.{actor}.*.*\": \"{app}.@.{{{{partition({partitions},1)}}}}.{actor}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}\""
    )
}
