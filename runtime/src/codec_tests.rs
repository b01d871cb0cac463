//! Which messages may travel as bincode, and when two builds agree about one.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::*;
use crate::contract::{Contract, Keyed, Message, Never, NoEvent, Refusal, mode};

/// Puts a type into a contract of its own, which differs from the others' in what is named.
macro_rules! message {
    ($type:ident) => {
        message!($type, reply = (), refusal = Never);
    };
    ($type:ident, reply = $reply:ty, refusal = $refusal:ty) => {
        message!($type, $reply, $refusal, "probe", "try_it", "1.0.0");
    };
    ($type:ident, $reply:ty, $refusal:ty, $name:expr, $verb:expr, $version:expr) => {
        const _: () = {
            pub(super) struct Probe;
            impl Contract for Probe {
                const NAME: &'static str = $name;
                const VERSION: &'static str = $version;
                type Kind = Keyed;
                type Messages = ($type,);
                type Event = NoEvent;
            }
            impl Message for $type {
                const VERB: &'static str = $verb;
                type Contract = Probe;
                type Mode = mode::Ask;
                type Reply = $reply;
                type Refusal = $refusal;
            }
        };
    };
}

/// Types with what serde and schemars need; each is a message and the reply and part of others.
macro_rules! types {
    ($($(#[$attribute:meta])* $kind:ident $name:ident $body:tt)*) => {
        $(
            #[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
            $(#[$attribute])*
            pub(super) $kind $name $body
            message!($name);
        )*
    };
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

types! {
    struct SkipsNone { #[serde(default, skip_serializing_if = "Option::is_none")] a: Option<u32>, b: u32 }
    struct SkipsEmpty { a: u32, #[serde(default, skip_serializing_if = "Vec::is_empty")] b: Vec<u32> }
    struct SkipsEmptyText { #[serde(default, skip_serializing_if = "String::is_empty")] a: String, b: u32 }
    struct SkipsFalse { #[serde(default, skip_serializing_if = "is_false")] a: bool, b: u32 }
    struct SkipsOne { #[serde(default, skip_serializing_if = "is_one")] a: u32, b: u32 }
    enum SkipsInVariant { Empty, Full { #[serde(default, skip_serializing_if = "is_one")] a: u32, b: u32 } }
    struct SkipsOneWay { a: u32, #[serde(default, skip_serializing)] b: u32 }
    struct SkipsOtherWay { a: u32, #[serde(default, skip_deserializing)] b: u32 }
    struct Flattened { a: u32, #[serde(flatten)] rest: BTreeMap<String, u32> }
    #[serde(tag = "kind")] enum Tagged { One, Two { a: u32 } }
    #[serde(tag = "kind")] enum TaggedAlone { Only }
    #[serde(tag = "kind", content = "value")] enum TaggedBeside { One, Two { a: u32 } }
    #[serde(untagged)] enum Untagged { Number(u32), Text(String) }
    #[serde(untagged)] enum UntaggedAlone { Only }
    struct Anything { value: serde_json::Value }
    struct Tree { name: String, children: Vec<Tree> }
    struct List { value: u32, next: Option<Box<List>> }
    enum Sum { Leaf(u32), Both(Box<Sum>, Box<Sum>) }
    struct Here { there: Vec<There> }
    struct There { here: Option<Box<Here>> }
    struct ByName { children: BTreeMap<String, ByName> }

    struct InVec { parts: Vec<SkipsNone> }
    struct InOption { part: Option<SkipsOne> }
    struct InMap { parts: BTreeMap<String, Tagged> }
    struct InTuple { pair: (u32, Untagged) }
    struct InBox { part: Box<Flattened> }
    struct InNewtype { part: (SkipsNone,) }
    enum InVariant { Nothing, Part(TaggedAlone), Other { part: SkipsEmpty } }
    struct Deep { parts: Vec<Option<BTreeMap<String, (u32, InNewtype)>>> }
    struct HoldsTree { trees: Vec<Tree> }
}

macro_rules! never_as_bincode {
    ($($test:ident: $($type:ident)+;)+) => {
        $(#[test] fn $test() {
            let forms = [$((stringify!($type), Fingerprint::of::<$type>())),+];
            let wrong: Vec<_> = forms.iter().filter(|form| form.1.is_some()).collect();
            assert!(wrong.is_empty(), "these must not travel as bincode: {wrong:?}");
        })+
    };
}

never_as_bincode! {
    fields_that_may_be_left_out_are_json: SkipsNone SkipsEmpty SkipsEmptyText SkipsFalse SkipsOneWay SkipsOtherWay;
    fields_that_are_left_out_by_a_rule_of_their_own_are_json: SkipsOne SkipsInVariant;
    flattened_fields_are_json: Flattened;
    tagged_enums_are_json: Tagged TaggedBeside;
    tagged_enums_of_one_variant_are_json: TaggedAlone UntaggedAlone;
    untagged_enums_and_values_are_json: Untagged Anything;
    types_that_hold_themselves_are_json: Tree List Sum Here There ByName;
    what_is_json_inside_is_json_outside: InVec InMap InTuple InBox InNewtype Deep HoldsTree;
    what_is_json_inside_by_a_rule_or_alone_is_json_outside: InOption InVariant;
}

#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(super) struct Refused {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.why)
    }
}

impl Refusal for Refused {}

#[test]
fn a_reply_or_a_refusal_that_must_be_json_makes_its_message_json() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    pub(super) struct AsksTag(u32);
    message!(AsksTag, reply = Tagged, refusal = Never);
    #[derive(Serialize, Deserialize, JsonSchema)]
    pub(super) struct AsksAlone(u32);
    message!(AsksAlone, reply = TaggedAlone, refusal = Never);
    #[derive(Serialize, Deserialize, JsonSchema)]
    pub(super) struct MayRefuse(u32);
    message!(MayRefuse, reply = u32, refusal = Refused);
    assert_eq!(Fingerprint::of::<AsksTag>(), None, "its reply is tagged");
    assert_eq!(Fingerprint::of::<MayRefuse>(), None, "its refusal leaves fields out");
    assert_eq!(Fingerprint::of::<AsksAlone>(), None, "its reply is tagged, with one variant");
}

/// One module is one build of the same message.
macro_rules! builds {
    ($($build:ident $(($($how:tt)+))? { $($item:item)+ })*) => {
        $(mod $build {
            use super::*;
            $(#[derive(Serialize, Deserialize, JsonSchema)] $item)+
            builds!(@message $($($how)+)?);
        })*

        fn fingerprints() -> Vec<(&'static str, Fingerprint)> {
            vec![$((stringify!($build), Fingerprint::of::<$build::Msg>().expect(stringify!($build)))),*]
        }
    };
    (@message) => { message!(Msg); };
    (@message $($how:tt)+) => { message!(Msg, $($how)+); };
}

builds! {
    base { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    swapped { pub(super) struct Msg { b: u32, a: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    swapped_inside { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { y: String, x: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    renamed { pub(super) struct Msg { a: u32, bb: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    added { pub(super) struct Msg { a: u32, b: u32, c: Part, d: Option<u32> } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    wider { pub(super) struct Msg { a: u32, b: u64, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    signed { pub(super) struct Msg { a: u32, b: i32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    optional { pub(super) struct Msg { a: u32, b: Option<u32>, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 } } }
    variants_swapped { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { Two(u32), One, Three { z: u8 } } }
    variant_renamed { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Zwei(u32), Three { z: u8 } } }
    variant_added { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u8 }, Four } }
    variant_wider { pub(super) struct Msg { a: u32, b: u32, c: Part } struct Part { x: String, y: String, kind: Kind }
        enum Kind { One, Two(u32), Three { z: u16 } } }
    units { pub(super) enum Msg { One, Two, Three } }
    units_swapped { pub(super) enum Msg { Two, One, Three } }
    alone { pub(super) enum Msg { Only } }
    alone_renamed { pub(super) enum Msg { Sole } }
    replies(reply = u32, refusal = Never) { pub(super) struct Msg { a: u32 } }
    replies_other(reply = (u32, u32), refusal = Never) { pub(super) struct Msg { a: u32 } }
    renamed_verb(u32, Never, "probe", "try_that", "1.0.0") { pub(super) struct Msg { a: u32 } }
    renamed_actor(u32, Never, "sonde", "try_it", "1.0.0") { pub(super) struct Msg { a: u32 } }
    next_version(u32, Never, "probe", "try_it", "1.0.1") { pub(super) struct Msg { a: u32 } }
}

mod again {
    use super::*;
    #[derive(Serialize, Deserialize, JsonSchema)]
    pub(super) struct Msg {
        a: u32,
        b: u32,
        c: Part,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Part {
        x: String,
        y: String,
        kind: Kind,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Kind {
        One,
        Two(u32),
        Three { z: u8 },
    }
    message!(Msg);
}

#[test]
fn r7_builds_that_differ_have_different_fingerprints() {
    let all = fingerprints();
    for (number, (name, fingerprint)) in all.iter().enumerate() {
        for (other, theirs) in &all[number + 1..] {
            assert_ne!(fingerprint, theirs, "{name} and {other}");
        }
    }
}

#[test]
fn r7_builds_that_are_alike_have_the_same_fingerprint() {
    assert_eq!(fingerprints()[0].1, Fingerprint::of::<again::Msg>().expect("plain"));
    assert_eq!(fingerprints(), fingerprints(), "it does not change from call to call");
}
