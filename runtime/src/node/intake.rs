//! Intakes: what other nodes ask, served in the order in which it came from each of them.
//!
//! A turn is begun right where its frame is read: one that never waits ends there, and its answer leaves with those of
//! the others in its frame. No task is made for it, and no message passed on. So that a handler that spins holds up
//! nobody but those who call the same actor, somebody looks every few milliseconds: whoever serves a node and is still
//! in the turn that it was in at the last look serves no longer, and another task goes on behind that turn.

mod check;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::check::check;
use super::hosted::Hosted;
use super::serve::{error_body, send_or_say_why};
use super::surroundings::Surroundings;
use crate::call::Clock;
use crate::codec::Codec;
use crate::error::{Error, ErrorBody, ErrorKind};
use crate::frames::Outgoing;
use crate::key::Key;
use crate::reference::Target;
use crate::routes::{WireAnswer, WireCall, WireOutcome};
use crate::transport::Inbound;
use crate::wire::{AnswerHead, AnswerKind, Manner, Question, Questions};

/// So many bytes of one node may wait to be served.
const WAITING_MAX: usize = 64 << 20;
/// So many nodes that asked are remembered.
const ASKERS_MAX: usize = 4_096;
/// How often somebody looks whether one turn holds up others.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Frames that are served before other tasks have the thread.
const BURST: usize = 8;

/// The intakes of a node, by who asks.
pub(super) struct Intakes {
    around: Arc<Surroundings>,
    stop: CancellationToken,
    /// Whoever serves, until all is answered.
    served: TaskTracker,
    of: Mutex<HashMap<Box<str>, Arc<Intake>>>,
    /// Whether anybody looks at who serves.
    watched: AtomicBool,
    busy: Notify,
}

/// What one node asks.
struct Intake {
    answers: Arc<Outgoing>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The first of them is being served.
    frames: VecDeque<Came>,
    /// How much of the first was served by those who do no longer.
    at: usize,
    bytes: usize,
    runner: Option<Arc<Runner>>,
}

/// A frame as it came.
#[derive(Clone)]
struct Came {
    body: Bytes,
    clock: Clock,
    /// How often the node had been in doubt of what it reads; `None`: it was just then.
    doubts: Option<u64>,
}

/// One who serves an intake.
#[derive(Default)]
pub(crate) struct Runner {
    /// Four times the number of its turns, and what it does: see the constants.
    state: AtomicU64,
    /// Where the question behind the one that it serves begins.
    next: AtomicUsize,
}

/// It runs the code of an actor.
const IN_TURN: u64 = 1;
/// It did for too long, and somebody else goes on.
const RELIEVED: u64 = 2;

impl Runner {
    /// A turn begins on its stack. From then on those behind it may be served by somebody else.
    pub(crate) fn begin(&self) {
        let turns = self.state.load(Ordering::Relaxed) >> 2;
        self.state.store((turns + 1) << 2 | IN_TURN, Ordering::Release);
    }

    /// The turn is over, if there was one. Returns whether it goes on serving.
    fn end(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        match state & (IN_TURN | RELIEVED) {
            0 => true,
            IN_TURN => {
                self.state.compare_exchange(state, state & !IN_TURN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
            _ => false,
        }
    }

    /// The turn that it is in.
    fn turn(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        (state & IN_TURN != 0).then_some(state)
    }

    /// Ends its service if it is still in that turn.
    fn relieve(&self, turn: u64) -> bool {
        self.state.compare_exchange(turn, turn & !IN_TURN | RELIEVED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Intakes {
    pub(super) fn new(around: Arc<Surroundings>, stop: CancellationToken, served: TaskTracker) -> Arc<Self> {
        let (of, watched, busy) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        Arc::new(Self { around, stop, served, of, watched, busy })
    }

    /// Takes a frame of questions. `doubts`: how often the node has been in doubt of what it reads, if it is not now.
    pub(super) fn take(self: &Arc<Self>, message: Inbound, doubts: Option<u64>) {
        let Some(asker) = message.reply.as_deref().and_then(|reply| self.around.subjects.asker(reply)) else {
            tracing::warn!(subject = message.subject, "a frame names no reply subject of a node; it is dropped");
            return;
        };
        let intake = self.intake(asker);
        let came = Came { body: message.body, clock: Clock::read(), doubts };
        let runner = {
            let mut waiting = intake.waiting.lock();
            if waiting.bytes + came.body.len() > WAITING_MAX {
                drop(waiting);
                return self.turn_away(&intake, &came);
            }
            waiting.bytes += came.body.len();
            waiting.frames.push_back(came);
            if waiting.runner.is_some() {
                return;
            }
            waiting.runner.insert(Arc::default()).clone()
        };
        self.serve(intake, runner);
    }

    /// Has those relieved who are in one turn for too long.
    pub(super) async fn watch(self: &Arc<Self>) {
        loop {
            self.busy.notified().await;
            let mut seen = HashMap::new();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let intakes: Vec<_> = self.of.lock().values().cloned().collect();
                let serving: Vec<_> = intakes.iter().filter_map(|i| Some((i.clone(), i.runner()?))).collect();
                if serving.is_empty() {
                    self.watched.store(false, Ordering::SeqCst);
                    if !intakes.iter().any(|intake| intake.runner().is_some()) {
                        break;
                    }
                    self.watched.store(true, Ordering::SeqCst);
                }
                let turns = serving.into_iter().filter_map(|(intake, runner)| {
                    let turn = runner.turn()?;
                    Some((Arc::as_ptr(&runner) as usize, (intake, runner, turn)))
                });
                let now: HashMap<_, _> = turns.collect();
                for (which, (intake, runner, turn)) in &now {
                    if seen.get(which) == Some(turn) {
                        self.relieve(intake, runner, *turn);
                    }
                }
                seen = now.into_iter().map(|(which, (_, _, turn))| (which, turn)).collect();
            }
        }
    }

    fn intake(&self, asker: &str) -> Arc<Intake> {
        let mut of = self.of.lock();
        if let Some(intake) = of.get(asker) {
            return intake.clone();
        }
        // Nobody says when a client has gone.
        if of.len() >= ASKERS_MAX {
            of.retain(|_, intake| intake.runner().is_some());
        }
        let intake = Intake { answers: self.around.frames.answers_to(asker), waiting: Mutex::default() };
        of.entry(asker.into()).or_insert(Arc::new(intake)).clone()
    }

    fn serve(self: &Arc<Self>, intake: Arc<Intake>, runner: Arc<Runner>) {
        if !self.watched.swap(true, Ordering::SeqCst) {
            self.busy.notify_one();
        }
        let (intakes, place) = (self.clone(), self.served.token());
        self.around.runtime.spawn(async move {
            let _place = place;
            let mut left = BURST;
            while intakes.serve_frame(&intake, &runner) {
                left -= 1;
                if left == 0 {
                    left = BURST;
                    tokio::task::yield_now().await;
                }
            }
        });
    }

    /// Serves the first frame that waits. Returns whether there may be more to do.
    fn serve_frame(self: &Arc<Self>, intake: &Arc<Intake>, runner: &Arc<Runner>) -> bool {
        let around = &self.around;
        let (came, at) = {
            let mut waiting = intake.waiting.lock();
            if self.stop.is_cancelled() {
                *waiting = Waiting::default();
            }
            match waiting.frames.front() {
                Some(came) => (came.clone(), waiting.at),
                None => {
                    waiting.runner = None;
                    return false;
                }
            }
        };
        let old = came.doubts != Some(around.doubts.load(Ordering::Acquire));
        let mut questions = Questions::of(&came.body, at);
        let mut last = None;
        loop {
            let question = match questions.next() {
                Some(Ok(question)) => question,
                Some(Err(error)) => {
                    tracing::warn!(%error, "a frame cannot be read to its end");
                    break;
                }
                None => break,
            };
            runner.next.store(questions.at(), Ordering::Relaxed);
            self.serve_question(intake, runner, &mut last, question, came.clock, old);
            if !runner.end() {
                around.frames.send(&*around.transport);
                return false;
            }
        }
        {
            let mut waiting = intake.waiting.lock();
            waiting.frames.pop_front();
            (waiting.at, waiting.bytes) = (0, waiting.bytes.saturating_sub(came.body.len()));
        }
        around.frames.send(&*around.transport);
        true
    }

    fn serve_question(
        &self,
        intake: &Arc<Intake>,
        runner: &Runner,
        last: &mut Option<Arc<Hosted>>,
        asked: Question<'_>,
        came: Clock,
        old: bool,
    ) {
        let around = &self.around;
        // Most ask the same as the one before them.
        if last.as_ref().is_none_or(|hosted| hosted.name != asked.head.actor) {
            *last = around.hosted(asked.head.actor);
        }
        let target = Key::new(asked.head.key).map(|key| Target { partition: around.partition_of(&key), key });
        let answer = FrameAnswer {
            around: around.clone(),
            to: intake.answers.clone(),
            host: last.as_ref().map(Arc::downgrade),
            partition: target.as_ref().map_or(0, |target| target.partition),
            number: asked.head.number,
            codec: asked.head.codec,
        };
        if old {
            let why = "this node stood still, or was cut off, when this came";
            return answer.send(WireOutcome::Failure(Error::new(ErrorKind::Moved, why)));
        }
        match check(around, &asked.head, came, last.as_deref(), target) {
            Ok((wire, target, call)) => {
                let call = WireCall {
                    call,
                    codec: asked.head.codec,
                    body: asked.body,
                    received: came.now.into_std(),
                    by_hand: false,
                    told: asked.head.mode == Manner::Tell,
                    answer: WireAnswer::to_frame(answer),
                    started: None,
                };
                wire.deliver(&target, call, Some(runner));
            }
            Err(error) => answer.send(WireOutcome::Failure(error)),
        }
    }

    fn relieve(self: &Arc<Self>, intake: &Arc<Intake>, runner: &Arc<Runner>, turn: u64) {
        let next = {
            let mut waiting = intake.waiting.lock();
            if !waiting.runner.as_ref().is_some_and(|now| Arc::ptr_eq(now, runner)) || !runner.relieve(turn) {
                return;
            }
            waiting.at = runner.next.load(Ordering::Relaxed);
            waiting.runner.insert(Arc::default()).clone()
        };
        tracing::debug!("a turn takes long; those behind it go on");
        self.serve(intake.clone(), next);
    }

    /// Answers what there is no room for.
    fn turn_away(&self, intake: &Arc<Intake>, came: &Came) {
        for asked in Questions::of(&came.body, 0).map_while(Result::ok) {
            let why = format!("{WAITING_MAX} bytes of that node wait to be served, which is the limit");
            let answer = FrameAnswer {
                around: self.around.clone(),
                to: intake.answers.clone(),
                host: None,
                partition: 0,
                number: asked.head.number,
                codec: asked.head.codec,
            };
            answer.send(WireOutcome::Failure(Error::new(ErrorKind::Overloaded, why)));
        }
        self.around.frames.send(&*self.around.transport);
    }
}

impl Intake {
    fn runner(&self) -> Option<Arc<Runner>> {
        self.waiting.lock().runner.clone()
    }
}

/// The answer to one question of a frame.
pub(crate) struct FrameAnswer {
    around: Arc<Surroundings>,
    to: Arc<Outgoing>,
    /// Weak: what waits here must not keep the one for whom it waits.
    host: Option<Weak<Hosted>>,
    partition: u16,
    number: u64,
    codec: Codec,
}

impl FrameAnswer {
    pub(crate) fn send(&self, outcome: WireOutcome) {
        let host = self.host.as_ref().and_then(Weak::upgrade);
        let epoch = host.map_or(0, |hosted| hosted.gate.epoch(self.partition));
        let send = |outcome| {
            let (kind, body) = match outcome {
                WireOutcome::Reply(body) | WireOutcome::Aged { body, .. } => (AnswerKind::Reply, body),
                WireOutcome::Refusal { body, .. } => (AnswerKind::Refusal, body),
                WireOutcome::Failure(error) if error.kind() == ErrorKind::Moved => (AnswerKind::Moved, Bytes::new()),
                WireOutcome::Failure(error) => (AnswerKind::Failure, error_body(&ErrorBody::from(&error))),
            };
            self.around.answer_in_frame(&self.to, AnswerHead::new(self.number, kind, self.codec, epoch), body)
        };
        if let Err(error) = send_or_say_why(&self.around, outcome, send) {
            tracing::debug!(%error, "an answer could not be sent; its caller learns of it at its deadline");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_a_runner_is_relieved_of_the_turn_that_it_is_in_and_of_no_other() {
        let runner = Runner::default();
        assert!(runner.end(), "it was in no turn");
        runner.begin();
        let first = runner.turn().expect("it is in a turn");
        assert!(runner.end());
        assert!(runner.turn().is_none() && !runner.relieve(first), "that turn is over");
        runner.begin();
        let second = runner.turn().expect("it is in another turn");
        assert!(!runner.relieve(first), "that turn is over");
        assert!(runner.relieve(second));
        assert!(!runner.relieve(second), "once");
        assert!(!runner.end(), "somebody else goes on");
        assert!(!runner.end(), "and it does not any more");
    }
}
