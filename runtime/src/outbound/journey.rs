//! One call to a keyed actor on its way: to wherever its owner is, and again where that is safe.
//!
//! Any call is sent again while it was certainly not run: nobody owned its actor, or whom it went to was not the
//! owner, or not there. A durable actor remembers its commands, so what is asked of one is sent again also when it is
//! not known what became of it: under the same id, as the next attempt, to whoever owns the actor then. What the call
//! ends by tells the truth about all its attempts: as long as one of them may have been run, nothing that says
//! "not run" is passed on.
//!
//! A call that is sent again keeps its place among those of this node to the same actor: see [`lines`](super::lines).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::departure::Departure;
use super::place::Place;
use super::straight::Sent;
use crate::call::{Clock, not_started, wall_ms};
use crate::changes::SeenChanges;
use crate::codec::{Codec, Fingerprint};
use crate::contract::{Contract, Message, Mode};
use crate::error::{Error, ErrorBody, ErrorKind};
use crate::node::{Hosted, Located, Surroundings};
use crate::pending::{Flight, Got};
use crate::reference::Target;
use crate::routes::{LocalRoute, Started};
use crate::wire::{Answer, AnswerHead, AnswerKind, QuestionHead};

/// How often the pause between two attempts at one owner doubles: to 64 ms.
const PAUSES_GROW: u32 = 5;

/// One call, over as many attempts as its time allows.
pub(super) struct Journey<'a, M: Message> {
    around: &'a Arc<Surroundings>,
    target: &'a Target,
    departure: Departure<M>,
    mode: Mode,
    deadline: Instant,
    /// How it travels as bincode, if it may; looked up when it leaves this node.
    form: Option<Option<Fingerprint>>,
    binary: Option<Bytes>,
    pauses: u32,
    /// The epoch of the claim that it was last tried under; 0 if there was none.
    tried: u64,
    /// Moves on with the view of the cluster.
    versions: SeenChanges,
    /// The last message that was sent: gone once it is known what comes next.
    flight: Option<Flight<'a>>,
    place: Place<'a>,
    slot: Option<OwnedSemaphorePermit>,
    /// Whether it went to a durable actor last.
    durable: bool,
    /// Whether an earlier attempt may have been run, or may yet be.
    open: bool,
    /// What the last attempt came to.
    last: Option<Error>,
}

pub(super) enum Step<M: Message> {
    Again,
    Local(Started<M>),
    Answer { head: AnswerHead, body: Bytes },
}

impl<'a, M: Message> Journey<'a, M> {
    pub(super) fn new(around: &'a Arc<Surroundings>, target: &'a Target, departure: Departure<M>, mode: Mode) -> Self {
        Self {
            around,
            target,
            mode,
            deadline: departure.call.deadline.at(),
            form: None,
            binary: None,
            pauses: 0,
            tried: 0,
            flight: None,
            place: Place::new(around, M::Contract::NAME, target, departure.number),
            slot: None,
            versions: around.cluster.versions(),
            durable: departure.tried_here,
            departure,
            open: false,
            last: None,
        }
    }

    /// The journey of a call that went straight, and came to no reply.
    pub(super) fn of_sent(
        around: &'a Arc<Surroundings>,
        target: &'a Target,
        departure: Departure<M>,
        mode: Mode,
        sent: Sent<'a>,
    ) -> Self {
        let Sent { flight, place, slot, to } = sent;
        let journey = Self::new(around, target, departure, mode);
        Self { tried: to.epoch, durable: to.durable, flight: Some(flight), place, slot: Some(slot), ..journey }
    }

    /// Begins it on this node, the first time, if its actor is durable and lives here. Nothing of that waits.
    fn begin(&mut self, hosted: Option<&Hosted>) -> Result<Option<Step<M>>, Error> {
        self.around.check_running()?;
        if Instant::now() >= self.deadline {
            let late = || not_started(M::Contract::NAME, self.target.key.as_str());
            let error = self.last.take().unwrap_or_else(late);
            return Err(self.ended(error));
        }
        if self.place.follows() {
            self.line_up()?;
        }
        if !std::mem::replace(&mut self.departure.tried_here, true)
            && !self.place.is_lined()
            && let Some(hosted) = hosted.filter(|hosted| hosted.durable)
            && let Some(route) = hosted.local::<M>()
        {
            match self.start_here(route, true)? {
                Step::Local(Started::Elsewhere) => {}
                step => return Ok(Some(step)),
            }
        }
        Ok(None)
    }

    /// The key of its actor.
    pub(super) fn key(&self) -> &'a str {
        self.target.key.as_str()
    }

    pub(super) async fn step(&mut self, hosted: Option<&Hosted>) -> Result<Step<M>, Error> {
        if let Some(step) = self.begin(hosted)? {
            return Ok(step);
        }
        let actor = M::Contract::NAME;
        let located = self.around.cluster.locate(actor, self.target.partition);
        let cut_off = self.around.client().is_none() && !matches!(located, Located::Here { .. });
        if self.place.is_lined() && !self.open && cut_off {
            return Err(self.ended(self.unavailable("this node has no connection to the broker")));
        }
        if let Some(wait) = self.place.turn(&located) {
            self.around.until(wait.until.min(self.deadline), wait.woken).await;
            return Ok(Step::Again);
        }
        if self.tried != located.epoch() {
            (self.tried, self.pauses) = (located.epoch(), 0);
        }
        match located {
            Located::Here { .. } => match hosted.and_then(|hosted| Some((hosted, hosted.local::<M>()?))) {
                Some((hosted, route)) => self.start_here(route, hosted.durable),
                None => Err(self.unavailable("this node owns its partition and does not host it")),
            },
            Located::Node { id, epoch, durable } => self.send(&id, epoch, durable).await,
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

    /// Takes its place among the calls of this node to the same actor: behind those made before it, and before those
    /// made after it.
    fn line_up(&mut self) -> Result<(), Error> {
        if !self.place.is_lined() {
            // It would wait for the very turn that waits for it.
            self.departure.call.chain.admit(M::Contract::NAME, self.target.key.as_str())?;
            if self.slot.is_none() {
                self.slot = Some(self.around.in_flight()?);
            }
            self.place.line_up();
        }
        // Only now: until then it stood for this call.
        self.flight = None;
        Ok(())
    }

    /// Takes in that the call failed. If it may be made again, waits until then.
    ///
    /// # Errors
    /// What the call ends by.
    pub(super) async fn go_on(&mut self, error: Error) -> Result<(), Error> {
        let over = Instant::now() >= self.deadline || self.around.check_running().is_err();
        if over || !self.may_send_again(&error) {
            return Err(self.ended(error));
        }
        if error.kind() == ErrorKind::Expired {
            // The only attempt was not run, and this id never will be: so another one, born later.
            self.departure.call.born = born_after(&error).map_or(0, |mark| mark + 1).max(wall_ms());
            self.departure.turn = self.around.next_turn(self.departure.call.born);
            self.departure.call.turn = Some(self.departure.turn);
        } else {
            self.departure.call.attempt = self.departure.call.attempt.saturating_add(1);
        }
        let cut = matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Interrupted);
        self.open |= cut && self.mode != Mode::Read;
        let why = error.message().to_owned();
        self.line_up()?;
        // A take-over is not slept through: the first time it goes on at once.
        let first = self.last.replace(error).is_none();
        if cut && first { Ok(()) } else { self.pause(&why).await }
    }

    fn may_send_again(&self, error: &Error) -> bool {
        // Of what a node without a connection has not sent, it says so at once.
        let connected = || self.open || self.around.client().is_some();
        self.durable
            && match error.kind() {
                ErrorKind::Unknown => true,
                // The node stopped; a turn that was cut between its commits says so at every attempt.
                ErrorKind::Interrupted => error.details().is_some_and(|details| details["stopped"] == true),
                ErrorKind::Unavailable | ErrorKind::Stopped | ErrorKind::Moved => connected(),
                ErrorKind::Expired => {
                    self.departure.fresh && self.departure.call.attempt == 1 && born_after(error).is_some()
                }
                _ => self.open && error.is_retryable(),
            }
    }

    /// What the caller is told: nothing that says "not run" of a call that may have been.
    fn ended(&self, error: Error) -> Error {
        if !self.open || !error.is_retryable() {
            return error;
        }
        let why = format!(
            "{}/{} was asked more than once, and what an earlier attempt did is not known",
            M::Contract::NAME,
            self.target.key
        );
        Error::new(ErrorKind::Unknown, why).with_source(error)
    }

    fn start_here(&mut self, route: &dyn LocalRoute<M>, durable: bool) -> Result<Step<M>, Error> {
        self.goes_to(durable)?;
        if self.departure.message.is_none() {
            let json = self.departure.json.as_ref().ok_or_else(lost_message)?;
            self.departure.message = Some(Codec::Json.decode(json).map_err(|why| {
                Error::new(ErrorKind::Internal, format!("the message `{}` does not read back: {why}", M::VERB))
            })?);
        }
        if durable {
            self.departure.write();
        }
        self.slot = None;
        if self.mode == Mode::Tell {
            let admitted = route.tell(self.target, &mut self.departure.message, &self.departure.call)?;
            return Ok(if admitted {
                Step::Answer { head: AnswerHead::new(0, AnswerKind::Reply, Codec::Json, 0), body: Bytes::new() }
            } else {
                Step::Local(Started::Elsewhere)
            });
        }
        let started = route.start(self.target, &mut self.departure.message, &self.departure.call);
        if matches!(started, Started::Waiting(_)) {
            // It is in the actor's queue: the next may follow.
            self.place.leave();
        }
        Ok(Step::Local(started))
    }

    async fn send(&mut self, node: &Arc<str>, epoch: u64, durable: bool) -> Result<Step<M>, Error> {
        self.goes_to(durable)?;
        if self.slot.is_none() {
            self.slot = Some(self.around.in_flight()?);
        }
        let (actor, key) = (M::Contract::NAME, self.target.key.as_str());
        let form = self.form();
        let codec = match form {
            Some(_) if !self.around.reads_json_only(node, actor, M::VERB) => Codec::Bincode,
            _ => Codec::Json,
        };
        let body = self.body(codec)?;
        let repeatable = durable || self.mode == Mode::Read;
        let flight = self.flight.insert(self.place.flight(node, epoch, self.deadline, repeatable));
        if !self.place.may_leave(epoch) {
            self.line_up()?;
            return Ok(Step::Again);
        }
        let head = QuestionHead::new(
            flight.number(),
            actor,
            key,
            M::VERB,
            self.mode,
            (codec, form),
            &self.departure.call,
            self.departure.turn,
            epoch,
            Clock::read(),
        );
        self.around.frames.questions_to(node).ask(self.around, &head, &body)?;
        self.place.sent(epoch, self.deadline);
        let got = flight.wait(self.around, self.deadline).await.of_envelope();
        self.take_in(node, epoch, got).await
    }

    pub(super) async fn take_in(&mut self, node: &str, epoch: u64, got: Got<Answer>) -> Result<Step<M>, Error> {
        let (actor, key) = (M::Contract::NAME, self.target.key.as_str());
        match got {
            Got::Answer(answer) => match answer.head.kind {
                AnswerKind::Reply | AnswerKind::Refusal => {
                    self.place.proved(epoch);
                    Ok(Step::Answer { head: answer.head, body: answer.body })
                }
                AnswerKind::Moved => {
                    self.pause("its partition changes hands").await?;
                    Ok(Step::Again)
                }
                AnswerKind::Failure => self.failed(node, epoch, &answer.body),
            },
            Got::NoOne => {
                self.pause(&format!("its owner {node} is not there")).await?;
                Ok(Step::Again)
            }
            // A read changes nothing: it can be asked again whatever became of the first.
            Got::Lost(_) if self.mode == Mode::Read => {
                self.departure.call.attempt += 1;
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

    /// An attempt that would be run a second time by an actor that remembers nothing is not made.
    fn goes_to(&mut self, durable: bool) -> Result<(), Error> {
        self.durable = durable;
        if durable || !self.open {
            return Ok(());
        }
        let why = format!("{}/{} is not durable where it lives now", M::Contract::NAME, self.target.key);
        Err(self.ended(Error::new(ErrorKind::Unavailable, why)))
    }

    fn failed(&mut self, node: &str, epoch: u64, body: &Bytes) -> Result<Step<M>, Error> {
        let body: ErrorBody = serde_json::from_slice(body).map_err(|error| {
            Error::new(ErrorKind::BadReply, "the error that was answered cannot be read").with_source(error)
        })?;
        let error = Error::from(body);
        if error.kind() == ErrorKind::CodecMismatch && self.form().is_some() {
            self.around.note_json_only(node, M::Contract::NAME, M::VERB);
            self.form = Some(None);
            self.line_up()?;
            return Ok(Step::Again);
        }
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Stopped | ErrorKind::Interrupted) {
            self.place.proved(epoch);
        }
        Err(error)
    }

    fn form(&mut self) -> Option<Fingerprint> {
        *self.form.get_or_insert_with(|| self.around.form::<M>())
    }

    fn body(&mut self, codec: Codec) -> Result<Bytes, Error> {
        let kept = match codec {
            Codec::Json => &self.departure.json,
            Codec::Bincode => &self.binary,
        };
        let body = match (kept, &self.departure.message, &self.departure.json) {
            (Some(body), ..) => body.clone(),
            (None, Some(message), _) => codec.encode(message)?,
            // A turn on this node took the message.
            (None, None, Some(json)) => {
                let message: M =
                    Codec::Json.decode(json).map_err(|why| Error::new(ErrorKind::Internal, why.to_string()))?;
                codec.encode(&message)?
            }
            (None, None, None) => return Err(lost_message()),
        };
        self.around.check_payload(body.len())?;
        match codec {
            Codec::Json => self.departure.json = Some(body.clone()),
            Codec::Bincode => self.binary = Some(body.clone()),
        }
        Ok(body)
    }

    /// Waits until the partition has another owner than the one that was tried, or a little while that grows.
    pub(super) async fn pause(&mut self, why: &str) -> Result<(), Error> {
        self.line_up()?;
        self.pauses += 1;
        let most = Duration::from_millis(2u64 << self.pauses.min(PAUSES_GROW));
        let until = (Instant::now() + most).min(self.deadline);
        loop {
            self.versions.mark_unchanged();
            let now = self.around.cluster.locate(M::Contract::NAME, self.target.partition).epoch();
            if now != self.tried || self.around.until(until, self.versions.changed()).await.is_none() {
                break;
            }
        }
        if Instant::now() >= self.deadline {
            let error = self.last.take().unwrap_or_else(|| self.unavailable(why));
            return Err(self.ended(error));
        }
        Ok(())
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{}/{} could not be reached in time: {why}; nothing was run", M::Contract::NAME, self.target.key),
        )
    }
}

/// The mark that an `Expired` carries.
fn born_after(error: &Error) -> Option<u64> {
    error.details()?["born_after"].as_u64()
}

fn lost_message() -> Error {
    Error::new(ErrorKind::Internal, "the message was taken and not sent")
}
