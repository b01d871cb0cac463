//! The wire, byte for byte. A change here is a change of the protocol: it needs another
//! [`WIRE_VERSION`], a line in the changelog, and a look at `docs/wire.md`.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use insta::assert_snapshot;
use tokio::time::Instant;

use super::frame::{Envelopes, Opened};
use super::head::Head;
use super::*;
use crate::call::{Call, Chain, Clock, Deadline, TurnId, wall_ms};
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
        stored: false,
        digest: None,
    }
}

/// Every field of the head set, and those that a clock sets set to something known.
fn question(call: &Call) -> Question<'_> {
    let form = (Codec::Bincode, Some(Fingerprint([0xa5; 16])));
    let mut head = QuestionHead::new(7, "payment", "o-1", "charge", Mode::Ask, form, call, TURN, 300, Clock::read());
    (head.budget_us, head.expires_ms) = (4_999_000, EXPIRES);
    Question { head, body: Bytes::from_static(b"\x05hello") }
}

/// The least that a call can carry.
fn small_question(call: &Call) -> Question<'_> {
    let mut head =
        QuestionHead::new(0, "order", "42", "get", Mode::Read, (Codec::Json, None), call, TurnId(1), 1, Clock::read());
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

fn read<'a, H: Head<'a>>(frame: &'a Bytes) -> Vec<Opened<H>> {
    Envelopes::of(frame, 0).collect::<Result<_, _>>().expect("read")
}

fn lines(headers: &Headers) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

fn inbound(headers: Headers, body: impl Into<Bytes>) -> Inbound {
    Inbound { subject: "_INBOX.1".to_owned(), reply: None, headers, body: body.into(), no_responders: false }
}

#[test]
fn a_question_is_these_bytes() {
    let call = call(Duration::from_secs(5));
    let frame = Question::frame(&[question(&call)]).expect("written");
    assert_snapshot!(hex(&frame), @r#"
        0000  51 01 a1 07 07 70 61 79 6d 65 6e 74 03 6f 2d 31  Q....payment.o-1
        0010  06 63 68 61 72 67 65 00 01 01 a5 a5 a5 a5 a5 a5  .charge.........
        0020  a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 fe 77 66 55 44 33  ...........wfUD3
        0030  22 11 00 ef cd ab 89 67 45 23 01 fd 00 68 e5 cf  "......gE#...h..
        0040  8b 01 00 00 02 fc 58 47 4c 00 fd 88 7b e5 cf 8b  ......XGL...{...
        0050  01 00 00 fb 2c 01 02 05 6f 72 64 65 72 03 6f 2d  ....,...order.o-
        0060  31 04 75 73 65 72 03 75 20 31 01 37 30 30 2d 34  1.user.u.1.700-4
        0070  62 66 39 32 66 33 35 37 37 62 33 34 64 61 36 61  bf92f3577b34da6a
        0080  33 63 65 39 32 39 64 30 65 30 65 34 37 33 36 2d  3ce929d0e0e4736-
        0090  30 30 66 30 36 37 61 61 30 62 61 39 30 32 62 37  00f067aa0ba902b7
        00a0  2d 30 31 06 05 68 65 6c 6c 6f                    -01..hello
        "#);
    assert_eq!(read::<QuestionHead<'_>>(&frame), [question(&call)]);
}

#[test]
fn questions_in_one_frame_are_these_bytes() {
    let call = Call::root(Duration::from_secs(5));
    let frame = Question::frame(&[small_question(&call), small_question(&call)]).expect("written");
    assert_snapshot!(hex(&frame), @"
        0000  51 01 26 00 05 6f 72 64 65 72 02 34 32 03 67 65  Q.&..order.42.ge
        0010  74 01 00 00 01 00 01 fc 40 4b 4c 00 fd 88 7b e5  t.......@KL...{.
        0020  cf 8b 01 00 00 01 00 00 02 7b 7d 26 00 05 6f 72  .........{}&..or
        0030  64 65 72 02 34 32 03 67 65 74 01 00 00 01 00 01  der.42.get......
        0040  fc 40 4b 4c 00 fd 88 7b e5 cf 8b 01 00 00 01 00  .@KL...{........
        0050  00 02 7b 7d                                      ..{}
        ");
    assert_eq!(read::<QuestionHead<'_>>(&frame), [small_question(&call), small_question(&call)]);
}

#[test]
fn each_kind_of_answer_is_these_bytes() {
    let answers = vec![
        answer(AnswerKind::Reply, Codec::Bincode, 300, b"\x05hello"),
        answer(AnswerKind::Refusal, Codec::Json, 300, br#""no""#),
        answer(AnswerKind::Failure, Codec::Json, 0, br#"{"code":503}"#),
        answer(AnswerKind::Moved, Codec::Bincode, 0, b""),
    ];
    let frame = Answer::frame(&answers).expect("written");
    assert_snapshot!(hex(&frame), @r#"
        0000  41 01 07 07 00 01 fb 2c 01 06 05 68 65 6c 6c 6f  A......,...hello
        0010  07 07 01 00 fb 2c 01 04 22 6e 6f 22 05 07 02 00  .....,.."no"....
        0020  00 0c 7b 22 63 6f 64 65 22 3a 35 30 33 7d 05 07  ..{"code":503}..
        0030  03 01 00 00                                      ....
        "#);
    assert_eq!(read::<AnswerHead>(&frame), answers);
}

#[test]
fn the_call_that_a_question_carries_is_the_one_that_was_asked() {
    let asked = call(Duration::from_secs(5));
    let mut head = QuestionHead::new(
        1,
        "payment",
        "o-1",
        "charge",
        Mode::Ask,
        (Codec::Json, None),
        &asked,
        TURN,
        1,
        Clock::read(),
    );
    let seen = head.call(Clock::read()).expect("a call");
    assert_eq!((seen.turn, seen.attempt, seen.born, seen.trace.clone()), (Some(TURN), 2, BORN, asked.trace.clone()));
    assert!(seen.chain.hops().eq(asked.chain.hops()));
    let left = seen.deadline.at().saturating_duration_since(Instant::now());
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(3), "{left:?}");
    head.expires_ms = wall_ms() - 1;
    assert!(
        head.call(Clock::read()).expect("a call").deadline.has_passed(),
        "the smaller of budget and wall time counts"
    );
}

#[test]
fn a_call_to_a_service_has_these_headers() {
    let headers = OutsideCall::headers(&call(Duration::from_secs(10)), TURN, "a5a5");
    let number = |name| headers.get(name).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (left, expires) = (number(TIMEOUT), number("Greenroom-Expires"));
    assert!((5_000..=10_000).contains(&left), "{left}");
    assert!((4_000..=10_000).contains(&expires.saturating_sub(wall_ms())), "{expires}");
    let shown = lines(&headers).replace(&expires.to_string(), "[wall]").replace(&left.to_string(), "[left]");
    assert_snapshot!(shown, @r#"
        Content-Type: application/json
        Nats-Msg-Id: 0123456789abcdef0011223344556677
        Greenroom-Schema: a5a5
        Greenroom-Timeout-Ms: [left]
        Greenroom-Expires: [wall]
        Greenroom-Attempt: 2
        Greenroom-Born: 1700000000000
        Greenroom-Chain: [{"actor":"order","key":"o-1"},{"actor":"user","key":"u 1"}]
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        "#);

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
    assert_snapshot!(lines(&error_headers(&body)), @r#"
        Content-Type: application/json
        Nats-Service-Error: order has no verb "plase"; it has place
        Nats-Service-Error-Code: 404
        "#);
    let json = serde_json::to_string(&body).expect("written");
    assert_snapshot!(json, @r#"{"code":404,"kind":"unknown_verb","message":"order has no verb \"plase\"; it has place","retryable":false,"details":{"verbs":["place"]}}"#);
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
    assert_snapshot!(lines(&error_headers(&body)), @"
        Content-Type: application/json
        Nats-Service-Error: tea-01 is short by 2
        Nats-Service-Error-Code: 409
        ");
    let json = serde_json::to_string(&body).expect("written");
    assert_snapshot!(json, @r#"{"code":409,"kind":"refused","message":"tea-01 is short by 2","retryable":false,"details":{"out_of_stock":{"short":2,"sku":"tea-01"}}}"#);
    let Err(AskError::Refused(read)) = unread_reply(inbound(error_headers(&body), json)) else {
        panic!("it is a refusal")
    };
    assert_eq!(read, refusal);
}

#[test]
fn a_reply_has_this_header() {
    assert_snapshot!(lines(&reply_headers()), @"Content-Type: application/json");
    assert_snapshot!(lines(&aged_headers(Duration::from_millis(12))), @r"
    Content-Type: application/json
    Greenroom-Age-Ms: 12
    ");
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
    assert_snapshot!(rows, @r#"
        400 bad_request
            {"code":400,"kind":"bad_request","message":"why","retryable":false}
        400 bad_key
            {"code":400,"kind":"bad_key","message":"why","retryable":false}
        400 bad_reply_subject
            {"code":400,"kind":"bad_reply_subject","message":"why","retryable":false}
        404 unknown_verb
            {"code":404,"kind":"unknown_verb","message":"why","retryable":false}
        410 expired
            {"code":410,"kind":"expired","message":"why","retryable":false}
        413 payload_too_large
            {"code":413,"kind":"payload_too_large","message":"why","retryable":false}
        415 retry codec_mismatch
            {"code":415,"kind":"codec_mismatch","message":"why","retryable":true}
        503 retry overloaded
            {"code":503,"kind":"overloaded","message":"why","retryable":true}
        503 retry unavailable
            {"code":503,"kind":"unavailable","message":"why","retryable":true}
        503 retry no_host
            {"code":503,"kind":"no_host","message":"why","retryable":true}
        504 retry deadline_exceeded
            {"code":504,"kind":"deadline_exceeded","message":"why","retryable":true}
        504 unknown
            {"code":504,"kind":"unknown","message":"why","retryable":false}
        500 interrupted
            {"code":500,"kind":"interrupted","message":"why","retryable":false}
        422 id_reused
            {"code":422,"kind":"id_reused","message":"why","retryable":false}
        508 call_cycle
            {"code":508,"kind":"call_cycle","message":"why","retryable":false}
        508 chain_too_long
            {"code":508,"kind":"chain_too_long","message":"why","retryable":false}
        500 panicked
            {"code":500,"kind":"panicked","message":"why","retryable":false}
        503 quarantined
            {"code":503,"kind":"quarantined","message":"why","retryable":false}
        421 retry moved
            {"code":421,"kind":"moved","message":"why","retryable":true}
        502 bad_reply
            {"code":502,"kind":"bad_reply","message":"why","retryable":false}
        503 retry stopped
            {"code":503,"kind":"stopped","message":"why","retryable":true}
        500 config
            {"code":500,"kind":"config","message":"why","retryable":false}
        500 internal
            {"code":500,"kind":"internal","message":"why","retryable":false}
        "#);
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
