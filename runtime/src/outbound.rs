//! Outbound calls: to the owner of a keyed actor on another node, or to a service behind its queue
//! group. Finds the owner, sends, and says what is known when no answer comes.

mod departure;
mod journey;
mod lines;
mod place;
mod straight;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use self::departure::Departure;
use self::journey::{Journey, Step};
pub(crate) use self::lines::{Lines, Way};
use self::straight::Sent;
use crate::call::{Call, Deadline, wall_ms};
use crate::codec::Codec;
use crate::contract::{Contract, Message, Mode};
use crate::engine::Outcome;
use crate::error::{AskError, Error, ErrorKind};
use crate::node::{Hosted, Surroundings};
use crate::pending::Got;
use crate::reference::{Target, mode_of};
use crate::routes::Started;
use crate::transport::{Headers, Inbound, Outbound};
use crate::wire::{Answer, AnswerHead, AnswerKind, OutsideCall, unread_reply};

/// Asks a keyed actor wherever it is; `failed`: what it came to here.
pub(crate) async fn ask<M: Message>(
    around: &Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &Target,
    departure: Departure<M>,
    failed: Option<Error>,
) -> Outcome<M> {
    let mode = mode_of::<M>();
    let first = match failed {
        Some(error) => First::Failed(error),
        None => match straight::send(around, hosted, target, &departure, mode) {
            None => First::Begin,
            Some(mut sent) => match sent.wait(around, departure.call.deadline.at()).await {
                Got::Answer(answer) if sent.is_served(&answer) => return read::<M>(target, &answer.head, &answer.body),
                got => First::Sent(sent, got),
            },
        },
    };
    // What is rare is boxed, so that nobody else pays for its size.
    Box::pin(travel(around, hosted, target, departure, first)).await
}

/// How a journey begins.
enum First<'a> {
    /// With its first step.
    Begin,
    /// It failed on this node.
    Failed(Error),
    /// It went straight, and this came of it.
    Sent(Sent<'a>, Got<Answer>),
}

async fn travel<M: Message>(
    around: &Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &Target,
    departure: Departure<M>,
    first: First<'_>,
) -> Outcome<M> {
    let (mut journey, mut step) = begin(around, target, departure, mode_of::<M>(), first).await?;
    loop {
        let taken = match step.take() {
            Some(step) => step,
            None => journey.step(hosted).await,
        };
        let outcome = match taken {
            Ok(Step::Again) => continue,
            Ok(Step::Local(Started::Elsewhere)) => {
                journey.pause("its partition changes hands").await?;
                continue;
            }
            Ok(Step::Local(Started::Done(outcome))) => outcome,
            Ok(Step::Local(Started::Waiting(waiting))) => around.wait(waiting, M::Contract::NAME, journey.key()).await,
            Ok(Step::Answer { head, body }) => return read::<M>(target, &head, &body),
            Err(error) => Err(AskError::Failed(error)),
        };
        match outcome {
            Err(AskError::Failed(error)) => journey.go_on(error).await?,
            outcome => return outcome,
        }
    }
}

type Begun<'a, M> = (Journey<'a, M>, Option<Result<Step<M>, Error>>);

/// A journey, and its first step if that has been made.
async fn begin<'a, M: Message>(
    around: &'a Arc<Surroundings>,
    target: &'a Target,
    departure: Departure<M>,
    mode: Mode,
    first: First<'a>,
) -> Result<Begun<'a, M>, Error> {
    match first {
        First::Begin => Ok((Journey::new(around, target, departure, mode), None)),
        First::Failed(error) => {
            let mut journey = Journey::new(around, target, departure, mode);
            journey.go_on(error).await?;
            Ok((journey, None))
        }
        First::Sent(sent, got) => {
            let to = sent.to.clone();
            let mut journey = Journey::of_sent(around, target, departure, mode, sent);
            let step = journey.take_in(&to.node, to.epoch, got).await;
            Ok((journey, Some(step)))
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
    let departure = Departure::new(around, message, call);
    let first = match straight::send(around, hosted, target, &departure, Mode::Tell) {
        None => First::Begin,
        Some(mut sent) => match sent.wait(around, departure.call.deadline.at()).await {
            Got::Answer(answer) if sent.is_served(&answer) => return Ok(()),
            got => First::Sent(sent, got),
        },
    };
    let travel = async {
        let (mut journey, mut step) = begin(around, target, departure, Mode::Tell, first).await?;
        loop {
            let taken = match step.take() {
                Some(step) => step,
                None => journey.step(hosted).await,
            };
            match taken {
                Ok(Step::Again) => {}
                Ok(Step::Local(Started::Elsewhere)) => journey.pause("its partition changes hands").await?,
                Ok(Step::Local(_) | Step::Answer { .. }) => return Ok(()),
                Err(error) => journey.go_on(error).await?,
            }
        }
    };
    Box::pin(travel).await
}

/// What an answer says.
fn read<M: Message>(target: &Target, head: &AnswerHead, body: &Bytes) -> Outcome<M> {
    let unreadable = |what: &str, why: String| {
        let (actor, key, verb) = (M::Contract::NAME, &target.key, M::VERB);
        Error::new(ErrorKind::BadReply, format!("the {what} of {actor}/{key} to `{verb}` cannot be read: {why}"))
    };
    if head.kind == AnswerKind::Refusal {
        let refusal = head.codec.decode(body).map_err(|why| unreadable("refusal", why))?;
        return Err(AskError::Refused(refusal));
    }
    head.codec.decode(body).map_err(|why| AskError::Failed(unreadable("reply", why)))
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
    let (turn, born) = around.identify(&call, wall_ms());
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
