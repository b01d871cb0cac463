//! Slots: one keyed actor in memory, with whoever waits for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use super::attached::Attached;
use super::faults::Faults;
use super::job::Job;
use crate::call::TurnId;
use crate::key::Key;
use crate::state::JournalBox;

/// One actor. Kept small: a million of them may be idle.
pub(crate) struct Slot<A> {
    key: Key,
    partition: u16,
    /// When its last turn ended, in seconds of the node's life.
    used: AtomicU32,
    /// Whether its activation has succeeded and has not ended.
    live: AtomicBool,
    inner: Mutex<Inner<A>>,
}

/// What a slot's lock guards.
pub(crate) struct Inner<A> {
    pub(crate) phase: Phase<A>,
    /// Made when there is something to hold; most slots never have one.
    extra: Option<Box<Extra<A>>>,
}

/// Where an actor stands between its turns.
pub(crate) enum Phase<A> {
    /// Not in memory: the next turn activates it first.
    Empty,
    /// In memory, and nobody runs it.
    Idle(A),
    /// A turn has it; what arrives queues.
    Busy,
    /// The slot was taken out of the map; look the actor up again.
    Gone,
}

/// What a look into a queue gives.
pub(crate) enum Popped<A> {
    Job(Box<dyn Job<A>>),
    /// There is one, and it must wait.
    Later,
    Nothing,
}

struct Extra<A> {
    queue: VecDeque<Box<dyn Job<A>>>,
    faults: Option<Faults>,
    journal: Option<JournalBox>,
    /// Timers and watches of this activation.
    attached: Option<Box<Attached>>,
    /// Whether the first job of the queue is about to be taken up, by a drain that was spawned.
    starting: bool,
    /// Woken when a message arrives while reads run together.
    arrival: Option<Waker>,
}

impl<A> Slot<A> {
    pub(crate) fn new(key: Key, partition: u16) -> Self {
        let inner = Mutex::new(Inner { phase: Phase::Empty, extra: None });
        Self { key, partition, used: AtomicU32::new(0), live: AtomicBool::new(false), inner }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn partition(&self) -> u16 {
        self.partition
    }

    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self, now: u32) {
        self.used.store(now, Ordering::Relaxed);
    }

    /// Whether the actor is in memory, between its activation and its end, whoever runs it.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    /// Notes that its activation has succeeded, or ended. Returns whether that is news.
    pub(super) fn set_live(&self, live: bool) -> bool {
        self.live.swap(live, Ordering::SeqCst) != live
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner<A>> {
        self.inner.lock()
    }
}

fn is_call<A>(job: &dyn Job<A>, call: TurnId) -> bool {
    job.call().turn == Some(call) && !job.is_hopeless()
}

impl<A> Inner<A> {
    fn extra(&mut self) -> &mut Extra<A> {
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                queue: VecDeque::new(),
                faults: None,
                journal: None,
                attached: None,
                starting: false,
                arrival: None,
            })
        })
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// Whether there is nothing here but the actor, if it is there.
    pub(crate) fn is_bare(&self) -> bool {
        self.extra.is_none()
    }

    /// Whether nothing would be lost with it but the actor itself: nobody waits, no panic is remembered, no timer runs.
    pub(crate) fn may_leave(&self) -> bool {
        self.queued() == 0 && self.has_leisure()
    }

    /// Whether the actor might leave memory once its turn has ended: no panic is remembered, no timer runs.
    pub(crate) fn has_leisure(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| {
            let busy = extra.attached.as_ref().is_some_and(|attached| attached.is_busy());
            extra.faults.is_none() && extra.journal.is_none() && !busy
        })
    }

    /// What is attached to this activation.
    pub(super) fn attached(&mut self) -> &mut Attached {
        self.extra().attached.get_or_insert_default()
    }

    /// The same, if there is anything.
    pub(super) fn attachments(&self) -> Option<&Attached> {
        self.extra.as_ref().and_then(|extra| extra.attached.as_deref())
    }

    /// Ends what is attached.
    pub(super) fn detach(&mut self) {
        let Some(extra) = self.extra.as_mut() else { return };
        extra.attached = None;
        if extra.queue.is_empty() && extra.faults.is_none() && extra.journal.is_none() {
            self.extra = None;
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.queue.len())
    }

    /// Jobs that wait for a turn to end.
    pub(crate) fn waiting(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.queue.len().saturating_sub(usize::from(extra.starting)))
    }

    /// Notes that the job just pushed is about to be taken up.
    pub(crate) fn expect_start(&mut self) {
        self.extra().starting = true;
    }

    pub(crate) fn push(&mut self, job: Box<dyn Job<A>>) {
        let extra = self.extra();
        extra.queue.push_back(job);
        if let Some(waker) = extra.arrival.take() {
            waker.wake();
        }
    }

    /// Gives back the memory of what waited and is gone.
    pub(crate) fn tidy(&mut self) {
        let keeps = |extra: &Extra<A>| extra.faults.is_some() || extra.journal.is_some() || extra.attached.is_some();
        let holds = |extra: &Extra<A>| !extra.queue.is_empty() || keeps(extra);
        if self.extra.as_ref().is_some_and(|extra| !holds(extra)) {
            self.extra = None;
        }
    }

    /// Puts a job before all others.
    pub(crate) fn push_first(&mut self, job: Box<dyn Job<A>>) {
        self.extra().queue.push_front(job);
    }

    /// The next job, unless its time is not now; the queue's memory goes with its last one.
    pub(crate) fn pop_if(&mut self, now: bool) -> Popped<A> {
        let Some(extra) = self.extra.as_mut().filter(|extra| !extra.queue.is_empty()) else { return Popped::Nothing };
        if !now {
            return Popped::Later;
        }
        let Some(job) = extra.queue.pop_front() else { return Popped::Nothing };
        extra.starting = false;
        if extra.queue.is_empty() {
            extra.arrival = None;
            if extra.faults.is_none() && extra.journal.is_none() && extra.attached.is_none() {
                self.extra = None;
            } else {
                extra.queue = VecDeque::new();
            }
        }
        Popped::Job(job)
    }

    /// The next job if its turn may run on what is not kept yet; remembers whom to wake when one arrives.
    pub(crate) fn pop_turn(&mut self, waker: &Waker, now: bool) -> Popped<A> {
        let front = self.extra.as_ref().and_then(|extra| extra.queue.front());
        match front.map(|job| job.is_ready()) {
            Some(true) => self.pop_if(now),
            Some(false) => Popped::Nothing,
            None => {
                self.extra().arrival = Some(waker.clone());
                Popped::Nothing
            }
        }
    }

    /// The next job if its turn never waits.
    pub(crate) fn pop_ready(&mut self) -> Option<Box<dyn Job<A>>> {
        let queue = self.extra.as_mut().map(|extra| &mut extra.queue)?;
        if queue.front().is_some_and(|job| job.is_ready()) { queue.pop_front() } else { None }
    }

    /// The next job if it is a read and there is room for one more; otherwise remembers whom to wake when one arrives.
    pub(crate) fn pop_read(&mut self, waker: &Waker, room: bool) -> Option<Box<dyn Job<A>>> {
        let extra = self.extra();
        if room && extra.queue.front().is_some_and(|job| job.is_read()) {
            extra.arrival = None;
            return extra.queue.pop_front();
        }
        extra.arrival = Some(waker.clone());
        None
    }

    /// Whether a call waits here, and is still waited for.
    pub(crate) fn has_queued(&self, call: TurnId) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.queue.iter().any(|job| is_call(&**job, call)))
    }

    /// Takes a call out of the queue.
    pub(crate) fn take_queued(&mut self, call: TurnId) -> Option<Box<dyn Job<A>>> {
        let extra = self.extra.as_mut()?;
        // The first of a queue that is about to be taken up does not wait.
        let from = usize::from(extra.starting);
        let place = (from..extra.queue.len()).find(|place| is_call(&*extra.queue[*place], call))?;
        extra.queue.remove(place)
    }

    pub(crate) fn take_queue(&mut self) -> VecDeque<Box<dyn Job<A>>> {
        self.extra.as_mut().map(|extra| std::mem::take(&mut extra.queue)).unwrap_or_default()
    }

    pub(crate) fn faults(&self) -> Option<&Faults> {
        self.extra.as_ref().and_then(|extra| extra.faults.as_ref())
    }

    pub(crate) fn set_faults(&mut self, cause: Option<String>) {
        let extra = self.extra();
        extra.faults = cause.map(|cause| Faults::after(extra.faults.take(), cause));
    }

    pub(crate) fn journal(&mut self) -> &mut Option<JournalBox> {
        &mut self.extra().journal
    }
}
