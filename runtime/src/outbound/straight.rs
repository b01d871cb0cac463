//! The straight way: what most calls to other nodes take.
//!
//! A call goes straight if its actor's owner is known and takes calls, and none before it stands in line: it is written
//! into the next frame to that node, and its reply is what it comes to. Whatever else becomes of it is a matter for its
//! [`Journey`](super::journey::Journey), which takes it over from here.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::departure::Departure;
use super::lines::Shortcut;
use super::place::Place;
use crate::codec::Codec;
use crate::contract::{Contract, Message, Mode};
use crate::node::{Hosted, Surroundings};
use crate::pending::{Flight, Got};
use crate::reference::Target;
use crate::wire::{Answer, AnswerKind, QuestionHead};

/// A call that went straight.
pub(super) struct Sent<'a> {
    pub(super) flight: Flight<'a>,
    pub(super) place: Place<'a>,
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) to: Arc<Shortcut>,
}

/// Sends a call if it may go straight. If not, or if it cannot be sent, nothing has happened.
pub(super) fn send<'a, M: Message>(
    around: &'a Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &'a Target,
    departure: &Departure<M>,
    mode: Mode,
) -> Option<Sent<'a>> {
    let actor = M::Contract::NAME;
    let (deadline, now) = (departure.call.deadline.at(), departure.made);
    let here = hosted.is_some_and(|hosted| hosted.durable) && !departure.tried_here;
    if here || now.now >= deadline || around.lines.holds(actor, target.partition, &target.key) {
        return None;
    }
    let mut place = Place::new(around, actor, target, departure.number);
    let to = place.shortcut()?;
    if !place.may_leave(to.epoch) {
        return None;
    }
    let form = around.form::<M>();
    let codec = match form {
        Some(_) if !around.reads_json_only(&to.node, actor, M::VERB) => Codec::Bincode,
        _ => Codec::Json,
    };
    let body = codec.encode(departure.message.as_ref()?).ok()?;
    around.check_payload(body.len()).ok()?;
    let slot = around.in_flight().ok()?;
    let repeatable = to.durable || mode == Mode::Read;
    let flight = place.flight(&to.node, to.epoch, deadline, repeatable);
    // Whoever has it stand in line from now on finds it.
    if !place.may_leave(to.epoch) {
        return None;
    }
    let head = QuestionHead::new(
        flight.number(),
        actor,
        target.key.as_str(),
        M::VERB,
        mode,
        (codec, form),
        &departure.call,
        departure.turn,
        to.epoch,
        now,
    );
    to.outgoing.ask(around, &head, &body).ok()?;
    Some(Sent { flight, place, slot, to })
}

impl Sent<'_> {
    /// Waits for what comes of it.
    pub(super) async fn wait(&mut self, around: &Surroundings, deadline: Instant) -> Got<Answer> {
        self.flight.wait(around, deadline).await.of_envelope()
    }

    /// Whether the answer is what the actor said. Then the owner takes calls.
    pub(super) fn is_served(&mut self, answer: &Answer) -> bool {
        let served = matches!(answer.head.kind, AnswerKind::Reply | AnswerKind::Refusal);
        if served {
            self.place.proved(self.to.epoch);
        }
        served
    }
}
