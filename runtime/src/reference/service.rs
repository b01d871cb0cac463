//! The address of a service.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Origin, lost_message, others_may, route};
use crate::call::{Call, Chain};
use crate::contract::{Contract, Message, Replies, Service};
use crate::engine::Outcome;
use crate::error::{AskError, Error};
use crate::node::{Hosted, Surroundings};
use crate::outbound;
use crate::routes::Started;

/// The address of a service: whichever instance answers.
///
/// An instance on this node is preferred; otherwise the broker's queue group picks one of all
/// nodes that host the service, each with the weight of its pool.
pub struct ServiceRef<C: Contract<Kind = Service>> {
    around: Arc<Surroundings>,
    hosted: Option<Arc<Hosted>>,
    origin: Origin,
    budget: Option<Duration>,
    contract: PhantomData<fn(C)>,
}

impl<C: Contract<Kind = Service>> ServiceRef<C> {
    pub(crate) fn new(around: Arc<Surroundings>, origin: Origin) -> Self {
        // A node that drains takes no more for itself.
        let hosted = around.hosted(C::NAME).filter(|_| around.is_running());
        Self { around, hosted, origin, budget: None, contract: PhantomData }
    }

    /// The same address for calls with a budget of their own; see [`Ref::within`](super::Ref::within). An instance on
    /// another node takes five minutes for the most.
    #[must_use]
    pub fn within(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sends a message to an instance and waits for the reply; see [`Ref::ask`](super::Ref::ask).
    ///
    /// # Errors
    /// See [`Ref::ask`](super::Ref::ask).
    pub async fn ask<M>(&self, message: M) -> Outcome<M>
    where
        M: Message<Contract = C>,
        M::Mode: Replies,
    {
        self.around.check_running()?;
        let call = self.call::<M>();
        let mut message = Some(message);
        if let Some(route) = route::<M>(self.hosted.as_deref())? {
            match route.start(&self.around.anywhere, &mut message, &call) {
                Started::Done(Err(AskError::Failed(error))) if message.is_some() && others_may(&error) => {}
                Started::Done(outcome) => return outcome,
                Started::Waiting(waiting) => {
                    let wait = self.origin.wait(C::NAME, "", &call);
                    return self.around.watched(wait, self.around.wait(waiting, C::NAME, "")).await;
                }
                Started::Elsewhere => {}
            }
        }
        let message = message.ok_or_else(lost_message)?;
        let wait = self.origin.wait(C::NAME, "", &call);
        self.around.watched(wait, Box::pin(outbound::ask_service(&self.around, message, call))).await
    }

    /// Sends a message to an instance without waiting for its turn; see [`Ref::tell`](super::Ref::tell).
    ///
    /// # Errors
    /// See [`Ref::tell`](super::Ref::tell).
    pub async fn tell<M>(&self, message: M) -> Result<(), Error>
    where
        M: Message<Contract = C>,
    {
        self.around.check_running()?;
        let call = Call { chain: Chain::default(), ..self.call::<M>() };
        let mut message = Some(message);
        if let Some(route) = route::<M>(self.hosted.as_deref())? {
            match route.tell(&self.around.anywhere, &mut message, &call) {
                Ok(true) => return Ok(()),
                Err(error) if message.is_none() || !others_may(&error) => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        let message = message.ok_or_else(lost_message)?;
        Box::pin(outbound::tell_service(&self.around, message, call)).await
    }

    fn call<M: Message>(&self) -> Call {
        self.origin.call(self.budget, self.around.settings.budget, || C::NAME.to_owned(), M::VERB)
    }
}

impl<C: Contract<Kind = Service>> std::fmt::Debug for ServiceRef<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceRef").field("service", &C::NAME).finish_non_exhaustive()
    }
}
