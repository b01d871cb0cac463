//! Outbound calls: to the owner of a keyed actor on another node, or to a service behind its queue
//! group. Finds the owner, sends, and says what is known when no answer comes.

mod departure;
mod journey;
mod lines;
mod place;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use self::departure::Departure;
use self::journey::{Journey, Step};
pub(crate) use self::lines::{Lines, Way};
use crate::call::{Call, Deadline};
use crate::codec::Codec;
use crate::contract::{Contract, Message, Mode};
use crate::engine::Outcome;
use crate::error::{AskError, Error, ErrorKind};
use crate::node::{Hosted, Surroundings};
use crate::pending::Got;
use crate::reference::{Target, mode_of};
use crate::routes::Started;
use crate::transport::{Headers, Inbound, Outbound};
use crate::wire::{OutsideCall, unread_reply};

/// Asks a keyed actor wherever it is; `failed`: what it came to here.
pub(crate) async fn ask<M: Message>(
    around: &Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &Target,
    departure: Departure<M>,
    failed: Option<Error>,
) -> Outcome<M> {
    let mut journey = Journey::new(around, target, departure, mode_of::<M>());
    if let Some(error) = failed {
        journey.go_on(error).await?;
    }
    loop {
        let outcome = match journey.step(hosted).await {
            Ok(Step::Again) => continue,
            Ok(Step::Local(Started::Elsewhere)) => {
                journey.pause("its partition changes hands").await?;
                continue;
            }
            Ok(Step::Local(Started::Done(outcome))) => outcome,
            Ok(Step::Local(Started::Waiting(waiting))) => around.wait(waiting, M::Contract::NAME, journey.key()).await,
            Ok(Step::Answer { kind, codec, body }) => return journey.read(kind, codec, &body),
            Err(error) => Err(AskError::Failed(error)),
        };
        match outcome {
            Err(AskError::Failed(error)) => journey.go_on(error).await?,
            outcome => return outcome,
        }
    }
}

/// Tells a keyed actor wherever it is; waits until it is admitted.
pub(crate) async fn tell<M: Message>(
    around: &Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &Target,
    message: M,
    call: Call,
) -> Result<(), Error> {
    let mut journey = Journey::new(around, target, Departure::new(around, message, call), Mode::Tell);
    loop {
        match journey.step(hosted).await {
            Ok(Step::Again) => {}
            Ok(Step::Local(Started::Elsewhere)) => journey.pause("its partition changes hands").await?,
            Ok(Step::Local(_) | Step::Answer { .. }) => return Ok(()),
            Err(error) => journey.go_on(error).await?,
        }
    }
}

/// How often a call of a service is sent again that a node could not take: the next may.
const SERVICE_RETRIES: u32 = 5;

/// Asks a service on whichever node answers.
pub(crate) async fn ask_service<M: Message>(around: &Arc<Surroundings>, message: M, call: Call) -> Outcome<M> {
    let name = format!("{}.{}", M::Contract::NAME, M::VERB);
    match exchange_with_service(around, &message, call).await {
        Ok(body) => Codec::Json.decode(&body).map_err(|why| {
            AskError::Failed(Error::new(ErrorKind::BadReply, format!("the reply of {name} cannot be read: {why}")))
        }),
        Err(AskError::Failed(error)) => Err(AskError::Failed(error)),
        Err(AskError::Refused(refusal)) => match serde_json::from_value(refusal) {
            Ok(refusal) => Err(AskError::Refused(refusal)),
            Err(why) => Err(AskError::Failed(
                Error::new(ErrorKind::BadReply, format!("the refusal of {name} cannot be read")).with_source(why),
            )),
        },
    }
}

/// Tells a service on whichever node takes it.
pub(crate) async fn tell_service<M: Message>(around: &Arc<Surroundings>, message: M, call: Call) -> Result<(), Error> {
    match exchange_with_service(around, &message, call).await {
        Ok(_) => Ok(()),
        Err(AskError::Failed(error)) => Err(error),
        // A tell has no refusal; whoever answers one speaks another contract.
        Err(AskError::Refused(refusal)) => {
            Err(Error::new(ErrorKind::BadReply, format!("a tell was refused: {refusal}")))
        }
    }
}

async fn exchange_with_service<M: Message>(
    around: &Arc<Surroundings>,
    message: &M,
    call: Call,
) -> Result<Bytes, AskError<serde_json::Value>> {
    let _slot = around.in_flight()?;
    let deadline = call.deadline.at();
    let (turn, born) = around.identify(&call);
    let call = Call { deadline: Deadline::At(deadline), turn: Some(turn), born, ..call };
    let body = Codec::Json.encode(message)?;
    around.check_payload(body.len())?;
    let schema = around.form::<M>().map_or_else(|| "none".to_owned(), |form| format!("{form:?}"));
    let mut sent = 0;
    loop {
        let headers = OutsideCall::headers(&call, turn, &schema);
        let answer = send_to_service::<M>(around, deadline, body.clone(), headers).await?;
        sent += 1;
        match unread_reply(answer) {
            // The instances of that node are down just now.
            Err(AskError::Failed(error)) if error.kind() == ErrorKind::Unavailable && sent <= SERVICE_RETRIES => {
                let pause = Instant::now() + Duration::from_millis(5u64 << sent);
                if pause >= deadline {
                    return Err(AskError::Failed(error));
                }
                around.until(pause, std::future::pending::<()>()).await;
            }
            read => return read,
        }
    }
}

async fn send_to_service<M: Message>(
    around: &Arc<Surroundings>,
    deadline: Instant,
    body: Bytes,
    headers: Headers,
) -> Result<Inbound, Error> {
    let service = M::Contract::NAME;
    let got = around.exchange(None, deadline, |reply| {
        let subject = around.subjects.service(service, M::VERB);
        Ok(Outbound::new(subject, body).reply_to(reply).with_headers(headers))
    });
    match got.await? {
        Got::Answer(answer) => Ok(answer),
        Got::NoOne => Err(Error::new(ErrorKind::NoHost, format!("no node hosts the service {service}"))),
        Got::Lost(why) => {
            Err(Error::new(ErrorKind::Unknown, format!("{service} was asked, and {why}: what it did is not known")))
        }
        Got::TimedOut => Err(Error::new(
            ErrorKind::Unknown,
            format!("{service} was asked and did not answer in time: what it did is not known"),
        )),
    }
}
