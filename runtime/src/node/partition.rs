//! Partitions: the task that listens where the owner of one (actor, partition) is called, holds
//! what must wait during a handover, and leaves without losing anything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::hosted::Hosted;
use super::surroundings::Surroundings;
use super::{passing, serve};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
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
    Call { subject: String, message: Inbound },
}

/// Runs until it has left its queue group.
pub(super) async fn run(
    around: Arc<Surroundings>,
    hosted: Arc<Hosted>,
    number: u16,
    mut subscription: Subscription,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut task = Task { around, hosted, serving: false, held: HashMap::new(), holding: 0 };
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
                Some(message) => task.take(message.subject.clone(), message),
                None => break,
            },
        }
    }
    orders.close();
    let flush = task.around.subjects.owner_token(task.hosted.name, number, FLUSH_VERB, FLUSH_VERB);
    subscription.leave(flush).await;
    task.pass_all_on();
    while let Some(message) = subscription.next().await {
        passing::pass_on(&task.around, &task.hosted, &message.subject.clone(), message);
    }
    while let Some(order) = orders.recv().await {
        if let Order::Call { subject, message } = order {
            passing::pass_on(&task.around, &task.hosted, &subject, message);
        }
    }
}

/// Delivers a call at once: its partition is known to be served here.
pub(super) fn deliver(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Inbound) {
    serve::outside(around, hosted, subject, message);
}

struct Task {
    around: Arc<Surroundings>,
    hosted: Arc<Hosted>,
    serving: bool,
    /// By key token; everything is under its key, so that order is kept.
    held: HashMap<String, VecDeque<(String, Inbound)>>,
    holding: usize,
}

impl Task {
    fn take(&mut self, subject: String, message: Inbound) {
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
        self.held.entry(token).or_default().push_back((subject, message));
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
        for (subject, message) in self.held.drain().flat_map(|(_, messages)| messages) {
            passing::pass_on(&self.around, &self.hosted, &subject, message);
        }
    }
}
