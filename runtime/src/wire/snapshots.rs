//! The wire, byte for byte. A change here is a change of the protocol: it needs another
//! [`WIRE_VERSION`], a line in the changelog, and a look at `docs/wire.md`.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use insta::assert_snapshot;
use tokio::time::Instant;

use super::*;
use crate::call::{Call, Chain, Deadline, TurnId, wall_ms};
use crate::codec::{Codec, Fingerprint};
use crate::contract::Mode;
use crate::error::{AskError, Error, ErrorBody, ErrorKind, REFUSED};
use crate::transport::{Headers, Inbound};

const TURN: TurnId = TurnId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
const BORN: u64 = 1_700_000_000_000;
const EXPIRES: u64 = 1_700_000_005_000;

fn call(budget: Duration) -> Call {
    Call {
        deadline: Deadline::At(Instant::now() + budget),
        chain: Chain::default().with("user", "u 1").with("order", "o-1"),
        turn: Some(TURN),
        attempt: 2,
        born: BORN,
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    }
}

/// Every field of the head set, and those that a clock sets set to something known.
fn question() -> Question {
    let form = (Codec::Bincode, Some(Fingerprint([0xa5; 16])));
    let mut head =
        QuestionHead::new("payment", "o-1", "charge", Mode::Ask, form, &call(Duration::from_secs(5)), TURN, 300);
    (head.number, head.budget_us, head.expires_ms) = (7, 4_999_000, EXPIRES);
    Question { head, body: Bytes::from_static(b"\x05hello") }
}

/// The least that a call can carry.
fn small_question() -> Question {
    let call = Call::root(Duration::from_secs(5));
    let mut head = QuestionHead::new("order", "42", "get", Mode::Read, (Codec::Json, None), &call, TurnId(1), 1);
    (head.budget_us, head.expires_ms) = (5_000_000, EXPIRES);
    Question { head, body: Bytes::from_static(b"{}") }
}

fn answer(kind: AnswerKind, codec: Codec, epoch: u64, body: &'static [u8]) -> Answer {
    Answer { head: AnswerHead::new(7, kind, codec, epoch), body: Bytes::from_static(body) }
}

/// Sixteen bytes a line, with the characters that they are.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = line.iter().map(|byte| if byte.is_ascii_graphic() { *byte as char } else { '.' }).collect();
        writeln!(text, "{:04x}  {:<47}  {shown}", number * 16, digits.join(" ")).expect("a string takes it");
    }
    text
}

fn lines(headers: &Headers) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

fn inbound(headers: Headers, body: impl Into<Bytes>) -> Inbound {
    Inbound { subject: "_INBOX.1".to_owned(), reply: None, headers, body: body.into(), no_responders: false }
}

#[test]
fn a_question_is_these_bytes() {
    let frame = Frame::questions(vec![question()]).expect("written");
    assert_snapshot!(hex(&frame), @"");
    assert_eq!(Frame::read(&frame).expect("read"), Frame::Questions(vec![question()]));
}

#[test]
fn questions_in_one_frame_are_these_bytes() {
    let frame = Frame::questions(vec![small_question(), small_question()]).expect("written");
    assert_snapshot!(hex(&frame), @"");
    assert_eq!(Frame::read(&frame).expect("read"), Frame::Questions(vec![small_question(), small_question()]));
}

#[test]
fn each_kind_of_answer_is_these_bytes() {
    let answers = vec![
        answer(AnswerKind::Reply, Codec::Bincode, 300, b"\x05hello"),
        answer(AnswerKind::Refusal, Codec::Json, 300, br#""no""#),
        answer(AnswerKind::Failure, Codec::Json, 0, br#"{"code":503}"#),
        answer(AnswerKind::Moved, Codec::Bincode, 0, b""),
    ];
    let frame = Frame::answers(answers.clone()).expect("written");
    assert_snapshot!(hex(&frame), @"");
    assert_eq!(Frame::read(&frame).expect("read"), Frame::Answers(answers));
}

#[test]
fn the_call_that_a_question_carries_is_the_one_that_was_asked() {
    let asked = call(Duration::from_secs(5));
    let head = QuestionHead::new("payment", "o-1", "charge", Mode::Ask, (Codec::Json, None), &asked, TURN, 1);
    let seen = head.call().expect("a call");
    assert_eq!((seen.turn, seen.attempt, seen.born, seen.trace.clone()), (Some(TURN), 2, BORN, asked.trace.clone()));
    assert!(seen.chain.hops().eq(asked.chain.hops()));
    let left = seen.deadline.at().saturating_duration_since(Instant::now());
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(3), "{left:?}");
    let late = QuestionHead { expires_ms: wall_ms() - 1, ..head };
    assert!(late.call().expect("a call").deadline.has_passed(), "the smaller of budget and wall time counts");
}

#[test]
fn a_call_to_a_service_has_these_headers() {
    let headers = OutsideCall::headers(&call(Duration::from_secs(10)), TURN, "a5a5");
    let number = |name| headers.get(name).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (left, expires) = (number(TIMEOUT), number("Greenroom-Expires"));
    assert!((5_000..=10_000).contains(&left), "{left}");
    assert!((4_000..=10_000).contains(&expires.saturating_sub(wall_ms())), "{expires}");
    let shown = lines(&headers).replace(&expires.to_string(), "[wall]").replace(&left.to_string(), "[left]");
    assert_snapshot!(shown, @"");

    let read = OutsideCall::read(&headers, Duration::from_secs(99)).expect("read");
    assert!(!read.by_hand, "a program says which schema it means");
    assert_eq!((read.call.attempt, read.call.born), (2, BORN));
    assert!(read.call.chain.hops().eq(call(Duration::ZERO).chain.hops()));
    assert_eq!(read.call.trace.as_deref(), call(Duration::ZERO).trace.as_deref());
}

#[test]
fn a_call_by_hand_needs_no_headers() {
    let read = OutsideCall::read(&Headers::new(), Duration::from_secs(5)).expect("read");
    assert!(read.by_hand);
    let left = read.call.deadline.at().saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(3), "{left:?}");
    assert_eq!((read.call.turn, read.call.attempt, read.call.chain.len()), (None, 1, 0));
}

#[test]
fn headers_that_cannot_be_used_are_named() {
    let wrong = [
        ("Content-Type", "text/plain"),
        (TIMEOUT, "soon"),
        (TIMEOUT, "-1"),
        ("Greenroom-Expires", "1e9"),
        ("Greenroom-Attempt", ""),
        ("Greenroom-Born", "0x10"),
        ("Greenroom-Chain", "{"),
    ];
    for (name, value) in wrong {
        let mut headers = Headers::new();
        headers.push(name, value);
        let error = OutsideCall::read(&headers, Duration::from_secs(5)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{name}: {value}");
        assert!(error.message().contains(name), "{error}");
    }
    let mut headers = Headers::new();
    headers.push("content-type", "Application/JSON; charset=utf-8");
    OutsideCall::read(&headers, Duration::from_secs(5)).expect("written otherwise, and the same");
}

#[test]
fn r6_an_error_reply_is_these_headers_and_this_body() {
    let error = Error::new(ErrorKind::UnknownVerb, "order has no verb \"plase\"; it has place")
        .with_details(serde_json::json!({ "verbs": ["place"] }));
    let body = ErrorBody::from(&error);
    assert_snapshot!(lines(&error_headers(&body)), @"");
    let json = serde_json::to_string(&body).expect("written");
    assert_snapshot!(json, @"");
    let Err(AskError::Failed(read)) = unread_reply(inbound(error_headers(&body), json)) else {
        panic!("it is a failure")
    };
    assert_eq!((read.kind(), read.message(), read.details()), (error.kind(), error.message(), error.details()));
}

#[test]
fn r1_a_refusal_is_these_headers_and_this_body() {
    let refusal = serde_json::json!({ "out_of_stock": { "sku": "tea-01", "short": 2 } });
    let body = ErrorBody {
        code: 409,
        kind: REFUSED.to_owned(),
        message: "tea-01 is short by 2".to_owned(),
        retryable: false,
        details: Some(refusal.clone()),
    };
    assert_snapshot!(lines(&error_headers(&body)), @"");
    let json = serde_json::to_string(&body).expect("written");
    assert_snapshot!(json, @"");
    let Err(AskError::Refused(read)) = unread_reply(inbound(error_headers(&body), json)) else {
        panic!("it is a refusal")
    };
    assert_eq!(read, refusal);
}

#[test]
fn a_reply_has_this_header() {
    assert_snapshot!(lines(&reply_headers()), @"");
    assert_eq!(unread_reply(inbound(reply_headers(), "null")).ok(), Some(Bytes::from_static(b"null")));
}

#[test]
fn r6_the_table_of_errors_is_this() {
    let rows: String = ErrorKind::TABLE
        .iter()
        .map(|(kind, code, retryable)| {
            let body = serde_json::to_string(&ErrorBody::from(&Error::new(*kind, "why"))).expect("written");
            format!("{code} {}{kind}\n    {body}\n", if *retryable { "retry " } else { "" })
        })
        .collect();
    assert_snapshot!(rows, @"");
}

#[test]
fn an_error_of_a_kind_that_nobody_knows_is_kept_as_what_it_says() {
    let body = |retryable| ErrorBody {
        code: 599,
        kind: "from_the_future".to_owned(),
        message: "why".to_owned(),
        retryable,
        details: None,
    };
    assert!(Error::from(body(true)).is_retryable());
    assert!(!Error::from(body(false)).is_retryable());
    let mut headers = Headers::new();
    headers.push("Nats-Service-Error-Code", "500");
    headers.push("Nats-Service-Error", "boom");
    let Err(AskError::Failed(error)) = unread_reply(inbound(headers, "not JSON")) else { panic!("it is a failure") };
    assert_eq!(error.kind(), ErrorKind::BadReply);
    assert!(error.message().contains("boom"), "{error}");
}
