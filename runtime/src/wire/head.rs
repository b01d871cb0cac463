//! Heads of envelopes: what travels with a call and its answer between nodes.

use std::time::Duration;

use super::frame::Kind;
use super::number::{Put, Take, malformed};
use crate::call::{Call, Chain, Clock, Deadline, Hop, TurnId};
use crate::codec::{Codec, Fingerprint};
use crate::contract::Mode;
use crate::error::Error;

/// What stands before a body. The body's length follows it.
pub(crate) trait Head<'a>: Sized {
    /// The frames that it stands in.
    const KIND: Kind;

    fn write(&self, to: &mut impl Put);

    fn read(from: &mut Take<'a>) -> Result<Self, Error>;
}

/// The head of a question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuestionHead<'a> {
    /// Its asker's number for it, given back by the answer.
    pub(crate) number: u64,
    pub(crate) actor: &'a str,
    pub(crate) key: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) mode: Manner,
    pub(crate) codec: Codec,
    /// What the sender takes the message's form to be; asked for with bincode.
    pub(crate) schema: Option<Fingerprint>,
    pub(crate) turn: TurnId,
    /// Wall time at which the id was made, in ms; 0 if unknown.
    pub(crate) born: u64,
    pub(crate) attempt: u32,
    /// What was left of the call's time when it was sent, in µs.
    pub(crate) budget_us: u64,
    /// Wall time after which it must not be started, in ms. The smaller of the two counts.
    pub(crate) expires_ms: u64,
    /// The epoch of the claim that the sender saw.
    pub(crate) epoch: u64,
    /// Newest first.
    pub(crate) chain: Vec<Hop>,
    pub(crate) trace: Option<&'a str>,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Manner {
    Ask = 0,
    Read = 1,
    /// Answered when it is admitted.
    Tell = 2,
    /// A durable tell: answered when its turn has committed.
    Stored = 3,
}

impl Manner {
    fn of(mode: Mode, call: &Call) -> Self {
        match mode {
            _ if call.stored => Self::Stored,
            Mode::Ask => Self::Ask,
            Mode::Read => Self::Read,
            Mode::Tell => Self::Tell,
        }
    }
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AnswerHead {
    pub(crate) number: u64,
    pub(crate) kind: AnswerKind,
    pub(crate) codec: Codec,
    /// The epoch under which the sender owned the partition when it answered; 0 if it did not, be it
    /// that it never had it, or that it gave it away while the turn ran. Says nothing of the turn.
    pub(crate) epoch: u64,
}

/// What an answer's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum AnswerKind {
    /// The reply.
    Reply = 0,
    /// The refusal.
    Refusal = 1,
    /// An [`ErrorBody`](crate::error::ErrorBody) in JSON.
    Failure = 2,
    /// Empty: the receiver does not own the partition, and nothing was run.
    Moved = 3,
}

impl<'a> QuestionHead<'a> {
    /// The head of a call that is sent now. `deadline` must not have passed.
    #[expect(clippy::too_many_arguments, reason = "each is a field of the wire")]
    pub(crate) fn new(
        number: u64,
        actor: &'a str,
        key: &'a str,
        verb: &'a str,
        mode: Mode,
        form: (Codec, Option<Fingerprint>),
        call: &'a Call,
        turn: TurnId,
        epoch: u64,
        Clock { now, wall_ms }: Clock,
    ) -> Self {
        let left = call.deadline.at().saturating_duration_since(now);
        Self {
            number,
            actor,
            key,
            verb,
            mode: Manner::of(mode, call),
            codec: form.0,
            schema: form.1,
            turn,
            born: call.born,
            attempt: call.attempt,
            budget_us: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
            expires_ms: wall_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            epoch,
            chain: call.chain.hops().cloned().collect(),
            trace: call.trace.as_deref(),
        }
    }

    /// The call as its receiver sees it, to whom it came then.
    pub(crate) fn call(&self, came: Clock) -> Result<Call, Error> {
        let wall_left = self.expires_ms.saturating_sub(came.wall_ms);
        let left = Duration::from_micros(self.budget_us).min(Duration::from_millis(wall_left));
        Ok(Call {
            deadline: Deadline::After(left).counted_from(came.now),
            chain: Chain::from_hops(self.chain.clone())?,
            turn: Some(self.turn),
            attempt: self.attempt,
            born: self.born,
            trace: self.trace.map(Into::into),
            stored: self.mode == Manner::Stored,
            digest: None,
        })
    }
}

impl AnswerHead {
    pub(crate) fn new(number: u64, kind: AnswerKind, codec: Codec, epoch: u64) -> Self {
        Self { number, kind, codec, epoch }
    }
}

impl<'a> Head<'a> for QuestionHead<'a> {
    const KIND: Kind = Kind::Questions;

    fn write(&self, to: &mut impl Put) {
        to.put_number(self.number);
        [self.actor, self.key, self.verb].into_iter().for_each(|text| to.put_text(text));
        to.put(&[self.mode as u8, byte_of(self.codec)]);
        match &self.schema {
            None => to.put(&[0]),
            Some(Fingerprint(bytes)) => {
                to.put(&[1]);
                to.put(bytes);
            }
        }
        to.put_id(self.turn.0);
        let numbers = [self.born, u64::from(self.attempt), self.budget_us, self.expires_ms, self.epoch];
        numbers.into_iter().for_each(|number| to.put_number(number));
        to.put_number(self.chain.len() as u64);
        for hop in &self.chain {
            to.put_text(&hop.actor);
            to.put_text(&hop.key);
        }
        to.put(&[u8::from(self.trace.is_some())]);
        if let Some(trace) = self.trace {
            to.put_text(trace);
        }
    }

    fn read(from: &mut Take<'a>) -> Result<Self, Error> {
        Ok(Self {
            number: from.number()?,
            actor: from.text()?,
            key: from.text()?,
            verb: from.text()?,
            mode: Manner::read(from)?,
            codec: codec(from)?,
            schema: if from.flag()? { Some(Fingerprint(from.array()?)) } else { None },
            turn: TurnId(from.id()?),
            born: from.number()?,
            attempt: from.small_number()?,
            budget_us: from.number()?,
            expires_ms: from.number()?,
            epoch: from.number()?,
            chain: hops(from)?,
            trace: if from.flag()? { Some(from.text()?) } else { None },
        })
    }
}

impl Head<'_> for AnswerHead {
    const KIND: Kind = Kind::Answers;

    fn write(&self, to: &mut impl Put) {
        to.put_number(self.number);
        to.put(&[self.kind as u8, byte_of(self.codec)]);
        to.put_number(self.epoch);
    }

    fn read(from: &mut Take<'_>) -> Result<Self, Error> {
        Ok(Self { number: from.number()?, kind: AnswerKind::read(from)?, codec: codec(from)?, epoch: from.number()? })
    }
}

impl Manner {
    fn read(from: &mut Take<'_>) -> Result<Self, Error> {
        let all = [Self::Ask, Self::Read, Self::Tell, Self::Stored];
        one_of(&all, from, "a question is asked in no manner that is known here")
    }
}

impl AnswerKind {
    fn read(from: &mut Take<'_>) -> Result<Self, Error> {
        let all = [Self::Reply, Self::Refusal, Self::Failure, Self::Moved];
        one_of(&all, from, "an answer is of no kind that is known here")
    }
}

fn byte_of(codec: Codec) -> u8 {
    match codec {
        Codec::Json => 0,
        Codec::Bincode => 1,
    }
}

fn codec(from: &mut Take<'_>) -> Result<Codec, Error> {
    one_of(&[Codec::Json, Codec::Bincode], from, "a body is written in no codec that is known here")
}

/// The one that has the next byte as its place.
fn one_of<T: Copy>(all: &[T], from: &mut Take<'_>, otherwise: &str) -> Result<T, Error> {
    all.get(usize::from(from.byte()?)).copied().ok_or_else(|| malformed(otherwise))
}

fn hops(from: &mut Take<'_>) -> Result<Vec<Hop>, Error> {
    let count = usize::try_from(from.number()?).unwrap_or(usize::MAX);
    // Each has the lengths of two texts.
    if count > from.left() / 2 {
        return Err(malformed("it is cut short"));
    }
    let hop = |_| Ok(Hop { actor: from.text()?.to_owned(), key: from.text()?.to_owned() });
    (0..count).map(hop).collect()
}
