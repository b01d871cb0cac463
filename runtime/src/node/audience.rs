//! Audiences: whether anybody listens to the live events of an actor.
//!
//! A live event costs its node and the broker a third of what the append before it did, also if nobody hears it. So
//! while a node tells thousands of events a second, the actors that tell much of it have the broker say, now and then,
//! whether anybody listens (a message with a reply subject that reaches nobody is answered by the broker itself), and
//! tell nothing for a moment if nobody does.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::Surroundings;
use crate::error::Error;
use crate::key::Key;
use crate::pending::Got;
use crate::state::Committed;
use crate::transport::{Headers, Outbound};
use crate::wire::{SCHEMA, SEQUENCE};

/// A node that tells so many events within so many ms is in a rush until it tells less; any other tells everything.
const RUSH: u64 = 100;
const RUSH_MS: u64 = 20;
/// An actor whose records follow each other so closely asks who listens; any other tells everything.
const BUSY_MS: u64 = 20;
/// For so long after the question nothing is told if nobody listened. Whoever begins to listen misses that at most.
const DESERTED_MS: u64 = 250;
/// The same, for who begins to listen.
pub(crate) const DESERTED_FOR: Duration = Duration::from_millis(DESERTED_MS);
/// While somebody listens, the question is put so rarely.
const ASK_AGAIN_MS: u64 = 1_000;
/// The broker says at once that nobody listens. Silence for so long means that somebody does.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// How much a node tells.
#[derive(Debug)]
pub(crate) struct Rush {
    began: Instant,
    /// A stretch of time, whether the one before it was a rush, and how many events were told in it, from above.
    now: AtomicU64,
}

/// The bits that count; the one above them is [`HURRIED`].
const COUNT: u64 = HURRIED - 1;
const HURRIED: u64 = 1 << 24;
const STRETCH: u32 = 25;

/// The moment at which events are about to be told.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// In ms since the node began, which is 1.
    at: u64,
    rush: bool,
}

impl Default for Rush {
    fn default() -> Self {
        Self { began: Instant::now(), now: AtomicU64::new(0) }
    }
}

impl Rush {
    /// Counts so many events.
    fn note(&self, events: usize) -> Moment {
        let at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1);
        let (stretch, events) = ((at / RUSH_MS) & (u64::MAX >> STRETCH), (events as u64).min(RUSH));
        let now = self.now.load(Ordering::Relaxed);
        let before = if now >> STRETCH != stretch {
            // A rush goes on until a whole stretch was none, or its first events would be told each time.
            let hurried = (now >> STRETCH) + 1 == stretch && now & COUNT >= RUSH;
            let begun = stretch << STRETCH | if hurried { HURRIED } else { 0 };
            // Where two begin a stretch at once, one of their counts is lost: it is about thousands.
            self.now.store(begun | events, Ordering::Relaxed);
            begun
        } else if now & COUNT < RUSH {
            // It stands far below its bound: nobody adds more once there are enough.
            self.now.fetch_add(events, Ordering::Relaxed)
        } else {
            now
        };
        Moment { at, rush: before & HURRIED != 0 || before & COUNT >= RUSH }
    }
}

/// Who listens to the events of one activation, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    /// When the last record was written.
    last: u64,
    /// Of the events that were asked about: mostly one.
    of: SmallVec<[Audience; 1]>,
}

#[derive(Debug)]
struct Audience {
    event: Cow<'static, str>,
    asked: u64,
    /// Until when nobody listens; 0 if that is not known.
    deserted: Arc<AtomicU64>,
}

/// A question to the broker that goes with an event.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    deserted: Arc<AtomicU64>,
    until: u64,
}

/// What is to be done with an event.
#[derive(Debug)]
enum Told {
    Not,
    Plainly,
    Asking(Question),
}

impl Audiences {
    /// Leaves out of a record's events those that nobody would hear.
    pub(crate) fn select(&mut self, rush: &Rush, events: impl ExactSizeIterator<Item = Committed>) -> Vec<Committed> {
        if events.len() == 0 {
            return Vec::new();
        }
        let Moment { at, rush } = rush.note(events.len());
        let last = std::mem::replace(&mut self.last, at);
        let busy = rush && last > 0 && at.saturating_sub(last) < BUSY_MS;
        let told = |event: Committed| match self.told(&event, busy, at) {
            Told::Not => None,
            Told::Plainly => Some(event),
            Told::Asking(question) => Some(Committed { question: Some(question), ..event }),
        };
        events.filter_map(told).collect()
    }

    fn told(&mut self, event: &Committed, busy: bool, now: u64) -> Told {
        if !busy {
            return Told::Plainly;
        }
        let known = self.of.iter().position(|audience| audience.event == event.name).unwrap_or_else(|| {
            self.of.push(Audience { event: event.name.clone(), asked: 0, deserted: Arc::default() });
            self.of.len() - 1
        });
        let audience = &mut self.of[known];
        let deserted = audience.deserted.load(Ordering::Relaxed);
        if now < deserted {
            return Told::Not;
        }
        // Asked, and not answered: somebody listens, or the answer is still on its way.
        if deserted == 0 && audience.asked > 0 && now < audience.asked + ASK_AGAIN_MS {
            return Told::Plainly;
        }
        audience.asked = now;
        audience.deserted.store(0, Ordering::Relaxed);
        Told::Asking(Question { deserted: audience.deserted.clone(), until: now + DESERTED_MS })
    }
}

impl Question {
    /// The broker says that nobody listens.
    fn nobody(&self) {
        self.deserted.store(self.until, Ordering::Relaxed);
    }
}

impl Surroundings {
    /// Tells whoever listens what a turn has committed: at most once, and never held up by it.
    pub(crate) fn echo(self: &Arc<Self>, key: &Key, events: Vec<Committed>) {
        for event in events {
            let mut headers = Headers::new();
            headers.push(SEQUENCE, event.sequence.to_string());
            headers.push(SCHEMA, format!("{}.{}/{}", event.actor, event.name, event.version));
            let subject = self.subjects.live(event.actor, &event.name, key);
            let message = Outbound::new(subject, event.body).with_headers(headers);
            let sent = match event.question {
                None => self.transport.publish(message),
                Some(question) => self.publish_asking(message, question),
            };
            if let Err(error) = sent {
                tracing::debug!(actor = event.actor, %key, event = %event.name, %error, "a live event was not told");
            }
        }
    }

    /// Publishes, and has the broker say whether nobody listens.
    fn publish_asking(self: &Arc<Self>, message: Outbound, question: Question) -> Result<(), Error> {
        let (number, got) = self.wait_for(None, None);
        let reply = self.subjects.node_reply(&self.id, number);
        self.transport.publish(message.reply_to(reply)).inspect_err(|_| self.pending.forget(number))?;
        let around = self.clone();
        self.runtime.spawn(async move {
            if let Some(Ok(Got::NoOne)) = around.until(Instant::now() + ANSWER_WITHIN, got).await {
                question.nobody();
            }
            around.pending.forget(number);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &'static str, sequence: u64) -> Committed {
        let body = b"{}".to_vec();
        Committed { actor: "order", name: Cow::Borrowed(name), version: 1, sequence, body, question: None }
    }

    /// Tells one event after so many ms, in a rush or not; gives what became of it.
    async fn tell(
        audiences: &mut Audiences,
        (rush, hurried): (&Rush, bool),
        name: &'static str,
        after: u64,
    ) -> Option<Option<Question>> {
        tokio::time::advance(Duration::from_millis(after)).await;
        if hurried {
            (0..=RUSH).for_each(|_| _ = rush.note(1));
        }
        let told = audiences.select(rush, vec![event(name, 1)].into_iter());
        told.into_iter().next().map(|event| event.question)
    }

    #[tokio::test(start_paused = true)]
    async fn who_tells_little_asks_nobody() {
        let (mut audiences, calm, rush) = (Audiences::default(), (&Rush::default(), false), (&Rush::default(), true));
        for _ in 0..1_000 {
            assert!(matches!(tell(&mut audiences, calm, "placed", 1).await, Some(None)), "no rush");
            assert!(matches!(tell(&mut audiences, rush, "placed", BUSY_MS).await, Some(None)), "not busy");
        }
        assert!(audiences.of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_hears_is_not_told_for_a_moment() {
        let (mut audiences, calm, rush) = (Audiences::default(), (&Rush::default(), false), (&Rush::default(), true));
        assert!(matches!(tell(&mut audiences, rush, "placed", 5).await, Some(None)));
        let Some(Some(question)) = tell(&mut audiences, rush, "placed", 5).await else { panic!("it asks") };
        // Until the broker has answered, all is told.
        assert!(matches!(tell(&mut audiences, rush, "placed", 5).await, Some(None)));
        question.nobody();
        assert!(tell(&mut audiences, rush, "placed", 5).await.is_none());
        // Another event may have listeners.
        assert!(matches!(tell(&mut audiences, rush, "paid", 5).await, Some(Some(_))));
        assert!(tell(&mut audiences, rush, "placed", 5).await.is_none());
        // When the rush is over, everything is told at once.
        assert!(matches!(tell(&mut audiences, calm, "placed", 5).await, Some(None)));
        assert!(tell(&mut audiences, rush, "placed", 5).await.is_none());
        // In a rush, the question is put again after a while.
        let mut after = 0;
        while tell(&mut audiences, rush, "placed", 5).await.is_none() {
            after += 5;
        }
        assert!((DESERTED_MS / 2..DESERTED_MS).contains(&after), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_somebody_listens_everything_is_told() {
        let (mut audiences, rush) = (Audiences::default(), (&Rush::default(), true));
        let mut questions = 0;
        for _ in 0..1_000 {
            let told = tell(&mut audiences, rush, "placed", 5).await.expect("told");
            questions += usize::from(told.is_some());
        }
        assert!((4..=6).contains(&questions), "{questions} in five seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_over_when_less_was_told_for_a_whole_stretch() {
        let rush = Rush::default();
        assert!((0..RUSH).all(|_| !rush.note(1).rush));
        assert!(rush.note(1).rush && rush.note(1).rush);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_millis(RUSH_MS)).await;
            assert!((0..2 * RUSH).all(|_| rush.note(1).rush), "it goes on from the first");
        }
        tokio::time::advance(Duration::from_millis(RUSH_MS)).await;
        assert!((1..RUSH).all(|_| rush.note(1).rush), "nobody knows yet that it is over");
        tokio::time::advance(Duration::from_millis(RUSH_MS)).await;
        assert!(!rush.note(usize::MAX).rush && rush.note(1).rush);
        tokio::time::advance(Duration::from_millis(2 * RUSH_MS)).await;
        assert!(!rush.note(1).rush, "nothing at all was told for a stretch");
    }
}
