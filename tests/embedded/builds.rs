//! Two builds of one actor that differ in a field: they speak JSON to each other, and neither ever
//! reads the other's bytes as its own.

use greenroom::prelude::*;
use greenroom::transport::{Subscription, Transport};

use super::ground::{Ground, QUIET, on_both, settled};

/// One build: the same actor, and an answer that shows how its message was read.
macro_rules! build {
    ($build:ident, { $($field:ident: $type:ty),* $(,)? }) => {
        pub(super) mod $build {
            use greenroom::prelude::*;

            #[contract(name = "form", version = "1.0.0", messages(Fill, Plain))]
            pub(in super::super) struct Form;

            /// What the builds do not agree about.
            #[message(Form, ask, reply = Filled, refusal = Unfit)]
            pub(in super::super) struct Fill {
                $(#[serde(default)] pub $field: $type,)*
            }

            /// The reply, which they do not agree about either.
            #[data]
            #[derive(PartialEq, Default)]
            pub(in super::super) struct Filled {
                pub shown: String,
                $(#[serde(default)] pub $field: $type,)*
            }

            #[refusal]
            #[derive(PartialEq)]
            pub(in super::super) struct Unfit {
                $(#[serde(default)] pub $field: $type,)*
            }

            impl std::fmt::Display for Unfit {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    write!(f, "unfit: {self:?}")
                }
            }

            /// What all builds agree about.
            #[message(Form, ask, reply = String)]
            pub(in super::super) struct Plain {
                pub text: String,
            }

            #[derive(Default)]
            pub(in super::super) struct FormActor;

            #[actor(Form)]
            impl FormActor {
                #[ask]
                fn fill(&mut self, msg: Fill) -> Result<Filled, Unfit> {
                    if msg.name.is_empty() {
                        return Err(Unfit { $($field: msg.$field),* });
                    }
                    Ok(Filled { shown: format!("{msg:?}"), $($field: msg.$field),* })
                }

                #[ask]
                fn plain(&mut self, msg: Plain) -> String {
                    msg.text
                }
            }
        }
    };
}

build!(old, { name: String, first: u32, second: u32 });
build!(new, { name: String, first: u32, colour: Option<String>, second: u32 });
build!(swapped, { name: String, second: u32, first: u32 });
build!(same, { name: String, first: u32, second: u32 });

on_both!(
    r7_an_old_caller_and_a_new_owner_speak_json,
    r7_a_new_caller_and_an_old_owner_speak_json,
    r7_builds_whose_fields_are_swapped_never_swap_values,
    r7_builds_that_agree_need_one_question,
    r1_what_is_left_out_arrives_as_left_out,
);

/// The questions that are asked of nodes.
async fn questions(ground: &Ground) -> (std::sync::Arc<dyn Transport>, Subscription) {
    let spy = ground.connect("spy").await;
    let subjects = ground.subjects();
    let all = spy.subscribe(&subjects.node_all("*"), None, 1_024).await.expect("a subscription");
    (spy, all)
}

async fn asked(spy: &mut Subscription) -> usize {
    let mut questions = 0;
    while let Ok(Some(message)) = tokio::time::timeout(QUIET, spy.next()).await {
        questions += usize::from(message.subject.ends_with(".in"));
    }
    questions
}

async fn pair<A: greenroom::Actor>(ground: &Ground) -> (Node, Node) {
    let host = ground.node("host").host::<A>().start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("form", &[&host], &[&caller]).await;
    (host, caller)
}

/// Asks three times as one build, and then for a refusal.
macro_rules! fill {
    ($caller:expr, $build:ident, { $($field:ident: $value:expr),* }) => {{
        let actor = $caller.actor::<$build::Form>("f-1");
        let mut filled = Vec::new();
        for _ in 0..3 {
            let fill = $build::Fill { name: "Ada".to_owned(), $($field: $value),* };
            filled.push(actor.ask(fill).await.expect("an answer"));
        }
        assert!(filled.iter().all(|one| *one == filled[0]), "each time the same: {filled:?}");
        let unfit = actor.ask($build::Fill { name: String::new(), $($field: $value),* }).await;
        let Err(AskError::Refused(unfit)) = unfit else { panic!("it was refused: {unfit:?}") };
        (filled.remove(0), unfit)
    }};
}

async fn r7_an_old_caller_and_a_new_owner_speak_json(ground: Ground) {
    let (_host, caller) = pair::<new::FormActor>(&ground).await;
    let (_spy, mut spy) = questions(&ground).await;
    let (filled, unfit) = fill!(caller, old, { first: 1, second: 2 });
    assert_eq!((filled.first, filled.second, filled.name.as_str()), (1, 2, "Ada"));
    assert_eq!(filled.shown, r#"Fill { name: "Ada", first: 1, colour: None, second: 2 }"#);
    assert_eq!((unfit.first, unfit.second), (1, 2));
    assert_eq!(asked(&mut spy).await, 4 + 1, "one mismatch for the verb, and it is remembered");
    // Each verb is looked at by itself.
    let plain = caller.actor::<old::Form>("f-1").ask(old::Plain { text: "ü".to_owned() }).await;
    assert_eq!(plain.expect("an answer"), "ü");
    assert_eq!(asked(&mut spy).await, 1, "about this one they agree");
}

async fn r7_a_new_caller_and_an_old_owner_speak_json(ground: Ground) {
    let (_host, caller) = pair::<old::FormActor>(&ground).await;
    let (_spy, mut spy) = questions(&ground).await;
    let (filled, unfit) = fill!(caller, new, { first: 1, colour: Some("red".to_owned()), second: 2 });
    assert_eq!((filled.first, filled.second, filled.colour), (1, 2, None), "the owner does not know colours");
    assert_eq!(filled.shown, r#"Fill { name: "Ada", first: 1, second: 2 }"#);
    assert_eq!((unfit.first, unfit.second, unfit.colour), (1, 2, None));
    assert_eq!(asked(&mut spy).await, 4 + 1, "one mismatch, and it is remembered");
}

async fn r7_builds_whose_fields_are_swapped_never_swap_values(ground: Ground) {
    let (_host, caller) = pair::<swapped::FormActor>(&ground).await;
    let (filled, unfit) = fill!(caller, old, { first: 1, second: 2 });
    assert_eq!((filled.first, filled.second), (1, 2));
    assert_eq!(filled.shown, r#"Fill { name: "Ada", second: 2, first: 1 }"#);
    assert_eq!((unfit.first, unfit.second), (1, 2));
}

async fn r7_builds_that_agree_need_one_question(ground: Ground) {
    let (host, caller) = pair::<same::FormActor>(&ground).await;
    let (_spy, mut spy) = questions(&ground).await;
    let (filled, unfit) = fill!(caller, old, { first: 1, second: 2 });
    assert_eq!((filled.first, filled.second, unfit.first, unfit.second), (1, 2, 1, 2));
    assert_eq!(asked(&mut spy).await, 4, "no mismatch");

    // What was remembered of a node goes with it: its successor may be of another build.
    host.drain().await.expect("drained");
    let host = ground.node("host").host::<new::FormActor>().start().await.expect("a node starts");
    settled("form", &[&host], &[&caller]).await;
    asked(&mut spy).await;
    fill!(caller, old, { first: 1, second: 2 });
    assert_eq!(asked(&mut spy).await, 4 + 1);
}

/// An actor whose messages leave out what goes without saying.
#[contract(name = "sparse", messages(Send, Ring))]
pub(super) struct Sparse;

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn one() -> u32 {
    1
}

#[message(Sparse, ask, reply = Parcel, refusal = Parcel)]
pub(super) struct Send {
    pub parcel: Parcel,
}

/// As the reply of a verb whose request could go as bytes.
#[message(Sparse, ask, reply = Bell)]
pub(super) struct Ring {
    pub times: u32,
}

#[refusal]
#[derive(PartialEq)]
pub(super) struct Parcel {
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
    pub address: String,
}

impl std::fmt::Display for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}

#[data]
#[derive(PartialEq)]
#[serde(tag = "sound")]
pub(super) enum Bell {
    Ding,
}

#[derive(Default)]
pub(super) struct SparseActor;

#[actor(Sparse)]
impl SparseActor {
    #[ask]
    fn send(&mut self, msg: Send) -> Result<Parcel, Parcel> {
        if msg.parcel.address.is_empty() { Err(msg.parcel) } else { Ok(msg.parcel) }
    }

    #[ask]
    fn ring(&mut self, _: Ring) -> Bell {
        Bell::Ding
    }
}

async fn r1_what_is_left_out_arrives_as_left_out(ground: Ground) {
    let host = ground.node("host").host::<SparseActor>().start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("sparse", &[&host], &[&caller]).await;
    let actor = caller.actor::<Sparse>("s");
    // Without its count, the second of these reads as three parcels for "ab".
    for (count, address) in [(0, "a"), (1, "\u{2}ab"), (1, "a"), (2, "a"), (1, ""), (2, "")] {
        let parcel = Parcel { count, address: address.to_owned() };
        let back = match actor.ask(Send { parcel: parcel.clone() }).await {
            Ok(back) | Err(AskError::Refused(back)) => back,
            Err(AskError::Failed(error)) => panic!("{parcel:?} did not arrive: {error}"),
        };
        assert_eq!(back, parcel);
    }
    assert_eq!(actor.ask(Ring { times: 1 }).await.expect("an answer"), Bell::Ding);
}
