//! What a turn may do about its actor's reminders.

use super::{Context, Sends};
use crate::actor::{Actor, Handle};
use crate::call::wall_ms;
use crate::contract::{Message, mode};
use crate::error::{Error, ErrorKind};
use crate::reminder::{Draft, Reminder, Schedule};

impl<A: Actor> Context<'_, A> {
    /// Arms a reminder: when it is due, the actor is sent this message of its own, wherever it lives by then and
    /// whether or not it is in memory. A reminder of the same name is replaced.
    ///
    /// It is kept with this turn, in the same record as its events: a refusal, a panic or a lost activation undoes it.
    /// What falls due while nobody can serve it (the broker is away, no node hosts the actor) fires once afterwards.
    /// A firing takes effect once: that it has fired is kept in the same record as what its turn did. A turn that
    /// panics or fails is tried again, after one second, five, and then every two minutes, until it succeeds or the
    /// reminder is cancelled; one that is refused counts as run. It fires within about a quarter of a second of its time if the
    /// node and the broker are up.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # use std::time::Duration;
    /// # #[contract(messages(Open, Remind))]
    /// # struct Invoice;
    /// # #[message(Invoice, ask, reply = String)]
    /// # struct Open;
    /// # #[message(Invoice, tell)]
    /// # struct Remind { level: u32 }
    /// # #[data] #[derive(Default)] struct Sent(u32);
    /// # impl State for Sent { type Event = greenroom::contract::NoEvent; fn apply(&mut self, _: &Self::Event) {} }
    /// # struct InvoiceActor { sent: Durable<Sent> }
    /// #[actor(Invoice, state = sent, durable)]
    /// impl InvoiceActor {
    /// #   async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> { Ok(Self { sent: ctx.durable().await? }) }
    ///     #[ask]
    ///     fn open(&mut self, _: Open, ctx: &mut Context<'_, Self>) -> String {
    ///         let in_two_weeks = Schedule::after(Duration::from_secs(14 * 24 * 3600));
    ///         let armed = ctx.remind("payment", in_two_weeks, Remind { level: 1 });
    ///         armed.map_or_else(|error| error.to_string(), |()| "a reminder follows".to_owned())
    ///     }
    ///
    ///     #[tell]
    ///     fn remind(&mut self, msg: Remind, ctx: &mut Context<'_, Self>) {
    ///         println!("{}: reminder {}", ctx.key(), msg.level);
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// `Config` if the actor keeps no journal, if this is no turn (a read, an activation), for a name that is not 1 to
    /// [`NAME_BYTES_MAX`](crate::reminder::NAME_BYTES_MAX) bytes, and for a schedule that can never be due; of a cron
    /// pattern the error names the field. `Overloaded` above [`REMINDERS_MAX`](crate::reminder::REMINDERS_MAX)
    /// reminders, `PayloadTooLarge` above [`BODY_BYTES_MAX`](crate::reminder::BODY_BYTES_MAX) of message. Nothing was
    /// changed then. If its wake-up cannot be stored at the broker, the turn is not kept, and fails as `Unavailable`.
    pub fn remind<M>(&mut self, name: impl AsRef<str>, schedule: Schedule, message: M) -> Result<(), Error>
    where
        A: Handle<M>,
        M: Message<Contract = A::Contract, Mode = mode::Tell>,
    {
        self.draft_mut()?.arm(name.as_ref(), schedule, M::VERB, &message, wall_ms())
    }

    /// Cancels a reminder. Returns whether one of this name was armed. Once this turn is answered, it does not fire
    /// any more.
    ///
    /// # Errors
    /// `Config` if the actor keeps no journal, or if this is no turn.
    pub fn cancel_reminder(&mut self, name: impl AsRef<str>) -> Result<bool, Error> {
        Ok(self.draft_mut()?.cancel(name.as_ref()))
    }

    /// The actor's reminders as this turn leaves them, the next one first. In the turn of a reminder itself it has
    /// moved on already: a single one is gone, another has its next time.
    ///
    /// # Errors
    /// `Config` if the actor keeps no journal, or if this is no turn.
    pub fn reminders(&mut self) -> Result<Vec<Reminder>, Error> {
        Ok(self.draft_mut()?.list())
    }

    fn draft_mut(&mut self) -> Result<&mut Draft, Error> {
        let no_turn = matches!(self.sends, Sends::Never) && A::DURABLE;
        self.draft.as_mut().ok_or_else(|| {
            let why = if no_turn {
                "is not in a turn here: a read and an activation know no reminders"
            } else {
                "keeps no journal, and reminders are kept there: make it `durable`"
            };
            Error::new(ErrorKind::Config, format!("{}/{} {why}", self.env.actor, self.env.key))
        })
    }
}
