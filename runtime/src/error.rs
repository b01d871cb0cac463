//! Errors: what went wrong, whether a retry is safe, and the number that HTTP and NATS know it by.
//!
//! Two things are kept apart everywhere. A **refusal** is the actor's own typed "no"
//! ([`AskError::Refused`]); an [`Error`] means that nobody could be asked, or that what became of
//! the call is not known ([`AskError::Failed`]).

use std::fmt;

use serde::{Deserialize, Serialize};

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a call could not be made, or what is known of one that was.
///
/// The kinds are stable: their names and codes are part of the wire. [`ErrorKind::TABLE`] lists
/// them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The payload is not what the verb takes; the message names what was expected.
    BadRequest,
    /// The key is empty, longer than 128 bytes, or its token is not the canonical one.
    BadKey,
    /// The reply subject of a request is one that the runtime does not answer to. Not sent by this version: such calls
    /// are dropped.
    BadReplySubject,
    /// The actor has no such verb; the details list those it has.
    UnknownVerb,
    /// So many commands were made after this one that its actor may have forgotten it: it is not run. Sent once only,
    /// it never was.
    Expired,
    /// The payload is over the app's limit.
    PayloadTooLarge,
    /// The two ends do not share the binary form of this message; the caller resends JSON.
    CodecMismatch,
    /// A bound was reached: mailbox, asks in flight, calls held during a handover.
    Overloaded,
    /// Nobody could be asked just now: no owner yet, broker away, lease not proven. Nothing was run.
    Unavailable,
    /// No node hosts this actor. Nothing was run.
    NoHost,
    /// The deadline passed before the call was sent, or before its turn started. Nothing was run.
    DeadlineExceeded,
    /// The call was sent and its fate is not known: it may have been run, or may yet be.
    Unknown,
    /// The turn was cut: its actor's node stopped while it ran.
    Interrupted,
    /// The same command id was used for a different command.
    IdReused,
    /// The call would wait for the turn that makes it: through the chain of calls it came by, or in a circle of calls
    /// of several roots, of which the youngest fails so. It was not run.
    CallCycle,
    /// The chain of calls is longer than 32.
    ChainTooLong,
    /// The handler panicked; the turn left no trace beyond its own commits.
    Panicked,
    /// The actor panicked repeatedly and is kept from running until it is released.
    Quarantined,
    /// The receiver does not own the actor's partition; the caller finds the owner and sends again.
    Moved,
    /// The reply could not be read.
    BadReply,
    /// The node is draining, or was never started.
    Stopped,
    /// Refused settings: the message says which and what would be right.
    Config,
    /// Anything else, a defect of the runtime or of an actor's activation.
    Internal,
}

impl ErrorKind {
    /// Every kind with its code and whether a retry is safe: `(kind, code, retryable)`.
    ///
    /// Codes follow HTTP. Retryable means that the call was certainly not run, and that asking
    /// again later may succeed.
    pub const TABLE: &'static [(ErrorKind, u16, bool)] = &[
        (ErrorKind::BadRequest, 400, false),
        (ErrorKind::BadKey, 400, false),
        (ErrorKind::BadReplySubject, 400, false),
        (ErrorKind::UnknownVerb, 404, false),
        (ErrorKind::Expired, 410, false),
        (ErrorKind::PayloadTooLarge, 413, false),
        (ErrorKind::CodecMismatch, 415, true),
        (ErrorKind::Overloaded, 503, true),
        (ErrorKind::Unavailable, 503, true),
        (ErrorKind::NoHost, 503, true),
        (ErrorKind::DeadlineExceeded, 504, true),
        (ErrorKind::Unknown, 504, false),
        (ErrorKind::Interrupted, 500, false),
        (ErrorKind::IdReused, 422, false),
        (ErrorKind::CallCycle, 508, false),
        (ErrorKind::ChainTooLong, 508, false),
        (ErrorKind::Panicked, 500, false),
        (ErrorKind::Quarantined, 503, false),
        (ErrorKind::Moved, 421, true),
        (ErrorKind::BadReply, 502, false),
        (ErrorKind::Stopped, 503, true),
        (ErrorKind::Config, 500, false),
        (ErrorKind::Internal, 500, false),
    ];

    /// The HTTP-like number of this kind, as in `Nats-Service-Error-Code`.
    pub fn code(self) -> u16 {
        self.row().1
    }

    /// Whether the call was certainly not run, so that asking again is safe.
    pub fn is_retryable(self) -> bool {
        self.row().2
    }

    /// The stable name, as on the wire: `payload_too_large`.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_else(|| "internal".to_owned())
    }

    fn row(self) -> &'static (ErrorKind, u16, bool) {
        // The table is complete (a test walks the enum), so the fallback is never seen.
        Self::TABLE.iter().find(|row| row.0 == self).unwrap_or(&(ErrorKind::Internal, 500, false))
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A failure of the runtime, of the way to an actor, or of what was sent.
///
/// Match on [`kind`](Error::kind); the message is for people, and says what was wrong, where, and
/// what would be right.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    details: Option<serde_json::Value>,
    source: Option<Source>,
}

impl Error {
    /// A new error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), details: None, source: None }))
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds facts that a program can read, sent along in the error's JSON body.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The same for one more caller, without its cause.
    pub(crate) fn again(&self) -> Self {
        let same = Self::new(self.kind(), self.message());
        match self.details() {
            Some(details) => same.with_details(details.clone()),
            None => same,
        }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence for people, without the cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Facts for programs, if there are any.
    pub fn details(&self) -> Option<&serde_json::Value> {
        self.0.details.as_ref()
    }

    /// Whether the call was certainly not run, so that asking again is safe.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What an ask gives instead of a reply.
///
/// ```
/// # use greenroom::{AskError, Error, ErrorKind};
/// fn told(error: &AskError<String>) -> String {
///     match error {
///         AskError::Refused(no) => format!("the actor says no: {no}"),
///         AskError::Failed(error) if error.is_retryable() => format!("not run, so ask again: {error}"),
///         AskError::Failed(error) if error.kind() == ErrorKind::Unknown => format!("it may have been run: {error}"),
///         AskError::Failed(error) => format!("asking again will not help: {error}"),
///     }
/// }
///
/// let busy = AskError::Failed(Error::new(ErrorKind::Overloaded, "1024 calls wait"));
/// assert_eq!(told(&busy), "not run, so ask again: 1024 calls wait");
/// ```
#[derive(Debug)]
pub enum AskError<R> {
    /// The actor said no, in its own words. The turn left no trace in the actor's cell beyond its own commits; plain
    /// fields stay as it left them.
    Refused(R),
    /// The actor could not be asked, or it is not known what it did:
    /// [`Error::is_retryable`] tells which.
    Failed(Error),
}

impl<R> AskError<R> {
    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Error> {
        match self {
            AskError::Refused(_) => None,
            AskError::Failed(error) => Some(error),
        }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&R> {
        match self {
            AskError::Refused(refusal) => Some(refusal),
            AskError::Failed(_) => None,
        }
    }

    /// Turns a refusal into another type, for handlers that pass a callee's "no" on as their own.
    pub fn map_refusal<T>(self, map: impl FnOnce(R) -> T) -> AskError<T> {
        match self {
            AskError::Refused(refusal) => AskError::Refused(map(refusal)),
            AskError::Failed(error) => AskError::Failed(error),
        }
    }
}

impl<R> From<Error> for AskError<R> {
    fn from(error: Error) -> Self {
        AskError::Failed(error)
    }
}

impl<R: fmt::Display> fmt::Display for AskError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Refused(refusal) => write!(f, "refused: {refusal}"),
            AskError::Failed(error) => write!(f, "failed ({}): {error}", error.kind()),
        }
    }
}

impl<R: fmt::Debug + fmt::Display> std::error::Error for AskError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AskError::Refused(_) => None,
            AskError::Failed(error) => Some(error),
        }
    }
}

/// The body of an error reply: `{code, kind, message, retryable, details}`.
///
/// A typed refusal travels in the same shape, with kind `refused` and the refusal in `details`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The HTTP-like number, also in the `Nats-Service-Error-Code` header.
    pub code: u16,
    /// The stable name of the kind, or `refused`.
    pub kind: String,
    /// For people.
    pub message: String,
    /// Whether the call was certainly not run and may be sent again.
    pub retryable: bool,
    /// For programs: what was expected, or the refusal itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

/// The kind that a typed refusal shows in an [`ErrorBody`].
pub const REFUSED: &str = "refused";

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        ErrorBody {
            code: error.kind().code(),
            kind: error.kind().name(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            details: error.details().cloned(),
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        // A kind from a newer peer is kept as what its code and retryable flag say of it.
        let kind = serde_json::from_value(serde_json::Value::String(body.kind.clone())).unwrap_or(if body.retryable {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Internal
        });
        let mut error = Error::new(kind, body.message);
        error.0.details = body.details;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r6_every_kind_has_one_row_and_round_trips() {
        for (kind, code, retryable) in ErrorKind::TABLE {
            assert_eq!(ErrorKind::TABLE.iter().filter(|row| row.0 == *kind).count(), 1, "{kind}");
            let body = ErrorBody::from(&Error::new(*kind, "why"));
            assert_eq!((body.code, body.retryable), (*code, *retryable));
            assert_eq!(Error::from(body).kind(), *kind);
        }
        // One past the last variant does not exist: the table is as long as the enum.
        assert_eq!(ErrorKind::TABLE.len(), ErrorKind::Internal as usize + 1);
    }
}
