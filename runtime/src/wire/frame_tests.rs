//! Frames that nobody should have sent: cut short, changed on the way, or written by somebody else.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::call::{Call, Chain, Clock, TurnId};
use crate::codec::Codec;
use crate::contract::Mode;
use crate::error::{Error, ErrorKind};

fn question(call: &Call) -> Question<'_> {
    let head =
        QuestionHead::new(0, "order", "42", "place", Mode::Ask, (Codec::Json, None), call, TurnId(9), 3, Clock::read());
    Question { head, body: Bytes::from_static(b"{\"qty\":1}") }
}

fn call() -> Call {
    Call { chain: Chain::default().with("user", "u-1"), trace: Some("t".into()), ..Call::root(Duration::from_secs(5)) }
}

/// Two frames, one of each kind.
fn frames() -> [Bytes; 2] {
    let head = AnswerHead::new(1, AnswerKind::Failure, Codec::Json, 3);
    let answers = vec![Answer { head, body: Bytes::from_static(b"{}") }];
    [Question::frame(&[question(&call())]).expect("written"), Answer::frame(&answers).expect("written")]
}

/// The questions of a frame, or none where it has answers.
fn read(frame: &Bytes) -> Result<Vec<Question<'_>>, Error> {
    if frame.first() == Some(&b'A') {
        return Answers::of(frame, 0).collect::<Result<Vec<_>, _>>().map(|_| Vec::new());
    }
    Questions::of(frame, 0).collect()
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn a_frame_cut_at_any_byte_is_an_error() {
    for frame in frames() {
        for cut in 0..frame.len() {
            let error = read(&frame.slice(..cut)).err().map(|error| error.kind());
            assert_eq!(error, Some(ErrorKind::BadRequest), "cut at {cut} of {}", frame.len());
        }
        let longer = [&frame[..], &[0]].concat();
        assert!(read(&longer.into()).is_err(), "a byte more");
    }
}

#[test]
fn frames_of_another_version_or_kind_are_refused_by_name() {
    for frame in frames() {
        let mut other = frame.to_vec();
        other[1] = WIRE_VERSION + 1;
        let error = read(&other.into()).expect_err("another version");
        assert!(error.message().contains("wire version 2; this node speaks 1"), "{error}");
        let mut other = frame.to_vec();
        other[0] = b'X';
        let error = read(&other.into()).expect_err("another kind");
        assert!(error.message().contains("neither questions nor answers"), "{error}");
    }
}

#[test]
fn frames_that_were_changed_are_never_more_than_an_error() {
    let (frames, mut draw) = (frames(), Draw(0x5eed));
    println!("seed {}", draw.0);
    for case in 0..100_000 {
        let mut frame = frames[case % 2].to_vec();
        for _ in 0..=draw.below(3) {
            let at = draw.below(frame.len());
            match draw.below(4) {
                0 => frame[at] ^= 1 << draw.below(8),
                1 => frame[at] = draw.below(256) as u8,
                2 => drop(frame.remove(at)),
                // What begins a number of two, four, eight or sixteen bytes.
                _ => frame.insert(at, 251 + draw.below(4) as u8),
            }
        }
        for question in read(&Bytes::from(frame)).unwrap_or_default() {
            drop(question.head.call(Clock::read()));
        }
    }
}

#[test]
fn random_bytes_are_never_more_than_an_error() {
    let mut draw = Draw(0xf4a3e);
    println!("seed {}", draw.0);
    for _ in 0..100_000 {
        let mut frame: Vec<u8> = (0..draw.below(40)).map(|_| draw.below(256) as u8).collect();
        if frame.len() >= 2 && draw.below(4) != 0 {
            (frame[0], frame[1]) = (if draw.below(2) == 0 { b'Q' } else { b'A' }, WIRE_VERSION);
        }
        drop(read(&frame.into()));
    }
}

#[test]
fn what_is_written_can_be_read_or_is_refused_at_once() {
    let long = "x".repeat(100_000);
    let traced = Call { trace: Some(long.as_str().into()), ..call() };
    let chained = Call { chain: Chain::default().with("order", &long), ..call() };
    let plain = call();
    let many = vec![question(&plain); 2_000];
    for questions in [vec![question(&traced)], vec![question(&chained)], many] {
        if let Ok(frame) = Question::frame(&questions) {
            let read = read(&frame).map(|read| read.len()).map_err(|error| error.to_string());
            assert_eq!(read, Ok(questions.len()));
        }
    }
}

#[test]
fn a_chain_over_the_limit_is_an_error_of_its_call_alone() {
    let call = call();
    let mut head = question(&call).head;
    head.chain = vec![head.chain[0].clone(); 33];
    let frame = Question::frame(&[Question { head, body: Bytes::new() }, question(&call)]).expect("written");
    let read = read(&frame).expect("read");
    assert_eq!(read[0].head.call(Clock::read()).expect_err("too long").kind(), ErrorKind::ChainTooLong);
    assert!(read[1].head.call(Clock::read()).is_ok());
}
