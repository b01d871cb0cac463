//! What either codec makes of input: what was written, what people write, and what nobody should
//! have sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::form::form_of;
use super::*;

/// A bit of everything that may travel as bincode.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, schemars::JsonSchema)]
struct Plain {
    text: String,
    numbers: Vec<i64>,
    maybe: Option<u8>,
    map: HashMap<String, (char, bool)>,
    kind: Vec<InPlain>,
    #[serde(default, rename = "ein Name")]
    float: f64,
    #[serde(skip)]
    never: u32,
    unit: (),
    array: [u16; 3],
    boxed: Box<u32>,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum InPlain {
    Nothing,
    New(String),
    Pair(u8, u8),
    Named { a: Option<u64>, b: Vec<bool> },
}

fn plain() -> Plain {
    let kind = vec![
        InPlain::Nothing,
        InPlain::New("ü".to_owned()),
        InPlain::Pair(1, 255),
        InPlain::Named { a: Some(u64::MAX), b: vec![true] },
    ];
    Plain {
        text: "drei\0 *".to_owned(),
        numbers: vec![0, -1, i64::MIN, i64::MAX],
        maybe: Some(0),
        map: HashMap::from([("x".to_owned(), ('🔑', true))]),
        kind,
        float: -0.5,
        never: 0,
        unit: (),
        array: [1, 2, 65_535],
        boxed: Box::new(7),
    }
}

#[test]
fn plain_messages_travel_as_bincode_and_come_back() {
    assert!(form_of::<Plain>().is_some());
    for codec in [Codec::Json, Codec::Bincode] {
        let body = codec.encode(&plain()).expect("written");
        assert_eq!(codec.decode::<Plain>(&body).as_ref(), Ok(&plain()), "{codec:?}");
    }
}

#[test]
fn bincode_takes_exactly_what_was_written() {
    let body = Codec::Bincode.encode(&plain()).expect("written");
    for cut in 0..body.len() {
        assert!(Codec::Bincode.decode::<Plain>(&body[..cut]).is_err(), "cut at {cut} of {}", body.len());
    }
    let mut longer = body.to_vec();
    longer.push(0);
    assert_eq!(Codec::Bincode.decode::<Plain>(&longer).expect_err("too long"), "1 bytes are left over");
}

#[test]
fn lengths_that_nobody_can_mean_are_refused_at_once() {
    let began = Instant::now();
    // bincode's varint: 251, 252, 253 stand before two, four, eight bytes.
    for length in [u64::MAX, 1 << 62, u64::from(u32::MAX), 60 << 20] {
        let mut body = vec![253];
        body.extend(length.to_le_bytes());
        for _ in 0..250 {
            assert!(Codec::Bincode.decode::<String>(&body).is_err());
            assert!(Codec::Bincode.decode::<Vec<u64>>(&body).is_err());
            assert!(Codec::Bincode.decode::<Vec<String>>(&body).is_err());
            assert!(Codec::Bincode.decode::<HashMap<String, String>>(&body).is_err());
        }
    }
    // To fill so much memory that often would take minutes.
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
struct Mark;

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
struct Marks {
    marks: Vec<Mark>,
}

#[test]
fn parts_that_take_no_room_cannot_be_claimed_by_the_million() {
    let mut body = vec![252];
    body.extend(50_000_000_u32.to_le_bytes());
    let refused = form_of::<Marks>().is_none() || Codec::Bincode.decode::<Marks>(&body).is_err();
    assert!(refused, "five bytes were read as fifty million parts");
}

#[test]
fn random_input_is_never_more_than_an_error() {
    let mut state = 0x00c0_ffee_u64;
    println!("seed {state}");
    for _ in 0..100_000 {
        let mut body = [0; 24];
        for byte in &mut body {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let length = (state >> 40) as usize % body.len();
        drop(Codec::Bincode.decode::<Plain>(&body[..length]));
        drop(Codec::Json.decode::<Plain>(&body[..length]));
        drop(from_person::<Plain>(&body[..length]));
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, schemars::JsonSchema)]
struct Place {
    user: String,
    #[serde(default)]
    lines: Vec<Line>,
    card: Option<Card>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, schemars::JsonSchema)]
struct Line {
    sku: String,
    qty: u32,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, schemars::JsonSchema)]
enum Card {
    Token { token: String },
}

#[test]
fn r7_a_person_is_told_which_fields_nobody_knows() {
    let body = br#"{"user":"u","colour":"red","lines":[{"sku":"a","qty":1},{"sku":"b","qty":1,"qtty":2}],
        "card":{"Token":{"token":"t","pin":1}}}"#;
    let told = from_person::<Place>(body).expect_err("three fields are unknown");
    for name in ["`colour`", "`lines.1.qtty`", "pin"] {
        assert!(told.contains(name), "{name} is not named in: {told}");
    }
    assert!(Codec::Json.decode::<Place>(body).is_ok(), "a program may speak a newer version");
    let known = br#"{"user":"u","lines":[{"sku":"a","qty":1}],"card":null} "#;
    assert_eq!(from_person::<Place>(known).map(|place| place.lines[0].qty), Ok(1));
    for (wrong, named) in [
        (&b"{\"user\":\"u\"} x"[..], "trailing"),
        (b"{\"lines\":[]}", "user"),
        (b"{\"user\":1}", "string"),
        (b"{\"user\":\"u\",\"user\":\"u\"}", "duplicate"),
        (b"{\"user\":\"u\",\"lines\":[{\"sku\":\"a\",\"qty\":-1}]}", "-1"),
        (b"{\"user\":", "EOF"),
        (b"\xff", "expected value"),
    ] {
        let told = from_person::<Place>(wrong).expect_err("wrong");
        assert!(told.contains(named), "{named} is not named in: {told}");
    }
}

#[test]
fn an_empty_body_is_null_or_an_object_without_fields() {
    #[derive(Deserialize, Debug, PartialEq, schemars::JsonSchema)]
    struct Get {}
    #[derive(Deserialize, Debug, PartialEq, schemars::JsonSchema)]
    struct Tick;
    for body in [&b""[..], b" ", b"\r\n\t "] {
        assert_eq!(from_person::<Get>(body), Ok(Get {}));
        assert_eq!(from_person::<Tick>(body), Ok(Tick));
        assert_eq!(from_person::<()>(body), Ok(()));
        assert_eq!(from_person::<Option<u32>>(body), Ok(None), "null comes first");
        let told = from_person::<Place>(body).expect_err("it has a field that must be there");
        assert!(told.contains("empty") && told.contains("user"), "{told}");
        assert_eq!(Codec::Json.decode::<Get>(body), Ok(Get {}));
    }
}

#[test]
fn json_that_nests_without_end_is_an_error() {
    let deep = [b"[".repeat(100_000), br#"{"a":"#.repeat(100_000)];
    for body in &deep {
        assert!(from_person::<serde_json::Value>(body).is_err());
        assert!(Codec::Json.decode::<Place>(body).is_err());
    }
    #[derive(Deserialize, schemars::JsonSchema)]
    struct Tree {
        #[expect(dead_code, reason = "only its depth matters")]
        children: Vec<Tree>,
    }
    let trees = br#"{"children":["#.repeat(100_000);
    assert!(from_person::<Tree>(&trees).is_err_and(|told| told.contains("recursion limit")));
}
