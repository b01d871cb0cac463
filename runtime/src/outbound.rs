//! Outbound calls: to the owner of a keyed actor on another node, or to a service behind its queue
//! group. Finds the owner, sends, and says what is known when no answer comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::call::{Call, Deadline, TurnId, not_started, wall_ms};
use crate::codec::{Codec, Fingerprint};
use crate::contract::{Contract, Message, Mode};
use crate::engine::Outcome;
use crate::error::{AskError, Error, ErrorBody, ErrorKind};
use crate::node::{Hosted, Located, Surroundings};
use crate::pending::{Got, answer_of};
use crate::reference::{Target, mode_of};
use crate::routes::{LocalRoute, Started};
use crate::transport::{Headers, Inbound, Outbound};
use crate::wire::{AnswerKind, Frame, OutsideCall, Question, QuestionHead, unread_reply};

/// Asks a keyed actor wherever it is.
pub(crate) async fn ask<M: Message>(
    around: &Arc<Surroundings>,
    hosted: Option<&Hosted>,
    target: &Target,
    message: M,
    call: Call,
) -> Outcome<M> {
    let mut journey = Journey::new(around, target, message, call, mode_of::<M>())?;
    loop {
        match journey.step(hosted).await? {
            Step::Again => {}
            Step::Local(Started::Done(outcome)) => return outcome,
            Step::Local(Started::Waiting(waiting)) => {
                return around.wait(waiting, M::Contract::NAME, target.key.as_str()).await;
            }
            Step::Local(Started::Elsewhere) => journey.pause("its partition changes hands").await?,
            Step::Answer { kind: AnswerKind::Refusal, codec, body } => {
                let refusal = codec.decode(&body).map_err(|why| journey.unreadable("refusal", &why))?;
                return Err(AskError::Refused(refusal));
            }
            Step::Answer { codec, body, .. } => {
                return codec.decode(&body).map_err(|why| AskError::Failed(journey.unreadable("reply", &why)));
            }
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
    let mut journey = Journey::new(around, target, message, call, Mode::Tell)?;
    loop {
        match journey.step(hosted).await? {
            Step::Again => {}
            Step::Local(Started::Elsewhere) => journey.pause("its partition changes hands").await?,
            Step::Local(_) | Step::Answer { .. } => return Ok(()),
        }
    }
}

/// One call on its way, over as many sends as its budget allows while nothing was run.
struct Journey<'a, M: Message> {
    around: &'a Arc<Surroundings>,
    target: &'a Target,
    message: Option<M>,
    call: Call,
    turn: TurnId,
    mode: Mode,
    deadline: Instant,
    form: Option<Fingerprint>,
    json: Option<Bytes>,
    binary: Option<Bytes>,
    pauses: u32,
}

enum Step<M: Message> {
    Again,
    Local(Started<M>),
    Answer { kind: AnswerKind, codec: Codec, body: Bytes },
}

impl<'a, M: Message> Journey<'a, M> {
    fn new(
        around: &'a Arc<Surroundings>,
        target: &'a Target,
        message: M,
        call: Call,
        mode: Mode,
    ) -> Result<Self, Error> {
        let deadline = call.deadline.at();
        let turn = call.turn.unwrap_or_else(|| around.next_turn());
        let born = if call.born == 0 { wall_ms() } else { call.born };
        let call = Call { deadline: Deadline::At(deadline), turn: Some(turn), born, ..call };
        let form = around.form::<M>();
        Ok(Self {
            around,
            target,
            message: Some(message),
            call,
            turn,
            mode,
            deadline,
            form,
            json: None,
            binary: None,
            pauses: 0,
        })
    }

    async fn step(&mut self, hosted: Option<&Hosted>) -> Result<Step<M>, Error> {
        let actor = M::Contract::NAME;
        if Instant::now() >= self.deadline {
            return Err(not_started(actor, self.target.key.as_str()));
        }
        match self.around.cluster.locate(actor, self.target.partition) {
            Located::Here => match hosted.and_then(|hosted| hosted.local::<M>()) {
                Some(route) => self.start_here(route),
                None => Err(self.unavailable("this node owns its partition and does not host it")),
            },
            Located::Node { id, epoch } => self.send(&id, epoch).await,
            Located::Vacant => {
                self.pause("its partition has no owner just now").await?;
                Ok(Step::Again)
            }
            Located::NoHosts => {
                // A node that has just started may not have seen the others yet.
                if !self.around.cluster.is_current() {
                    self.pause("this node does not know the others yet").await?;
                    return Ok(Step::Again);
                }
                Err(Error::new(ErrorKind::NoHost, format!("no node hosts {actor}")))
            }
        }
    }

    fn start_here(&mut self, route: &dyn LocalRoute<M>) -> Result<Step<M>, Error> {
        if self.mode == Mode::Tell {
            let admitted = route.tell(self.target, &mut self.message, &self.call)?;
            return Ok(if admitted {
                Step::Answer { kind: AnswerKind::Reply, codec: Codec::Json, body: Bytes::new() }
            } else {
                Step::Local(Started::Elsewhere)
            });
        }
        Ok(Step::Local(route.start(self.target, &mut self.message, &self.call)))
    }

    async fn send(&mut self, node: &str, epoch: u64) -> Result<Step<M>, Error> {
        let _slot = self.around.in_flight()?;
        let (actor, key) = (M::Contract::NAME, self.target.key.as_str());
        let codec = match self.form {
            Some(_) if !self.around.reads_json_only(node, actor, M::VERB) => Codec::Bincode,
            _ => Codec::Json,
        };
        let body = self.body(codec)?;
        let head = QuestionHead::new(actor, key, M::VERB, self.mode, (codec, self.form), &self.call, self.turn, epoch);
        let frame = Frame::questions(vec![Question { head, body }])?;
        let got = self.around.exchange(Some(node), self.deadline, |reply| {
            let subject = self.around.subjects.node(node, "in");
            Ok(Outbound::new(subject, frame).reply_to(reply))
        });
        match got.await? {
            Got::Answer(answer) => {
                let answer = answer_of(&answer)?;
                match answer.head.kind {
                    AnswerKind::Reply | AnswerKind::Refusal => {
                        Ok(Step::Answer { kind: answer.head.kind, codec: answer.head.codec, body: answer.body })
                    }
                    AnswerKind::Moved => {
                        self.pause("its partition changes hands").await?;
                        Ok(Step::Again)
                    }
                    AnswerKind::Failure => self.failed(node, &answer.body),
                }
            }
            Got::NoOne => {
                self.pause(&format!("its owner {node} is not there")).await?;
                Ok(Step::Again)
            }
            // A read changes nothing: it can be asked again whatever became of the first.
            Got::Lost(_) if self.mode == Mode::Read => {
                self.call.attempt += 1;
                self.pause("its owner went away").await?;
                Ok(Step::Again)
            }
            Got::Lost(why) => Err(Error::new(
                ErrorKind::Unknown,
                format!("{actor}/{key} was asked on {node}, and {why}: what it did is not known"),
            )),
            Got::TimedOut => Err(Error::new(
                ErrorKind::Unknown,
                format!("{actor}/{key} was asked on {node} and did not answer in time: what it did is not known"),
            )),
        }
    }

    fn failed(&mut self, node: &str, body: &Bytes) -> Result<Step<M>, Error> {
        let body: ErrorBody = serde_json::from_slice(body).map_err(|error| {
            Error::new(ErrorKind::BadReply, "the error that was answered cannot be read").with_source(error)
        })?;
        let error = Error::from(body);
        if error.kind() == ErrorKind::CodecMismatch && self.form.is_some() {
            self.around.note_json_only(node, M::Contract::NAME, M::VERB);
            self.form = None;
            return Ok(Step::Again);
        }
        Err(error)
    }

    fn body(&mut self, codec: Codec) -> Result<Bytes, Error> {
        let kept = match codec {
            Codec::Json => &mut self.json,
            Codec::Bincode => &mut self.binary,
        };
        if let Some(body) = kept {
            return Ok(body.clone());
        }
        let message = self
            .message
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the message was taken and not sent"))?;
        let body = codec.encode(message)?;
        self.around.check_payload(body.len())?;
        *kept = Some(body.clone());
        Ok(body)
    }

    /// Waits until something changes among the nodes, or a little while that grows.
    async fn pause(&mut self, why: &str) -> Result<(), Error> {
        self.pauses += 1;
        let most = Duration::from_millis(5u64 << self.pauses.min(6));
        let until = (Instant::now() + most).min(self.deadline);
        self.around.until(until, self.around.cluster.changed()).await;
        if Instant::now() >= self.deadline {
            return Err(self.unavailable(why));
        }
        Ok(())
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{}/{} could not be reached in time: {why}; nothing was run", M::Contract::NAME, self.target.key),
        )
    }

    fn unreadable(&self, what: &str, why: &str) -> Error {
        Error::new(
            ErrorKind::BadReply,
            format!("the {what} of {}/{} to `{}` cannot be read: {why}", M::Contract::NAME, self.target.key, M::VERB),
        )
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
    let turn = call.turn.unwrap_or_else(|| around.next_turn());
    let born = if call.born == 0 { wall_ms() } else { call.born };
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
