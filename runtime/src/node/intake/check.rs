//! What a question must be, to be served.

use std::sync::Arc;

use crate::call::{Call, Clock};
use crate::codec::Codec;
use crate::contract::Mode;
use crate::error::{Error, ErrorKind};
use crate::node::{Hosted, Surroundings};
use crate::reference::Target;
use crate::routes::WireRoute;
use crate::wire::{Manner, QuestionHead};

/// The way to the handler of a question, and the call that it is.
pub(super) fn check(
    around: &Surroundings,
    head: &QuestionHead<'_>,
    came: Clock,
    hosted: Option<&Hosted>,
    target: Result<Target, Error>,
) -> Result<(Arc<dyn WireRoute>, Target, Call), Error> {
    let hosted = hosted
        .ok_or_else(|| Error::new(ErrorKind::Moved, format!("the node {} does not host {}", around.id, head.actor)))?;
    let target = target?;
    let call = head.call(came)?;
    let verb = hosted.verb(head.verb)?;
    if head.codec == Codec::Bincode && (head.schema.is_none() || head.schema != verb.fingerprint) {
        let why = format!("{}.{} has another form on this node; send JSON", head.actor, head.verb);
        return Err(Error::new(ErrorKind::CodecMismatch, why));
    }
    check_mode(verb.contract.mode, head.mode, head.verb)?;
    // Sent under another claim: what its sender sent before it may have come while that claim was another node's,
    // and be on its way here again.
    if hosted.gate.epoch(target.partition) != head.epoch {
        return Err(Error::new(ErrorKind::Moved, "the partition has changed hands"));
    }
    Ok((verb.wire.clone(), target, call))
}

/// A message may be told whatever its verb is; a verb that has no reply cannot be asked. What its
/// sender takes for a read is sent again when its answer is lost, so it must be one here too.
fn check_mode(has: Mode, asked: Manner, verb: &str) -> Result<(), Error> {
    if has == Mode::Tell && !matches!(asked, Manner::Tell | Manner::Stored) {
        return Err(Error::new(ErrorKind::BadRequest, format!("{verb} is a tell: it has no reply to wait for")));
    }
    if asked == Manner::Read && has != Mode::Read {
        let why = format!("{verb} is a turn on this node, and its sender takes it for a read: their contracts differ");
        return Err(Error::new(ErrorKind::BadRequest, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_turn_is_not_asked_as_a_read() {
        let kind = |has, asked| check_mode(has, asked, "add").map_err(|error| error.kind());
        // A read is sent again when its answer is lost, so what is none must not be taken for one.
        assert_eq!(kind(Mode::Ask, Manner::Read), Err(ErrorKind::BadRequest));
        assert_eq!(kind(Mode::Tell, Manner::Read), Err(ErrorKind::BadRequest));
        assert_eq!(kind(Mode::Tell, Manner::Ask), Err(ErrorKind::BadRequest));
        for (has, asked) in [(Mode::Read, Manner::Read), (Mode::Read, Manner::Ask), (Mode::Ask, Manner::Ask)] {
            assert_eq!(kind(has, asked), Ok(()));
        }
        for has in [Mode::Read, Mode::Ask, Mode::Tell] {
            for told in [Manner::Tell, Manner::Stored] {
                assert_eq!(kind(has, told), Ok(()), "whatever its verb is, a message may be told");
            }
        }
    }
}
