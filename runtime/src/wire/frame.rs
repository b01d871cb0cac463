//! Frames: what nodes send each other, as many envelopes as were waiting, in one message.
//!
//! A frame is the byte `Q` (questions) or `A` (answers), the wire version, and the envelopes: for
//! each the length of its head (varint), the head (bincode), and the body, whose length the head
//! names. Bodies are slices of the received message: nothing is copied.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};

use super::WIRE_VERSION;
use super::head::{AnswerHead, Head, QuestionHead};
use super::number::{Put, Take, malformed};
use crate::error::Error;

/// Envelopes in one frame, at most.
const ENVELOPES_MAX: usize = 1_024;
/// Where the first envelope begins: behind kind and version.
const START: usize = 2;
/// Bytes of one head: a chain of 32 hops with long keys fits.
const HEAD_MAX: usize = 64 * 1024;

/// An envelope that was read. Its head looks into the frame's bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Opened<H> {
    pub(crate) head: H,
    pub(crate) body: Bytes,
}

/// One call to a keyed actor.
pub(crate) type Question<'a> = Opened<QuestionHead<'a>>;
/// What one call came to.
pub(crate) type Answer = Opened<AnswerHead>;
/// The calls of a frame.
pub(crate) type Questions<'a> = Envelopes<'a, QuestionHead<'a>>;
/// The answers of a frame.
pub(crate) type Answers<'a> = Envelopes<'a, AnswerHead>;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Questions = b'Q',
    Answers = b'A',
}

/// An envelope that was written: a head with its length before it, and the body.
pub(crate) struct Envelope<'b> {
    head: HeadBytes,
    body: &'b [u8],
}

impl<'b> Envelope<'b> {
    /// Writes a question.
    ///
    /// # Errors
    /// `BadRequest` if its head takes over 64 KiB.
    pub(crate) fn question(head: &QuestionHead<'_>, body: &'b [u8]) -> Result<Self, Error> {
        Self::write(head, body)
    }

    /// Writes an answer.
    ///
    /// # Errors
    /// As [`question`](Self::question).
    pub(crate) fn answer(head: &AnswerHead, body: &'b [u8]) -> Result<Self, Error> {
        Self::write(head, body)
    }

    /// Its bytes in a frame.
    pub(crate) fn bytes(&self) -> usize {
        let head = self.head.as_slice().len();
        let length = 1 + 2 * (usize::from(head > 250) + usize::from(head > 0xffff));
        length + head + self.body.len()
    }

    fn write<'a>(head: &impl Head<'a>, body: &'b [u8]) -> Result<Self, Error> {
        let length = u32::try_from(body.len()).map_err(|_| malformed("a body is over 4 GiB"))?;
        let mut bytes = HeadBytes::new();
        head.write(&mut bytes);
        bytes.put_number(u64::from(length));
        let written = bytes.as_slice().len();
        if written > HEAD_MAX {
            return Err(malformed(&format!("a head has {written} bytes; the limit is {HEAD_MAX}")));
        }
        Ok(Self { head: bytes, body })
    }
}

/// The bytes of a head: in place, unless it has a long chain.
struct HeadBytes {
    place: [u8; 192],
    used: usize,
    /// All of it, once it did not fit.
    long: Vec<u8>,
}

impl HeadBytes {
    fn new() -> Self {
        Self { place: [0; 192], used: 0, long: Vec::new() }
    }

    fn as_slice(&self) -> &[u8] {
        if self.long.is_empty() { &self.place[..self.used] } else { &self.long }
    }
}

impl Put for HeadBytes {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if let Some(room) = self.place.get_mut(self.used..end).filter(|_| self.long.is_empty()) {
            room.copy_from_slice(bytes);
            self.used = end;
            return;
        }
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.place[..self.used]);
        }
        self.long.extend_from_slice(bytes);
    }
}

impl Put for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A frame that is being filled.
pub(crate) struct Filling {
    bytes: BytesMut,
    envelopes: usize,
}

impl Filling {
    /// One without envelopes, with room for so many bytes.
    pub(crate) fn new(kind: Kind, room: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(room + 2);
        bytes.put_slice(&[kind as u8, WIRE_VERSION]);
        Self { bytes, envelopes: 0 }
    }

    pub(crate) fn put(&mut self, envelope: &Envelope<'_>) {
        let head = envelope.head.as_slice();
        self.bytes.put_number(head.len() as u64);
        self.bytes.put_slice(head);
        self.bytes.put_slice(envelope.body);
        self.envelopes += 1;
    }

    pub(crate) fn envelopes(&self) -> usize {
        self.envelopes
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

#[cfg(test)]
impl<'a, H: Head<'a>> Opened<H> {
    /// Writes a frame of them.
    pub(crate) fn frame(all: &[Self]) -> Result<Bytes, Error> {
        let mut filling = Filling::new(H::KIND, 0);
        for one in all {
            if filling.envelopes() == ENVELOPES_MAX {
                return Err(malformed(&format!("more than {ENVELOPES_MAX} envelopes")));
            }
            filling.put(&Envelope::write(&one.head, &one.body)?);
        }
        Ok(filling.finish())
    }
}

/// Reads a frame, envelope by envelope. Ends with the first that cannot be read.
pub(crate) struct Envelopes<'a, H> {
    message: &'a Bytes,
    /// Where the next begins; `None` once one could not be read.
    at: Option<usize>,
    read: usize,
    heads: PhantomData<fn() -> H>,
}

impl<'a, H: Head<'a>> Envelopes<'a, H> {
    /// Reads from a place that [`at`](Self::at) gave, or from the beginning (0).
    pub(crate) fn of(message: &'a Bytes, at: usize) -> Self {
        Self { message, at: Some(at), read: 0, heads: PhantomData }
    }

    /// Where the next begins.
    pub(crate) fn at(&self) -> usize {
        self.at.unwrap_or(self.message.len())
    }

    fn start(&self) -> Result<usize, Error> {
        match self.message.get(..START) {
            Some([_, version]) if *version != WIRE_VERSION => {
                Err(malformed(&format!("wire version {version}; this node speaks {WIRE_VERSION}")))
            }
            Some([kind, _]) if *kind == H::KIND as u8 && self.message.len() > START => Ok(START),
            Some([kind, _]) if *kind == H::KIND as u8 => Err(malformed("it holds no envelope")),
            Some([b'Q' | b'A', _]) => Err(malformed("questions and answers do not come to the same place")),
            _ => Err(malformed("it is neither questions nor answers")),
        }
    }

    fn read(&mut self, at: usize) -> Result<Option<Opened<H>>, Error> {
        let at = if at == 0 { self.start()? } else { at };
        let mut bytes = Take::new(self.message.get(at..).unwrap_or_default());
        if bytes.left() == 0 {
            return Ok(None);
        }
        if self.read == ENVELOPES_MAX {
            return Err(malformed(&format!("more than {ENVELOPES_MAX} envelopes")));
        }
        let length = usize::try_from(bytes.number()?).ok().filter(|length| *length <= HEAD_MAX);
        let mut inside = Take::new(bytes.take(length.ok_or_else(|| malformed("a head is too long"))?)?);
        let (head, length) = (H::read(&mut inside)?, inside.small_number()?);
        if inside.left() > 0 {
            return Err(malformed("a head is longer than what it holds"));
        }
        let from = self.message.len() - bytes.left();
        bytes.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let end = self.message.len() - bytes.left();
        (self.at, self.read) = (Some(end), self.read + 1);
        Ok(Some(Opened { head, body: self.message.slice(from..end) }))
    }
}

impl<'a, H: Head<'a>> Iterator for Envelopes<'a, H> {
    type Item = Result<Opened<H>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        self.at = Some(at);
        let read = self.read(at).transpose()?;
        if read.is_err() {
            self.at = None;
        }
        Some(read)
    }
}
