//! Departures: a call to a keyed actor before its journey.
//!
//! What is answered by a durable actor of this very node takes no more than this. A journey, with all that may become of
//! a call on its way, begins where that does not do.

use bytes::Bytes;

use crate::call::{Call, Clock, TurnId, digest};
use crate::codec::Codec;
use crate::contract::Message;
use crate::node::Surroundings;
use crate::reference::Target;
use crate::routes::{LocalRoute, Started};

/// A call, with all that it keeps over its attempts.
pub(crate) struct Departure<M: Message> {
    /// Gone while a turn on this node has it.
    pub(super) message: Option<M>,
    pub(super) call: Call,
    pub(super) turn: TurnId,
    /// Whether its id was made here and for it alone: nobody else can have sent it.
    pub(super) fresh: bool,
    /// Its place among the calls of its node: grows from call to call.
    pub(super) number: u64,
    pub(super) made: Clock,
    /// The message, once it was written.
    pub(super) json: Option<Bytes>,
    /// Whether this node was tried, if it hosts the actor.
    pub(super) tried_here: bool,
}

impl<M: Message> Departure<M> {
    pub(crate) fn new(around: &Surroundings, message: M, call: Call) -> Self {
        let made = Clock::read();
        let (fresh, (turn, born)) = (call.turn.is_none(), around.identify(&call, made.wall_ms));
        let call = Call { deadline: call.deadline.counted_from(made.now), turn: Some(turn), born, ..call };
        let (message, number) = (Some(message), around.pending.next());
        Self { message, call, turn, fresh, number, made, json: None, tried_here: false }
    }

    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    /// Begins it at a durable actor of this node, the first time. Nothing of that waits.
    pub(crate) fn start_here(&mut self, route: &dyn LocalRoute<M>, target: &Target) -> Started<M> {
        self.tried_here = true;
        self.write();
        route.start(target, &mut self.message, &self.call)
    }

    /// Writes the message down, as the turn takes it with it. One that cannot be written cannot be sent again.
    pub(super) fn write(&mut self) {
        if self.json.is_none() {
            self.json = self.message.as_ref().and_then(|message| Codec::Json.encode(message).ok());
            self.call.digest = self.json.as_deref().map(digest);
        }
    }
}
