//! What is attached to an activation: timers, and watches of others. It ends with the activation.
//!
//! Each is one task that sends the actor a message of its own. An actor without any has none of this.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::host::Host;
use super::job::OwnJob;
use super::slot::{Phase, Slot};
use crate::actor::{Actor, Handle};
use crate::call::{Call, Deadline};
use crate::contract::Message;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::reference::Target;

/// Timers and watches of one actor.
const ATTACHED_MAX: usize = 64;
/// How long until a message is tried again that the actor could not take.
const AGAIN: Duration = Duration::from_millis(100);

/// The timers and watches of one activation.
#[derive(Default)]
pub(crate) struct Attached {
    all: Vec<Arc<Attachment>>,
    last: u64,
}

/// One timer, or one watch, of an activation.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: u64,
    /// The verb of the message that it sends.
    pub(crate) verb: &'static str,
    /// How often it fires, if more than once.
    pub(crate) every: Option<Duration>,
    /// When it fires next; a watch does not know.
    due: Mutex<Option<Instant>>,
    running: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

impl Attached {
    /// Whether any of it will still send something.
    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().any(|one| one.is_running())
    }

    pub(super) fn running(&self) -> Vec<Arc<Attachment>> {
        self.all.iter().filter(|one| one.is_running()).cloned().collect()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for one in &self.all {
            one.end();
        }
    }
}

impl Attachment {
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        *self.due.lock()
    }

    /// Begins the next period of a timer.
    pub(crate) fn wait_for_next(&self, period: Duration) {
        *self.due.lock() = Some(Deadline::After(period).at());
    }

    /// Ends it: what it has queued already is not run any more. Returns whether it was running.
    pub(crate) fn end(&self) -> bool {
        let was = self.finish();
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        was
    }

    /// Notes that it has sent all that it will.
    pub(crate) fn finish(&self) -> bool {
        self.running.swap(false, Ordering::SeqCst)
    }
}

/// The task of a timer or a watch.
pub(crate) type Run<A> = Box<dyn FnOnce(Sender<A>) -> BoxFuture<'static, ()> + Send>;

/// What is to be attached.
pub(crate) struct Attach<A: Actor> {
    /// The verb of its message.
    pub(crate) verb: &'static str,
    /// When it fires first, if it is a timer.
    pub(crate) after: Option<Duration>,
    /// How often it fires then.
    pub(crate) every: Option<Duration>,
    pub(crate) run: Run<A>,
}

/// The way from an attached task to its actor. Holds neither the actor nor its host.
pub(crate) struct Sender<A: Actor> {
    host: Weak<Host<A>>,
    target: Target,
    pub(crate) by: Arc<Attachment>,
}

impl<A: Actor> Sender<A> {
    /// Sends the actor a message of its own, again and again until its turn has begun. False if that will not be,
    /// because the activation is over or the sender was cancelled.
    pub(crate) async fn send<M>(&self, message: M, once: bool) -> bool
    where
        A: Handle<M>,
        M: Message<Contract = A::Contract>,
    {
        let message = Arc::new(Mutex::new(Some(message)));
        loop {
            let (taken, begun) = oneshot::channel();
            {
                let Some(host) = self.host.upgrade().filter(|_| self.by.is_running()) else { return false };
                let Some(stats) = host.around.hosted(host.name).and_then(|hosted| hosted.stats::<M>()) else {
                    return false;
                };
                let call = Call::root(host.around.settings.budget);
                let job = OwnJob::<A, M>::new(message.clone(), call.clone(), stats, self.by.clone(), once, taken);
                let refused = host.admit(&self.target, &call, (false, false), || Some(Box::new(job))).err();
                if let Some(error) = refused {
                    tracing::trace!(actor = host.name, verb = M::VERB, %error, "an actor cannot take its own message");
                }
            }
            if begun.await.is_ok() {
                return true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until the timer is due.
    pub(crate) async fn due(&self) {
        if let Some(due) = self.by.due() {
            tokio::time::sleep_until(due).await;
        }
    }
}

impl<A: Actor> Host<A> {
    /// Attaches something to the activation whose turn runs now.
    pub(crate) fn attach(self: &Arc<Self>, key: &Key, attach: Attach<A>) -> Result<Arc<Attachment>, Error> {
        let target = Target { key: key.clone(), partition: self.around.partition_of(key) };
        let slot = self.slots.get(target.partition, key).ok_or_else(|| self.no_turn(key))?;
        let attachment = self.enlist(&slot, &attach)?;
        let sender = Sender { host: Arc::downgrade(self), target, by: attachment.clone() };
        let task = self.around.runtime.spawn((attach.run)(sender)).abort_handle();
        *attachment.task.lock() = Some(task.clone());
        if !attachment.is_running() {
            // The activation has ended meanwhile, or the timer has fired already: it has nothing more to do.
            task.abort();
        }
        Ok(attachment)
    }

    /// The timers and watches of an actor.
    pub(crate) fn attachments(&self, key: &Key) -> Vec<Arc<Attachment>> {
        let slot = self.slots.get(self.around.partition_of(key), key);
        slot.and_then(|slot| slot.lock().attachments().map(Attached::running)).unwrap_or_default()
    }

    fn enlist(&self, slot: &Slot<A>, attach: &Attach<A>) -> Result<Arc<Attachment>, Error> {
        let mut inner = slot.lock();
        if !matches!(inner.phase, Phase::Busy) {
            return Err(self.no_turn(slot.key()));
        }
        let attached = inner.attached();
        attached.all.retain(|one| one.is_running());
        if attached.all.len() >= ATTACHED_MAX {
            let why = format!(
                "{}/{} has {ATTACHED_MAX} timers and watches, which is the limit; cancel some",
                self.name,
                slot.key()
            );
            return Err(Error::new(ErrorKind::Overloaded, why));
        }
        attached.last += 1;
        let one = Arc::new(Attachment {
            id: attached.last,
            verb: attach.verb,
            every: attach.every,
            due: Mutex::new(attach.after.map(|after| Deadline::After(after).at())),
            running: AtomicBool::new(true),
            task: Mutex::new(None),
        });
        attached.all.push(one.clone());
        Ok(one)
    }

    fn no_turn(&self, key: &Key) -> Error {
        let why = format!("no turn of {}/{key} runs: timers and watches are begun in one", self.name);
        Error::new(ErrorKind::Unavailable, why)
    }
}

/// What a context hands through [`Control`](crate::node::Hosted) without knowing the host's Rust type.
pub(crate) fn typed<A: Actor>(attach: Box<dyn Any + Send>) -> Result<Attach<A>, Error> {
    let why = "a timer was made for another actor type";
    attach.downcast::<Attach<A>>().map(|attach| *attach).map_err(|_| Error::new(ErrorKind::Internal, why))
}
