//! Keys against their specification: a second, slower writing of it, a million keys drawn from a
//! seed, and a list of those that somebody would try.
//!
//! `GREENROOM_SEED` draws other keys than usual; a failure names the seed it was found with.

use std::collections::HashMap;

use super::*;

const CASES: u64 = 1_000_000;

/// SplitMix64: small, fast, and good enough to draw test cases with.
struct Draw(u64);

impl Draw {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// Any character, but those that break subjects more often than their share.
    fn character(&mut self) -> char {
        const NASTY: &[char] = &[
            '.',
            '*',
            '>',
            '=',
            ' ',
            '\t',
            '\r',
            '\n',
            '\0',
            '\u{7f}',
            '%',
            '$',
            '@',
            '/',
            '\\',
            ':',
            '-',
            '_',
            'é',
            '\u{301}',
            '\u{200b}',
            '\u{202e}',
            '\u{85}',
            '\u{a0}',
            '\u{2028}',
            '\u{feff}',
            '\u{10ffff}',
        ];
        match self.below(8) {
            0..=3 => char::from(b' ' + self.below(95) as u8),
            4..=5 => NASTY[self.below(NASTY.len())],
            6 => char::from(self.below(128) as u8),
            _ => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('\u{d7ff}'),
        }
    }

    /// A key, usually a short one, at times one at the limit.
    fn key(&mut self) -> String {
        let bytes = match self.below(64) {
            0 => KEY_BYTES_MAX,
            1 => 1 + self.below(KEY_BYTES_MAX),
            _ => 1 + self.below(10),
        };
        let mut key = String::with_capacity(KEY_BYTES_MAX);
        loop {
            let next = self.character();
            if key.len() + next.len_utf8() > bytes {
                if key.is_empty() {
                    key.push('k');
                }
                return key;
            }
            key.push(next);
        }
    }
}

fn seed() -> u64 {
    std::env::var("GREENROOM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_911)
}

/// What a key's token is, written down once more from the specification.
fn specified(key: &str) -> String {
    let mut token = String::with_capacity(3 * key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(byte as char),
            _ => {
                token.push('=');
                for digit in [byte / 16, byte % 16] {
                    token.push((if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }) as char);
                }
            }
        }
    }
    token
}

/// FNV-1a, as the broker takes it of a token.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn check(text: &str) -> String {
    let key = Key::new(text).unwrap_or_else(|error| panic!("{text:?} is a key: {error}"));
    let token = key.token();
    assert_eq!(token, specified(text), "the token of {text:?}");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=');
    assert!(!token.is_empty() && token.bytes().all(plain), "{text:?} has the token {token:?}");
    assert_eq!(Key::from_token(&token).expect("its own token").as_str(), text);
    assert_eq!(key.token_hash(), fnv1a(&token), "the hash of {text:?}");
    token
}

/// Runs the cases on as many threads as there are cores, each with draws of its own.
fn cases(run: fn(&mut Draw)) {
    let seed = seed();
    println!("GREENROOM_SEED={seed}");
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8) as u64;
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let mut draw = Draw(seed ^ worker.wrapping_mul(0xa076_1d64_78bd_642f));
                for _ in 0..CASES.div_ceil(workers) {
                    run(&mut draw);
                }
            });
        }
    });
}

#[test]
fn a_million_keys_have_one_token_each_and_come_back() {
    // What comes back from its token shares that token with no other key.
    cases(|draw| drop(check(&draw.key())));
}

#[test]
fn neighbours_of_a_key_have_other_tokens() {
    let mut draw = Draw(seed());
    for _ in 0..50_000 {
        let key = draw.key();
        let token = check(&key);
        // The key that looks like the token, and one character more, less or other.
        let mut shorter = key.clone();
        shorter.pop();
        let longer = format!("{key}{}", draw.character());
        let other = format!("{shorter}{}", draw.character());
        for neighbour in [token.clone(), token.to_lowercase(), shorter, longer, other] {
            if neighbour != key && (1..=KEY_BYTES_MAX).contains(&neighbour.len()) {
                assert_ne!(check(&neighbour), token, "{key:?} and {neighbour:?}");
            }
        }
    }
}

#[test]
fn a_token_that_is_not_canonical_is_refused_and_the_canonical_one_named() {
    let mut draw = Draw(seed());
    let mut refused = 0;
    for _ in 0..50_000 {
        let key = draw.key();
        let canonical = check(&key);
        let escaped: String = key.bytes().map(|byte| format!("={byte:02X}")).collect();
        let lower: String = key.bytes().map(|byte| format!("={byte:02x}")).collect();
        for wrong in [escaped, lower, canonical.to_ascii_lowercase(), key.clone()] {
            // Lower case may be another key's token, or the same; a raw '=' may begin an escape.
            let other = Key::from_token(&wrong);
            if wrong == canonical || other.as_ref().is_ok_and(|other| other.token() == wrong) {
                continue;
            }
            let error = other.expect_err("only a canonical token is read");
            assert_eq!(error.kind(), ErrorKind::BadKey);
            refused += 1;
            let Some(named) = error.details().and_then(|details| details["canonical"].as_str()) else { continue };
            assert!(error.message().contains(named), "{error}");
            assert_ne!(named, wrong);
            Key::from_token(named).expect("what is named can be used");
        }
    }
    assert!(refused > 50_000, "only {refused} tokens were refused");
}

#[test]
fn what_is_read_from_a_token_always_writes_it() {
    cases(|draw| {
        const PARTS: &[&str] = &["=", "=4", "=41", "=2E", "=2e", "=C3=A9", "=FF", "=00", "A", "z", "9", "_", ".", "é"];
        let mut token = String::new();
        for _ in 0..draw.below(5) {
            token.push_str(PARTS[draw.below(PARTS.len())]);
        }
        match Key::from_token(&token) {
            Ok(key) => assert_eq!(key.token(), token),
            Err(error) => assert_eq!(error.kind(), ErrorKind::BadKey, "{token:?}: {error}"),
        }
    });
}

#[test]
fn well_known_mistakes_are_named() {
    let named = [("=41", "A"), ("a.b", "a=2Eb"), ("=2e", "=2E"), ("x y", "x=20y"), ("é", "=C3=A9"), ("*", "=2A")];
    for (wrong, right) in named {
        let error = Key::from_token(wrong).expect_err("not canonical");
        assert!(error.message().contains(&format!("{right:?}")), "{wrong}: {error}");
        assert_eq!(error.details(), Some(&serde_json::json!({ "canonical": right })));
    }
    for broken in ["=", "=4", "a=", "=G0", "=-1", "=FF", "=C3", "=é9", "%2E=", "=+1"] {
        let error = Key::from_token(broken).expect_err("cannot be read");
        assert_eq!((error.kind(), error.details()), (ErrorKind::BadKey, None), "{broken}: {error}");
        assert!(error.message().contains(&format!("{broken:?}")), "{broken}: {error}");
    }
}

#[test]
fn keys_that_somebody_would_try_are_keys_like_others() {
    let long = "k".repeat(KEY_BYTES_MAX);
    let tried = [
        ".",
        "..",
        "a.b",
        ".a",
        "a.",
        "*",
        ">",
        "a.*",
        "a.>",
        "$SYS",
        "$JS.API.>",
        "_INBOX.x",
        "_R_.x",
        "@",
        "node",
        " ",
        "  ",
        "a b",
        "\t",
        "\r\n",
        "a\r\nb",
        "\0",
        "a\0b",
        "\u{7f}",
        "\u{1b}[31m",
        "=",
        "==",
        "=2E",
        "=2e",
        "%2e",
        "%2E",
        "../",
        "..\\",
        "/",
        "\\",
        "'",
        "\"",
        "a:b",
        "null",
        "true",
        "-",
        "--help",
        "\u{e9}",
        "e\u{301}",
        "\u{202e}abc",
        "a\u{200b}b",
        "ab",
        "\u{feff}",
        "\u{2028}",
        "\u{85}",
        "\u{a0}",
        "ключ",
        "鍵",
        "🔑",
        "🏳\u{fe0f}\u{200d}🌈",
        "A",
        "a",
        "42",
        "0042",
        &long,
    ];
    let mut tokens = HashMap::new();
    for key in tried {
        if let Some(other) = tokens.insert(check(key), key) {
            panic!("{key:?} and {other:?} have one token");
        }
    }
    assert_eq!(tokens.len(), tried.len());
}

#[test]
fn a_key_has_1_to_128_bytes() {
    for bytes in 1..=KEY_BYTES_MAX {
        check(&"k".repeat(bytes));
        check(&".".repeat(bytes));
    }
    // Bytes, not characters: 42 and 43 times three bytes, 32 and 33 times four.
    check(&"鍵".repeat(42));
    check(&"🔑".repeat(32));
    for wrong in ["", &"k".repeat(129), &"鍵".repeat(43), &"🔑".repeat(33), &"k".repeat(64 * 1024)] {
        let error = Key::new(wrong).expect_err("not a key");
        assert_eq!(error.kind(), ErrorKind::BadKey);
        assert!(error.message().contains("1 to 128 bytes"), "{error}");
        assert!(error.message().len() < 200, "an error does not repeat a long key");
        let error = Key::from_token(&specified(wrong)).expect_err("not a key's token");
        assert_eq!(error.kind(), ErrorKind::BadKey);
        assert!(error.message().contains("1 to 128 bytes"), "{error}");
    }
}

#[test]
fn keys_hash_to_the_partitions_that_the_broker_computes() {
    // As nats-server 2.15.1 maps them with {{partition(64,1)}}.
    for (key, partition) in [("42", 3), ("abc-1", 25)] {
        assert_eq!(Key::new(key).expect("a key").token_hash() % 64, partition, "{key}");
    }
}
