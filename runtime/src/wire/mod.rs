//! The wire: frames between nodes, headers for everybody else. `docs/wire.md` describes it, and
//! snapshot tests pin it.

mod frame;
mod head;
mod header;
mod number;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod frame_tests;

pub(crate) use self::frame::{Answer, Answers, Envelope, Filling, Kind, Question, Questions};
pub(crate) use self::head::{AnswerHead, AnswerKind, Manner, QuestionHead};
pub(crate) use self::header::{
    BORN, COMMAND, EXPIRES, FROM, MESSAGE_ID, OutsideCall, REPLY, SCHEMA, SEQUENCE, SUBJECT, TIMEOUT, TRACE,
    aged_headers, error_headers, reply_headers, unread_reply,
};

/// The version of frames, records and headers. Nodes of different versions do not share an app.
pub(crate) const WIRE_VERSION: u8 = 1;
