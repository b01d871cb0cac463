//! Which reply belongs to which caller, where one connection carries the calls of all and does not tell by itself.
//!
//! Each caller has a number and one call at a time, so a table does: nothing is made or looked up for a call.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;

/// More callers than any case has.
const SLOTS: usize = 1024;

/// The replies that callers wait for, by the number of the caller.
#[derive(Clone)]
pub(crate) struct Slots(Arc<[Mutex<Slot>]>);

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Awaited(Waker),
    Filled(Bytes),
    /// The connection is gone, for this reason.
    Closed(String),
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self((0..SLOTS).map(|_| Mutex::default()).collect())
    }

    /// The next reply for this number.
    pub(crate) async fn reply(&self, number: u32) -> anyhow::Result<Bytes> {
        poll_fn(|cx| {
            let mut slot = self.slot(number)?;
            match std::mem::take(&mut *slot) {
                Slot::Filled(reply) => Poll::Ready(Ok(reply)),
                Slot::Closed(why) => {
                    let error = anyhow!("{why}");
                    *slot = Slot::Closed(why);
                    Poll::Ready(Err(error))
                }
                Slot::Empty | Slot::Awaited(_) => {
                    *slot = Slot::Awaited(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn fill(&self, number: u32, reply: Bytes) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut *self.slot(number)?, Slot::Filled(reply));
        match before {
            Slot::Awaited(waker) => waker.wake(),
            Slot::Empty | Slot::Closed(_) => {}
            Slot::Filled(_) => anyhow::bail!("two replies came for caller {number}"),
        }
        Ok(())
    }

    /// Tells all callers, now and later, that no reply will come.
    pub(crate) fn close(&self, why: &str) {
        for slot in self.0.iter() {
            let before = std::mem::replace(&mut *lock(slot), Slot::Closed(why.to_owned()));
            if let Slot::Awaited(waker) = before {
                waker.wake();
            }
        }
    }

    fn slot(&self, number: u32) -> anyhow::Result<MutexGuard<'_, Slot>> {
        let slot = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        Ok(lock(slot.with_context(|| format!("caller {number} has no place: there are {SLOTS}"))?))
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
