//! Frames: what one node has for another at once goes in one message.

use futures_util::FutureExt;
use futures_util::future::join_all;
use greenroom::Node;

use super::ground::{Ground, on_both, settled};
use super::probe::{Add, Probe, ProbeActor};

on_both!(f1_calls_to_one_node_go_in_one_message, f1_what_is_large_goes_alone_and_in_its_place);

const CALLS: usize = 256;

async fn pair(ground: &Ground) -> (Node, Node) {
    let host = ground.node("host").host::<ProbeActor>().start().await.expect("a node starts");
    let caller = ground.node("caller").start().await.expect("a node starts");
    settled("probe", &[&host], &[&caller]).await;
    (host, caller)
}

async fn f1_calls_to_one_node_go_in_one_message(ground: Ground) {
    let (host, caller) = pair(&ground).await;
    let actors: Vec<_> = (0..CALLS).map(|number| caller.actor::<Probe>(format!("k-{number}"))).collect();
    let ask = async || join_all(actors.iter().map(|actor| actor.ask(Add { by: 1 }))).await;
    ask().await.into_iter().for_each(|sum| assert_eq!(sum.expect("an answer"), 1));

    let spy = ground.connect("spy").await;
    let mut said = spy.subscribe(&ground.subjects().node_all("*"), None, 4_096).await.expect("a subscription");
    ask().await.into_iter().for_each(|sum| assert_eq!(sum.expect("an answer"), 2));
    // What was answered was said before this one.
    caller.actor::<Probe>("last").ask(Add { by: 1 }).await.expect("an answer");
    spy.flush().await.expect("a round trip");
    let (mut questions, mut answers) = (0, 0);
    let asked = format!(".{}.in", host.id());
    let answered = format!(".{}.r.0", caller.id());
    while let Some(Some(message)) = said.next().now_or_never() {
        questions += usize::from(message.subject.ends_with(&asked));
        answers += usize::from(message.subject.ends_with(&answered));
    }
    println!("{CALLS} calls: {questions} messages with questions, {answers} with answers");
    assert!((5..=CALLS / 4).contains(&questions), "{questions} messages for {CALLS} calls, 64 of which fit into one");
    assert!((5..=CALLS).contains(&answers), "{answers} messages for as many answers");
}

async fn f1_what_is_large_goes_alone_and_in_its_place(ground: Ground) {
    let (_host, caller) = pair(&ground).await;
    let actor = caller.actor::<Probe>("k");
    // Small, large, small: each is told in its place.
    let texts: Vec<String> = (0..60).map(|n| format!("{n:02}").repeat(if n % 3 == 1 { 10_000 } else { 1 })).collect();
    let told = join_all(texts.iter().map(|text| actor.tell(super::probe::Note { text: text.clone() }))).await;
    told.into_iter().for_each(|told| told.expect("told"));
    let notes = actor.ask(super::probe::Notes).await.expect("an answer");
    let order = |texts: &[String]| texts.iter().map(|text| text[..2].to_owned()).collect::<Vec<_>>();
    assert_eq!(order(&notes), order(&texts));
}
