//! Frames: what nodes send each other, as many envelopes as were waiting, in one message.
//!
//! A frame is the byte `Q` (questions) or `A` (answers), the wire version, and the envelopes: for
//! each the length of its head (varint), the head (bincode), and the body, whose length the head
//! names. Bodies are slices of the received message: nothing is copied.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::WIRE_VERSION;
use crate::call::{Call, Chain, Deadline, Hop, TurnId, wall_ms};
use crate::codec::{Codec, Fingerprint};
use crate::contract::Mode;
use crate::error::{Error, ErrorKind};

/// Envelopes in one frame, at most.
const ENVELOPES_MAX: usize = 1_024;
/// Bytes of one head: a chain of 32 hops with long keys fits.
const HEAD_MAX: usize = 64 * 1024;

/// A frame that was read.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Questions(Vec<Question>),
    Answers(Vec<Answer>),
}

/// One call to a keyed actor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    pub(crate) head: QuestionHead,
    pub(crate) body: Bytes,
}

/// What one call came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) head: AnswerHead,
    pub(crate) body: Bytes,
}

/// The head of a question. The order of the fields is the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuestionHead {
    /// Its place in the frame, given back by the answer.
    pub(crate) number: u32,
    pub(crate) actor: String,
    pub(crate) key: String,
    pub(crate) verb: String,
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
    pub(crate) trace: Option<String>,
    body: u32,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manner {
    Ask,
    Read,
    /// Answered when it is admitted.
    Tell,
    /// A durable tell: answered when its turn has committed.
    Stored,
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

/// The head of an answer. The order of the fields is the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AnswerHead {
    pub(crate) number: u32,
    pub(crate) kind: AnswerKind,
    pub(crate) codec: Codec,
    /// The epoch under which the sender owned the partition when it answered; 0 if it did not, be it
    /// that it never had it, or that it gave it away while the turn ran. Says nothing of the turn.
    pub(crate) epoch: u64,
    body: u32,
}

/// What an answer's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AnswerKind {
    /// The reply.
    Reply,
    /// The refusal.
    Refusal,
    /// An [`ErrorBody`](crate::error::ErrorBody) in JSON.
    Failure,
    /// Empty: the receiver does not own the partition, and nothing was run.
    Moved,
}

impl QuestionHead {
    /// The head of a call that is sent now. `deadline` must not have passed.
    #[expect(clippy::too_many_arguments, reason = "each is a field of the wire")]
    pub(crate) fn new(
        actor: &str,
        key: &str,
        verb: &str,
        mode: Mode,
        form: (Codec, Option<Fingerprint>),
        call: &Call,
        turn: TurnId,
        epoch: u64,
    ) -> Self {
        let left = call.deadline.at().saturating_duration_since(Instant::now());
        Self {
            number: 0,
            actor: actor.to_owned(),
            key: key.to_owned(),
            verb: verb.to_owned(),
            mode: Manner::of(mode, call),
            codec: form.0,
            schema: form.1,
            turn,
            born: call.born,
            attempt: call.attempt,
            budget_us: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
            expires_ms: wall_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            epoch,
            chain: call.chain.hops().cloned().collect(),
            trace: call.trace.as_deref().map(str::to_owned),
            body: 0,
        }
    }

    /// The call as the receiver sees it.
    pub(crate) fn call(&self) -> Result<Call, Error> {
        let wall_left = self.expires_ms.saturating_sub(wall_ms());
        let left = Duration::from_micros(self.budget_us).min(Duration::from_millis(wall_left));
        Ok(Call {
            deadline: Deadline::After(left).fixed(),
            chain: Chain::from_hops(self.chain.clone())?,
            turn: Some(self.turn),
            attempt: self.attempt,
            born: self.born,
            trace: self.trace.as_deref().map(Into::into),
            stored: self.mode == Manner::Stored,
            digest: None,
        })
    }
}

impl AnswerHead {
    pub(crate) fn new(number: u32, kind: AnswerKind, codec: Codec, epoch: u64) -> Self {
        Self { number, kind, codec, epoch, body: 0 }
    }
}

trait Head: Serialize + for<'de> Deserialize<'de> {
    fn body(&mut self) -> &mut u32;
}

impl Head for QuestionHead {
    fn body(&mut self) -> &mut u32 {
        &mut self.body
    }
}

impl Head for AnswerHead {
    fn body(&mut self) -> &mut u32 {
        &mut self.body
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<HEAD_MAX>()
}

impl Frame {
    /// Writes questions.
    pub(crate) fn questions(questions: Vec<Question>) -> Result<Bytes, Error> {
        write(b'Q', questions.into_iter().map(|question| (question.head, question.body)))
    }

    /// Writes answers.
    pub(crate) fn answers(answers: Vec<Answer>) -> Result<Bytes, Error> {
        write(b'A', answers.into_iter().map(|answer| (answer.head, answer.body)))
    }

    /// Reads a frame; every byte must be accounted for.
    pub(crate) fn read(message: &Bytes) -> Result<Self, Error> {
        match message.get(..2) {
            Some([_, version]) if *version != WIRE_VERSION => {
                Err(malformed(format!("wire version {version}; this node speaks {WIRE_VERSION}")))
            }
            Some([b'Q', _]) => {
                let envelopes = envelopes(message)?.into_iter();
                Ok(Frame::Questions(envelopes.map(|(head, body)| Question { head, body }).collect()))
            }
            Some([b'A', _]) => {
                let envelopes = envelopes(message)?.into_iter();
                Ok(Frame::Answers(envelopes.map(|(head, body)| Answer { head, body }).collect()))
            }
            _ => Err(malformed("it is neither questions nor answers".to_owned())),
        }
    }
}

fn write<H: Head>(kind: u8, envelopes: impl Iterator<Item = (H, Bytes)>) -> Result<Bytes, Error> {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_slice(&[kind, WIRE_VERSION]);
    for (count, (mut head, body)) in envelopes.enumerate() {
        if count == ENVELOPES_MAX {
            return Err(malformed(format!("more than {ENVELOPES_MAX} envelopes")));
        }
        *head.body() = u32::try_from(body.len()).map_err(|_| malformed("a body is over 4 GiB".to_owned()))?;
        let bytes = bincode::serde::encode_to_vec(&head, config()).map_err(|error| malformed(error.to_string()))?;
        if bytes.len() > HEAD_MAX {
            return Err(malformed(format!("a head has {} bytes; the limit is {HEAD_MAX}", bytes.len())));
        }
        let length = bincode::serde::encode_to_vec(bytes.len() as u64, config())
            .map_err(|error| malformed(error.to_string()))?;
        frame.put_slice(&length);
        frame.put_slice(&bytes);
        frame.put_slice(&body);
    }
    Ok(frame.freeze())
}

fn envelopes<H: Head>(message: &Bytes) -> Result<Vec<(H, Bytes)>, Error> {
    let mut envelopes = Vec::new();
    let mut at = 2;
    if message.len() == at {
        return Err(malformed("it holds no envelope".to_owned()));
    }
    while at < message.len() {
        if envelopes.len() == ENVELOPES_MAX {
            return Err(malformed(format!("more than {ENVELOPES_MAX} envelopes")));
        }
        let (length, used): (u64, usize) = read(&message[at..])?;
        at += used;
        let length = usize::try_from(length).ok().filter(|length| *length <= HEAD_MAX);
        let end = length.and_then(|length| at.checked_add(length)).filter(|end| *end <= message.len());
        let end = end.ok_or_else(|| malformed("a head is cut short".to_owned()))?;
        let (mut head, used): (H, usize) = read(&message[at..end])?;
        if at + used != end {
            return Err(malformed("a head is longer than what it holds".to_owned()));
        }
        let body_end = usize::try_from(*head.body()).ok().and_then(|length| end.checked_add(length));
        let body_end =
            body_end.filter(|end| *end <= message.len()).ok_or_else(|| malformed("a body is cut short".to_owned()))?;
        *head.body() = 0;
        envelopes.push((head, message.slice(end..body_end)));
        at = body_end;
    }
    Ok(envelopes)
}

fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<(T, usize), Error> {
    bincode::serde::decode_from_slice(bytes, config()).map_err(|error| malformed(error.to_string()))
}

fn malformed(why: String) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the frame cannot be used: {why}"))
}
