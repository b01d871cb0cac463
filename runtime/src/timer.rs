//! Timers: messages that an actor sends itself later; and watches, which send it one when another actor ends.
//!
//! Both belong to an activation and are kept in memory: they end when the actor leaves memory, panics, moves, or its
//! node ends. Nothing of them is durable. What must happen is begun again in `activate`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::actor::{Actor, Handle};
use crate::context::Context;
use crate::contract::{Contract, Keyed, Message};
use crate::engine::{Attach, Attachment, Sender};
use crate::error::{Error, ErrorKind};
use crate::watch::Gone;

/// The shortest period of a timer.
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// How long until a watch is tried again that nobody took.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// A timer, or a watch, of an activation. Dropping it changes nothing; [`cancel`](Timer::cancel) ends it.
#[derive(Clone, Debug)]
pub struct Timer(Arc<Attachment>);

impl Timer {
    /// Tells it apart from the others of its activation.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The verb of the message that it sends.
    pub fn verb(&self) -> &'static str {
        self.0.verb
    }

    /// How often it fires, if more than once.
    pub fn every(&self) -> Option<Duration> {
        self.0.every
    }

    /// When it fires next; `None` for a watch.
    pub fn due(&self) -> Option<Instant> {
        self.0.due()
    }

    /// Whether it will still send something.
    pub fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Ends it: no turn of it begins from here on, also if its message is in the queue already. Returns whether it was
    /// running.
    pub fn cancel(&self) -> bool {
        self.0.end()
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<A: Actor> Context<'_, A> {
    /// Sends this actor a message after so long, as long as this activation lives: a turn like any other, that nobody
    /// waits for. It waits in the actor's queue behind what is there; while the node cannot prove its lease, or the
    /// queue is full, it is tried again.
    ///
    /// An actor with a running timer is not idle: it does not leave memory for that. It has 64 timers and watches at
    /// most.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # use std::time::Duration;
    /// # #[contract(messages(Open, Expire))]
    /// # struct Cart;
    /// # #[message(Cart, ask)]
    /// # struct Open;
    /// # #[message(Cart, tell)]
    /// # struct Expire;
    /// # #[derive(Default)]
    /// # struct CartActor { open: bool }
    /// #[actor(Cart)]
    /// impl CartActor {
    ///     #[ask]
    ///     fn open(&mut self, _: Open, ctx: &mut Context<'_, Self>) {
    ///         self.open = ctx.after(Duration::from_secs(60), Expire).is_ok();
    ///     }
    ///
    ///     #[tell]
    ///     fn expire(&mut self, _: Expire) { self.open = false; }
    /// }
    /// ```
    ///
    /// # Errors
    /// `Overloaded` if the actor has 64 already, `Config` in a service, `Stopped` if the node has stopped.
    pub fn after<M>(&mut self, after: Duration, message: M) -> Result<Timer, Error>
    where
        A: Handle<M>,
        M: Message<Contract = A::Contract>,
    {
        let run = move |sender: Sender<A>| -> Task {
            Box::pin(async move {
                sender.due().await;
                sender.send(message, true).await;
            })
        };
        self.attach(Attach { verb: M::VERB, after: Some(after), every: None, run: Box::new(run) })
    }

    /// Sends this actor a message again and again, first after one period; see [`after`](Context::after). The next
    /// period begins when the turn does: turns do not pile up, and what was late is not made up for.
    ///
    /// # Errors
    /// See [`after`](Context::after); `Config` for a period below 1 ms.
    pub fn every<M>(&mut self, period: Duration, message: M) -> Result<Timer, Error>
    where
        A: Handle<M>,
        M: Message<Contract = A::Contract> + Clone + Sync,
    {
        if period < PERIOD_MIN {
            let why = format!("a timer of every {period:?} would do nothing else; {PERIOD_MIN:?} at least");
            return Err(Error::new(ErrorKind::Config, why));
        }
        let run = move |sender: Sender<A>| -> Task {
            Box::pin(async move {
                loop {
                    sender.due().await;
                    if !sender.send(message.clone(), false).await {
                        return;
                    }
                    sender.by.wait_for_next(period);
                }
            })
        };
        self.attach(Attach { verb: M::VERB, after: Some(period), every: Some(period), run: Box::new(run) })
    }

    /// Watches another actor, as long as this activation lives, and sends this one a message made of each end; see
    /// [`Node::watch`](crate::Node::watch). The message is sent until its turn has begun.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # use greenroom::watch::{Gone, Reason};
    /// # #[contract(messages(Hire, Left))]
    /// # struct Boss;
    /// # #[message(Boss, ask)]
    /// # struct Hire { who: String }
    /// # #[message(Boss, tell)]
    /// # struct Left { who: String, panicked: bool }
    /// # #[derive(Default)]
    /// # struct BossActor { left: Vec<String> }
    /// #[actor(Boss)]
    /// impl BossActor {
    ///     #[ask]
    ///     fn hire(&mut self, msg: Hire, ctx: &mut Context<'_, Self>) {
    ///         let made = |gone: Gone| Left { panicked: matches!(gone.reason, Reason::Panicked { .. }), who: gone.key };
    ///         if ctx.watch::<Boss, _>(&msg.who, made).is_err() { self.left.push(msg.who); }
    ///     }
    ///
    ///     #[tell]
    ///     fn left(&mut self, msg: Left) { self.left.push(msg.who); }
    /// }
    /// ```
    ///
    /// # Errors
    /// See [`after`](Context::after); `BadKey` for an unusable key.
    pub fn watch<C, M>(
        &mut self,
        key: impl AsRef<str>,
        made: impl Fn(Gone) -> M + Send + Sync + 'static,
    ) -> Result<Timer, Error>
    where
        C: Contract<Kind = Keyed>,
        A: Handle<M>,
        M: Message<Contract = A::Contract>,
    {
        let key = crate::key::Key::new(key.as_ref())?;
        let around = self.around().clone();
        let run = move |sender: Sender<A>| -> Task {
            Box::pin(async move {
                let mut watch = loop {
                    match crate::watch::begin(&around, C::NAME, key.as_str()).await {
                        Ok(watch) => break watch,
                        Err(error) if error.kind() == ErrorKind::Stopped => return,
                        Err(error) => {
                            tracing::debug!(actor = C::NAME, %key, %error, "a watch is tried again");
                            tokio::time::sleep(WATCH_AGAIN).await;
                        }
                    }
                };
                while let Some(gone) = watch.next().await {
                    if !sender.send(made(gone), false).await {
                        return;
                    }
                }
            })
        };
        self.attach(Attach { verb: M::VERB, after: None, every: None, run: Box::new(run) })
    }

    /// The timers and watches of this activation that run.
    pub fn timers(&self) -> Vec<Timer> {
        let hosted = self.around().hosted(self.actor_name());
        let all = hosted.map(|hosted| hosted.control.attachments(self.key())).unwrap_or_default();
        all.into_iter().map(Timer).collect()
    }

    fn attach(&mut self, attach: Attach<A>) -> Result<Timer, Error> {
        let hosted = self.around().hosted(self.actor_name()).ok_or_else(|| self.around().stopped())?;
        hosted.control.attach(self.key(), Box::new(attach)).map(Timer)
    }
}
