//! Leaving a queue group without losing a message.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;

use super::*;

/// How often one member takes over from another while calls go on.
const HANDOVERS: usize = 100;
const CALLERS: usize = 8;

pub(super) async fn under_load(harness: &mut dyn Harness) {
    let one = harness.connect("member-one").await;
    let two = harness.connect("member-two").await;
    let callers = harness.connect("callers").await;
    let load = Load::start(&callers, "leave.key.ask").await;
    for handover in 0..HANDOVERS {
        let transport = if handover % 2 == 0 { &one } else { &two };
        load.admit(transport).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    load.finish().await;
}

/// Members that answer, of whom the newest stays, and callers that ask all the time.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Result<(), String>>>,
    members: tokio::sync::Mutex<Vec<Member>>,
}

struct Member {
    leave: Option<tokio::sync::oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Load {
    async fn start(transport: &Arc<dyn Transport>, subject_text: &'static str) -> Self {
        let load = Self {
            stop: Arc::default(),
            asked: Arc::default(),
            callers: Vec::new(),
            members: tokio::sync::Mutex::default(),
        };
        load.admit(transport).await;
        let callers = (0..CALLERS)
            .map(|number| {
                let (stop, asked) = (load.stop.clone(), load.asked.clone());
                tokio::spawn(call(transport.clone(), subject_text, number, stop, asked))
            })
            .collect();
        Self { callers, ..load }
    }

    /// A new member joins; the one before it leaves.
    async fn admit(&self, transport: &Arc<dyn Transport>) {
        let subscription = listen(&**transport, "leave.*.*", Some("owners")).await;
        let (leave, told) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(serve(transport.clone(), subscription, told));
        let mut members = self.members.lock().await;
        if let Some(leave) = members.last_mut().and_then(|before| before.leave.take()) {
            leave.send(()).ok();
        }
        members.push(Member { leave: Some(leave), task });
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (number, caller) in self.callers.into_iter().enumerate() {
            if let Err(why) = soon("the callers end", caller).await.expect("a caller") {
                panic!("caller {number}, after {} calls in all: {why}", self.asked.load(Ordering::Relaxed));
            }
        }
        let asked = self.asked.load(Ordering::Relaxed);
        assert!(asked > 1_000, "only {asked} calls were made: no load");
        for (number, member) in self.members.into_inner().into_iter().enumerate() {
            drop(member.leave);
            soon(&format!("member {number} ends"), member.task).await.expect("a member");
        }
        tracing::info!(asked, "none was lost");
    }
}

async fn serve(
    transport: Arc<dyn Transport>,
    mut subscription: Subscription,
    leave: tokio::sync::oneshot::Receiver<()>,
) {
    let answer = |message: Inbound| {
        let reply = message.reply.expect("a reply subject");
        transport.publish(say(&reply, message.body)).expect("room for an answer");
    };
    tokio::pin!(leave);
    loop {
        tokio::select! {
            _ = &mut leave => break,
            message = subscription.next() => answer(message.expect("it has not left")),
        }
    }
    subscription.leave(subject("leave.x.=flush")).await;
    while let Some(message) = subscription.next().await {
        answer(message);
    }
}

async fn call(
    transport: Arc<dyn Transport>,
    subject_text: &str,
    caller: usize,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
) -> Result<(), String> {
    let mut inbox = listen(&*transport, &format!("_INBOX.leave.{caller}"), None).await;
    let reply = subject(&format!("_INBOX.leave.{caller}"));
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let question = say(subject_text, number.to_string()).reply_to(reply.clone());
        transport.publish(question).map_err(|error| format!("call {number} was not sent: {error}"))?;
        let answer = tokio::time::timeout(Duration::from_secs(5), inbox.next())
            .await
            .map_err(|_| format!("call {number} got no answer: it was lost"))?
            .ok_or("the inbox has ended")?;
        if answer.no_responders {
            return Err(format!("call {number} found nobody (503)"));
        }
        if text(&answer) != number.to_string() {
            return Err(format!("call {number} got the answer to {}: answered twice", text(&answer)));
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub(super) async fn idle(harness: &mut dyn Harness) {
    let (one, two) = (harness.connect("one").await, harness.connect("two").await);
    // Alone in its group: every flush message is its own.
    let mut alone = listen(&*one, "idle.*.*", Some("group")).await;
    soon("leave alone", alone.leave(subject("idle.x.=flush"))).await;
    assert!(soon("alone and idle, it ends", alone.next()).await.is_none());
    assert!(soon("an ended subscription stays so", alone.next()).await.is_none());

    // With three others, who swallow most of them.
    let mut leaver = listen(&*one, "idle.*.*", Some("group")).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(listen(&*two, "idle.*.*", Some("group")).await);
    }
    soon("leave", leaver.leave(subject("idle.x.=flush"))).await;
    soon("leave a second time", leaver.leave(subject("idle.x.=flush"))).await;
    let began = std::time::Instant::now();
    assert!(soon("it ends", leaver.next()).await.is_none());
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}: it timed out", began.elapsed());
    for other in &mut others {
        hear_nothing(other, "flush messages are swallowed").await;
    }
    one.publish(say("idle.x.y", "later")).expect("sent");
    let heard =
        futures_util::future::join_all(others.iter_mut().map(|other| tokio::time::timeout(QUIET, other.next())));
    assert_eq!(heard.await.into_iter().filter(Result::is_ok).count(), 1, "exactly one of the others gets it");
}

pub(super) async fn backlog(harness: &mut dyn Harness) {
    let transport = harness.connect("backlog").await;
    let mut subscription = listen(&*transport, "backlog.*", Some("group")).await;
    for number in 0..1_500 {
        transport.publish(say("backlog.one", number.to_string())).expect("sent");
    }
    soon("leave", subscription.leave(subject("backlog.=flush"))).await;
    for number in 0..1_500 {
        let message = hear(&mut subscription, "all that was sent before").await;
        assert_eq!(text(&message), number.to_string());
    }
    assert!(soon("then it ends", subscription.next()).await.is_none());
}
