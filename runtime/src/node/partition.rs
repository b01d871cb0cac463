//! Partitions: the task that listens where the owner of one (actor, partition) is called, holds
//! what must wait during a handover, and leaves without losing anything.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hosted::Hosted;
use super::serve::Taken;
use super::surroundings::Surroundings;
use super::{passing, serve};
use crate::call::not_started;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::pauses::reached;
use crate::subject::{Call as Asked, FLUSH_VERB};
use crate::transport::{Inbound, Subscription};

/// Messages held for one partition during a handover.
const HOLD_MAX: usize = 1_024;
/// The queue group of a partition's owners.
pub(super) const OWNERS: &str = "owner";

/// What a partition's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Deliver what comes, but for the keys that the gate holds.
    Serve,
    /// These keys are free now.
    Admit(Vec<Key>),
    /// Pass what still comes on, and leave the queue group.
    Leave,
    /// A call that another node has passed on.
    Call { subject: String, message: Taken },
}

/// Runs until it has left its queue group.
pub(super) async fn run(
    around: Arc<Surroundings>,
    hosted: Arc<Hosted>,
    number: u16,
    mut subscription: Subscription,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut task = Task { around, hosted, serving: false, held: BTreeMap::new(), holding: 0, due: None };
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Serve) => task.serve(),
                Some(Order::Admit(keys)) => task.admit(&keys),
                Some(Order::Call { subject, message }) => task.take(subject, message),
                Some(Order::Leave) | None => break,
            },
            message = subscription.next() => match message {
                Some(message) => task.take_new(message),
                None => break,
            },
            () = reached(task.due) => task.sweep(),
        }
    }
    orders.close();
    let flush = task.around.subjects.owner_token(task.hosted.name, number, FLUSH_VERB, FLUSH_VERB);
    {
        let mut leave = pin!(subscription.leave(flush));
        loop {
            tokio::select! {
                biased;
                () = &mut leave => break,
                () = reached(task.due) => task.sweep(),
            }
        }
    }
    task.pass_all_on();
    while let Some(message) = subscription.next().await {
        let (subject, message) = (message.subject.clone(), Taken::new(&task.around, message));
        passing::pass_on(&task.around, &task.hosted, &subject, message);
    }
    while let Some(order) = orders.recv().await {
        if let Order::Call { subject, message } = order {
            passing::pass_on(&task.around, &task.hosted, &subject, message);
        }
    }
}

/// Delivers a call at once: its partition is known to be served here.
pub(super) fn deliver(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Taken) {
    serve::outside(around, hosted, subject, message);
}

struct Task {
    around: Arc<Surroundings>,
    hosted: Arc<Hosted>,
    serving: bool,
    /// By key token; everything is under its key, so that order is kept.
    held: BTreeMap<String, VecDeque<(String, Taken)>>,
    holding: usize,
    /// When the time of the first of them may be over.
    due: Option<Instant>,
}

impl Task {
    fn take_new(&mut self, message: Inbound) {
        let message = Taken::new(&self.around, message);
        self.take(message.subject.clone(), message);
    }

    fn take(&mut self, subject: String, message: Taken) {
        let Some(token) = Asked::keyed(&subject).map(|asked| asked.token.to_owned()) else { return };
        let waits = !self.serving || Key::from_token(&token).is_ok_and(|key| self.hosted.gate.holds(&key));
        if !waits {
            return serve::outside(&self.around, &self.hosted, &subject, message);
        }
        if self.holding >= HOLD_MAX {
            let why = format!("{HOLD_MAX} calls wait for this partition of {} to change hands", self.hosted.name);
            return serve::refuse(&self.around, &message, Error::new(ErrorKind::Overloaded, why));
        }
        self.holding += 1;
        self.due = Some(self.due.map_or(message.start_by, |due| due.min(message.start_by)));
        self.held.entry(token).or_default().push_back((subject, message));
    }

    /// Answers those whose time is over: nothing of them was run.
    fn sweep(&mut self) {
        let now = Instant::now();
        let (around, name) = (&self.around, self.hosted.name);
        self.due = None;
        for (token, messages) in &mut self.held {
            messages.retain(|(_, message)| {
                if message.start_by > now {
                    self.due = Some(self.due.map_or(message.start_by, |due| due.min(message.start_by)));
                    return true;
                }
                self.holding -= 1;
                serve::refuse(around, message, not_started(name, token));
                false
            });
        }
        self.held.retain(|_, messages| !messages.is_empty());
    }

    fn serve(&mut self) {
        self.serving = true;
        let free: Vec<String> = self
            .held
            .keys()
            .filter(|token| !Key::from_token(token).is_ok_and(|key| self.hosted.gate.holds(&key)))
            .cloned()
            .collect();
        for token in free {
            self.flush(&token);
        }
    }

    fn admit(&mut self, keys: &[Key]) {
        for key in keys {
            self.flush(&key.token());
        }
    }

    fn flush(&mut self, token: &str) {
        for (subject, message) in self.held.remove(token).unwrap_or_default() {
            self.holding -= 1;
            serve::outside(&self.around, &self.hosted, &subject, message);
        }
    }

    fn pass_all_on(&mut self) {
        self.serving = false;
        self.holding = 0;
        for (subject, message) in std::mem::take(&mut self.held).into_values().flatten() {
            passing::pass_on(&self.around, &self.hosted, &subject, message);
        }
    }
}
